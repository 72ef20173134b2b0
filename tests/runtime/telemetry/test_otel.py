from __future__ import annotations

from treewarden.telemetry.otel import _Paced


def test_a_batch_is_made_in_slices_with_a_pause_after_each() -> None:
    made: list[int] = []
    pauses: list[int] = []

    def make(item: int) -> str:
        made.append(item)
        return str(item)

    batch = _Paced(range(40), make, 16, lambda: pauses.append(len(made)))
    assert len(batch) == 40
    assert made == []
    assert [*batch] == [str(n) for n in range(40)]
    assert pauses == [16, 32]
    assert (batch[3], [*batch[4:6]]) == ("3", ["4", "5"])
