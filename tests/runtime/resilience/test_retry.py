"""Trying again, with manners."""

from __future__ import annotations

import math
import random
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.errors import CircuitOpen, RateLimited, RetriesExhausted
from treewarden.resilience import (
    DEFAULT_KINDS,
    Backoff,
    ErrorKind,
    Retry,
    RetryBudget,
    Timeout,
    made_progress,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

AT_ONCE = Backoff(initial=0.0, maximum=0.0, jitter=0.0)
endless = partial(Retry, attempts=math.inf, total_timeout=math.inf)


class Down:
    """Raises `error` at each call, or works from attempt `works_at` on."""

    def __init__(
        self,
        error: Callable[[], BaseException] = ConnectionError,
        *,
        works_at: float = math.inf,
        takes: float = 0.0,
    ) -> None:
        self.error = error
        self.works_at = works_at
        self.takes = takes
        self.began_at: list[float] = []

    @property
    def calls(self) -> int:
        return len(self.began_at)

    async def __call__(self) -> int:
        self.began_at.append(trio.current_time())
        await trio.sleep(self.takes)
        if self.calls < self.works_at:
            raise self.error()
        return self.calls


def no_budget() -> RetryBudget:
    return RetryBudget(ratio=math.inf, minimum=1_000_000)


# --- how often ---------------------------------------------------------------------------


async def test_what_fails_is_tried_until_it_works(autojump_clock: MockClock) -> None:
    retry, down = Retry(), Down(works_at=3)
    assert await retry.call(down) == 3
    statistics = retry.statistics()
    assert (statistics.calls, statistics.attempts) == (1, 3)
    assert (statistics.succeeded, statistics.retried) == (1, 1)


async def test_after_the_last_attempt_it_carries_what_became_of_each(
    autojump_clock: MockClock,
) -> None:
    errors = iter(
        [ConnectionResetError("one"), TimeoutError("two"), BrokenPipeError("3")]
    )
    down = Down(lambda: next(errors))
    with pytest.raises(
        RetriesExhausted, match="fetch failed 3 times: no attempt"
    ) as told:
        await Retry(name="fetch").call(down)
    assert (told.value.attempts, down.calls) == (3, 3)
    kinds = [fault.type for fault in told.value.faults]
    assert kinds == ["ConnectionResetError", "TimeoutError", "BrokenPipeError"]
    assert told.value.faults[0].where().startswith(__file__)
    assert isinstance(told.value.__cause__, BrokenPipeError)


async def test_h15_three_retries_of_what_raises_are_four_attempts(
    autojump_clock: MockClock,
) -> None:
    """H15: the original took every exception for one that is not tried again."""
    down = Down(ConnectionError)
    with pytest.raises(RetriesExhausted):
        await Retry(attempts=4).call(down)
    assert down.calls == 4
    unknown = Down(RuntimeError)
    with pytest.raises(RetriesExhausted):
        await Retry(attempts=4, on=RuntimeError).call(unknown)
    assert unknown.calls == 4


async def test_without_end_must_be_said_and_is_then_meant(
    autojump_clock: MockClock,
) -> None:
    down = Down(works_at=2000)
    retry = endless(backoff=AT_ONCE, budget=no_budget())
    assert await retry.call(down) == 2000


async def test_of_very_many_faults_the_first_and_the_last_are_kept(
    autojump_clock: MockClock,
) -> None:
    number = count(1)
    down = Down(lambda: ConnectionError(str(next(number))))
    retry = Retry(attempts=5000, backoff=AT_ONCE, budget=no_budget())
    with pytest.raises(RetriesExhausted) as told:
        await retry.call(down)
    kept = [int(fault.message) for fault in told.value.faults]
    assert kept == [*range(1, 11), *range(4911, 5001)]


# --- what --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        MemoryError,
        ValueError,
        TypeError,
        lambda: ExceptionGroup("both", [ConnectionError(), ValueError()]),
        lambda: CircuitOpen("x", "forced_open", None),
        lambda: CircuitOpen("x", "open", 31.0),
    ],
    ids=["memory", "value", "type", "group", "forced open", "open for longer"],
)
async def test_some_things_are_never_tried_again_whatever_was_asked_for(
    autojump_clock: MockClock, error: Callable[[], Exception]
) -> None:
    retry, down = Retry(on=lambda _: True), Down(error)
    with pytest.raises(type(error())):
        await retry.call(down)
    assert down.calls == 1
    assert retry.statistics().not_retried == 1


async def test_what_is_not_worth_it_comes_out_as_it_is(
    autojump_clock: MockClock,
) -> None:
    down = Down(KeyError)
    with pytest.raises(KeyError):
        await Retry().call(down)
    assert down.calls == 1


async def test_a_cancellation_is_never_tried_again(autojump_clock: MockClock) -> None:
    retry, down = Retry(on=Exception), Down(works_at=1, takes=10.0)
    with trio.move_on_after(5.0) as scope:
        await retry.call(down)
    assert scope.cancelled_caught
    assert down.calls == 1
    assert retry.statistics().cancelled == 1


async def test_a_cancellation_among_others_is_one(autojump_clock: MockClock) -> None:
    retry = Retry(on=Exception)
    calls = 0

    async def half_cancelled() -> None:
        nonlocal calls
        calls += 1
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            raise BaseExceptionGroup("", [cancelled, ConnectionError()]) from None

    with pytest.raises(ExceptionGroup), trio.move_on_after(1.0):
        await retry.call(half_cancelled)
    assert calls == 1


async def test_cancelled_while_it_waits_no_further_attempt_begins(
    autojump_clock: MockClock,
) -> None:
    retry = Retry(backoff=Backoff(initial=10.0, jitter=0.0))
    down = Down()
    with trio.move_on_after(5.0):
        await retry.call(down)
    statistics = retry.statistics()
    assert (down.calls, statistics.cancelled, statistics.waiting) == (1, 1, 0)


async def test_what_may_not_be_done_twice_is_done_once(
    autojump_clock: MockClock,
) -> None:
    retry, down = Retry(), Down()
    with pytest.raises(ConnectionError):
        await retry.call(down, idempotent=False)
    assert down.calls == 1


async def test_with_a_key_the_other_side_does_it_once(
    autojump_clock: MockClock,
) -> None:
    retry, down = Retry(), Down(works_at=2)
    assert await retry.call(down, idempotent=False, key="order-7") == 2


async def test_an_open_circuit_is_waited_for_when_there_is_time(
    autojump_clock: MockClock,
) -> None:
    down = Down(lambda: CircuitOpen("x", "open", 20.0), works_at=2)
    assert await Retry(backoff=AT_ONCE).call(down) == 2
    assert down.began_at == [0.0, 20.0]


@pytest.mark.parametrize(
    "on",
    [
        ErrorKind.SYSTEM,
        "system",
        KeyError,
        lambda error: isinstance(error, KeyError),
        [ErrorKind.TRANSIENT, KeyError],
    ],
    ids=["kind", "name", "class", "function", "several"],
)
async def test_what_is_worth_it_can_be_said_in_many_ways(
    autojump_clock: MockClock, on: ErrorKind
) -> None:
    assert await Retry(on=on).call(Down(KeyError, works_at=2)) == 2


async def test_a_group_is_tried_again_when_all_in_it_are_worth_it(
    autojump_clock: MockClock,
) -> None:
    both = ExceptionGroup("both", [ConnectionError(), TimeoutError()])
    assert await Retry().call(Down(lambda: both, works_at=2)) == 2


async def test_a_result_can_ask_for_another_attempt_and_the_last_one_is_returned(
    autojump_clock: MockClock,
) -> None:
    results = iter(range(10))

    async def ask() -> int:
        return next(results)

    assert await Retry(on_result=lambda result: result != 1).call(ask) == 1
    retry = Retry(on_result=lambda _: True)
    assert await retry.call(ask) == 4
    assert retry.statistics().exhausted == 1


async def test_a_function_that_judges_and_fails_is_heard_and_counted(
    autojump_clock: MockClock,
) -> None:
    def judge(_: Exception) -> bool:
        raise LookupError("no opinion")

    retry = Retry(on=judge)
    with pytest.raises(LookupError):
        await retry.call(Down())
    statistics = retry.statistics()
    assert (statistics.not_retried, statistics.in_flight) == (1, 0)


# --- when --------------------------------------------------------------------------------


async def test_waits_grow_between_attempts(autojump_clock: MockClock) -> None:
    backoff = Backoff(initial=1.0, maximum=3.0, jitter=0.0)
    down = Down()
    with pytest.raises(RetriesExhausted):
        await Retry(attempts=5, backoff=backoff).call(down)
    assert down.began_at == [0.0, 1.0, 3.0, 6.0, 9.0]


async def test_the_other_side_may_ask_for_a_longer_wait(
    autojump_clock: MockClock,
) -> None:
    down = Down(lambda: RateLimited("x", 7.0), works_at=2)
    assert await Retry(backoff=AT_ONCE).call(down) == 2
    assert down.began_at == [0.0, 7.0]


async def test_a_wait_that_was_told_is_capped_by_the_time_that_is_left(
    autojump_clock: MockClock,
) -> None:
    slow = Backoff(initial=5.0, jitter=0.0)
    down = Down(lambda: RateLimited("x", 8.0), works_at=2)
    assert await Retry(backoff=slow, total_timeout=10.0).call(down) == 2
    assert down.began_at == [0.0, 10.0]


@pytest.mark.parametrize("told", [11.0, math.inf])
async def test_a_wait_that_does_not_fit_is_not_begun(
    autojump_clock: MockClock, told: float
) -> None:
    down = Down(lambda: RateLimited("x", told))
    with pytest.raises(RetriesExhausted, match="left alone for longer"):
        await Retry(total_timeout=10.0).call(down)
    assert (down.calls, trio.current_time()) == (1, 0.0)


@pytest.mark.parametrize("told", [-1.0, math.nan, None, "soon"])
async def test_a_wait_that_is_none_is_not_heeded(
    autojump_clock: MockClock, told: object
) -> None:
    class Odd(ConnectionError):
        retry_after = told

    down = Down(Odd, works_at=2)
    assert await Retry(backoff=AT_ONCE).call(down) == 2
    assert down.began_at == [0.0, 0.0]


async def test_what_was_told_can_be_read_by_a_function(
    autojump_clock: MockClock,
) -> None:
    down = Down(works_at=2)
    retry = Retry(backoff=AT_ONCE, retry_after=lambda _: 4.0)
    await retry.call(down)
    assert down.began_at == [0.0, 4.0]


async def test_who_was_told_the_same_time_does_not_come_back_at_the_same_time(
    autojump_clock: MockClock,
) -> None:
    down = Down(lambda: RateLimited("x", 5.0))
    retry = Retry(
        attempts=2,
        budget=no_budget(),
        random=random.Random(3).random,  # noqa: S311
    )
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(swallow, retry, down)
    assert len(set(down.began_at[100:])) == 100
    assert min(down.began_at[100:]) >= 5.0


async def swallow(retry: Retry, down: Callable[[], object]) -> None:
    with pytest.raises(RetriesExhausted):
        await retry.call(down)  # type: ignore[arg-type]


@pytest.mark.parametrize("takes", [0.1, 3.0, 7.0])
async def test_it_never_outlasts_its_time_by_more_than_one_attempts_own(
    autojump_clock: MockClock, takes: float
) -> None:
    own = Timeout(takes)
    retry = Retry(attempts=math.inf, total_timeout=10.0, budget=no_budget())

    async def hang() -> None:
        await own.call(trio.sleep_forever)

    with pytest.raises(RetriesExhausted, match="no time is left"):
        await retry.call(hang)
    assert trio.current_time() <= 10.0 + takes


async def test_a_call_that_makes_no_progress_is_given_up(
    autojump_clock: MockClock,
) -> None:
    retry = endless(progress_timeout=60.0, budget=no_budget())
    with pytest.raises(RetriesExhausted, match="it made no progress; last: Connection"):
        await retry.call(Down(takes=7.0))
    assert trio.current_time() == pytest.approx(60.0)
    statistics = retry.statistics()
    assert (statistics.exhausted, statistics.cancelled, statistics.in_flight) == (
        1,
        0,
        0,
    )


async def test_a_call_that_gets_on_may_take_as_long_as_it_likes(
    autojump_clock: MockClock,
) -> None:
    retry = endless(progress_timeout=60.0, budget=no_budget())
    parts = 0

    async def fetch_parts() -> int:
        nonlocal parts
        while parts < 100:
            await trio.sleep(50.0)
            parts += 1
            made_progress()
            if parts % 7 == 0:
                raise ConnectionError
        return parts

    made_progress()
    assert await retry.call(fetch_parts) == 100
    assert trio.current_time() >= 5000.0


async def test_a_cancellation_from_outside_is_not_taken_for_a_lack_of_progress(
    autojump_clock: MockClock,
) -> None:
    retry = Retry(progress_timeout=60.0)
    with trio.move_on_after(30.0) as scope:
        await retry.call(trio.sleep_forever)
    assert scope.cancelled_caught
    assert retry.statistics().cancelled == 1


# --- all callers together ----------------------------------------------------------------


async def test_what_is_down_gets_at_most_a_tenth_more_calls_by_retries(
    autojump_clock: MockClock,
) -> None:
    """A minute, 100 callers: total attempts <= 1.10 * first attempts."""
    retry, down = Retry(random=random.Random(11).random), Down(takes=0.01)  # noqa: S311

    async def caller(first: float) -> None:
        await trio.sleep(first)
        while trio.current_time() < 60.0:
            with pytest.raises(RetriesExhausted):
                await retry.call(down)
            await trio.sleep(0.99)

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(caller, number / 100)
    statistics = retry.statistics()
    assert statistics.calls > 4000
    assert statistics.calls < down.calls <= 1.10 * statistics.calls
    assert statistics.budget.refused > 4000


async def test_a_budget_that_is_spent_says_so(autojump_clock: MockClock) -> None:
    retry = Retry(budget=RetryBudget(ratio=0.0, minimum=0))
    with pytest.raises(
        RetriesExhausted, match="failed once: the retry budget is spent"
    ):
        await retry.call(Down())


async def test_several_retries_can_share_a_budget(autojump_clock: MockClock) -> None:
    budget = RetryBudget(ratio=0.0, minimum=3)
    down = Down()
    for _ in range(4):
        await swallow(Retry(budget=budget), down)
    assert down.calls == 4 + 3


@pytest.mark.parametrize("decorrelated", [False, True])
async def test_a_thousand_clients_released_together_come_back_apart(
    autojump_clock: MockClock, decorrelated: bool
) -> None:
    """No 10 ms hold more than 5 % of the retries."""
    chance = random.Random(7).random  # noqa: S311 - a test's choice
    backoff = Backoff(initial=0.5, maximum=10.0, jitter=1.0, decorrelated=decorrelated)
    retry = Retry(backoff=backoff, budget=no_budget(), random=chance)
    down = Down()
    async with trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(swallow, retry, down)
    retried = down.began_at[1000:]
    assert len(retried) == 2000
    buckets = [int(at / 0.01) for at in retried]
    assert max(buckets.count(bucket) for bucket in set(buckets)) <= 100


async def test_the_same_seed_waits_the_same(autojump_clock: MockClock) -> None:
    waits = []
    for _ in range(2):
        down, began = Down(), trio.current_time()
        await swallow(Retry(random=random.Random(1).random), down)  # noqa: S311
        waits.append([at - began for at in down.began_at])
    assert waits[0] == pytest.approx(waits[1])


async def test_its_counters_add_up_at_every_moment(autojump_clock: MockClock) -> None:
    chance = random.Random(5)  # noqa: S311 - a test's choice
    retry = Retry(random=chance.random)

    async def anything() -> None:
        await trio.sleep(chance.random())
        if chance.random() < 0.7:
            raise chance.choice([ConnectionError, KeyError, ValueError])

    async def caller() -> None:
        with trio.move_on_after(chance.random() * 3):
            with suppress(RetriesExhausted, KeyError, ValueError):
                await retry.call(anything)

    async with trio.open_nursery() as nursery:
        for _ in range(300):
            nursery.start_soon(caller)
        while len(nursery.child_tasks) > 0:
            s = retry.statistics()
            ended = s.succeeded + s.not_retried + s.exhausted + s.cancelled
            assert s.calls == ended + s.in_flight
            assert 0 <= s.waiting <= s.in_flight
            await trio.sleep(0.05)
    s = retry.statistics()
    assert s.in_flight == s.waiting == 0
    assert min(s.succeeded, s.not_retried, s.exhausted, s.cancelled) > 0


# --- what makes no sense -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error", "names"),
    [
        ({"attempts": 0}, ValueError, "attempts"),
        ({"attempts": 2.5}, ValueError, "attempts"),
        ({"attempts": None}, TypeError, "attempts"),
        ({"total_timeout": -1.0}, ValueError, "total_timeout"),
        ({"total_timeout": math.nan}, ValueError, "total_timeout"),
        ({"progress_timeout": 0.0}, ValueError, "progress_timeout"),
        ({"on": "sometimes"}, ValueError, "sometimes"),
        ({"on": ErrorKind.VALIDATION}, ValueError, "never tried again"),
        ({"on": ValueError}, ValueError, "never tried again"),
        ({"on": MemoryError}, ValueError, "never tried again"),
        ({"on": trio.Cancelled}, TypeError, "Cancelled"),
        ({"on": [7]}, TypeError, "7"),
    ],
)
def test_f67_a_retry_that_makes_no_sense_is_refused_when_it_is_made(
    fields: dict[str, object], error: type[Exception], names: str
) -> None:
    with pytest.raises(error, match=names):
        Retry(**fields)  # type: ignore[arg-type]


async def test_who_knows_better_says_what_kind_it_is(autojump_clock: MockClock) -> None:
    kinds = DEFAULT_KINDS.extended({ValueError: ErrorKind.TRANSIENT})
    assert await Retry(kinds=kinds).call(Down(ValueError, works_at=2)) == 2


async def test_what_gets_on_inside_gets_on_outside_as_well(
    autojump_clock: MockClock,
) -> None:
    """A retry in a retry: the outer one does not lose its patience meanwhile."""
    inner, outer = Retry(progress_timeout=5.0), Retry(progress_timeout=8.0, attempts=1)

    async def work() -> int:
        for _ in range(5):
            await trio.sleep(4.0)
            made_progress()
        return 1

    assert await outer.call(inner.call, work) == 1
    assert trio.current_time() == 20.0


async def test_who_asks_to_be_left_alone_for_ever_is(autojump_clock: MockClock) -> None:
    """Not waited for, though there is all the time in the world."""
    retry = endless(retry_after=lambda _: math.inf, backoff=AT_ONCE)
    with trio.fail_after(60.0), pytest.raises(RetriesExhausted, match="left alone"):
        await retry.call(Down())


def test_a_wait_that_is_no_backoff_is_refused_when_the_retry_is_made() -> None:
    """And not when the first call fails, where it would hide why."""
    with pytest.raises(TypeError, match=r"backoff must be a Backoff, not 0\.5"):
        Retry(backoff=0.5)  # type: ignore[arg-type] # what is tested
