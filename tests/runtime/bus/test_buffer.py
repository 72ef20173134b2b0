"""Who gets a place and what is lost, checked against a naive model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from treewarden.bus import Event, Offered, Overflow, Reason
from treewarden.bus.buffer import Buffer, Reservation

KEYS = 3


def event(number: int) -> Event:
    return Event(topic=f"t{number % KEYS}", payload=number)


def full_buffer(overflow: Overflow, capacity: int = 2) -> Buffer:
    buffer = Buffer(capacity, overflow)
    for number in range(capacity):
        assert buffer.offer(event(number)) is Offered.TAKEN
    return buffer


def drain(buffer: Buffer) -> list[object]:
    return [buffer.take().payload for _ in range(buffer.pending)]


def test_drop_oldest_keeps_the_newest_and_counts() -> None:
    buffer = full_buffer(Overflow.DROP_OLDEST)
    assert buffer.offer(event(2)) is Offered.TAKEN
    assert drain(buffer) == [1, 2]
    assert buffer.dropped == {Reason.OLDEST: 1}


def test_drop_newest_keeps_the_oldest_and_counts() -> None:
    buffer = full_buffer(Overflow.DROP_NEWEST)
    assert buffer.offer(event(2)) is Offered.DROPPED
    assert drain(buffer) == [0, 1]
    assert buffer.dropped == {Reason.NEWEST: 1}


def test_a_full_rejecting_buffer_counts_what_it_is_offered_as_rejected() -> None:
    buffer = full_buffer(Overflow.REJECT)
    assert buffer.offer(event(2)) is Offered.DROPPED
    assert (buffer.published, buffer.dropped) == (3, {Reason.REJECTED: 1})


def test_a_full_waiting_buffer_leaves_an_event_with_whoever_has_it() -> None:
    buffer = full_buffer(Overflow.WAIT)
    assert buffer.offer(event(2)) is Offered.NO_ROOM
    assert (buffer.published, buffer.lost) == (2, 0)


def test_of_each_key_the_latest_waits_in_the_place_of_the_first() -> None:
    buffer = Buffer(2, Overflow.LATEST)
    for number in (0, 1, 3, 6):
        assert buffer.offer(event(number)) is Offered.TAKEN
    assert buffer.dropped == {Reason.SUPERSEDED: 2}
    first, second = buffer.take(), buffer.take()
    assert (first.payload, first.missed) == (6, 2)
    assert (second.payload, second.missed) == (1, 0)


def test_with_too_many_keys_the_oldest_goes() -> None:
    buffer = Buffer(2, Overflow.LATEST)
    for number in (0, 1, 2):
        assert buffer.offer(event(number)) is Offered.TAKEN
    assert buffer.dropped == {Reason.OLDEST: 1}
    assert drain(buffer) == [1, 2]


def test_a_key_that_cannot_be_found_costs_that_event_and_fails_nobody() -> None:
    def key(event: Event) -> str:
        return f"{1 // event.payload}"  # type: ignore[operator]

    buffer = Buffer(2, Overflow.LATEST, key=key)
    assert buffer.offer(event(0)) is Offered.DROPPED
    assert buffer.offer(event(1)) is Offered.TAKEN
    assert buffer.dropped == {Reason.FAILED: 1}
    assert buffer.take().missed == 1


@pytest.mark.parametrize(
    ("overflow", "seen"),
    [
        (Overflow.DROP_OLDEST, [(2, 2), (3, 0), (4, 0)]),
        (Overflow.DROP_NEWEST, [(0, 0), (1, 0), (4, 2)]),
        (Overflow.REJECT, [(0, 0), (1, 0), (4, 2)]),
    ],
)
def test_a_gap_is_seen_where_it_is(
    overflow: Overflow, seen: list[tuple[int, int]]
) -> None:
    buffer = full_buffer(overflow)
    buffer.offer(event(2))
    buffer.offer(event(3))
    found = [buffer.take()]
    buffer.offer(event(4))
    found += [buffer.take(), buffer.take()]
    assert [(one.payload, one.missed) for one in found] == seen


def test_a_reserved_place_is_nobody_elses() -> None:
    buffer = Buffer(1, Overflow.WAIT)
    place = Reservation([buffer])
    assert place.take() is None
    assert buffer.offer(event(0)) is Offered.NO_ROOM
    place.release()
    assert buffer.offer(event(0)) is Offered.TAKEN


def test_places_are_taken_everywhere_or_nowhere() -> None:
    free, full = Buffer(1, Overflow.WAIT), full_buffer(Overflow.WAIT)
    assert Reservation([free, full]).take() is full
    assert free.reserved == 0


def test_a_buffer_that_rejects_is_named_before_one_that_could_be_waited_for() -> None:
    waits, rejects = full_buffer(Overflow.WAIT), full_buffer(Overflow.REJECT)
    assert Reservation([waits, rejects]).take() is rejects


def in_line(*buffers: Buffer) -> tuple[Reservation, list[str]]:
    told: list[str] = []
    place = Reservation(buffers)
    full = place.take()
    assert full is not None
    place.stand_in_line(full, lambda: told.append("woken"))
    return place, told


def test_who_stands_in_line_first_gets_the_first_place() -> None:
    buffer = full_buffer(Overflow.WAIT)
    _, first = in_line(buffer)
    _, second = in_line(buffer)
    buffer.take()
    assert (first, second) == (["woken"], [])
    buffer.take()
    assert second == ["woken"]


def test_who_waits_for_two_buffers_holds_no_place_in_either() -> None:
    left, right = full_buffer(Overflow.WAIT), full_buffer(Overflow.WAIT)
    _, both = in_line(left, right)
    left.take()
    assert (both, left.reserved) == ([], 0)
    right.take()
    assert (both, left.reserved, right.reserved) == (["woken"], 1, 1)


def test_two_that_wait_for_two_buffers_in_opposite_order_both_get_through() -> None:
    left, right = full_buffer(Overflow.WAIT), full_buffer(Overflow.WAIT)
    place, one = in_line(left, right)
    _, other = in_line(right, left)
    left.take()
    right.take()
    assert sorted([one, other]) == [[], ["woken"]]
    place.release() if one else None
    drain(left)
    drain(right)
    assert [one, other] == [["woken"], ["woken"]]


def test_a_place_that_is_given_back_goes_to_the_first_in_line() -> None:
    buffer = Buffer(1, Overflow.WAIT)
    place = Reservation([buffer])
    assert place.take() is None
    _, told = in_line(buffer)
    place.release()
    assert told == ["woken"]


def test_who_has_to_change_lines_goes_to_the_head_of_the_other() -> None:
    left, right = full_buffer(Overflow.WAIT), full_buffer(Overflow.WAIT)
    _, moves = in_line(left, right)
    _, stays = in_line(right)
    left.take()
    left.offer(event(9))
    assert (moves, stays) == ([], [])
    left.take()
    right.take()
    assert (moves, stays) == (["woken"], [])


def test_a_place_that_nobody_came_for_goes_to_the_next_in_line() -> None:
    buffer = full_buffer(Overflow.WAIT)
    gone, first = in_line(buffer)
    _, second = in_line(buffer)
    gone.leave_line()
    buffer.take()
    assert (first, second) == ([], ["woken"])


def test_who_waits_hears_of_a_rejecting_buffer_that_filled_up_meanwhile() -> None:
    waits, rejects = full_buffer(Overflow.WAIT), Buffer(1, Overflow.REJECT)
    place, told = in_line(waits, rejects)
    rejects.offer(event(0))
    waits.take()
    assert (told, place.refused) == (["woken"], rejects)
    assert (waits.reserved, rejects.reserved) == (0, 0)


def test_closing_counts_what_waited_and_holds_nobody_up() -> None:
    buffer = full_buffer(Overflow.WAIT)
    _, told = in_line(buffer)
    buffer.close()
    assert told == ["woken"]
    assert buffer.dropped == {Reason.CLOSED: 2}
    assert buffer.offer(event(9)) is Offered.DROPPED
    buffer.fulfil(event(9))
    assert buffer.published == 2


def test_a_buffer_has_room_for_at_least_one() -> None:
    with pytest.raises(ValueError, match="capacity must be >= 1"):
        Buffer(0, Overflow.WAIT)


# --- the naive model ----------------------------------------------------------------------


@dataclass
class Twin:
    """A buffer beside everything that ever happened to it.

    `stream` is what the subscriber would see of its events from here on, None where one is
    missing.
    """

    real: Buffer
    stream: list[int | None] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    reserved: int = 0

    @property
    def waiting(self) -> list[int]:
        return [one for one in self.stream if one is not None]

    @property
    def is_full(self) -> bool:
        return len(self.waiting) + self.reserved >= self.real.capacity

    def lose(self, number: int) -> None:
        self.stream[self.stream.index(number)] = None
        self.lost.append(number)

    def supersede(self, number: int) -> bool:
        for old in self.waiting:
            if old % KEYS == number % KEYS:
                place = self.stream.index(old)
                self.lose(old)
                self.stream.insert(place + 1, number)
                return True
        return False

    def take(self) -> tuple[int, int]:
        number = self.waiting[0]
        missed = self.stream.index(number)
        del self.stream[: missed + 1]
        self.taken.append(number)
        return number, missed

    def expect(self, number: int) -> Offered:
        if self.real.closed:
            return Offered.DROPPED
        if self.real.overflow is Overflow.LATEST and self.supersede(number):
            return Offered.TAKEN
        if self.is_full and self.real.overflow is Overflow.WAIT:
            return Offered.NO_ROOM
        self.stream.append(number)
        if len(self.waiting) + self.reserved <= self.real.capacity:
            return Offered.TAKEN
        if self.real.overflow in (Overflow.DROP_OLDEST, Overflow.LATEST):
            self.lose(self.waiting[0])
            return Offered.TAKEN
        self.lose(number)
        return Offered.DROPPED


@dataclass
class Publisher:
    """Somebody who has places, or stands in line for them."""

    place: Reservation
    twins: list[Twin]
    has_places: bool = False
    was_refused: bool = False

    def woken(self) -> None:
        if self.place.refused is None:
            self.hold()
        else:
            self.was_refused = True

    def hold(self) -> None:
        self.has_places = True
        for twin in self.twins:
            if not twin.real.closed:
                twin.reserved += 1


class BufferMachine(RuleBasedStateMachine):
    """Three buffers; publishers come, wait, deliver, give up; subscribers take."""

    @initialize(
        kinds=st.lists(
            st.tuples(st.integers(1, 3), st.sampled_from(Overflow)),
            min_size=3,
            max_size=3,
        )
    )
    def begin(self, kinds: list[tuple[int, Overflow]]) -> None:
        self.twins = [Twin(Buffer(capacity, overflow)) for capacity, overflow in kinds]
        self.publishers: list[Publisher] = []
        self.number = 0

    @rule(which=st.integers(0, 2))
    def an_event_is_offered(self, which: int) -> None:
        twin = self.twins[which]
        self.number += 1
        expected = twin.expect(self.number)
        assert twin.real.offer(event(self.number)) is expected

    @rule(which=st.sets(st.integers(0, 2), min_size=1))
    def a_publisher_comes(self, which: set[int]) -> None:
        twins = [self.twins[one] for one in which if self.twins[one].real.reserves]
        publisher = Publisher(Reservation([twin.real for twin in twins]), twins)
        blocked = [t for t in twins if t.is_full and not t.real.closed]
        full = publisher.place.take()
        assert (full is None) == (not blocked)
        if full is None:
            publisher.hold()
        elif full.overflow is Overflow.REJECT:
            return
        else:
            publisher.place.stand_in_line(full, publisher.woken)
        self.publishers.append(publisher)

    @precondition(lambda self: self.publishers)
    @rule(data=st.data(), commits=st.booleans())
    def a_publisher_ends(self, data: st.DataObject, *, commits: bool) -> None:
        which = data.draw(st.integers(0, len(self.publishers) - 1))
        publisher = self.publishers.pop(which)
        if publisher.was_refused:
            return
        if not publisher.has_places:
            publisher.place.leave_line()
            return
        self.number += 1
        if commits:
            for twin in publisher.twins:
                if not twin.real.closed:
                    twin.reserved -= 1
                    twin.stream.append(self.number)
                twin.real.fulfil(event(self.number))
            return
        for twin in publisher.twins:
            if not twin.real.closed:
                twin.reserved -= 1
        publisher.place.release()

    @rule(which=st.integers(0, 2))
    def a_subscriber_takes(self, which: int) -> None:
        twin = self.twins[which]
        if twin.waiting:
            taken = twin.real.take()
            assert (taken.payload, taken.missed) == twin.take()

    @rule(which=st.integers(0, 2))
    def a_subscription_ends(self, which: int) -> None:
        twin = self.twins[which]
        if not twin.real.closed:
            twin.lost += twin.waiting
            twin.stream, twin.reserved = [], 0
        twin.real.close()

    @invariant()
    def the_accounts_add_up(self) -> None:
        for twin in getattr(self, "twins", []):
            real = twin.real
            assert real.published == real.delivered + real.lost + real.pending
            assert (real.pending, real.reserved) == (len(twin.waiting), twin.reserved)
            assert (real.delivered, real.lost) == (len(twin.taken), len(twin.lost))
            assert real.pending + real.reserved <= real.capacity

    @invariant()
    def nobody_stands_in_line_for_a_buffer_with_room(self) -> None:
        for twin in getattr(self, "twins", []):
            assert not twin.real.line or not twin.real.has_room
        waiting = [
            one
            for one in getattr(self, "publishers", [])
            if not one.has_places and not one.was_refused
        ]
        in_lines = [
            place for twin in getattr(self, "twins", []) for place in twin.real.line
        ]
        assert len(in_lines) == len(waiting)


def test_buffers_do_what_their_model_does() -> None:
    # In `make test` 500 histories, in `make soak` as many as its profile says.
    many = max(500, settings().max_examples)
    run_state_machine_as_test(
        BufferMachine, settings=settings(max_examples=many, stateful_step_count=20)
    )


@pytest.mark.parametrize("bad", [0, -1, math.nan, True, 1.5, "3"])
def test_a_capacity_is_a_count(bad: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="capacity must be"):
        Buffer(bad, Overflow.WAIT)


def test_a_key_that_changes_with_each_look_loses_no_count() -> None:
    names = cycle("ab")
    buffer = Buffer(4, Overflow.LATEST, key=lambda _: next(names))
    for number in range(5):
        buffer.offer(event(number))
    assert buffer.published == 5
    assert buffer.dropped == {Reason.SUPERSEDED: 3}
    assert drain(buffer) == [4, 3]
