from __future__ import annotations

import math
from functools import partial

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from treewarden.supervision import Timer, Timers


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
