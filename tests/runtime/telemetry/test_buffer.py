from __future__ import annotations

from threading import Barrier, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewarden.telemetry.buffer import Buffer


def test_a_full_buffer_keeps_the_beginning_of_a_burst() -> None:
    buffer: Buffer[int] = Buffer(3, enabled=True)
    for number in range(5):
        buffer.add(number)
    assert buffer.take(10) == [0, 1, 2]
    assert buffer.statistics().dropped == 2


def test_a_buffer_must_hold_something() -> None:
    with pytest.raises(ValueError, match="capacity must be >= 1, not 0"):
        Buffer[int](0, enabled=True)


# A step adds one (None) or takes at most so many.
steps = st.lists(st.none() | st.integers(0, 6))


@given(steps=steps, capacity=st.integers(1, 5))
def test_every_record_is_taken_waiting_or_counted_as_dropped(
    steps: list[int | None], capacity: int
) -> None:
    buffer: Buffer[int] = Buffer(capacity, enabled=True)
    model: list[int] = []
    offered = taken = dropped = 0
    for step in steps:
        if step is not None:
            assert buffer.take(step) == model[:step]
            taken += len(model[:step])
            del model[:step]
            continue
        buffer.add(offered)
        if len(model) < capacity:
            model.append(offered)
        else:
            dropped += 1
        offered += 1
        assert len(buffer) <= capacity
    now = buffer.statistics()
    assert (now.waiting, now.taken, now.dropped) == (len(model), taken, dropped)
    assert now.waiting + now.taken + now.dropped == offered


def test_records_and_drops_add_up_when_threads_record_at_the_same_time() -> None:
    threads, each = 4, 5_000
    buffer: Buffer[int] = Buffer(10, enabled=True)
    together = Barrier(threads + 1)

    def record() -> None:
        together.wait()
        for number in range(each):
            buffer.add(number)

    recorders = [Thread(target=record) for _ in range(threads)]
    for recorder in recorders:
        recorder.start()
    together.wait()
    while any(recorder.is_alive() for recorder in recorders):
        buffer.take(3)
    now = buffer.statistics()
    assert now.waiting + now.taken + now.dropped == threads * each
