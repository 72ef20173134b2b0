"""Registry look-ups among 100,000 entries: by key, and by two attributes of them.

    python tests/benchmarks/bench_registry.py              our rows
    python tests/benchmarks/bench_registry.py --compare    beside dicts and Elixir's Registry

The entries are those of `anchors/registries.py`: a kind (10 values) and an owner (1000
values), of which ten entries have both. The random choice is in every row, as it is there.
"""

from __future__ import annotations

import random
import sys
import time
from typing import TYPE_CHECKING

from rounds import Goal, Peer, emit, main

from treewarden.registry import OwnerScope, Registry

if TYPE_CHECKING:
    from collections.abc import Callable

now = time.perf_counter

ENTRIES = 100_000
KINDS, OWNERS = 10, 1000
pick = random.Random(1)  # noqa: S311 - choosing, not keeping secrets

PEERS = (
    Peer(script="registries.py", needs=("sqlite3",)),
    Peer(script="beam_registry.exs", needs=("elixir",)),
)
GOALS = (
    Goal(
        what="by key",
        ours="treewarden.registry.by_key",
        than="registry.dict.by_key",
        at_most=1.5,
    ),
    Goal(
        what="by two attributes",
        ours="treewarden.registry.two_attributes",
        than="registry.dict.two_indexes",
        at_most=1.5,
    ),
    Goal(
        what="by two attributes",
        ours="treewarden.registry.two_attributes",
        than="beam.registry.select_two",
        at_most=1 / 500,
    ),
)


def each(name: str, count: int, step: Callable[[], object]) -> None:
    """Microseconds of one step."""
    start = now()
    for _ in range(count):
        step()
    emit(name, (now() - start) / count * 1e6, "us")


def measure(_with_bare: bool) -> None:
    """Every row of ours; each entry has an owner of its own, as agents are."""
    registry = Registry[int]()
    registry.declare("kind")
    registry.declare("owner")
    keys = [f"agent-{number:06}" for number in range(ENTRIES)]
    owners = [OwnerScope() for _ in keys]
    start = now()
    for number, key in enumerate(keys):
        attributes = {"kind": number % KINDS, "owner": number // KINDS % OWNERS}
        registry.register(key, number, owner=owners[number], attributes=attributes)
    emit("treewarden.registry.register", (now() - start) / ENTRIES * 1e6, "us")

    def by_key() -> None:
        registry.whereis(keys[pick.randrange(ENTRIES)])

    def two_attributes() -> None:
        kind, owner = pick.randrange(KINDS), pick.randrange(OWNERS)
        registry.find(kind=kind, owner=owner)

    each("treewarden.registry.by_key", 100_000, by_key)
    each("treewarden.registry.two_attributes", 10_000, two_attributes)


if __name__ == "__main__":
    sys.exit(main(__file__, measure, GOALS, PEERS))
