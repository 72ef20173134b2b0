"""For tests of agents: virtual time that respects the store, and bounded waits.

trio's autojump clock counts a task that waits for a thread as idle and fires deadlines
while the disk is busy. `store_clock` stands still as long as a store owes an answer:

    @pytest.fixture
    def clock():
        with store_clock() as clock:
            yield clock

    async def test_a_late_answer(clock): ...    # pytest-trio runs the test on it
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio
from trio.testing import MockClock

from treewarden.store import waiting_observer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_SECONDS: Final = 10.0
"""Real seconds after which `wait_until` gives up: a loaded machine, not a slow program."""
_PAUSE_SECONDS: Final = 0.0005


@contextmanager
def store_clock() -> Iterator[MockClock]:
    """A clock that jumps to the next deadline when nothing can happen before it.

    Its time stands still while a thread of a store that was opened under it owes an
    answer. Give it to `trio.run(..., clock=clock)` inside the block, or yield it from a
    fixture. One run at a time.
    """
    clock = MockClock(autojump_threshold=0)
    owing = 0

    def observe(waiting: bool) -> None:
        nonlocal owing
        owing += 1 if waiting else -1
        clock.autojump_threshold = math.inf if owing else 0

    token = waiting_observer.set(observe)
    try:
        yield clock
    finally:
        waiting_observer.reset(token)


async def wait_until(condition: Callable[[], object], what: str = "") -> None:
    """Let everything run until `condition()` is true; checked at each turn of the loop.

    For what has no event to wait for. It keeps the loop busy, so that virtual time stands
    still meanwhile; at most `PATIENCE_SECONDS` of real time.

    Raises:
        TimeoutError: it never became true; `what` says what was waited for.
    """
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > give_up_at:
            raise TimeoutError(
                f"{what or condition} is not so after {PATIENCE_SECONDS:g} s"
            )
        # Threads get the interpreter, tasks get a turn.
        time.sleep(_PAUSE_SECONDS)  # noqa: ASYNC251 - a trio sleep would be virtual
        await trio.lowlevel.checkpoint()
