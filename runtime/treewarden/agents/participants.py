"""What takes part in transactions from outside the store, and its second phase.

Two-phase commit with presumed abort (Gray, 1978; Mohan, Lindsay, Obermarck, 1986). Before
anybody is asked to prepare, a row says who will be (`store.tx_log`). The decision to commit
is in the same unit as what the transaction changed in the store. From then on it is the
task here that tells everybody, with backoff, until all have heard; then the row goes. A run
that begins finds the rows of the one before it: it commits what was decided and aborts all
else. A participant is found again by the name that it is registered under.

A decision whose commit has failed may still be in the file when the process dies at once;
so an abort is written down, too, before anybody hears of it.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import trio

from treewarden.errors import TransactionConflict, TransactionMisuse
from treewarden.exits import Fault
from treewarden.resilience import Backoff
from treewarden.store import (
    Unit,
    Verdict,
    forget_transaction,
    load_transactions,
    log_transaction,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from treewarden.store import Store, Write

BACKOFF: Final = Backoff(initial=0.1, maximum=2.0)
"""Between two attempts to tell a participant that is down: it hears within 5 s of coming
back."""
ATTEMPT_SECONDS: Final = 2.0
"""What a participant may take to commit or abort; then it is asked again later, so that one
that hangs keeps the others waiting for no longer."""
MOST_UNTOLD: Final = 1000
"""Verdicts that somebody may not have heard of; beyond these it takes part in nothing new,
so that one that is down for long fills neither the memory nor the file."""
_STORE: Final = ""


class Participant(Protocol):
    """Something outside the store that can change together with agents.

    Each of these may be called several times for one transaction, also after a restart of
    the process; the second time must change nothing.
    """

    async def prepare(self, id_: str, /) -> bool:
        """Promise that `commit` will succeed, whatever happens; False: it cannot.

        A True must survive a restart of whatever this stands for.
        """
        ...

    async def commit(self, id_: str, /) -> None:
        """Make it so. Raises while that is not possible: it is called again."""
        ...

    async def abort(self, id_: str, /) -> None:
        """Forget it; it may be of a transaction that `prepare` never heard of."""
        ...


@dataclass(slots=True)
class _Unfinished:
    """A decided transaction, and who has not heard of it."""

    id: str
    verdict: Verdict
    names: tuple[str, ...]
    left: list[str] = field(default_factory=list)
    # Whether the verdict is in the file.
    is_logged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsettled:
    """A transaction whose verdict somebody has not heard; `waiting` are their names."""

    id: str
    verdict: Verdict
    waiting: tuple[str, ...]


class Participants:
    """By name: who takes part from outside; and the verdicts that they are to hear."""

    def __init__(
        self,
        store: Callable[[], Store],
        report: Callable[[str, dict[str, object]], None],
    ) -> None:
        self._store = store
        self._report = report
        self._by_name: dict[str, Participant] = {}
        self._unfinished: dict[str, _Unfinished] = {}
        # Of this run, and still going on: not to be taken for a lost one.
        self._going_on: set[str] = set()
        self._attempts: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._news = trio.Event()

    # --- for users ---------------------------------------------------------------------------

    def register(self, name: str, participant: Participant) -> None:
        """Have it found under `name`, in this run and in later ones.

        Do it at every start, before transactions enlist it: what an earlier run left
        undone is done from then on. Again under a name: the new one takes the place.

        Raises:
            ValueError: the name is empty.
        """
        if not name:
            raise ValueError("a participant needs a name")
        self._by_name[name] = participant
        self._attempts.pop(name, None)
        self._due.pop(name, None)
        self._news.set()

    def unsettled(self) -> tuple[Unsettled, ...]:
        """The decided transactions that somebody has not heard of yet."""
        return tuple(
            Unsettled(id=one.id, verdict=one.verdict, waiting=tuple(one.left))
            for one in self._unfinished.values()
        )

    # --- for transactions --------------------------------------------------------------------

    def name_of(self, participant: Participant) -> str:
        """What it is registered as.

        Raises:
            TransactionMisuse: it is not.
        """
        for name, known in self._by_name.items():
            if known is participant:
                return name
        raise TransactionMisuse(
            f"{participant!r} is not registered: after a restart nobody could find it;"
            " use runtime.participants.register(name, participant)"
        )

    def check_heard(self, names: Iterable[str]) -> None:
        """See that none of them lags behind too far to take part.

        Raises:
            TransactionConflict: one does.
        """
        if len(self._unfinished) < MOST_UNTOLD:
            return
        for name in names:
            untold = sum(name in one.left for one in self._unfinished.values())
            if untold >= MOST_UNTOLD:
                raise TransactionConflict(
                    f"{name} has not heard yet how {untold} transactions have ended;"
                    " nothing was changed"
                )

    async def log(self, id_: str, verdict: Verdict, names: tuple[str, ...]) -> None:
        """Note how far a transaction is; returns once that is on disk.

        Raises:
            StoreError: it may be on disk or not.
        """
        self._going_on.add(id_)
        await self._write(log_transaction(id_, verdict, names))

    def settle(self, id_: str, verdict: Verdict, names: tuple[str, ...]) -> None:
        """It is decided: have them told."""
        self._going_on.discard(id_)
        self._add(id_, verdict, names, is_logged=verdict is Verdict.COMMIT)

    def _add(
        self, id_: str, verdict: Verdict, names: tuple[str, ...], *, is_logged: bool
    ) -> None:
        self._unfinished[id_] = _Unfinished(id_, verdict, names, list(names), is_logged)
        self._news.set()

    # --- the task ----------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Tell whoever has to hear, for ever; a child of the system."""
        await self._recover()
        task_status.started()
        while True:
            self._news = trio.Event()
            for one in tuple(self._unfinished.values()):
                await self._advance(one)
            with trio.CancelScope(deadline=self._next_attempt()):
                await self._news.wait()

    async def _recover(self) -> None:
        for logged in await self._store().read(load_transactions):
            if logged.id in self._going_on or logged.id in self._unfinished:
                continue
            if logged.participants is None:
                self._report("transaction.in_doubt", {"id": logged.id})
                continue
            is_commit = logged.verdict is Verdict.COMMIT
            verdict = Verdict.COMMIT if is_commit else Verdict.ABORT
            is_logged = logged.verdict is verdict
            self._add(logged.id, verdict, logged.participants, is_logged=is_logged)

    async def _advance(self, one: _Unfinished) -> None:
        if not one.is_logged:
            write = log_transaction(one.id, one.verdict, one.names)
            one.is_logged = await self._attempt(
                _STORE, one, partial(self._write, write)
            )
        if not one.is_logged:
            return
        for name in tuple(one.left):
            participant = self._by_name.get(name)
            if participant is None:
                continue
            is_commit = one.verdict is Verdict.COMMIT
            tell = participant.commit if is_commit else participant.abort
            if await self._attempt(name, one, partial(tell, one.id)):
                one.left.remove(name)
        if not one.left:
            forget = partial(self._write, forget_transaction(one.id))
            if await self._attempt(_STORE, one, forget):
                del self._unfinished[one.id]

    async def _attempt(
        self, name: str, one: _Unfinished, work: Callable[[], Awaitable[None]]
    ) -> bool:
        """Whether it is done now; if not, it is noted when to try again."""
        if self._due.get(name, -math.inf) > trio.current_time():
            return False
        try:
            with trio.fail_after(ATTEMPT_SECONDS):
                await work()
        except Exception as error:  # noqa: BLE001 - somebody else's code; tried again
            self._failed(name, one, error)
            return False
        self._attempts.pop(name, None)
        self._due.pop(name, None)
        return True

    def _failed(self, name: str, one: _Unfinished, error: Exception) -> None:
        attempt = self._attempts[name] = self._attempts.get(name, 0) + 1
        # Chance spreads attempts, it keeps no secret.
        delay = BACKOFF.delay(attempt, random.random)
        self._due[name] = trio.current_time() + delay
        if attempt == 1:
            fault = Fault.capture(error, path="/system/transactions")
            self._report(
                "transaction.delayed",
                {"id": one.id, "waits_for": name or "store", "error": fault.summary()},
            )

    def _next_attempt(self) -> float:
        """When somebody is due again who has something to hear, trio's clock."""
        waiting = list(self._unfinished.values())
        names = {name for one in waiting for name in one.left} & set(self._by_name)
        if any(not one.is_logged or not one.left for one in waiting):
            names.add(_STORE)
        return min((self._due.get(name, math.inf) for name in names), default=math.inf)

    async def _write(self, write: Write) -> None:
        store = self._store()
        unit = Unit("/system/transactions")
        unit.writes = [write]
        store.hand_over(unit)
        await store.wait(unit)
