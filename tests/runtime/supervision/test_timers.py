from __future__ import annotations

import math
from functools import partial

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from treewarden.supervision import Patience, Timer, Timers


async def test_callbacks_run_at_their_deadlines_whatever_order_they_were_armed_in(
    nursery: trio.Nursery,
) -> None:
    timers, fired = Timers(), []
    nursery.start_soon(timers.run)
    start = trio.current_time()
    for delay in (3.0, 1.0, 2.0):
        timers.at(
            start + delay, lambda: fired.append(round(trio.current_time() - start, 6))
        )
    await trio.sleep(10)
    assert fired == [1.0, 2.0, 3.0]


async def test_equal_deadlines_run_in_the_order_of_arming(
    nursery: trio.Nursery,
) -> None:
    timers: Timers = Timers()
    fired: list[int] = []
    nursery.start_soon(timers.run)
    for number in range(20):
        timers.at(trio.current_time() + 1, partial(fired.append, number))
    await trio.sleep(2)
    assert fired == [*range(20)]


async def test_an_earlier_deadline_armed_later_is_not_missed(
    nursery: trio.Nursery,
) -> None:
    timers: Timers = Timers()
    fired: list[str] = []
    nursery.start_soon(timers.run)
    timers.at(trio.current_time() + 100, partial(fired.append, "late"))
    await wait_all_tasks_blocked()
    timers.at(trio.current_time() + 1, partial(fired.append, "early"))
    await trio.sleep(2)
    assert fired == ["early"]


async def test_a_timer_that_was_called_off_does_not_run(nursery: trio.Nursery) -> None:
    timers: Timers = Timers()
    fired: list[str] = []
    nursery.start_soon(timers.run)
    timer = timers.at(trio.current_time() + 1, partial(fired.append, "no"))
    timer.cancel()
    timer.cancel()
    await trio.sleep(2)
    assert fired == []
    timer.cancel()


async def test_a_callback_may_arm_and_call_off_timers(nursery: trio.Nursery) -> None:
    timers: Timers = Timers()
    fired: list[str] = []
    nursery.start_soon(timers.run)
    now = trio.current_time()
    doomed = timers.at(now + 1, partial(fired.append, "doomed"))

    def first() -> None:
        doomed.cancel()
        timers.at(now, partial(fired.append, "at once"))

    timers.at(now + 0.5, first)
    await trio.sleep(2)
    assert fired == ["at once"]


def test_one_long_deadline_keeps_no_others_alive() -> None:
    timers = Timers()
    timers.at(math.inf, lambda: None)
    for number in range(100_000):
        timers.at(float(number), lambda: None).cancel()
    assert len(timers) < 200


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=60))
def test_what_fires_is_what_was_armed_and_not_called_off(
    plan: list[tuple[float, bool]],
) -> None:
    timers: Timers = Timers()
    fired: list[float] = []

    async def main() -> None:
        start = trio.current_time()
        armed: list[tuple[Timer, bool]] = []
        for delay, stays in plan:
            timer = timers.at(start + delay, partial(fired.append, delay))
            armed.append((timer, stays))
        for timer, stays in armed:
            if not stays:
                timer.cancel()
        with trio.move_on_after(20):
            await timers.run()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert fired == sorted(delay for delay, stays in plan if stays)
    assert len(timers) == 0


class Caller:
    """Waits until it is answered or told that it has waited too long."""

    def __init__(self) -> None:
        self.deadline = math.nan
        self.is_wanted = True
        self.expired_at: float | None = None

    def expire(self, seconds: float) -> None:
        assert self.is_wanted
        self.expired_at = trio.current_time()
        self.is_wanted = False


def patience_of(timers: Timers, seconds: float) -> Patience:
    patience = timers.patience(seconds)
    assert patience is not None
    return patience


async def test_whoever_still_waits_is_told_at_his_own_deadline(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    timers = Timers()
    nursery.start_soon(timers.run)
    patience = patience_of(timers, 5.0)
    start = trio.current_time()
    callers = []
    for _ in range(4):
        callers.append(Caller())
        patience.arm(callers[-1])
        await trio.sleep(1)
    callers[1].is_wanted = False
    await trio.sleep_until(start + 5.5)
    assert len(patience) == 2  # the one that is over left with the oldest
    await trio.sleep(20)
    told = [one.expired_at for one in callers]
    assert told == [start + 5.0, None, start + 7.0, start + 8.0]
    assert len(patience) == 0


async def test_one_long_wait_keeps_none_that_are_over() -> None:
    patience = patience_of(Timers(), 5.0)
    stuck = Caller()
    patience.arm(stuck)
    for _ in range(10_000):
        answered = Caller()
        patience.arm(answered)
        answered.is_wanted = False
        assert len(patience) <= 64
    assert stuck.is_wanted


async def test_what_waits_together_is_not_looked_through_at_every_arming() -> None:
    looked = 0

    class Watched(Caller):
        @property
        def is_wanted(self) -> bool:
            nonlocal looked
            looked += 1
            return True

        @is_wanted.setter
        def is_wanted(self, _: bool) -> None:
            pass

    patience = patience_of(Timers(), 5.0)
    for _ in range(10_000):
        patience.arm(Watched())
    assert len(patience) == 10_000
    assert looked < 2 * 10_000


async def test_waits_of_one_length_have_one_timer_between_them(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    timers = Timers()
    nursery.start_soon(timers.run)
    for _ in range(100):
        patience_of(timers, 5.0).arm(Caller())
    assert len(timers) == 1
    await trio.sleep(6)
    assert len(timers) == 0


async def test_waits_of_too_many_lengths_are_left_to_the_heap() -> None:
    timers = Timers()
    kept = [timers.patience(float(seconds)) for seconds in range(1, 200)]
    assert kept[0] is not None
    assert kept[0] is timers.patience(1.0)
    assert kept[-1] is None


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from((1.0, 2.5)),  # how long it waits at most
            st.sampled_from((0.0, 0.5, 1.0)),  # until the next one comes
            st.none() | st.sampled_from((0.25, 1.25, 3.0)),  # its answer comes after
        ),
        max_size=80,
    )
)
def test_who_is_told_is_who_was_not_answered_in_time(
    plan: list[tuple[float, float, float | None]],
) -> None:
    timers, callers = Timers(), [Caller() for _ in plan]
    due: list[float] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(timers.run)
            for caller, (seconds, pause, answer) in zip(callers, plan, strict=True):
                patience_of(timers, seconds).arm(caller)
                due.append(trio.current_time() + seconds)
                if answer is not None:
                    at = trio.current_time() + answer
                    timers.at(at, partial(setattr, caller, "is_wanted", False))
                await trio.sleep(pause)
            await trio.sleep(10)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    for caller, at, (seconds, _, answer) in zip(callers, due, plan, strict=True):
        in_time = answer is not None and answer < seconds
        assert caller.expired_at == (None if in_time else at)
