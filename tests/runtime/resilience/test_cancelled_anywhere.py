"""A call under every policy, cancelled at each of its steps: nothing of it stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden.errors import HttpFailed
from treewarden.resilience import (
    Backoff,
    Bulkhead,
    Cache,
    Circuit,
    CircuitPolicy,
    CircuitState,
    Fallback,
    Hedge,
    Limiter,
    Policy,
    RateLimit,
    Retry,
    Timeout,
)

if TYPE_CHECKING:
    from trio.lowlevel import Task
    from trio.testing import MockClock

# More than any of these calls takes; the last ones are not cancelled at all.
STEPS: Final = 60


class CancelAt(trio.abc.Instrument):
    """Cancels a scope just before one task's `number`th step."""

    def __init__(self, task: Task, number: int, scope: trio.CancelScope) -> None:
        self.task = task
        self.left = number
        self.scope = scope

    def before_task_step(self, task: Task) -> None:
        if task is self.task:
            self.left -= 1
            if not self.left:
                self.scope.cancel()


class Everything:
    """One policy with all layers; `fails` says how often the call underneath does."""

    def __init__(self, fails: int) -> None:
        self.fails = fails
        self.inside = 0
        self.circuit = Circuit(
            "site", CircuitPolicy(failure_threshold=2, reset_timeout=1.0)
        )
        self.limiter = Limiter(RateLimit(rate=1, period=0.5))
        self.bulkhead = Bulkhead(1)
        self.cache: Cache[str, int] = Cache(ttl=60.0)
        self.policy = Policy(
            timeout=Timeout(100.0),
            fallback=Fallback(self.stand_in),
            cache=self.cache,
            retry=Retry(
                attempts=4,
                backoff=Backoff(initial=0.2, maximum=0.2, jitter=0.0),
                progress_timeout=50.0,
            ),
            hedge=Hedge(delay=0.3, share=1.0),
            circuit=self.circuit,
            rate=self.limiter,
            bulkhead=self.bulkhead,
            attempt_timeout=Timeout(5.0),
        )

    async def stand_in(self, _: Exception) -> int:
        await trio.sleep(0.1)
        return -1

    async def work(self) -> int:
        self.inside += 1
        try:
            await trio.sleep(0.4)
        finally:
            self.inside -= 1
        if self.fails:
            self.fails -= 1
            raise HttpFailed("GET", "/", "broken", "it broke")
        return 1

    def at_rest(self) -> None:
        """Nobody is inside of anything, and every account adds up."""
        assert self.inside == 0
        policy = self.policy.statistics()
        assert policy.in_flight == 0
        assert policy.calls == policy.succeeded + policy.failed + policy.cancelled
        circuit = self.circuit.statistics()
        assert (circuit.in_flight, circuit.probes) == (0, 0)
        assert circuit.calls == circuit.succeeded + circuit.failed + circuit.not_counted
        bulkhead = self.bulkhead.statistics()
        assert (bulkhead.taken, bulkhead.in_flight, bulkhead.waiting) == (0, 0, 0)
        assert bulkhead.entered == bulkhead.ended
        assert self.limiter.statistics().waiting == 0
        cache = self.cache.statistics()
        assert cache.loading == 0
        assert cache.gets == cache.hits + cache.not_found + cache.expired
        assert self.policy.retry is not None
        retry = self.policy.retry.statistics()
        assert (retry.in_flight, retry.waiting) == (0, 0)
        for timeout in (self.policy.timeout, self.policy.attempt_timeout):
            assert timeout is not None
            assert timeout.statistics().in_flight == 0


@pytest.mark.parametrize("fails", [0, 1, 3, 9])
async def test_a_call_that_is_cancelled_at_any_step_leaves_nothing_behind(
    fails: int, autojump_clock: MockClock
) -> None:
    """Reliability 1.1 to 1.3: no permit, place, probe, timer or account is kept by it."""
    for step in range(1, STEPS):
        everything = Everything(fails)
        with trio.CancelScope() as scope:
            here = trio.lowlevel.current_task()
            watch = CancelAt(here, step, scope)
            trio.lowlevel.add_instrument(watch)
            try:
                for _ in range(3):
                    await everything.policy.call(everything.work, cache_key="k")
                    everything.cache.clear()
            finally:
                trio.lowlevel.remove_instrument(watch)
        await wait_all_tasks_blocked()
        everything.at_rest()
        assert everything.circuit.statistics().failed <= fails
        # And it works as ever: the next one is answered.
        everything.fails = 0
        everything.circuit.reset()
        assert await everything.policy.call(everything.work, cache_key="k") == 1
        assert everything.circuit.state is CircuitState.CLOSED
        everything.at_rest()
    assert not scope.cancelled_caught, "there are more steps than were tried"
