"""Counters become rates, and rates become strips.

The wire carries counters because a counter that is missed heals with the next one. The
rates are the console's own: differences between samples that it takes once a second.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-=+*%#"


class Rates:
    """Rates per second of many counters, by id; work is proportional to what changed."""

    def __init__(self) -> None:
        self._counted: dict[str, int] = {}
        self._rates: dict[str, float] = {}

    def get(self, id_: str) -> float:
        """The rate over the last sampled interval; 0 while unknown."""
        return self._rates.get(id_, 0.0)

    def sample(self, counters: Mapping[str, int], seconds: float) -> set[str]:
        """Take the counters that may have moved; return the ids whose rate changed.

        A counter that is seen first, or that went back (its owner was started again),
        has no rate until the next sample. One that is not given again has rate 0.
        """
        changed = set()
        before, self._rates = self._rates, {}
        for id_, value in counters.items():
            moved = value - self._counted.get(id_, value)
            self._counted[id_] = value
            if moved > 0:
                self._rates[id_] = moved / seconds
        for id_ in before.keys() | self._rates.keys():
            if before.get(id_) != self._rates.get(id_):
                changed.add(id_)
        return changed

    def forget(self, ids: Iterable[str]) -> None:
        """Drop counters whose owners are gone."""
        for id_ in ids:
            self._counted.pop(id_, None)
            self._rates.pop(id_, None)

    def clear(self) -> None:
        """Forget every counter, as after a restart of the runtime."""
        self._counted.clear()
        self._rates.clear()

    def copy(self) -> Rates:
        """The rates as they are now, for a view that is held."""
        still = Rates()
        still._counted, still._rates = dict(self._counted), dict(self._rates)
        return still


SLOTS = 20
SLOT_SECONDS = 15.0
"""Twenty slots of fifteen seconds: the last five minutes."""


class FailureStrips:
    """What share of each circuit's calls went wrong, slot by slot, as far as was seen."""

    def __init__(self) -> None:
        self._counted: dict[str, tuple[int, int]] = {}
        self._shares: dict[str, deque[float]] = {}

    def sample(self, counters: Mapping[str, tuple[int, int]]) -> None:
        """Close a slot; `counters` are (calls made, calls gone wrong) by name.

        The first sample of a circuit only says where its first slot begins.
        """
        for name, (made, wrong) in counters.items():
            if name in self._counted:
                made_before, wrong_before = self._counted[name]
                calls, bad = made - made_before, wrong - wrong_before
                slots = self._shares.setdefault(name, deque(maxlen=SLOTS))
                slots.append(min(1.0, bad / calls) if calls > 0 else 0.0)
            self._counted[name] = (made, wrong)

    def get(self, name: str) -> Sequence[float]:
        """The shares that were seen, oldest first."""
        return tuple(self._shares.get(name, ()))

    def clear(self) -> None:
        """Forget every circuit."""
        self._counted.clear()
        self._shares.clear()

    def copy(self) -> FailureStrips:
        """The strips as they are now, for a view that is held."""
        still = FailureStrips()
        still._counted = dict(self._counted)
        still._shares = {name: slots.copy() for name, slots in self._shares.items()}
        return still


def strip(
    values: Sequence[float], width: int, *, top: float = 0.0, ascii_only: bool = False
) -> str:
    """The last `width` values as a strip of bars, right-aligned, blanks where unknown.

    `top` is what the tallest bar stands for; 0 scales to the largest value.
    """
    bars = _ASCII_BARS if ascii_only else _BARS
    shown = values[-width:] if width else ()
    top = top or max(shown, default=0.0) or 1.0
    last = len(bars) - 1
    drawn = "".join(
        bars[min(last, round(max(0.0, value) / top * last))] for value in shown
    )
    return drawn.rjust(width)
