"""Where the runtime can be broken: every point, declared here and reached where it says.

One list, so that a plan can be checked before the modules that it breaks are imported.
"""

from __future__ import annotations

from typing import Final

from .points import Deed, in_task, in_thread, in_turn

# --- opening a file: in the thread that opens it ---------------------------------------------

LOCK: Final = in_thread("store.lock", "before the lock is taken", "EIO")
LOCKED: Final = in_thread("store.locked", "the lock is taken, its owner noted", "EIO")
JUDGE: Final = in_thread("store.judge", "before the header is looked at")
CONNECT: Final = in_thread("store.connect", "before the writing connection is made")
QUICK_CHECK: Final = in_thread("store.quick_check", "before the structure is checked")
MIGRATE_COPY: Final = in_thread("store.migrate.copy", "before the copy that is kept")
MIGRATE_BEGIN: Final = in_thread("store.migrate.begin", "before the schema is changed")
MIGRATE_STEP: Final = in_thread("store.migrate.step", "within a step of the schema")
MIGRATE_COMMIT: Final = in_thread("store.migrate.commit", "before that is committed")
BEGIN_RUN: Final = in_thread("store.begin_run", "the run is noted, not committed")
LOAD_TAIL: Final = in_thread("store.load_tail", "before the journal's end is read")
READERS: Final = in_thread("store.readers", "before the reading connections are made")

# --- a group of units: in the writer's thread --------------------------------------------------

THREAD_START: Final = in_turn("store.thread_start", "before the writer's thread starts")
BEFORE_BEGIN: Final = in_thread("store.begin.before", "before BEGIN")
AFTER_BEGIN: Final = in_thread("store.begin.after", "after BEGIN")
WRITE_STATE: Final = in_thread("store.write.state", "before rows of state")
WRITE_COLLECTION: Final = in_thread(
    "store.write.collection", "before a collection's row"
)
WRITE_JOURNAL: Final = in_thread("store.write.journal", "before entries of the journal")
WRITE_FAULT: Final = in_thread("store.write.fault", "before the fault history's rows")
WRITE_CRASH: Final = in_thread("store.write.crash", "before a crash record")
STEP: Final = in_thread("store.step", "before one unit of a group that failed")
BEFORE_COMMIT: Final = in_thread("store.commit.before", "before COMMIT")
# What is raised from here on would be told as a failure, and it is none.
AFTER_COMMIT: Final = in_thread(
    "store.commit.after", "COMMIT has returned", fails=False
)
ROLL_BACK: Final = in_thread(
    "store.roll_back", "before a group is rolled back", fails=False
)
DECISION: Final = in_thread(
    "store.decision", "before the loop is told of a commit", fails=False
)
RECONNECT: Final = in_thread("store.reconnect", "before a lost connection is replaced")

# --- housekeeping: in the writer's thread --------------------------------------------------------

PROBE: Final = in_thread("store.probe", "before a broken disk is tried again")
PRUNE: Final = in_thread("store.prune", "before old entries are deleted")
VACUUM: Final = in_thread("store.vacuum", "before free pages are given back")
CHECKPOINT: Final = in_thread(
    "store.checkpoint", "before the log is copied into the file"
)
TRUNCATE: Final = in_thread("store.truncate", "before the log is cut")
SCRUB: Final = in_thread("store.scrub", "before rows are looked at for damage")
END_RUN: Final = in_thread("store.end_run", "before the end of the run is noted")

# --- reads and copies: in their threads ----------------------------------------------------------

READ: Final = in_thread("store.read", "before a question to the file")
LOAD_STATE: Final = in_thread("store.load_state", "before an agent's state is read")
QUEUE_PAGE: Final = in_thread("store.queue_page", "before a page of a queue is read")
MAP_PAGE: Final = in_thread("store.map_page", "before rows of a map are read")
COPY_BEGIN: Final = in_thread("store.copy.begin", "before a backup's file is made")
COPY_SLICE: Final = in_thread("store.copy.slice", "between two slices of a backup")
COPY_CHECK: Final = in_thread("store.copy.check", "before a backup is looked at")
COPY_SYNC: Final = in_thread("store.copy.sync", "before a backup is synced", "EIO")
COPY_NAME: Final = in_thread("store.copy.name", "before a backup gets its name", "EIO")

RESTORE_ASIDE: Final = in_thread(
    "store.restore.aside", "before the file that is replaced is put aside", "EIO"
)
RESTORE_NAME: Final = in_thread(
    "store.restore.name", "before the restored file takes its place", "EIO"
)

# --- the store, in trio's thread -----------------------------------------------------------------

HAND_OVER: Final = in_turn(
    "store.hand_over", "before a unit is handed over", Deed.CANCEL
)
FLUSH: Final = in_turn("store.flush", "before a group goes to the writer")
DECIDED: Final = in_turn("store.decided", "before a decision is carried out")
RELEASE: Final = in_turn(
    "store.release", "before one unit's answer is let go", Deed.RAISE
)
TELL: Final = in_turn(
    "store.tell", "before a follower of the journal is told", Deed.RAISE
)
CLOSE: Final = in_turn("store.close", "before the store is closed")

# --- agents -----------------------------------------------------------------------------------------

AGENT_START: Final = in_task("agent.start", "before an agent is made")
AGENT_RESTORED: Final = in_task(
    "agent.restored", "its state is there, on_start is not run"
)
AGENT_TAKE: Final = in_turn(
    "agent.take", "before the messages that wait are taken", Deed.RAISE, Deed.CANCEL
)
AGENT_SEAL: Final = in_turn(
    "agent.seal", "a handler returned, nothing is sealed", Deed.RAISE, Deed.CANCEL
)
AGENT_COMMITTED: Final = in_turn(
    "agent.committed", "before memory follows the commit (publish to memory)"
)
AGENT_SEND: Final = in_turn("agent.send", "before staged events and casts leave")
AGENT_DELIVER: Final = in_task(
    "agent.deliver", "before what found no room is delivered"
)
AGENT_FULL: Final = in_turn(
    "agent.full", "a message finds no room at once", Deed.CANCEL
)
AGENT_CRASHED: Final = in_turn(
    "agent.crashed", "before a crash is recorded", Deed.CANCEL
)
AGENT_LEAVE: Final = in_task("agent.leave", "before on_stop")

# --- the bus, timers --------------------------------------------------------------------------------

BUS_PUBLISH: Final = in_task("bus.publish", "before an event goes to the journal")
BUS_OFFER: Final = in_turn("bus.offer", "before an event is offered to subscriptions")
TIMER_FIRE: Final = in_turn("timer.fire", "before what is due is done")

# --- supervision --------------------------------------------------------------------------------------

CHILD_START: Final = in_turn(
    "supervisor.start", "before a child is started", Deed.RAISE, Deed.CANCEL
)
CHILD_STOP: Final = in_turn("supervisor.stop", "before a child is asked to stop")
CHILD_ENDED: Final = in_turn(
    "supervisor.ended", "before a child's end is dealt with", Deed.RAISE
)
CHILD_RESTART: Final = in_turn(
    "supervisor.restart", "before the budget is asked", Deed.RAISE
)
REPORT: Final = in_turn("supervisor.report", "before something is reported")
SPAWN: Final = in_task("process.spawn", "before a process child is spawned", "EAGAIN")

# --- control and telemetry -----------------------------------------------------------------------------

CONTROL_ACCEPT: Final = in_task("control.accept", "before a client is talked to")
CONTROL_REQUEST: Final = in_task("control.request", "before a request is carried out")
CONTROL_NOTICE: Final = in_task("control.notice", "before a client is told of changes")
EXPORT: Final = in_thread("telemetry.export", "before something is exported", "EIO")

# --- gateways ------------------------------------------------------------------------------------------

HTTP_REQUEST: Final = in_task(
    "http.request", "before a request is sent", "ECONNREFUSED"
)
HTTP_RESPONSE: Final = in_task(
    "http.response", "an answer has begun to arrive", "ECONNRESET"
)
PROGRAM_START: Final = in_task("program.start", "before a program is started", "EAGAIN")
PROGRAM_END: Final = in_task("program.end", "a program has ended, nobody is told")
