"""Python's garbage collector, as long as a runtime is there.

The collector looks for cycles: at every new object, at those that were still in use a
second time, and now and then at everything. A started agent is some 25 objects, and all of
them stay; to look at them was a fifth of what it costs to start 10,000.

Two things are different while a runtime runs, unless somebody has a setting of his own.
The collector looks after 5,000 new objects and not after 700. And whenever the tree is 64
nodes larger than it ever was, the objects of that moment count as old: they are moved to
the oldest generation without a look, which joins two lists. Nothing is kept from the
collector by that. What is garbage among them waits for the next full collection; and it is
bounded, for a tree that shrinks and grows again moves nothing, however often it does.
"""

from __future__ import annotations

import gc
from typing import Final

# What Python begins with, up to 3.12 and from 3.13 on.
_PYTHONS_OWN: Final = frozenset({700, 2_000})
# Objects between two looks. At 700 they doubled the start of 10,000 agents, and were the
# 99th percentile of restarts.
_SELDOM: Final = 5_000
# Nodes: fewer than there are between two looks, with up to 75 objects each.
_STEP: Final = 64


class Growth:
    """Whether a tree is larger than it ever was, told once for every `step` nodes."""

    __slots__ = ("_next", "_step")

    def __init__(self, step: int = _STEP) -> None:
        self._step = self._next = step

    def passes(self, size: int) -> bool:
        """The tree has `size` nodes now."""
        if size < self._next:
            return False
        self._next = size + self._step
        return True


class Collector:
    """The collector in a runtime's hands, from `take_over` to `give_back`."""

    def __init__(self) -> None:
        self._growth = Growth()
        self._before: tuple[int, int, int] | None = None

    def take_over(self) -> None:
        """Have it look less often, unless somebody has chosen how often."""
        threshold = gc.get_threshold()
        if threshold[0] in _PYTHONS_OWN:
            self._before = threshold
            gc.set_threshold(_SELDOM, *threshold[1:])

    def grown(self, nodes: int) -> None:
        """The tree has one more node: so many now."""
        if self._growth.passes(nodes) and self._may_promote:
            gc.freeze()
            gc.unfreeze()

    @property
    def _may_promote(self) -> bool:
        # What somebody has frozen would thaw with ours.
        return self._is_ours and gc.isenabled() and gc.get_freeze_count() == 0

    @property
    def _is_ours(self) -> bool:
        return self._before is not None and gc.get_threshold()[0] == _SELDOM

    def give_back(self) -> None:
        """As it was before, unless somebody has chosen otherwise meanwhile."""
        if self._before is not None and self._is_ours:
            gc.set_threshold(*self._before)
        self._before = None
