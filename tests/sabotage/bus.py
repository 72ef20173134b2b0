"""Broken buses: losses that nobody counts, events delivered too often or never."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from treewarden.agents import dead_letters
from treewarden.agents.events import DurableEvents, EventEnvelope
from treewarden.bus import (
    Bus,
    Event,
    Reason,
    Replay,
    Subscription,
    buffer,
    durable,
    event,
    policy,
    records,
    start,
)
from treewarden.bus import bus as buses
from treewarden.bus.buffer import Buffer, Newest
from treewarden.bus.deliveries import Deliveries
from treewarden.bus.durable import DurableSubscription
from treewarden.bus.pauses import Pauses
from treewarden.bus.records import Records
from treewarden.store import (
    Unit,
    load_subscriptions,
    note_delivery,
    pruning,
    save_subscription,
)

from .double import Area

if TYPE_CHECKING:
    from collections.abc import Collection

    from treewarden.bus.deliveries import Entry
    from treewarden.bus.subscriber import Subscriber
    from treewarden.errors import StoreError
    from treewarden.exits import Fault
    from treewarden.store import Holding, Owned, StoredDelivery, Write

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
_RETENTION: Final = "test_retention.py"


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
    """F60, pitfall 66: whatever its policy, a publisher must have a place in it."""
    replace(Buffer, "reserves", property(lambda _: True))


@DOUBLES.swaps(Buffer, "_miss", caught_by=_BUFFERS)
def a_gap_that_nobody_sees(self: Buffer, events: int) -> None:
    """The oldest events are dropped, and the next one says nothing of it."""


@DOUBLES.swaps(Newest, "find", caught_by=_BUFFERS)
def the_latest_of_a_key_is_one_more(
    self: Newest, event: Event
) -> tuple[str, Event | None]:
    """An event does not supersede the one of its key that waits."""
    return self._key(event), None


@DOUBLES.swaps(
    Newest,
    "append",
    caught_by="test_buffer.py::test_a_key_that_changes_with_each_look_loses_no_count",
)
def a_key_is_looked_for_twice(self: Newest, event: Event) -> None:
    """A key that is another one the second time has an event vanish uncounted."""
    self._events[self._key(event)] = event


@DOUBLES.swaps(
    Newest,
    "put_back",
    caught_by="test_subscription.py::test_what_a_sink_keeps_changing_under_its_key_goes_back_where_it_was",
)
def what_goes_back_is_asked_for_its_key(
    self: Newest, key: str, event: Event
) -> Event | None:
    """A payload that its sink has changed fails the sender of the signal."""
    return self._events.get(self._key(event))


@DOUBLES.breaks(
    caught_by="test_bus.py::test_a_sink_that_closes_its_own_subscription_is_counted_to_the_end"
)
def a_closed_subscription_leaves_before_all_is_counted(replace: Replace) -> None:
    """What a sink has in hand when it closes its subscription is in no total."""
    honest = Subscription.close

    def close(self: Subscription) -> None:
        leave = self._leave
        honest(self)
        if self._handing:
            leave(self)
            self._leave = lambda one: None

    replace(Subscription, "close", close)


@DOUBLES.swaps(
    event,
    "_as_python_shows",
    caught_by=(
        "test_event.py::test_any_object_can_be_shown",
        "test_bus.py::test_a_signal_that_nobody_can_show_fails_its_sink_and_not_its_sender",
    ),
)
def an_object_is_shown_as_it_says(payload: object) -> str:
    """An object whose repr fails makes its sender fail."""
    return repr(payload)


@DOUBLES.breaks(caught_by="test_event.py::test_a_payload_has_a_size_that_can_be_kept")
def a_payload_without_an_end(replace: Replace) -> None:
    """A payload may have any size."""
    replace(event, "PAYLOAD_BYTES", 1 << 60)


@DOUBLES.breaks(
    caught_by="test_event.py::test_a_report_has_no_room_for_a_large_payload"
)
def a_report_with_all_of_a_payload(replace: Replace) -> None:
    """Reports of failures hold whole payloads."""
    replace(event, "SHOWN_BYTES", 1 << 60)


@DOUBLES.breaks(
    caught_by=(
        "test_buffer.py::test_a_capacity_is_a_count",
        "test_durable.py::test_a_policy_of_durable_delivery_refuses_what_is_no_bound",
        "test_durable.py::test_a_start_refuses_what_is_no_place_in_a_journal",
    )
)
def any_number_is_a_bound(replace: Replace) -> None:
    """A capacity that is no number bounds nothing, and nobody says so."""
    for module in (buffer, policy, start):
        replace(module, "check_count", lambda *_: None)


@DOUBLES.breaks(caught_by="test_replay.py::test_a_replay_is_one_tasks")
def a_replay_for_everybody(replace: Replace) -> None:
    """Two tasks that read one replay get every event twice."""
    honest = Replay.__anext__

    async def anext_(self: Replay) -> Event:
        self._busy = False
        return await honest(self)

    replace(Replay, "__anext__", anext_)


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

    def done(self: Records, entry: Entry) -> Write:
        return "SELECT 1", ()

    def save(self: DurableSubscription, begun: int, *notes: Write) -> Unit | None:
        return self._try_hand_over([("SELECT 1", ())])

    replace(Records, "done", done)
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
    caught_by=f"{_RETENTION}::test_keep_has_all_that_drop_and_mark_gap_misses"
)
def the_journal_keeps_nothing_for_anybody(replace: Replace) -> None:
    """Its limits hold, whatever a durable subscription asked for."""
    replace(pruning, "load_holding", lambda connection: [])


@DOUBLES.breaks(
    caught_by=f"{_RETENTION}::test_keep_is_bounded_and_what_is_beyond_is_a_gap_that_is_told_once"
)
def what_is_kept_has_no_cap(replace: Replace) -> None:
    """One subscription that nobody takes fills the disk."""
    replace(pruning, "HELD_TIMES", 1000)


@DOUBLES.swaps(
    Pauses,
    "check",
    caught_by=f"{_RETENTION}::test_who_cannot_wait_is_refused",
)
def who_cannot_wait_is_not_paused(
    self: Pauses, topic: str, taken: Collection[Owned] = ()
) -> None:
    """A handler, or `publish_nowait`, publishes until the events are lost."""


@DOUBLES.breaks(caught_by=f"{_RETENTION}::test_a_subscriber_never_waits_for_itself")
def a_subscriber_waits_for_itself(replace: Replace) -> None:
    """Who takes the events is paused until somebody has taken them."""
    honest = Pauses._find

    def find(self: Pauses, topic: str, taken: Collection[Owned]) -> Holding | None:
        return honest(self, topic, ())

    replace(Pauses, "_find", find)


@DOUBLES.swaps(
    DurableSubscription,
    "_let_go",
    caught_by=f"{_RETENTION}::test_who_keeps_up_is_never_in_the_way",
)
def a_cursor_that_others_wait_for_is_noted_now_and_then(
    self: DurableSubscription,
) -> None:
    """All is taken, the file does not know, and publishers wait for ever."""


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

    replace(records, "load_subscriptions", load)


@DOUBLES.breaks(caught_by=f"{_DURABLE}::test_rows_of_what_is_over_do_not_pile_up")
def rows_of_what_is_over_stay(replace: Replace) -> None:
    """The cursor passes them and nobody deletes them."""
    honest = save_subscription
    replace(records, "save_subscription", lambda one: honest(one)[:1])


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


@DOUBLES.swaps(
    dead_letters,
    "deliver_again",
    caught_by=f"{_AGENTS}::test_a_dead_letter_stays_when_its_subscription_is_forgotten"
    "_before_it_goes",
)
def a_letter_to_a_subscription_that_is_no_more(
    key: Owned, one: StoredDelivery
) -> Write:
    """Whether there is one is asked before the commit, and forgotten by then."""
    return note_delivery(key, one)


@DOUBLES.breaks(
    caught_by=(
        f"{_RETENTION}::test_a_gap_is_told_again_when_a_kill_came_before_its_event_was_over",
        f"{_RETENTION}::test_a_gap_that_no_event_could_tell_of_is_told_in_the_next_run",
    )
)
def a_gap_that_dies_with_the_process(replace: Replace) -> None:
    """The next run begins behind it, and nobody ever hears of what was lost."""
    replace(DurableSubscription, "_resume", DurableSubscription.cursor)


@DOUBLES.breaks(
    caught_by=f"{_RETENTION}::test_a_gap_is_told_where_it_is_though_the_journal_is_cut"
    "_while_it_is_read",
)
def one_look_at_a_journal_that_shrinks(replace: Replace) -> None:
    """What is deleted while the backlog is counted is told of too early."""
    replace(durable, "MOST_LOOKS", 1)


# --- what else may come ----------------------------------------------------------------------


@DOUBLES.breaks(
    caught_by=f"{_DURABLE}::test_a_name_is_something_that_can_be_typed_and_kept"
)
def a_name_that_no_file_takes(replace: Replace) -> None:
    """A durable subscription may have any name."""
    replace(buses, "check_name", lambda name: None)


@DOUBLES.breaks(
    caught_by=f"{_DURABLE}::test_a_delay_that_is_none_is_refused_and_the_event_still_held"
)
def an_event_that_waits_for_ever(replace: Replace) -> None:
    """An event that is given back for no time at all is never tried again."""
    replace(durable, "check_delay", lambda seconds: None)


@DOUBLES.swaps(
    DurableSubscription,
    "_key_of",
    caught_by=f"{_DURABLE}::test_a_key_that_cannot_be_one_makes_a_dead_letter_and_fails_nobody",
)
def a_key_of_any_kind(self: DurableSubscription, event: Event) -> str:
    """A key that is none ends everybody's deliveries."""
    return self.policy.key(event)


@DOUBLES.breaks(
    caught_by=f"{_DURABLE}::test_a_reason_that_no_file_takes_is_a_dead_letter_all_the_same"
)
def a_reason_that_no_file_takes(replace: Replace) -> None:
    """An event that failed for a reason that is no text is tried to be buried for ever."""
    replace(durable, "writable", lambda text: text)


@DOUBLES.breaks(
    caught_by=f"{_DURABLE}::test_with_one_attempt_a_kill_gives_up_only_what_was_begun"
)
def an_only_attempt_that_nobody_made(replace: Replace) -> None:
    """With one attempt, a kill makes dead letters of events that were never delivered."""
    replace(DurableSubscription, "_counts_together", property(lambda self: True))


@DOUBLES.swaps(
    DurableSubscription,
    "_read_soon",
    caught_by=f"{_DURABLE}::test_what_is_stuck_in_more_than_half_of_the_room_holds_up_no_others",
)
def half_of_the_room_or_nothing(self: DurableSubscription) -> None:
    """More than half of the room is stuck, and the rest of the journal is never read."""
    if self._room >= self.policy.capacity // 2:
        self._wake(-math.inf)


_BACKLOG: Final = f"{_DURABLE}::test_a_backlog_whose_topics_are_damaged_comes_to_an_end"


@DOUBLES.swaps(DurableSubscription, "_correct", caught_by=_BACKLOG)
def what_is_counted_is_there(
    self: DurableSubscription, unread: int, left: int, reason: Reason
) -> None:
    """An event whose topic is damaged is waited for, and never found."""


@DOUBLES.breaks(caught_by=_BACKLOG)
def what_is_not_counted_is_not_there(replace: Replace) -> None:
    """One event more than was counted, and the last of them is passed over."""

    def is_caught_up(self: DurableSubscription) -> bool:
        return self._is_open and not self._unread

    replace(DurableSubscription, "_is_caught_up", property(is_caught_up))
    replace(DurableSubscription, "_correct", lambda self, *_: None)


@DOUBLES.breaks(
    caught_by=f"{_DURABLE}::test_a_letter_that_comes_back_while_it_is_opened_is_delivered"
)
def a_letter_that_comes_back_too_early(replace: Replace) -> None:
    """A dead letter that is retried while its subscription is opened waits for the next run."""
    honest = DurableSubscription.retried

    def retried(self: DurableSubscription, event: Event) -> None:
        if self._hears:
            honest(self, event)

    replace(DurableSubscription, "retried", retried)


@DOUBLES.swaps(
    DurableEvents,
    "_empty_mailbox",
    caught_by=f"{_AGENTS}::test_who_stood_in_line_behind_events_that_are_given_back_comes_in",
)
def a_line_behind_nothing(self: DurableEvents) -> None:
    """Events leave a mailbox, and who stood in line behind them stands there for ever."""
    mailbox = self._body.mailbox
    for one in [one for one in mailbox.items if isinstance(one, EventEnvelope)]:
        mailbox.items.remove(one)
        mailbox.taken += 1
