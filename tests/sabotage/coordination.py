"""Broken exchanges, locks, barriers, elections, votes and distributors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from treewarden.agents.owner import Estates
from treewarden.coordination import (
    barrier,
    delivery,
    distributor,
    election,
    exchange,
    lock,
    policy,
    quorum,
)
from treewarden.coordination.barrier import Barriers
from treewarden.coordination.delivery import Deliveries
from treewarden.coordination.distributor import Loads, TaskDistributor
from treewarden.coordination.election import Elections, Race
from treewarden.coordination.line import Line
from treewarden.coordination.lock import Locks, LockTable
from treewarden.coordination.parcel import Delivered
from treewarden.coordination.quorum import Ballot, Quorums, Tally
from treewarden.errors import DeliveryFailed

from .double import Area

if TYPE_CHECKING:
    from .double import Replace

DOUBLES: Final = Area("tests/runtime/coordination")

_deliver = Deliveries._deliver
_put = Deliveries._put
_forget = Deliveries._forget
_circuit_moved = Deliveries._circuit_moved


@DOUBLES.swaps(
    exchange.Exchange,
    "send",
    caught_by=(
        "test_exchange.py::test_f23_what_the_receiver_raised_is_the_cause",
        "test_exchange.py::test_f23_a_hung_receiver_costs_five_seconds_and_no_more",
    ),
)
async def fire_and_forget(
    self: exchange.Exchange, receiver: Any, operation: Any, *args: Any
) -> object:
    """F23: sent is as good as delivered."""
    await receiver.cast(operation, *args)
    return Delivered(value=None)


@DOUBLES.swaps(
    delivery,
    "_reason",
    caught_by="test_exchange.py::test_a_refusal_is_an_answer_and_not_held_against_the_receiver",
)
def every_error_is_a_failure(error: Exception, receiver: str) -> str:
    """S18: what a receiver answers counts against it."""
    return "delivery_failed"


@DOUBLES.swaps(
    Deliveries,
    "_too_late",
    caught_by="test_one_way_in.py::test_f24_only_the_messaging_package_puts_into_mailboxes",
)
def a_way_of_its_own_into_the_mailbox(self: Any, receiver: Any, parcel: Any) -> Any:
    """F24: a message that was late is put into the mailbox by hand."""
    body = receiver.ref.resolve()
    body.mailbox.put(Envelope(parcel.operation, (), {}))  # type: ignore[name-defined] # noqa: F821


@DOUBLES.swaps(
    Deliveries,
    "_end",
    caught_by="test_exchange.py::test_f25_whatever_is_lost_on_the_way_every_sender_is_told_at_once",
)
def lost_without_a_word(
    self: Any, receiver: Any, parcel: Any, result: Any, reason: str
) -> None:
    """F25: whoever sent what was lost waits for it."""


@DOUBLES.breaks(
    caught_by=(
        "test_exchange.py::test_f26_100_000_sends_to_a_stalled_receiver_cost_nobody_else",
        "test_exchange.py::test_f26_all_lines_together_have_a_bound_too",
        "test_exchange.py::test_f28_before_an_open_circuit_the_oldest_go_for_the_newest",
        "test_line.py::test_f28_a_full_stalled_line_drops_its_oldest",
    )
)
def a_line_without_an_end(replace: Replace) -> None:
    """F26, F28: nothing is ever full."""
    replace(Line, "is_full", property(lambda self: False))


@DOUBLES.swaps(
    Line,
    "_oldest_at_rest",
    caught_by=(
        "test_line.py::test_f28_a_full_stalled_line_drops_its_oldest",
        "test_exchange.py::test_f28_before_an_open_circuit_the_oldest_go_for_the_newest",
    ),
)
def the_newest_goes(self: Any) -> object:
    """F28: who comes last has to go."""
    return next(reversed(self._parcels), None)


@DOUBLES.swaps(
    Deliveries,
    "_warn",
    caught_by="test_exchange.py::test_f28_before_an_open_circuit_the_oldest_go_for_the_newest",
)
def a_warning_for_each(self: Any, receiver: Any) -> None:
    """F28: a warning for each message that is dropped."""
    self._directory.report("exchange.overflow", self._workers.node)


@DOUBLES.swaps(
    Deliveries,
    "_gone",
    caught_by=(
        "test_exchange.py::test_f27_ends_that_are_gone_leave_nothing",
        "test_exchange.py::test_r1_many_short_lives_leave_the_counts_at_zero",
    ),
)
def the_dead_keep_their_lines(self: Any, receiver: Any) -> None:
    """F27: line, circuit and worker of a receiver outlive it."""


@DOUBLES.swaps(
    Deliveries,
    "_forget",
    caught_by="test_exchange.py::test_an_idle_receiver_is_forgotten_and_an_operators_order_is_not",
)
def a_watch_that_is_never_called_off(self: Any, receiver: Any) -> None:
    """F27: who is forgotten is watched still."""
    receiver.forget = lambda: None
    if not receiver.gone:
        _forget(self, receiver)


@DOUBLES.swaps(
    Line,
    "fail",
    caught_by="test_exchange.py::test_f29_a_drain_that_fails_half_way_loses_nothing",
)
def a_drain_that_does_not_look_back(self: Any, *, limit: int) -> bool:
    """F29: what fails while the buffer is drained is gone (004's own sample)."""
    self._over()
    self.failed += 1
    return True


@DOUBLES.swaps(
    Line,
    "take",
    caught_by="test_exchange.py::test_f29_a_closed_circuit_lets_the_buffer_go_in_order",
)
def the_last_are_the_first(self: Any) -> object:
    """F29: drained from the wrong end."""
    self.in_hand = parcel = next(reversed(self._parcels))
    return parcel


@DOUBLES.swaps(
    Deliveries,
    "check_all",
    caught_by="test_exchange.py::test_s19_to_all_or_to_nobody",
)
def checked_while_sending(self: Any, *sent: object) -> None:
    """S19: all or nothing is check, then send, one after the other."""


@DOUBLES.swaps(
    Deliveries,
    "_unheard",
    caught_by="test_exchange.py::test_f30_each_transition_is_told_once_and_only_to_the_living",
)
def listeners_outlive_their_owners(self: Any, tell: object) -> None:
    """F30: a subscriber that has died is told still."""


@DOUBLES.swaps(
    Deliveries,
    "_circuit_moved",
    caught_by="test_exchange.py::test_f30_each_transition_is_told_once_and_only_to_the_living",
)
def told_twice(self: Any, receiver: Any, moved: Any) -> None:
    """F30: each transition is told as often as somebody looks."""
    _circuit_moved(self, receiver, moved)
    for tell in tuple(self._listeners):
        tell(moved)


@DOUBLES.swaps(
    Deliveries,
    "_deliver",
    caught_by="test_exchange.py::test_f31_a_hung_receiver_stalls_nobody_else",
)
async def one_delivery_at_a_time(self: Any, receiver: Any) -> None:
    """F31: one loop for all receivers."""
    lock = self.__dict__.setdefault("loop", trio.Lock())
    async with lock:
        await _deliver(self, receiver)


@DOUBLES.swaps(
    Deliveries,
    "_too_late",
    caught_by="test_exchange.py::test_h06_a_buffered_message_that_is_late_is_delivered_once",
)
def delivered_again_when_it_is_late(self: Any, receiver: Any, parcel: Any) -> Any:
    """H06: no answer in time, so it is sent once more, by another way."""
    parcel.request = None
    raise DeliveryFailed(receiver.path, parcel.operation, "delivery_timeout")


@DOUBLES.swaps(
    Deliveries,
    "_put",
    caught_by="test_exchange.py::test_h07_an_overflowed_buffer_drains_and_nobody_was_restarted",
)
def overflow_is_stored_bare(self: Any, receiver: Any, parcel: Any) -> None:
    """H07: what comes after an overflow lacks what the drain expects."""
    if receiver.line.dropped:
        parcel.offer = None
    _put(self, receiver, parcel)


@DOUBLES.swaps(
    LockTable,
    "leave",
    caught_by=(
        "test_lock.py::test_h29_a_thousand_releases_and_no_late_waiter_ever_holds",
        "test_lock.py::test_a_waiter_out_of_time_is_passed_over",
    ),
)
def a_waiter_for_ever(self: Any, name: str, who: object) -> None:
    """H29: who stopped waiting becomes the holder later."""


@DOUBLES.swaps(
    LockTable,
    "release",
    caught_by="test_lock.py::test_h29_a_thousand_releases_and_no_late_waiter_ever_holds",
)
def a_release_that_crashes(self: Any, name: str, token: int) -> None:
    """H29: letting go of a lock crashes whoever keeps it."""
    raise TypeError("not a timestamp")


@DOUBLES.swaps(
    Locks,
    "_give_up",
    caught_by="test_lock.py::test_a_waiter_that_is_cancelled_in_the_step_of_its_grant_has_nothing",
)
def granted_to_somebody_who_left(self: Any, ticket: Any) -> None:
    """H29: a waiter whose time is over is granted the lock in the same step, and has it."""
    self._table.leave(ticket.name, ticket)
    self._estates.drop(ticket.owner, ticket)


@DOUBLES.swaps(
    Locks,
    "_ended",
    caught_by="test_lock.py::test_the_lock_of_a_dead_owner_goes_to_the_next_in_line",
)
def locks_of_the_dead(self: Any, ticket: object) -> None:
    """Appendix B: the locks of dead holders are never freed."""


@DOUBLES.swaps(
    Estates,
    "drop",
    caught_by=(
        "test_lock.py::test_who_holds_it_does_not_wait_for_himself",
        "test_barrier.py::test_an_incarnation_comes_once_and_all_expect_the_same_number",
    ),
)
def owners_watched_for_ever(self: Any, owner: object, thing: object) -> None:
    """Records of what is over stay."""


@DOUBLES.swaps(
    Barriers,
    "_leave",
    caught_by=(
        "test_barrier.py::test_whoever_gave_up_has_not_come",
        "test_barrier.py::test_the_dead_have_not_come_and_their_next_life_may",
    ),
)
def the_dead_have_come(self: Any, arrival: object) -> None:
    """A barrier counts those who are no longer there."""


@DOUBLES.swaps(
    Race,
    "look",
    caught_by="test_election.py::test_a_leader_that_stalls_is_replaced_and_told",
)
def a_leader_for_life(self: Any, now: float) -> None:
    """A leader that stalls leads on."""


@DOUBLES.swaps(
    Elections,
    "_lose",
    caught_by="test_election.py::test_a_term_that_is_given_up_is_over_at_once_for_all_who_ask",
)
def deposed_without_a_word(self: Any, term: Any) -> None:
    """A leader that was replaced is not told."""
    self._estates.drop(term.owner, term)


@DOUBLES.swaps(
    Ballot,
    "abstain",
    caught_by="test_quorum.py::test_a_participant_that_is_gone_abstains_and_one_that_crashed_does_not",
)
def the_dead_may_vote_still(self: Any, who: str) -> None:
    """A vote waits for those who cannot give theirs any more."""


@DOUBLES.swaps(
    Tally,
    "refusal",
    caught_by="test_quorum.py::test_who_may_vote_and_how_often",
)
def everybody_votes_as_often_as_he_likes(self: Any, who: object) -> None:
    """Appendix B: already_voted, invalid_participant, consensus_closed."""


@DOUBLES.swaps(
    Loads,
    "free",
    caught_by="test_distributor.py::test_a_task_goes_to_somebody_who_can_do_it",
)
def load_is_never_changed(self: Any, path: str) -> None:
    """S08, S13: the load that agents are chosen by only grows."""


@DOUBLES.swaps(
    TaskDistributor,
    "_can",
    caught_by="test_distributor.py::test_a_new_agent_gets_what_waits",
)
def whoever_is_free_can(self: Any, entry: object, wanted: object) -> bool:
    """S13: what waits goes to whoever is free."""
    return True


# --- what is no bound, no vote and no owner ----------------------------------------------------


@DOUBLES.breaks(
    caught_by=(
        "test_bad_input.py::test_a_bound_is_a_count",
        "test_bad_input.py::test_parties_are_counted",
    )
)
def any_number_is_a_bound(replace: Replace) -> None:
    """A line whose length is no number has no end."""
    for module in (lock, barrier, election, quorum, distributor, policy):
        replace(module, "check_count", lambda *_: None)


@DOUBLES.breaks(caught_by="test_bad_input.py::test_a_time_is_a_number_of_seconds")
def any_value_is_a_time(replace: Replace) -> None:
    """A lease of True lasts a second, and nobody wonders."""
    replace(election, "check_seconds", lambda *_: None)
    replace(policy, "check_seconds", lambda *_: None)


@DOUBLES.swaps(
    distributor,
    "_wanted",
    caught_by="test_bad_input.py::test_capabilities_are_several",
)
def one_word_is_many_letters(capabilities: Any) -> Any:
    """Nobody can do `g`, `p` and `u`."""
    return frozenset(capabilities)


@DOUBLES.swaps(
    Tally,
    "vote",
    caught_by="test_quorum.py::test_a_choice_that_cannot_be_counted_is_no_vote",
)
def voted_and_not_counted(self: Tally[Any], who: Any, choice: Any) -> None:
    """Whose choice could not be counted has voted, and cannot do it again."""
    self._absent.pop(who, None)
    self.votes[who] = choice
    self._counts[choice] += 1


@DOUBLES.breaks(
    caught_by="test_quorum.py::test_a_vote_that_comes_late_is_none_in_the_next_of_that_name"
)
def a_late_vote_counts(replace: Replace) -> None:
    """A vote that was asked for in one ballot is one in the next of its name."""
    honest = Quorums.vote

    def vote(self: Quorums, name: str, choice: Any, **how: Any) -> None:
        how.pop("number", None)
        honest(self, name, choice, **how)

    replace(Quorums, "vote", vote)


@DOUBLES.breaks(
    caught_by="test_lock.py::test_who_took_it_without_waiting_cannot_wait_for_it_either"
)
def who_did_not_wait_does_not_hold(replace: Replace) -> None:
    """A task waits for ever for what it holds itself."""
    honest = Locks.acquire_nowait

    def acquire_nowait(self: Locks, name: str, **owner: Any) -> Any:
        grant = honest(self, name, **owner)
        self._table._held[name][0].task = None
        return grant

    replace(Locks, "acquire_nowait", acquire_nowait)


@DOUBLES.swaps(
    Locks,
    "_ended",
    caught_by="test_lock.py::test_a_grant_in_the_step_of_its_owners_end_is_none",
)
def a_grant_to_the_dead(self: Locks, ticket: Any) -> None:
    """Who waited is told that it holds what somebody else holds by then."""
    self._give_up(ticket)
    ticket.decided.set()


@DOUBLES.swaps(
    Deliveries,
    "resume",
    caught_by="test_exchange.py::test_an_exchange_that_was_restarted_forgets_whom_nothing_is_sent_to",
)
def a_receiver_without_a_worker(self: Deliveries) -> None:
    """After a restart, whom nothing is sent to is remembered for ever."""
    for receiver in self.receivers.values():
        receiver.called = False
        if receiver.line:
            self._call_worker(receiver)


@DOUBLES.swaps(
    TaskDistributor,
    "_free",
    caught_by="test_distributor.py::test_what_waits_for_others_costs_a_task_that_is_done_next_to_nothing",
)
def everybody_in_line_is_looked_at(self: TaskDistributor, path: str) -> None:
    """Each task that is done asks the registry for all that wait."""
    self._loads.free(path)
    for task in self._waiting:
        ref = self._able(task).get(path)
        if ref is not None:
            self._hand(task, ref)
            return
