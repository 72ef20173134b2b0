"""Everything that treewarden raises, as one tree.

TreewardenError
├─ ConfigError               the configuration cannot be honoured
├─ SupervisionError
│  ├─ ChildStartFailed       a child ended before it reported started
│  │  └─ StartTimeout        it did not report in time
│  ├─ IntensityExceeded      the restart budget is spent; the supervisor gives up
│  ├─ AlreadyStarted / AlreadyPresent / UnknownChild
│  ├─ TooManyChildren        a dynamic supervisor is at its max_children
│  ├─ NotRunning             a service is missing; nothing was run
│  ├─ CallingSelf            would wait for oneself
│  └─ ShuttingDown           no new children while stopping
├─ AgentError
│  ├─ AgentCrashed           the handler raised; carries the fault
│  ├─ AgentDown              gone for good before it replied
│  ├─ CallTimeout            also a trio.TooSlowError; carries the request's id
│  ├─ AlreadyApplied         asked again by id; the answer was not kept
│  ├─ Refused                raised by a handler: answer with an error, keep running
│  ├─ MailboxFull            bounded mailbox, overflow "reject" or `cast_nowait`
│  ├─ NameTaken / NameUnknown / NameAmbiguous
│  │  └─ KeyTaken            of NameTaken: a unique key; carries who has it
│  ├─ RegistryFull           the registry has all the entries that it takes
│  ├─ UnknownOperation / BadArguments
│  ├─ StateNotEncodable      the handler was rolled back
│  └─ RestoreError           state or journal cannot be read, or is another type's
├─ BusError
│  ├─ Backpressure           a subscription is full; names it
│  │  ├─ LineFull            an exchange has no room for a receiver; names it
│  │  └─ PublisherPaused     the journal is full of what a subscription has not taken
│  └─ DeliveryFailed         not acknowledged; reason: receiver_not_found,
│                            delivery_timeout, delivery_failed
├─ CoordinationError
│  ├─ NotAdmitted            a barrier or ballot does not take you; says why
│  ├─ LockHeld               somebody has it, and it was not to be waited for
│  ├─ LockLost               it was broken, or let go before
│  ├─ LeadershipLost         the term is over: another one leads, or will
│  └─ NoSuitableAgent        nobody can do the task, or nobody did; carries why
├─ StoreError
│  ├─ StoreClosed            yours: used after close
│  ├─ StoreBusy              the write queue is full
│  ├─ StoreBroken            the world's: disk full, I/O error, corruption
│  ├─ StoreLocked            another runtime owns the file; names it
│  ├─ TransactionConflict    a participant left, or voted no; nothing was changed
│  ├─ TransactionTimeout     also a trio.TooSlowError; nothing was changed
│  ├─ TransactionMisuse      yours: nested, or a plain call to a participant
│  ├─ DowngradeRefused       written by a newer version; untouched
│  └─ MigrationFailed
├─ ResilienceError
│  ├─ CircuitOpen            carries when it may close
│  ├─ RateLimited            carries when to come back
│  ├─ BulkheadFull           no place, and none in the line, or not in time
│  ├─ ResourceExhausted      a gauge or quota is at its limit; names it
│  ├─ TimedOut               by a policy's own deadline; also a trio.TooSlowError
│  └─ RetriesExhausted       carries every attempt's fault
├─ WorkError
│  ├─ PoolFull               no free slot, and the line before the pool is full
│  ├─ PoolReentered          work of a full pool would wait for that pool
│  ├─ WorkStopped            the work ended without a result; carries its exit
│  └─ WorkTimeout            an item took too long; also a trio.TooSlowError
├─ WorkflowError
│  ├─ WorkflowUnknown        nobody knows a workflow of that name or id
│  ├─ WorkflowExists         there is one of that id; carries it
│  ├─ StepFailed             a step failed for good; carries its fault
│  ├─ WorkflowFailed         it ended without a result; carries state and fault
│  ├─ WorkflowParked         it waits for somebody to look at it; carries why
│  └─ CompensationFailed     needs a person; the rest is not undone
├─ GatewayError
│  ├─ HttpFailed             no answer, or one that says "later"; carries which
│  │  └─ HttpRefused         an address that is none, an answer that is too large
│  ├─ ProgramFailed          its exit status, and how its stderr ended
│  ├─ ProgramRefused         it is not allowed, or cannot be started
│  └─ ProgramTimeout         it was ended; also a trio.TooSlowError
└─ ControlError
   ├─ LocalProtocolError     we tried to say something illegal
   ├─ RemoteProtocolError    the peer did
   ├─ NotAllowed             above the rights of this client, or never possible
   ├─ Outdated               the act names an incarnation that is gone
   └─ NoRuntime
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .exits import Crash, Exit, Fault, describe


class TreewardenError(Exception):
    """The root: anything that treewarden raises on purpose."""


class ConfigError(TreewardenError):
    """The configuration cannot be honoured; yours to mend, nothing was started."""


class SupervisionError(TreewardenError):
    """Something about children and supervisors."""


class ChildStartFailed(SupervisionError):
    """A child ended before it reported started; its own exception is the cause."""

    def __init__(self, path: str, exit_: Exit | None, message: str = "") -> None:
        self.path = path
        self.exit = exit_
        super().__init__(message or f"{path} did not start: {_why_not(exit_)}")


def _why_not(exit_: Exit | None) -> str:
    if isinstance(exit_, Crash):
        kind = exit_.fault.type.rsplit(".", 1)[-1]
        # Of a failure further down the sentence is enough: it names its own child.
        nested = kind in {"ChildStartFailed", "StartTimeout"}
        return exit_.fault.message if nested else exit_.fault.summary()
    return describe(exit_)


class StartTimeout(ChildStartFailed):
    """A child did not report started within its `start_timeout`; it was stopped."""

    def __init__(self, path: str, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(path, None, f"{path} was not ready within {seconds:g} s")


class IntensityExceeded(SupervisionError):
    """A supervisor spent its restart budget and gave up.

    Trying again helps only when the cause is gone. `spent` are the ids of the children
    whose restarts spent the budget, oldest first.
    """

    def __init__(
        self, path: str, spent: tuple[str, ...], fault: Fault | None, hint: str = ""
    ) -> None:
        self.path = path
        self.spent = spent
        self.fault = fault
        self.hint = hint
        last = f"; last: {fault.summary()}" if fault is not None else ""
        names = ", ".join(dict.fromkeys(spent)) or "its children"
        more = f" ({hint})" if hint else ""
        super().__init__(f"{path} gave up: too many restarts of {names}{last}{more}")


class AlreadyStarted(SupervisionError):
    """A child of this id runs already."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"{path} is already started")


class AlreadyPresent(SupervisionError):
    """A child of this id exists but does not run: restart it, or delete it first."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"{path} is present but not running: restart or delete it")


class UnknownChild(SupervisionError):
    """The supervisor has no child of this id."""

    def __init__(self, path: str, child: str) -> None:
        self.path = path
        self.child = child
        super().__init__(f"{path} has no child {child!r}")


class TooManyChildren(SupervisionError):
    """A dynamic supervisor is at its `max_children`; nothing was started."""

    def __init__(self, path: str, limit: float) -> None:
        self.path = path
        self.limit = limit
        super().__init__(f"{path} has its {limit} children already")


class NotRunning(SupervisionError):
    """What was asked needs a service that does not run; nothing was done."""


class CallingSelf(SupervisionError):
    """It would have waited for itself; yours to mend."""


class ShuttingDown(SupervisionError):
    """The supervisor is stopping and takes no new children."""


class AgentError(TreewardenError):
    """Something about talking to agents."""


class AgentCrashed(AgentError):
    """The handler raised and the agent was restarted; nothing of it happened."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(f"{fault.path} crashed: {fault.summary()}")


class AgentDown(AgentError):
    """The agent is gone for good; whether it began the message is in the text.

    `exit`: how it ended, for whoever was waiting for its answer.
    """

    def __init__(self, path: str, why: str, exit_: Exit | None = None) -> None:
        self.path = path
        self.exit = exit_
        super().__init__(f"{path} is down: {why}")


class CallTimeout(AgentError, trio.TooSlowError):
    """No answer in time.

    `begun` False: the request was withdrawn and never happens. True: it may have
    happened, even durably; `await store.outcome(error.id)` tells, also after a restart.
    """

    def __init__(
        self,
        path: str,
        operation: str,
        seconds: float,
        *,
        begun: bool,
        doing: str,
        sender: str = "",
        id_: str = "",
    ) -> None:
        self.path = path
        self.operation = operation
        self.seconds = seconds
        self.begun = begun
        self.id = id_
        # Two agents that wait for each other find both names here.
        whom = f" of {sender}" if sender else ""
        super().__init__(
            f"{path} did not answer {operation}{whom} within {seconds:g} s; "
            f"doing: {doing}"
        )


class AlreadyApplied(AgentError):
    """A request of this id took effect before, and its answer was not kept.

    Nothing was done now. Trying again cannot help; ask the agent what you need to know.
    """

    def __init__(self, path: str, id_: str) -> None:
        self.path = path
        self.id = id_
        super().__init__(
            f"{path} has applied the request {id_} before, and its answer was not kept"
        )


class Refused(AgentError):
    """Raised by a handler: the caller gets this error and the agent lives."""


class MailboxFull(AgentError):
    """A bounded mailbox has no room; the message was not accepted. Retry later."""

    def __init__(self, path: str, capacity: int) -> None:
        self.path = path
        self.capacity = capacity
        super().__init__(f"the mailbox of {path} is full ({capacity} messages)")


class NameTaken(AgentError):
    """The name belongs to somebody else."""


class KeyTaken(NameTaken):
    """Somebody has this unique key; `holder` is the ref that does. Nothing changed."""

    def __init__(self, key: object, holder: object) -> None:
        self.key = key
        self.holder = holder
        super().__init__(f"{key!r} is registered already, by {holder!r}")


class RegistryFull(AgentError):
    """The registry has all the entries that it takes; nothing changed. Raise its bound."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        super().__init__(f"the registry is full ({capacity} entries)")


class NameUnknown(AgentError):
    """Nobody has this name."""

    def __init__(self, name: str, message: str = "") -> None:
        self.name = name
        super().__init__(message or f"there is no node {name!r}")


class NameAmbiguous(AgentError):
    """A bare id that several nodes have; use one of `paths`."""

    def __init__(self, name: str, paths: tuple[str, ...]) -> None:
        self.name = name
        self.paths = paths
        super().__init__(f"{name!r} is ambiguous: {', '.join(paths)}")


class UnknownOperation(AgentError):
    """The agent's class has no such public method."""


class BadArguments(AgentError):
    """The arguments do not fit the operation's signature."""


class StateNotEncodable(AgentError):
    """The state, or something staged, cannot be stored; the handler was rolled back."""


class RestoreError(AgentError):
    """Stored state cannot be read, or belongs to another type; it is left untouched."""


class BusError(TreewardenError):
    """Something about publishing and subscribing."""


class Backpressure(BusError):
    """A subscription has no room; nothing was published anywhere."""

    def __init__(self, subscription: str, capacity: int) -> None:
        self.subscription = subscription
        self.capacity = capacity
        super().__init__(f"subscription {subscription} is full ({capacity} events)")


class PublisherPaused(Backpressure):
    """The journal is full of what `subscription` has not taken; nothing was published.

    The world's: somebody has to take its events, or to forget it.
    """

    def __init__(self, subscription: str) -> None:
        self.subscription = subscription
        self.capacity = 0
        BusError.__init__(
            self,
            f"nothing was published: the journal is beyond its limits for {subscription},"
            " which pauses publishers until it has taken what is there, or is forgotten",
        )


class LineFull(Backpressure):
    """An exchange has no room for what goes to `receiver`; nothing was sent.

    The world's: the receiver, or all of them together, are slower than their senders.
    Trying again later can help.
    """

    def __init__(self, receiver: str, capacity: int, *, total: bool = False) -> None:
        self.subscription = self.receiver = receiver
        self.capacity = capacity
        what = "the whole exchange" if total else "the line to it"
        BusError.__init__(
            self,
            f"nothing was sent to {receiver}: {what} is full ({capacity} messages)",
        )


class DeliveryFailed(BusError):
    """A message was not acknowledged; `reason` says why, the cause what happened.

    `receiver_not_found`: there is nobody, or was not for long enough. `delivery_timeout`:
    no acknowledgement in time; if `begun`, it may have happened all the same, and is
    never delivered a second time. `delivery_failed`: the receiver crashed over it (nothing
    of it happened), refused it, or had no room.
    """

    def __init__(
        self, receiver: str, operation: str, reason: str, *, begun: bool = False
    ) -> None:
        self.receiver = receiver
        self.operation = operation
        self.reason = reason
        self.begun = begun
        more = "; it may have happened" if begun else ""
        super().__init__(f"{operation} was not delivered to {receiver}: {reason}{more}")


class CoordinationError(TreewardenError):
    """Something about agents that agree with each other."""


class NotAdmitted(CoordinationError):
    """A barrier or ballot does not take the caller; nothing changed.

    `reason`: `already_arrived`, `already_standing`, `already_voted`, `already_open`,
    `not_a_participant`, `closed` (yours), or `full` (the world's).
    """

    def __init__(self, name: str, reason: str, who: str = "") -> None:
        self.name = name
        self.reason = reason
        self.who = who
        whom = who or "the caller"
        super().__init__(f"{name} does not admit {whom}: {reason.replace('_', ' ')}")


class LockHeld(CoordinationError):
    """Somebody has the lock, or too many wait for it; trying again can help."""

    def __init__(self, name: str, holder: str, waiting: int) -> None:
        self.name = name
        self.holder = holder
        self.waiting = waiting
        super().__init__(f"lock {name} is held by {holder}, and {waiting} wait for it")


class LockLost(CoordinationError):
    """This grant is over: it was let go, its owner ended, or somebody broke the lock."""

    def __init__(self, name: str, token: int) -> None:
        self.name = name
        self.token = token
        super().__init__(f"lock {name} is no longer held under token {token}")


class LeadershipLost(CoordinationError):
    """The term is over: it was not renewed in time, given up, or its leader ended."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        super().__init__(f"term {number} of {name} is over; somebody else may lead")


class NoSuitableAgent(CoordinationError):
    """A task was not done: nobody can, or whoever can did not.

    `reason`: `no_suitable_agent`, nobody has the capabilities and nothing was tried;
    `all_failed`, those who were `tried` (paths, in order) failed, the last as the cause;
    `overloaded`, too many tasks wait already; `timeout`, the time was over, and if `begun`
    the task may be done all the same.
    """

    def __init__(
        self,
        task: str,
        reason: str,
        tried: tuple[str, ...] = (),
        *,
        begun: bool = False,
    ) -> None:
        self.task = task
        self.reason = reason
        self.tried = tried
        self.begun = begun
        more = f"; tried {', '.join(tried)}" if tried else ""
        super().__init__(f"{task} was not done: {reason.replace('_', ' ')}{more}")


class StoreError(TreewardenError):
    """Something about the database file."""


class StoreClosed(StoreError):
    """Used after close; yours to mend."""


class StoreBusy(StoreError):
    """The write queue is full; nothing was handed over. Retry later."""


class StoreBroken(StoreError):
    """A write failed: disk full, I/O error, corruption.

    What was not acknowledged did not happen: the transaction was rolled back. Service
    resumes when the cause is gone. Whoever is told so because of a call of theirs may ask
    `store.outcome(error.id)`, also after a restart; `id` is "" for all else.
    """

    id: str = ""


class StoreLocked(StoreError):
    """Another runtime owns the file; `owner` names it."""

    def __init__(self, path: str, owner: str) -> None:
        self.path = path
        self.owner = owner
        super().__init__(f"{path} belongs to another running runtime: {owner}")


class TransactionConflict(StoreError):
    """A participant left the transaction or voted no; nothing was changed.

    The world's: trying again can help.
    """


class TransactionTimeout(StoreError, trio.TooSlowError):
    """A participant was busy, or the block took too long; nothing was changed.

    `busy` is the path of the participant that was waited for, "" when all were taken.
    """

    def __init__(self, seconds: float, busy: str = "", doing: str = "") -> None:
        self.seconds = seconds
        self.busy = busy
        what = f"{busy} was busy ({doing})" if busy else "it was still open"
        super().__init__(
            f"the transaction was given up after {seconds:g} s: {what};"
            " nothing was changed"
        )


class TransactionMisuse(StoreError):
    """Something that a transaction cannot do; yours to mend, and nothing was changed."""


class DowngradeRefused(StoreError):
    """The file was written by a newer version; it was not touched."""


class MigrationFailed(StoreError):
    """A schema step failed; the file is as it was before."""


class ResilienceError(TreewardenError):
    """A policy stood between a call and its failure."""


class CircuitOpen(ResilienceError):
    """The circuit lets no call through; try again after `retry_after` seconds.

    `retry_after` is None when only an operator can close it.
    """

    # What was given is kept in `args` alone, by the constructor that all exceptions have,
    # and the text is made only when asked for: rejections must stay cheap.
    args: tuple[str, str, float | None]

    if TYPE_CHECKING:

        def __init__(
            self, name: str, state: str, retry_after: float | None
        ) -> None: ...

    @property
    def name(self) -> str:
        """The circuit."""
        return self.args[0]

    @property
    def state(self) -> str:
        """The state that it was in."""
        return self.args[1]

    @property
    def retry_after(self) -> float | None:
        """Seconds until a call may be let through."""
        return self.args[2]

    def __str__(self) -> str:
        """Who rejected, and until when."""
        if self.retry_after is None:
            return f"circuit {self.name} is {self.state} until an operator resets it"
        return f"circuit {self.name} is {self.state}; try again in {self.retry_after:.1f} s"


class RateLimited(ResilienceError):
    """The limiter has no permit for now; nothing was called.

    Try again after `retry_after` seconds.
    """

    def __init__(self, name: str, retry_after: float) -> None:
        # As above: the text is made only when asked for.
        self.name = name
        self.retry_after = retry_after

    def __str__(self) -> str:
        """Who limits, and until when."""
        return (
            f"limiter {self.name} has no permit; try again in {self.retry_after:.3g} s"
        )


class BulkheadFull(ResilienceError):
    """No place is free for it, and none in the line, or not in time; nothing was called.

    `waited` are the seconds spent in the line; 0.0 when there was no room in it. The
    world's: trying again later can help.
    """

    def __init__(
        self, name: str, limit: int, waiting: int, waited: float = 0.0
    ) -> None:
        self.name = name
        self.limit = limit
        self.waiting = waiting
        self.waited = waited

    def __str__(self) -> str:
        """What is full, and how full."""
        after = f" after {self.waited:g} s in line" if self.waited else ""
        return (
            f"bulkhead {self.name} is full{after}: {self.limit} places, "
            f"{self.waiting} in line before it"
        )


class ResourceExhausted(ResilienceError):
    """There is no token for `kind`: `resource` is at its limit; nothing was taken.

    `value` None: the gauge cannot be read now, and was at its limit before. The world's:
    trying again later can help.
    """

    def __init__(
        self, kind: str, resource: str, value: float | None, limit: float
    ) -> None:
        self.kind = kind
        self.resource = resource
        self.value = value
        self.limit = limit
        seen = f"{value:.4g}" if value is not None else "unknown"
        super().__init__(f"no token for {kind}: {resource} is {seen} of {limit:.4g}")


class TimedOut(ResilienceError, trio.TooSlowError):
    """A policy's own deadline passed, and the call was cancelled.

    What had begun may have happened. Trying again can help.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self.seconds = seconds
        super().__init__(f"{name} took longer than {seconds:g} s and was cancelled")


class RetriesExhausted(ResilienceError):
    """Every attempt that was allowed has failed; the last exception is the cause.

    `attempts` were made, `faults` are what became of them, oldest first (of very many the
    first and the last), and `why` says what ended them.
    """

    def __init__(
        self, name: str, attempts: int, faults: tuple[Fault, ...], why: str
    ) -> None:
        self.name = name
        self.attempts = attempts
        self.faults = faults
        self.why = why
        last = f"; last: {faults[-1].summary()}" if faults else ""
        times = "once" if attempts == 1 else f"{attempts} times"
        super().__init__(f"{name} failed {times}: {why}{last}")


class WorkError(TreewardenError):
    """Something about pools and the work in them."""


class PoolFull(WorkError):
    """Every slot is taken and the line before the pool is full; nothing was begun.

    The world's: trying again later can help.
    """

    def __init__(self, path: str, size: int, waiting: int) -> None:
        self.path = path
        self.size = size
        self.waiting = waiting
        super().__init__(
            f"pool {path} is full: {size} slots taken, {waiting} in line before it"
        )


class PoolReentered(WorkError):
    """Work of a full pool would have waited for a slot of that pool; yours to mend.

    Give the inner work a pool of its own, or make this one larger.
    """

    def __init__(self, path: str, size: int) -> None:
        self.path = path
        self.size = size
        super().__init__(
            f"work of pool {path} would wait for one of its {size} slots, all taken: "
            "use another pool for what it waits for"
        )


class WorkStopped(WorkError):
    """The work ended without a result: stopped, killed, or by its own wish.

    `begun` False: it never ran, and may be tried again.
    """

    def __init__(self, name: str, exit_: Exit, *, begun: bool) -> None:
        self.name = name
        self.exit = exit_
        self.begun = begun
        how = describe(exit_) if begun else "stopped before it began"
        super().__init__(f"{name} has no result: {how}")


class WorkTimeout(WorkError, trio.TooSlowError):
    """The work was stopped because it took longer than it was given."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self.seconds = seconds
        super().__init__(f"{name} took longer than {seconds:g} s and was stopped")


class GatewayError(TreewardenError):
    """Something about what is outside of this process."""


class HttpFailed(GatewayError):
    """A request has no answer, or one that says "later"; trying again can help.

    `kind` is `connect` (nobody was reached; the request was not sent), `broken` (the
    connection ended half-way, or what came was no HTTP) or `status`: then `status` is the
    answer's, 429 or one of the five hundreds, and `retry_after` the seconds for which it
    asks to be left alone. `url` has no secrets.
    """

    def __init__(
        self,
        method: str,
        url: str,
        kind: str,
        why: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.method = method
        self.url = url
        self.kind = kind
        self.status = status
        self.retry_after = retry_after
        super().__init__(f"{method} {url}: {why}")


class HttpRefused(HttpFailed):
    """It was not sent, or its answer not taken, by our own rules; yours to mend.

    `kind` is `address` (not one that can be asked), `request` (HTTP cannot say that),
    `certificate` (the policy's `verify` does not trust whoever answers, or he does not
    trust us) or `too_large`: the answer is longer than the policy's `limit_bytes`.
    """


class ProgramFailed(GatewayError):
    """A program ended with another status than 0.

    `status` is negative for the signal that ended it; `stderr` is how its error output
    ended. What it did until then stays done.
    """

    def __init__(self, program: str, status: int, stderr: str) -> None:
        self.program = program
        self.status = status
        self.stderr = stderr
        how = f"signal {-status}" if status < 0 else f"status {status}"
        last = stderr.strip().rpartition("\n")[2]
        super().__init__(f"{program} ended with {how}{f': {last}' if last else ''}")


class ProgramRefused(GatewayError):
    """A program was not started: it is not allowed, or the system cannot."""

    def __init__(self, program: str, why: str) -> None:
        self.program = program
        super().__init__(f"{program} was not started: {why}")


class ProgramTimeout(GatewayError, trio.TooSlowError):
    """A program took longer than it was given, and was ended with all of its group.

    `stderr` is how its error output ended. What it did until then stays done.
    """

    def __init__(self, program: str, seconds: float, stderr: str) -> None:
        self.program = program
        self.seconds = seconds
        self.stderr = stderr
        super().__init__(f"{program} took longer than {seconds:g} s and was ended")


class WorkflowError(TreewardenError):
    """Something about workflows and their steps."""


class WorkflowUnknown(WorkflowError):
    """Nobody knows a workflow of that name or id; register it, or look at the id."""


class WorkflowExists(WorkflowError):
    """There is a workflow of that id, perhaps ended; ask it instead, by its id."""

    def __init__(self, id_: str) -> None:
        self.id = id_
        super().__init__(f"there is a workflow of the id {id_} already")


class StepFailed(WorkflowError):
    """A step failed and is not tried again; raised where the workflow waits for it.

    Left to itself it ends the workflow, and what was done before is compensated. It is
    recorded: the workflow gets it again whenever it is run from its record.
    """

    def __init__(self, id_: str, step: str, fault: Fault) -> None:
        self.id = id_
        self.step = step
        self.fault = fault
        super().__init__(f"step {step} of workflow {id_} failed: {fault.summary()}")


class WorkflowFailed(WorkflowError):
    """The workflow ended without a result: failed, compensated or cancelled.

    `state` says which; `fault` is None for one that was cancelled.
    """

    def __init__(self, id_: str, state: str, reason: str, fault: Fault | None) -> None:
        self.id = id_
        self.state = state
        self.fault = fault
        why = f": {reason}" if reason else ""
        super().__init__(f"workflow {id_} is {state}{why}")


class WorkflowParked(WorkflowError):
    """The workflow stands still until somebody has looked at it and resumes it."""

    def __init__(self, id_: str, reason: str) -> None:
        self.id = id_
        self.reason = reason
        super().__init__(f"workflow {id_} is parked: {reason}")


class CompensationFailed(WorkflowError):
    """A compensation failed as often as it may: what it was to undo is still there.

    `fault` is what the workflow had failed for, None for one that was cancelled.

    The workflow stands still, and so does what was to be undone after it. When a person
    has seen to the cause, resume it.
    """

    def __init__(self, id_: str, reason: str, fault: Fault | None) -> None:
        self.id = id_
        self.fault = fault
        super().__init__(f"workflow {id_} needs attention: {reason}")


class ControlError(TreewardenError):
    """Something about the control connection."""


class LocalProtocolError(ControlError):
    """We tried to say something that the protocol does not allow."""


class RemoteProtocolError(ControlError):
    """The peer said something that the protocol does not allow."""


class NotAllowed(ControlError):
    """The act is above the rights of this client."""


class Outdated(ControlError):
    """The act was aimed at an incarnation that is gone; nothing was done, look again."""


class NoRuntime(ControlError):
    """No runtime answers; start one, or name one with --runtime or --socket."""
