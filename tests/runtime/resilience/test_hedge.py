"""A second attempt beside a slow first one."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from treewarden.resilience import Hedge
from treewarden.resilience.hedge import Latencies


class Attempts:
    """A function whose n-th run takes so long, and what became of each run."""

    def __init__(self, *seconds: float, fails: tuple[int, ...] = ()) -> None:
        self._seconds = seconds
        self._fails = fails
        self.begun = 0
        self.ended: list[str] = []

    async def run(self) -> int:
        number = self.begun
        self.begun += 1
        try:
            await trio.sleep(self._seconds[number])
        except trio.Cancelled:
            self.ended.append(f"{number} cancelled")
            raise
        if number in self._fails:
            self.ended.append(f"{number} failed")
            raise ConnectionError(number)
        self.ended.append(f"{number} returned")
        return number


async def test_a_quick_call_is_made_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hedge, attempts = Hedge(delay=1.0, share=1.0), Attempts(0.5)
    assert await hedge.call(attempts.run) == 0
    assert trio.current_time() == 0.5
    assert hedge.statistics().hedged == 0


async def test_a_slow_call_is_made_twice_and_the_first_answer_counts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hedge, attempts = Hedge(delay=1.0, share=1.0), Attempts(60.0, 0.5)
    assert await hedge.call(attempts.run) == 1
    assert trio.current_time() == 1.5
    statistics = hedge.statistics()
    assert (statistics.calls, statistics.hedged, statistics.won) == (1, 1, 1)


async def test_the_loser_is_cancelled_and_awaited(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cleaned = False
    begun = 0

    async def first_then_second() -> str:
        nonlocal cleaned, begun
        begun += 1
        if begun == 2:
            return "second"
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
            cleaned = True
        raise AssertionError

    assert await Hedge(delay=1.0, share=1.0).call(first_then_second) == "second"
    assert cleaned
    assert trio.current_time() == 4.0


async def test_the_first_attempt_may_win_after_all(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hedge, attempts = Hedge(delay=1.0, share=1.0), Attempts(2.0, 60.0)
    assert await hedge.call(attempts.run) == 0
    assert attempts.ended == ["0 returned", "1 cancelled"]
    assert hedge.statistics().won == 0


async def test_of_two_attempts_one_failure_leaves_the_other_to_decide(
    autojump_clock: trio.testing.MockClock,
) -> None:
    attempts = Attempts(2.0, 5.0, fails=(0,))
    assert await Hedge(delay=1.0, share=1.0).call(attempts.run) == 1
    assert attempts.ended == ["0 failed", "1 returned"]


async def test_when_both_fail_it_is_the_first_ones_exception(
    autojump_clock: trio.testing.MockClock,
) -> None:
    attempts = Attempts(9.0, 0.5, fails=(0, 1))
    with pytest.raises(ConnectionError) as caught:
        await Hedge(delay=1.0, share=1.0).call(attempts.run)
    assert caught.value.args == (0,)
    assert attempts.ended == ["1 failed", "0 failed"]


async def test_a_failure_before_the_delay_is_not_tried_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    attempts = Attempts(0.5, fails=(0,))
    with pytest.raises(ConnectionError):
        await Hedge(delay=1.0, share=1.0).call(attempts.run)
    assert (attempts.begun, trio.current_time()) == (1, 0.5)


async def test_cancelled_both_attempts_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    attempts = Attempts(60.0, 60.0)
    with trio.move_on_after(5) as scope:
        await Hedge(delay=1.0, share=1.0).call(attempts.run)
    assert scope.cancelled_caught
    assert sorted(attempts.ended) == ["0 cancelled", "1 cancelled"]


async def test_no_more_than_its_share_of_the_calls_is_hedged(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Also when every call is slow: asking a slow service twice makes it slower."""
    hedge = Hedge(delay=1.0)
    for calls in range(1, 1001):
        await hedge.call(trio.sleep, 2)
        assert hedge.statistics().hedged <= 0.05 * calls
    statistics = hedge.statistics()
    assert (statistics.hedged, statistics.held_back) == (50, 950)


async def test_a_quiet_day_does_not_pay_for_a_bad_minute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hedge = Hedge(delay=1.0)
    for _ in range(1000):
        await hedge.call(trio.lowlevel.checkpoint)
    for _ in range(20):
        await hedge.call(trio.sleep, 2)
    assert hedge.statistics().hedged == 10


async def test_the_delay_is_what_nineteen_of_twenty_calls_did_not_exceed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hedge = Hedge(share=1.0)
    for tenths in range(1, 20):
        await hedge.call(trio.sleep, tenths / 10)
        assert hedge.delay is None
    await hedge.call(trio.sleep, 2.0)
    assert hedge.delay == pytest.approx(1.9)
    attempts = Attempts(60.0, 0.1)
    assert await hedge.call(attempts.run) == 1
    assert hedge.statistics().hedged == 1


def test_the_quantile_follows_the_latest_calls() -> None:
    latencies = Latencies(0.95, 20)
    chance = random.Random(3)  # noqa: S311 - a fixed seed
    for _ in range(1000):
        latencies.add(chance.uniform(0.0, 1.0))
    assert latencies.value is not None
    assert 0.9 < latencies.value < 1.0
    for _ in range(300):
        latencies.add(chance.uniform(10.0, 11.0))
    assert 10.9 < latencies.value < 11.0


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"delay": 0.0}, "delay"),
        ({"quantile": 1.0}, "quantile"),
        ({"least": 0}, "least"),
        ({"least": 257}, "least"),
        ({"share": 0.0}, "share"),
    ],
)
def test_a_hedge_that_makes_no_sense_is_refused_by_name(
    settings: dict[str, float], names: str
) -> None:
    with pytest.raises(ValueError, match=names):
        Hedge(**settings)  # type: ignore[arg-type]
