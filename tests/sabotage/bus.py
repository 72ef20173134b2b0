"""Broken buses: losses that nobody counts, events delivered too often or never."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from treewarden.agents.events import DurableEvents, EventEnvelope
from treewarden.bus import Bus, Event, Reason, Subscription, durable
from treewarden.bus.buffer import Buffer, Newest
from treewarden.bus.deliveries import Deliveries
from treewarden.bus.durable import DurableSubscription
from treewarden.store import Unit, load_subscriptions, save_subscription

from .double import Area

if TYPE_CHECKING:
    from treewarden.bus.deliveries import Entry
    from treewarden.bus.subscriber import Subscriber
    from treewarden.errors import StoreError
    from treewarden.exits import Fault
    from treewarden.store import StoredDelivery, Write

    from .double import Replace

DOUBLES: Final = Area("tests/runtime/bus")

_MODEL: Final = "test_deliveries.py::test_deliveries_do_what_their_model_does"
_BUFFERS: Final = "test_buffer.py::test_buffers_do_what_their_model_does"
_RANDOM: Final = (
    "test_durable_random.py::test_every_event_is_done_once_or_a_dead_letter"
    "_whatever_happens"
)
_AGENTS: Final = "test_agent_events.py"
_DURABLE: Final = "test_durable.py"


# --- in memory -------------------------------------------------------------------------------


@DOUBLES.swaps(
    Bus,
    "_warn",
    caught_by="test_flaws.py::test_f59_a_full_bus_refuses_counts_and_warns_once_a_second",
)
def f59_nobody_is_warned(self: Bus, subscription: Subscription) -> None:
    """F59: a bus that loses events says nothing."""


@DOUBLES.swaps(
    Buffer,
    "refuse",
    caught_by="test_flaws.py::test_f59_a_full_bus_refuses_counts_and_warns_once_a_second",
)
def f59_what_is_refused_is_not_counted(self: Buffer) -> None:
    """F59: publishers are told no, and the counter stays at 0."""


@DOUBLES.breaks(
    caught_by="test_flaws.py::test_f60_one_stalled_subscriber_costs_nine_fast_ones_nothing"
)
def f60_a_full_subscription_stops_everybody(replace: Replace) -> None:
    """F60: whatever its policy, a publisher must have a place in it."""
    replace(Buffer, "reserves", property(lambda _: True))


@DOUBLES.swaps(Buffer, "_miss", caught_by=_BUFFERS)
def a_gap_that_nobody_sees(self: Buffer, events: int) -> None:
    """The oldest events are dropped, and the next one says nothing of it."""


@DOUBLES.swaps(Newest, "swap", caught_by=_BUFFERS)
def the_latest_of_a_key_is_one_more(self: Newest, event: Event) -> Event | None:
    """An event does not supersede the one of its key that waits."""
    return None


@DOUBLES.breaks(
    caught_by="test_flaws.py::test_f58_what_a_sink_raises_is_told_with_its_line_and_the_event"
)
def f58_what_a_sink_raised_is_swallowed(replace: Replace) -> None:
    """F58: a subscriber fails, and no fault is kept."""

    def failed(self: Subscription, event: Event, error: Exception) -> None:
        return None

    replace(Subscription, "_failed", failed)


# --- durable: what is next ------------------------------------------------------------------


@DOUBLES.breaks(caught_by=_MODEL)
def the_second_of_a_key_does_not_wait_for_the_first(replace: Replace) -> None:
    """Events of one key are handed out side by side."""

    def first(self: Deliveries) -> Entry | None:
        ready = (one for one in self if one.stage.name == "READY")
        return min(ready, key=lambda one: one.position, default=None)

    replace(Deliveries, "first", first)


@DOUBLES.swaps(Deliveries, "tick", caught_by=_MODEL)
def a_lease_never_runs_out(self: Deliveries, now: float) -> list[Entry]:
    """Who takes an event and hangs keeps it for ever."""
    return []


@DOUBLES.breaks(
    caught_by="test_deliveries.py::test_a_lease_that_was_given_back_and_taken_again_at_once"
    "_runs_out_once"
)
def a_lease_runs_out_as_often_as_it_was_given(replace: Replace) -> None:
    """An event fails twice at once, and the second time it is not there any more."""
    honest = Deliveries.tick

    def tick(self: Deliveries, now: float) -> list[Entry]:
        hints = [position for until, position in self._timed if until <= now]
        expired = {one.position: one for one in honest(self, now)}
        return [expired[one] for one in hints if one in expired]

    replace(Deliveries, "tick", tick)


@DOUBLES.breaks(caught_by=_MODEL)
def the_cursor_passes_what_is_on_its_way(replace: Replace) -> None:
    """An event whose commit is not decided counts as over."""

    def lowest(self: Deliveries) -> int | None:
        opened = (one for one in self if one.stage.name != "SETTLING" and not one.again)
        return min((one.position for one in opened), default=None)

    replace(Deliveries, "lowest", property(lowest))


# --- durable: the file -----------------------------------------------------------------------


@DOUBLES.breaks(
    caught_by=f"{_DURABLE}::test_an_attempt_is_counted_in_the_file_before_it_is_begun"
)
def attempts_are_not_counted_before_the_handler(replace: Replace) -> None:
    """An event that kills the process is delivered for ever."""

    def is_counted(self: DurableSubscription, entry: Entry) -> bool:
        return True

    replace(DurableSubscription, "_is_counted", is_counted)


@DOUBLES.breaks(
    caught_by=f"{_DURABLE}::test_a_durable_subscription_goes_on_where_the_last_run_was"
)
def the_cursor_is_never_written(replace: Replace) -> None:
    """Neither where it stands nor what is done out of turn reaches the file."""

    def done(self: DurableSubscription, entry: Entry) -> Write:
        return "SELECT 1", ()

    def save(self: DurableSubscription, begun: int, *notes: Write) -> Unit | None:
        return self._try_hand_over([("SELECT 1", ())])

    replace(DurableSubscription, "_done", done)
    replace(DurableSubscription, "_save", save)


@DOUBLES.breaks(caught_by=_RANDOM)
def an_ack_counts_before_its_commit(replace: Replace) -> None:
    """What failed to commit is not delivered again in this run."""
    honest = DurableSubscription._decided

    def decided(
        self: DurableSubscription,
        entry: Entry,
        unit: Unit,
        kept: object,
        needs: tuple[Unit, ...],
        error: StoreError | None,
    ) -> None:
        honest(self, entry, unit, kept, needs, None)  # type: ignore[arg-type]

    replace(DurableSubscription, "_decided", decided)


@DOUBLES.breaks(
    caught_by=f"{_DURABLE}::test_what_was_handed_out_behind_a_commit_that_fails_is_not_kept"
)
def a_lease_forgets_what_it_builds_on(replace: Replace) -> None:
    """An event is done before the one of its key whose commit failed meanwhile."""
    honest = DurableSubscription._give

    def give(self: DurableSubscription, entry: Entry, member: Subscriber) -> None:
        honest(self, entry, member)
        entry.builds_on = None

    replace(DurableSubscription, "_give", give)


@DOUBLES.breaks(
    caught_by=f"{_DURABLE}::test_what_only_failed_with_the_one_before_was_no_attempt"
)
def who_builds_on_a_failure_is_blamed_for_it(replace: Replace) -> None:
    """One event that cannot be stored makes dead letters of those behind it."""
    honest = DurableSubscription._decided

    def decided(
        self: DurableSubscription,
        entry: Entry,
        unit: Unit,
        kept: object,
        needs: tuple[Unit, ...],
        error: StoreError | None,
    ) -> None:
        honest(self, entry, unit, kept, (), error)  # type: ignore[arg-type]

    replace(DurableSubscription, "_decided", decided)


@DOUBLES.breaks(
    caught_by=f"{_DURABLE}::test_what_the_journal_deleted_first_is_counted_and_seen_as_a_gap"
)
def what_the_journal_deleted_is_not_looked_for(replace: Replace) -> None:
    """Events that retention took first are neither counted nor seen as a gap."""

    def lose(self: DurableSubscription, reason: Reason, events: int) -> None:
        return None

    replace(DurableSubscription, "_lose", lose)


@DOUBLES.breaks(
    caught_by=f"{_DURABLE}::test_what_fails_is_tried_again_after_a_growing_wait_then_a_dead_letter"
)
def a_failed_event_is_tried_at_once(replace: Replace) -> None:
    """There is no wait between two attempts."""
    replace(DurableSubscription, "_backoff", lambda self, entry: 0.0)


@DOUBLES.breaks(caught_by=f"{_DURABLE}::test_by_default_the_tenth_failure_is_the_last")
def an_event_is_never_given_up(replace: Replace) -> None:
    """One that always fails is tried for ever."""

    def fail(
        self: DurableSubscription,
        entry: Entry,
        why: Fault | str,
        delay: float | None = None,
    ) -> None:
        entry.attempts = min(entry.attempts, 1)
        self._wait(entry, 0.0)
        self.pump()

    replace(DurableSubscription, "fail", fail)


@DOUBLES.breaks(
    caught_by=f"{_DURABLE}::test_what_a_dead_member_held_goes_to_the_others"
)
def a_dead_member_keeps_what_it_held(replace: Replace) -> None:
    """Its events wait for the end of their leases."""
    replace(Deliveries, "held_by", lambda self, member: [])


@DOUBLES.breaks(caught_by=f"{_DURABLE}::test_a_damaged_cursor_is_never_a_fresh_start")
def a_damaged_cursor_is_a_fresh_start(replace: Replace) -> None:
    """A subscription whose row cannot be read begins again, and misses what was."""
    honest = load_subscriptions

    def load(connection: object) -> list[object]:
        return [one for one in honest(connection) if one.sound]  # type: ignore[arg-type]

    replace(durable, "load_subscriptions", load)


@DOUBLES.breaks(caught_by=f"{_DURABLE}::test_rows_of_what_is_over_do_not_pile_up")
def rows_of_what_is_over_stay(replace: Replace) -> None:
    """The cursor passes them and nobody deletes them."""
    honest = save_subscription
    replace(durable, "save_subscription", lambda one: honest(one)[:1])


# --- agents ------------------------------------------------------------------------------------


@DOUBLES.breaks(
    caught_by=f"{_AGENTS}::test_that_an_event_is_done_commits_with_what_its_handler_did"
)
def an_event_is_done_in_a_commit_of_its_own(replace: Replace) -> None:
    """What fails between the two commits is applied twice."""

    def seal(self: DurableEvents, unit: Unit) -> None:
        envelope = self._body.in_hand
        store = self._body.surroundings.store
        if isinstance(envelope, EventEnvelope) and envelope.leased and store:
            apart = Unit(self.path)
            envelope.leased.settle(apart)
            unit.release.append(lambda error: store.hand_over(apart))

    replace(DurableEvents, "seal", seal)


@DOUBLES.breaks(
    caught_by=f"{_AGENTS}::test_a_crash_costs_an_attempt_and_changes_nothing"
)
def every_crash_at_an_event_counts(replace: Replace) -> None:
    """An event that fails twice spends the budget of its agent."""
    replace(DurableEvents, "crashed", lambda self, leased: None)


@DOUBLES.breaks(
    caught_by=f"{_AGENTS}::test_a_crash_costs_an_attempt_and_changes_nothing"
)
def an_event_that_crashed_is_lost(replace: Replace) -> None:
    """It is neither tried again nor a dead letter: its lease never ends."""

    def take_back(self: EventEnvelope, why: str, fault: Fault | None) -> bool:
        return False

    replace(EventEnvelope, "take_back", take_back)


@DOUBLES.breaks(
    caught_by=f"{_AGENTS}::test_a_dead_letter_is_tried_again_when_its_agent_is_back"
)
def a_letter_that_is_tried_again_is_forgotten(replace: Replace) -> None:
    """Its row is not read when the subscription is opened."""
    honest = DurableSubscription._recall

    def recall(self: DurableSubscription, note: StoredDelivery) -> None:
        if note.event is None:
            honest(self, note)

    replace(DurableSubscription, "_recall", recall)
