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
│  └─ Backpressure           a subscription is full; names it
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
│  └─ CircuitOpen            carries when it may close
├─ WorkError
│  ├─ PoolFull               no free slot, and the line before the pool is full
│  ├─ PoolReentered          work of a full pool would wait for that pool
│  ├─ WorkStopped            the work ended without a result; carries its exit
│  └─ WorkTimeout            an item took too long; also a trio.TooSlowError
└─ ControlError
   ├─ LocalProtocolError     we tried to say something illegal
   ├─ RemoteProtocolError    the peer did
   ├─ NotAllowed             above the rights of this client, or never possible
   ├─ Outdated               the act names an incarnation that is gone
   └─ NoRuntime
"""

from __future__ import annotations

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
    """The agent is gone for good; whether it began the message is in the text."""

    def __init__(self, path: str, why: str) -> None:
        self.path = path
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
            f"it is {doing}"
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

    def __init__(self, name: str, state: str, retry_after: float | None) -> None:
        # The text is made only when asked for, and `args` are set already: rejections
        # must stay cheap.
        self.name = name
        self.state = state
        self.retry_after = retry_after

    def __str__(self) -> str:
        """Who rejected, and until when."""
        if self.retry_after is None:
            return f"circuit {self.name} is {self.state} until an operator resets it"
        return f"circuit {self.name} is {self.state}; try again in {self.retry_after:.1f} s"


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
