"""Broken transactions: halves that are seen, rings, decisions that are forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

import treewarden
from treewarden.agents import participants, release, transaction
from treewarden.agents.participants import Participants
from treewarden.agents.seat import Seat
from treewarden.agents.transaction import Transaction
from treewarden.store import Unit, Verdict
from treewarden.store import writer as writers
from treewarden.work import SerialOutcome, serial

from .double import Area

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from treewarden.agents.operation import Operation
    from treewarden.agents.ref import AgentRef
    from treewarden.errors import StoreError
    from treewarden.store import LoggedTransaction

    from .double import Replace

DOUBLES: Final = Area("tests")

_FLAWS = "runtime/agents/test_transaction_flaws.py"
_TRANSACTION = "runtime/agents/test_transaction.py"
_PARTICIPANTS = "runtime/agents/test_participants.py"


@DOUBLES.breaks(
    caught_by=f"{_FLAWS}::test_f01_only_what_rolls_back_is_called_a_transaction"
)
def a_name_that_promises_too_much(replace: Replace) -> None:
    """F01: the old name is kept for what rolls nothing back."""
    replace(treewarden, "__all__", [*treewarden.__all__, "execute_atomic_operations"])


@DOUBLES.swaps(
    Seat,
    "_undo",
    caught_by=f"{_FLAWS}::test_f02_whichever_operation_fails_everything_is_as_it_was",
)
def what_was_done_stays_done(self: Seat) -> None:
    """F02: a transaction that failed leaves the state that it came to."""


@DOUBLES.swaps(
    serial,
    "_newest_first",
    caught_by="runtime/work/test_serial.py::test_f03_inverses_are_newest_first",
)
def inverses_oldest_first(inverses: list[Any]) -> tuple[Any, ...]:
    """F03, H02: undone in the order of doing, the middle value stays."""
    return tuple(inverses)


_hand_over = release.hand_over


@DOUBLES.swaps(
    transaction,
    "hand_over",
    caught_by=(
        f"{_FLAWS}::test_f04_whichever_row_cannot_be_written_all_of_it_goes_back",
        f"{_TRANSACTION}::test_one_unit_holds_all_of_it",
    ),
)
def a_unit_for_each_agent(store: Any, whole: Unit) -> None:
    """F04: each participant commits for itself, and a crash may come between."""
    parts, whole.parts = whole.parts, ()
    for part in parts:
        store.hand_over(part)
    _hand_over(store, whole)


@DOUBLES.swaps(
    writers,
    "_whole",
    caught_by=f"{_TRANSACTION}::test_what_two_agents_did_is_there_after_a_restart",
)
def a_commit_of_the_first_half(units: Iterable[Unit]) -> list[Unit]:
    """F04: acknowledged, and only some of it is in the file."""
    found: list[Unit] = []
    for unit in units:
        found += [unit, *unit.parts[: len(unit.parts) // 2]]
    return found


@DOUBLES.swaps(
    transaction,
    "_prepared",
    caught_by=f"{_PARTICIPANTS}::test_f05_all_of_them_change_or_none",
)
async def a_vote_that_nobody_counts(name: str, participant: Any, id_: str) -> bool:
    """F05: they are asked, and it is committed whatever they say."""
    await participant.prepare(id_)
    return True


_settle = Participants.settle


@DOUBLES.swaps(
    Participants,
    "settle",
    caught_by=f"{_PARTICIPANTS}::test_f05_all_of_them_change_or_none",
)
def an_abort_that_nobody_hears_of(
    self: Participants, id_: str, verdict: Verdict, names: tuple[str, ...]
) -> None:
    """F05: those that have prepared hold on to it for ever."""
    if verdict is Verdict.COMMIT:
        _settle(self, id_, verdict, names)


def _nothing(_: sqlite3.Connection) -> list[LoggedTransaction]:
    return []


@DOUBLES.breaks(
    caught_by=(
        f"{_PARTICIPANTS}::test_what_an_earlier_run_left_is_done_when_it_is_registered_again"
    )
)
def a_decision_that_is_forgotten(replace: Replace) -> None:
    """F05: nobody reads the log after a restart."""
    replace(participants, "load_transactions", _nothing)


@DOUBLES.breaks(
    caught_by=f"{_PARTICIPANTS}::test_f05_a_participant_that_was_down_hears_within_5_s_of_coming_back"
)
def one_attempt_and_no_more(replace: Replace) -> None:
    """F05: a participant that was down at the commit is never told."""

    async def tries_once(self: Any, name: str, one: Any, work: Any) -> bool:
        try:
            await work()
        except ConnectionError as error:
            self._failed(name, one, error)
        return True

    replace(Participants, "_attempt", tries_once)


@DOUBLES.swaps(
    Transaction,
    "wait_decided",
    caught_by=f"{_TRANSACTION}::test_leaving_the_block_is_the_held_reply",
)
async def left_before_the_commit(self: Transaction) -> None:
    """The block is left when the unit is handed over, and not on disk."""


@DOUBLES.swaps(
    Transaction,
    "_settle",
    caught_by=f"{_TRANSACTION}::test_a_failed_commit_takes_all_of_them_back_uncounted",
)
def memory_that_keeps_what_the_disk_has_lost(
    self: Transaction, whole: Unit, parts: list[Any], error: StoreError | None
) -> None:
    """After a failed commit the participants go on from what is not in the file."""
    for seat, part in parts:
        seat.place.memory.committed_by(part, whole)
    self._decided, self._error = True, error
    if self._waiter is not None:
        trio.lowlevel.reschedule(self._waiter)


@DOUBLES.breaks(caught_by=f"{_FLAWS}::test_f07_every_reader_sees_exactly_one_token")
def a_half_that_is_seen(replace: Replace) -> None:
    """F07: a participant counts as committed as soon as it was changed."""
    honest = Seat._keep

    def keep(self: Seat, operation: Operation, value: object) -> object:
        reply = honest(self, operation, value)
        self.place.memory.committed = self.payload
        return reply

    replace(Seat, "_keep", keep)


_seats = transaction._seats


@DOUBLES.breaks(
    caught_by=f"{_FLAWS}::test_f08_opposite_orders_never_wait_for_each_other"
)
def taken_in_the_order_named(replace: Replace) -> None:
    """F08: two that name them in opposite orders wait for each other."""

    def seats(agents: tuple[AgentRef[Any], ...], directory: Any) -> list[Seat]:
        by_path = {seat.place.node.path: seat for seat in _seats(agents, directory)}
        return [by_path[agent.path] for agent in agents]

    replace(transaction, "_seats", seats)


@DOUBLES.swaps(
    SerialOutcome,
    "__del__",
    caught_by="runtime/work/test_serial.py::test_f09_an_outcome_that_nobody_looked_at_is_a_warning",
)
def a_failure_that_is_dropped(self: SerialOutcome) -> None:
    """F09: whoever ignores the outcome hears nothing."""


@DOUBLES.swaps(
    Seat,
    "ask_to_leave",
    caught_by=f"{_TRANSACTION}::test_a_participant_that_is_stopped_meanwhile_goes_at_once",
)
def a_participant_that_does_not_hear_a_stop(self: Seat) -> None:
    """It sits out the transaction until it is killed."""


@DOUBLES.breaks(
    caught_by=f"{_TRANSACTION}::test_an_error_that_is_swallowed_does_not_let_the_rest_be_committed"
)
def a_failure_that_counts_for_nothing(replace: Replace) -> None:
    """A handler that failed is left out, and the rest is committed."""
    replace(Transaction, "_undo", lambda self, why, cause: None)


@DOUBLES.breaks(
    caught_by=f"{_TRANSACTION}::test_events_and_casts_leave_after_the_commit_in_the_order_of_the_calls"
)
def events_sorted_by_agent(replace: Replace) -> None:
    """What was staged leaves in the order of the agents, not of the calls."""
    settle = Transaction._seal

    def seal(self: Transaction, whole: Unit) -> Any:
        self.staged.sort(key=lambda one: one[0].place.node.path)
        return settle(self, whole)

    replace(Transaction, "_seal", seal)


@DOUBLES.breaks(
    caught_by=f"{_TRANSACTION}::test_a_participant_that_is_asked_nothing_stays_as_it_was_and_is_free_again"
)
def a_seat_that_nobody_took_is_sealed(replace: Replace) -> None:
    """What an idle participant never came to do counts as its newest state."""
    honest = Seat.seal

    def seal(self: Seat) -> Unit | None:
        self.taken = True
        return honest(self)

    replace(Seat, "seal", seal)
