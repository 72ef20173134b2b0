"""What is delivered next and when again, checked against a naive model."""

from __future__ import annotations

import math
from dataclasses import dataclass

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

from treewarden.bus import Event
from treewarden.bus.deliveries import Deliveries, Entry, Stage

KEYS = ("a", "b", "c")
MEMBERS = (1, 2)
LEASE = 5.0


@dataclass
class Told:
    """An event as the model has it: all that was ever said about it, and no order."""

    position: int
    key: str
    again: bool
    stage: Stage = Stage.READY
    attempts: int = 0
    member: int = 0
    until: float = math.inf


class DeliveriesMachine(RuleBasedStateMachine):
    """Members take events and say, or do not say, what became of them."""

    @initialize()
    def begin(self) -> None:
        self.real = Deliveries()
        self.model: dict[int, Told] = {}
        self.now = 0.0
        self.position = 0
        self.finished: set[int] = set()
        self.a_commit_failed = False

    # --- the model -----------------------------------------------------------------------

    def expected_first(self) -> int | None:
        """The lowest that is ready and before which nothing of its key is open."""
        blocked: set[str] = set()
        for one in sorted(self.model.values(), key=lambda one: one.position):
            if one.stage is Stage.SETTLING:
                continue
            if one.stage is Stage.READY and one.key not in blocked:
                return one.position
            blocked.add(one.key)
        return None

    def at(self, *stages: Stage) -> list[int]:
        return [one.position for one in self.model.values() if one.stage in stages]

    def entry(self, position: int) -> Entry:
        found = self.real.find(position)
        assert found is not None
        return found

    # --- what happens --------------------------------------------------------------------

    @rule(key=st.sampled_from(KEYS), again=st.booleans())
    def an_event_comes(self, key: str, *, again: bool) -> None:
        self.position += 1
        event = Event(topic=key, payload=None, position=self.position)
        self.real.add(Entry(event, key, again=again))
        self.model[self.position] = Told(self.position, key, again)

    @rule(member=st.sampled_from(MEMBERS), for_ever=st.booleans())
    def a_member_asks(self, member: int, *, for_ever: bool) -> None:
        first = self.real.first()
        assert (first.position if first else None) == self.expected_first()
        if first is None:
            return
        until = math.inf if for_ever else self.now + LEASE
        self.real.lease(first, member, until)
        told = self.model[first.position]
        told.stage, told.member, told.until = Stage.LEASED, member, until
        told.attempts += 1
        assert first.attempts == told.attempts

    @precondition(lambda self: self.at(Stage.LEASED))
    @rule(data=st.data(), what=st.sampled_from(("settle", "give_back", "wait")))
    def a_member_answers(self, data: st.DataObject, what: str) -> None:
        position = data.draw(st.sampled_from(self.at(Stage.LEASED)))
        entry, told = self.entry(position), self.model[position]
        if what == "settle":
            self.real.settle(entry)
            told.stage = Stage.SETTLING
        else:
            self.returns(entry, told, waits=what == "wait")

    @precondition(lambda self: self.at(Stage.SETTLING))
    @rule(data=st.data(), kept=st.booleans(), waits=st.booleans())
    def a_commit_is_decided(
        self, data: st.DataObject, *, kept: bool, waits: bool
    ) -> None:
        position = data.draw(st.sampled_from(self.at(Stage.SETTLING)))
        entry, told = self.entry(position), self.model[position]
        if kept:
            self.real.finish(entry)
            self.finished.add(position)
            del self.model[position]
        else:
            # The next of its key may be out by now; that one builds on this.
            self.a_commit_failed = True
            self.returns(entry, told, waits=waits)

    def returns(self, entry: Entry, told: Told, *, waits: bool) -> None:
        if waits:
            told.stage, told.until = Stage.WAITING, self.now + 1.0
            self.real.wait(entry, told.until)
        else:
            self.real.give_back(entry)
            told.stage, told.until = Stage.READY, math.inf
            told.attempts -= 1

    @rule(member=st.sampled_from(MEMBERS))
    def a_member_leaves(self, member: int) -> None:
        held = self.real.held_by(member)
        assert {one.position for one in held} == {
            one.position
            for one in self.model.values()
            if one.stage is Stage.LEASED and one.member == member
        }
        for entry in held:
            self.returns(entry, self.model[entry.position], waits=False)

    @rule(seconds=st.sampled_from((0.5, 1.0, 10.0)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        expired = []
        for told in self.model.values():
            if told.until > self.now:
                continue
            if told.stage is Stage.WAITING:
                told.stage, told.until = Stage.READY, math.inf
            elif told.stage is Stage.LEASED:
                expired.append(told.position)
        found = self.real.tick(self.now)
        assert sorted(one.position for one in found) == sorted(expired)
        for entry in found:
            self.returns(entry, self.model[entry.position], waits=True)

    # --- what always holds -----------------------------------------------------------------

    @invariant()
    def both_have_the_same(self) -> None:
        real, model = self.real, self.model
        assert len(real) == len(model)
        assert {one.position: (one.stage, one.attempts) for one in real} == {
            one.position: (one.stage, one.attempts) for one in model.values()
        }
        assert self.position == len(self.finished) + len(model)

    @invariant()
    def the_cursor_never_passes_what_is_open(self) -> None:
        opened = [one.position for one in self.model.values() if not one.again]
        assert self.real.lowest == min(opened, default=None)

    @invariant()
    def of_a_key_only_one_is_out_unless_a_commit_failed(self) -> None:
        out = [one.key for one in self.model.values() if one.stage is Stage.LEASED]
        assert getattr(self, "a_commit_failed", False) or len(out) == len(set(out))

    @invariant()
    def it_says_when_something_is_due(self) -> None:
        timed = (Stage.WAITING, Stage.LEASED)
        times = [one.until for one in self.model.values() if one.stage in timed]
        assert self.real.due == min(times, default=math.inf)

    @invariant()
    def hints_are_bounded(self) -> None:
        assert len(self.real._timed) <= 65 + 2 * len(self.model)


def test_deliveries_do_what_their_model_does() -> None:
    # In `make test` 500 histories, in `make soak` as many as its profile says.
    many = max(500, settings().max_examples)
    run_state_machine_as_test(
        DeliveriesMachine, settings=settings(max_examples=many, stateful_step_count=20)
    )


def test_a_lease_that_was_given_back_and_taken_again_at_once_runs_out_once() -> None:
    real = Deliveries()
    entry = Entry(Event(topic="a", payload=None, position=1), "a")
    real.add(entry)
    for _ in range(2):
        real.lease(entry, 1, LEASE)
        real.give_back(entry)
    real.lease(entry, 1, LEASE)
    assert real.tick(LEASE) == [entry]
    real.settle(entry)
    real.finish(entry)
    assert real.due == math.inf


def test_hints_of_leases_that_are_over_do_not_pile_up() -> None:
    real = Deliveries()
    for position in range(1, 10_001):
        entry = Entry(Event(topic="a", payload=None, position=position), "a")
        real.add(entry)
        real.lease(entry, 1, 30.0)
        real.settle(entry)
        real.finish(entry)
    assert len(real._timed) < 100
    assert real.first() is None
    assert real.due == math.inf
