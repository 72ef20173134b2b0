"""Dynamic children that outlive the process: their specifications are rows in a store.

A dynamic supervisor with `remember=True` writes down each child that it is given, and
starts them all again, in the order in which they were first started, whenever it starts
itself: in the next run, and also within one (where OTP's would begin with none).

Why nothing is lost or comes back, wherever a kill falls (`tests/system/
test_remember_kill.py`). A child is written down when it is ready; `start_child` returns
once that is committed, so every child that was answered is there again. One that was not
answered may be there or not, but never half. `terminate_child` returns once its row is
gone: a child that was answered to be stopped stays stopped. Rows are written in the order
in which the supervisor did things, and the store commits in that order, so that a child
started again under the same id is not taken away by the end of the one before.

A child that ends for good by itself takes its row along with nobody waiting for that: a
kill in the same moment brings it back, once. Its row goes because *it* ended, never
because its supervisor does, nor because the tree is being stopped.

Supervision stands below the store's other users and does not know it: whoever builds the
tree gives the `Directory` a `Memory`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

import msgspec
import trio

from treewarden.errors import NotRunning, RestoreError
from treewarden.exits import Fault
from treewarden.resilience import Backoff

from .importable import find, freeze, path_of, thaw
from .intensity import Intensity
from .spec import ChildSpec, DynamicSupervisorSpec, Isolation, SupervisorSpec
from .strategy import Restart

if TYPE_CHECKING:
    from collections.abc import Iterable

Decided: TypeAlias = Callable[[Exception | None], None]


class Memory(Protocol):
    """Where rows are kept, by supervisor and id; `spec` is JSON."""

    async def recall(self, supervisor: str) -> Iterable[tuple[str, bytes | None]]:
        """The ids and specifications of a supervisor's children, oldest first.

        None for a row that is damaged.
        """
        ...

    def write(
        self, supervisor: str, id_: str, spec: bytes | None, decided: Decided
    ) -> None:
        """Keep a row, as the newest, or with None delete it; in the order of the calls.

        Neither waits nor raises. `decided` is told once it is committed or has failed.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """A child as it was written down; with a `fault` it cannot be started any more."""

    spec: ChildSpec
    fault: Fault | None = None


class _Written:
    """A row on its way to the disk."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: Exception | None = None


class Remembered:
    """What one supervisor has written down of its children."""

    def __init__(self, memory: Memory, path: str) -> None:
        self._memory = memory
        self._path = path
        # Ids that have a row, or will have one when what was handed over is committed.
        self._present: set[str] = set()
        # The last write of each id, until it is committed; a failed one until the next.
        self._writes: dict[str, _Written] = {}
        # Rows that should be gone, but could not be deleted: tried again after the next
        # write that succeeds.
        self._leftover: set[str] = set()

    async def recall(self) -> list[Recalled]:
        """The children of the last time, in the order of their first start.

        Raises:
            StoreError: they cannot be read at this moment.
        """
        rows = dict(await self._memory.recall(self._path))
        self._present = set(rows)
        return [
            _recalled(self._path, id_, row)
            for id_, row in rows.items()
            if id_ not in self._leftover
        ]

    def keep(self, id_: str, row: bytes) -> None:
        """Write down a child; `written` waits for it."""
        self._present.add(id_)
        self._leftover.discard(id_)
        self._write(id_, row)

    def drop(self, id_: str) -> None:
        """Forget a child, if it was written down; `written` waits for it."""
        if id_ in self._present or id_ in self._leftover:
            self._present.discard(id_)
            self._write(id_, None)
        elif id_ in self._writes and self._writes[id_].error is not None:
            del self._writes[id_]

    def owes(self, id_: str) -> bool:
        """Whether the child is gone, but its row could not be deleted."""
        return id_ in self._leftover

    async def written(self, id_: str) -> None:
        """Wait until what was last written of a child is on the disk.

        Raises:
            StoreError: it could not be written.
        """
        written = self._writes.get(id_)
        if written is None:
            return
        await written.done.wait()
        if written.error is not None:
            raise written.error

    def _write(self, id_: str, row: bytes | None) -> None:
        self._writes[id_] = written = _Written()
        decided = partial(self._decided, id_, written, row)
        self._memory.write(self._path, id_, row, decided)

    def _decided(
        self, id_: str, written: _Written, row: bytes | None, error: Exception | None
    ) -> None:
        written.error = error
        written.done.set()
        if self._writes.get(id_) is written:
            self._account(id_, row, error)
        if error is None:
            self._drop_leftover()

    def _account(self, id_: str, row: bytes | None, error: Exception | None) -> None:
        if error is None:
            del self._writes[id_]
            self._leftover.discard(id_)
        elif row is None:
            self._leftover.add(id_)
        else:
            self._present.discard(id_)

    def _drop_leftover(self) -> None:
        for id_ in tuple(self._leftover):
            if self._writes[id_].done.is_set():
                self._write(id_, None)


# --- rows -------------------------------------------------------------------------------

_ForEver: TypeAlias = Literal["infinity"]
_FOR_EVER: Final[_ForEver] = "infinity"


class _Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ChildSpec as it is stored: `start` by its import path, no default left out."""

    start: str
    arguments: msgspec.Raw
    restart: Restart
    shutdown: float | _ForEver | None
    start_timeout: float | _ForEver
    isolation: Isolation
    intensity: Intensity | None
    backoff: Backoff | None


def row_of(spec: ChildSpec) -> bytes:
    """A specification as JSON, checked to come out as it went in.

    Raises:
        TypeError, ValueError: its start has no import path, or its arguments cannot be
            written; the message says which.
    """
    path = spec.start if isinstance(spec.start, str) else path_of(spec.id, spec.start)
    if path is None:
        raise ValueError(
            f"{spec.id}: a child that is remembered is started by its import path, and "
            f"{spec.start!r} has none: give an agent, a function or a context manager "
            "at the top of a module"
        )
    return msgspec.json.encode(
        _Row(
            start=path,
            arguments=msgspec.Raw(freeze(spec.id, spec.start, spec.args, spec.kwargs)),
            restart=Restart(spec.restart),
            shutdown=None if spec.shutdown is None else _told(spec.shutdown),
            start_timeout=_told(spec.start_timeout),
            isolation=Isolation(spec.isolation),
            intensity=spec.intensity,
            backoff=spec.backoff,
        )
    )


def spec_of(id_: str, encoded: bytes) -> ChildSpec:
    """The specification again.

    Raises:
        ImportError: there is nothing at its import path.
        TypeError, ValueError: what is there does not take its arguments, or is no child.
        Whatever the module raises when it is imported.
    """
    row = msgspec.json.decode(encoded, type=_Row)
    start: object = row.start
    if row.isolation is Isolation.PROCESS:
        # Its own process imports it; what we would import here would be for nothing.
        args, kwargs = msgspec.json.decode(
            row.arguments, type=tuple[tuple[Any, ...], dict[str, Any]]
        )
    else:
        start = find(row.start)
        if not callable(start):
            raise TypeError(f"{row.start} is nothing to start, but {start!r}")
        args, kwargs = thaw(start, bytes(row.arguments))
    return ChildSpec(
        id_,
        start,
        args=args,
        kwargs=kwargs,
        restart=row.restart,
        shutdown=None if row.shutdown is None else _meant(row.shutdown),
        start_timeout=_meant(row.start_timeout),
        isolation=row.isolation,
        intensity=row.intensity,
        backoff=row.backoff,
    )


def _told(seconds: float) -> float | _ForEver:
    return _FOR_EVER if seconds == math.inf else seconds


def _meant(seconds: float | _ForEver) -> float:
    return math.inf if seconds == _FOR_EVER else seconds


def _recalled(supervisor: str, id_: str, row: bytes | None) -> Recalled:
    try:
        return Recalled(spec=spec_of(id_, _undamaged(supervisor, id_, row)))
    except Exception as error:  # noqa: BLE001 - one child's; the others are to start
        path = f"{supervisor}/{id_}"
        fault = Fault.capture(error, path=path)
        return Recalled(spec=ChildSpec(id_, _Lost(path, fault.summary())), fault=fault)


def _undamaged(supervisor: str, id_: str, row: bytes | None) -> bytes:
    if row is None:
        raise RestoreError(
            f"what {supervisor} remembers of {id_} is damaged (its checksum does not "
            "match); it was left untouched: restore a backup, or terminate the child to "
            "delete it"
        )
    return row


class _Lost:
    """In the place of what cannot be started any more."""

    def __init__(self, path: str, why: str) -> None:
        self._message = (
            f"{path} is remembered, but cannot be started: {why}; mend that and start "
            "the runtime again, or terminate the child to forget it"
        )

    async def __call__(self, *, task_status: trio.TaskStatus[None]) -> None:
        # Never ready, so that whoever tries to start it again is told.
        raise RestoreError(self._message)


def remembered_by(
    spec: SupervisorSpec | DynamicSupervisorSpec, memory: Memory | None, path: str
) -> Remembered | None:
    """What the supervisor at `path` remembers with; None when it is not to.

    Raises:
        NotRunning: it is to, but there is nothing to do that in.
    """
    if not isinstance(spec, DynamicSupervisorSpec) or not spec.remember:
        return None
    if memory is None:
        raise _nowhere()
    return Remembered(memory, path)


def refuse_forgetful(start: object, memory: Memory | None) -> None:
    """Refuse a supervisor that is to remember where there is nothing to do that in.

    Raises:
        NotRunning: nothing was started.
    """
    if isinstance(start, SupervisorSpec):
        for child in start.children:
            refuse_forgetful(child.start, memory)
    elif isinstance(start, DynamicSupervisorSpec) and start.remember and memory is None:
        raise _nowhere()


def _nowhere() -> NotRunning:
    return NotRunning(
        "remember=True needs a store, and there is none: open_runtime has one, "
        "open_supervisor has not"
    )
