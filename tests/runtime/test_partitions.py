"""Agents in partitions, each found by the keys that are its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden import (
    Agent,
    Application,
    ChildSpec,
    Config,
    PartitionSupervisorSpec,
    open_runtime,
)

if TYPE_CHECKING:
    from pathlib import Path


class Sums(Agent[dict[str, int]]):
    def __init__(self, number: int) -> None:
        self.number = number

    async def add(self, user: str, amount: int) -> int:
        self.state[user] = self.state.get(user, 0) + amount
        return self.state[user]

    async def who(self) -> int:
        return self.number


def application() -> Application:
    spec = PartitionSupervisorSpec(Sums, partitions=4, args_for=lambda number: [number])
    return Application("shop", [ChildSpec("sums", spec)])


async def test_a_key_finds_its_agent_and_its_state_in_the_next_run_too(
    tmp_path: Path,
) -> None:
    """PRT-01, PRT-02"""
    config = Config(store=tmp_path / "shop.db", socket=False)
    users = [f"user {number}" for number in range(20)]
    for run in (1, 2):
        async with open_runtime(application(), config=config) as runtime:
            sums = runtime.supervisor("sums")
            for user in users:
                ref = runtime.ref(sums.partition(user), Sums)
                assert await ref.call(Sums.add, user, 1) == run
            numbers = [
                await runtime.ref(sums.partition(n), Sums).call(Sums.who)
                for n in range(4)
            ]
            assert numbers == [0, 1, 2, 3]
