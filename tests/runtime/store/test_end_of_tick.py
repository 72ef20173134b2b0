"""What the loop does before it waits, and for how long it asks whether to."""

from __future__ import annotations

import pytest
import trio

from treewarden.store.end_of_tick import EndOfTick


def test_a_flush_that_fails_ends_the_run() -> None:
    """trio would log what an instrument raises, and nothing would be written any more."""

    def fail() -> None:
        raise ValueError("no flush")

    async def main() -> None:
        EndOfTick(fail).want()
        await trio.sleep_forever()

    with pytest.raises(trio.TrioInternalError) as raised:
        trio.run(main)
    cause = raised.value.__cause__
    assert isinstance(cause, ExceptionGroup)
    assert cause.subgroup(ValueError) is not None


async def test_a_loop_with_nothing_to_write_is_not_asked_for_ever() -> None:
    """To be asked in every pass is a tenth of a call to an agent."""
    flushed, passes = 0, 0

    def flush() -> None:
        nonlocal flushed
        flushed += 1

    end_of_tick = EndOfTick(flush)
    honest = end_of_tick.before_io_wait

    def before_io_wait(timeout: float) -> None:
        nonlocal passes
        passes += 1
        honest(timeout)

    end_of_tick.before_io_wait = before_io_wait  # type: ignore[method-assign]
    for number in (1, 2):
        end_of_tick.want()
        for _ in range(300):
            await trio.lowlevel.checkpoint()
        assert flushed == number
        assert passes < 150 * number
    end_of_tick.leave()
