"""The runtime's pools: made when asked for, told apart by name, and where they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from treewarden import Agent, Application, ChildSpec, Config, open_runtime
from treewarden.errors import NameUnknown, NotRunning
from treewarden.work import Batch, Done, Pool, PoolKind, PoolPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from treewarden import Runtime

pytestmark = pytest.mark.real_time


class Total(msgspec.Struct):
    value: int = 0


class Teller(Agent[Total]):
    async def add(self, number: int) -> int:
        self.state.value += number
        return self.state.value

    async def tell_outside(self, pool: Any) -> tuple[int, int]:
        """What is committed when work for others begins, and what there is."""
        return await pool.run(self._committed), self.state.value

    async def _committed(self) -> int:
        return await read_committed(self.runtime, self.path)


async def read_committed(runtime: Any, path: str) -> int:
    body = runtime.directory.resolve(path).body
    return msgspec.json.decode(body.memory.committed, type=Total).value


def running(tmp_path: Path, children: Sequence[ChildSpec] = ()) -> Any:
    return open_runtime(
        Application("app", children),
        config=Config(store=tmp_path / "test.db", socket=False),
    )


async def double(number: int) -> int:
    await trio.lowlevel.checkpoint()
    return number * 2


async def test_a_pool_is_made_below_system_pools(tmp_path: Path) -> None:
    """S22: batch doubles three values."""
    async with running(tmp_path) as runtime:
        pool = await runtime.pools.pool("general", size=3)
        assert pool.path == "/system/pools/general"
        assert runtime.tree()["/system/pools/general"].kind == "pool"
        async with pool.stream(double, [1, 2, 3], failures="raise") as values:
            assert [value async for value in values] == [2, 4, 6]
        (statistics,) = runtime.pools.statistics()
        assert (statistics.kind, statistics.completed) == (PoolKind.TASK, 3)


async def test_the_same_name_is_the_same_pool(tmp_path: Path) -> None:
    async with running(tmp_path) as runtime:
        pools = runtime.pools
        made: list[Pool] = []

        async def make() -> None:
            made.append(await pools.pool("one", size=2))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(make)
        assert {pool.path for pool in made} == {"/system/pools/one"}
        assert len(pools.statistics()) == 1
        assert pools["one"].statistics().size == 2
        assert (await pools.pool("one")).statistics().size == 2
        with pytest.raises(ValueError, match="pool one has size 2, not 3"):
            await pools.pool("one", size=3)
        with pytest.raises(ValueError, match="size must be >= 1, not 0"):
            await pools.pool("two", size=0)
        with pytest.raises(NameUnknown, match="/system/pools/two"):
            pools["two"]


async def test_a_closed_pool_is_gone_and_can_be_made_again(tmp_path: Path) -> None:
    """S22: creating and deleting leaves nothing."""
    async with running(tmp_path) as runtime:
        for size in (1, 2, 3):
            pool = await runtime.pools.pool("brief", size=size)
            handle = pool.start(trio.sleep_forever)
            await runtime.pools.close("brief")
            assert handle.outcome() is not None
            with pytest.raises(NotRunning, match="no pool at"):
                await pool.run(double, 1)
        with pytest.raises(NameUnknown):
            await runtime.pools.close("brief")


async def test_an_applications_own_pool_is_seen_too(tmp_path: Path) -> None:
    spec = ChildSpec("mine", Pool, args=(PoolPolicy(size=1),))
    async with running(tmp_path, [spec]) as runtime:
        assert [one.path for one in runtime.pools.statistics()] == ["/mine"]


async def test_h28_the_pools_are_restarted_after_a_crash(tmp_path: Path) -> None:
    """H28, F38: the supervisor of the pools stands in the tree and comes back."""
    async with running(tmp_path) as runtime:
        await runtime.pools.pool("general")
        runtime.injections.crash("/system/pools")
        with trio.fail_after(10):
            while runtime.tree()["/system/pools"].incarnation == 1:
                await trio.lowlevel.checkpoint()
        pool = await until_made(runtime)
        assert await pool.run(double, 4) == 8


async def until_made(runtime: Runtime) -> Pool:
    with trio.fail_after(10):
        while True:
            try:
                return await runtime.pools.pool("general")
            except NotRunning:
                await trio.lowlevel.checkpoint()


async def test_work_for_others_begins_when_its_agent_is_committed(
    tmp_path: Path,
) -> None:
    """Design 6, leaving the store waits."""
    async with running(tmp_path, [ChildSpec("teller", Teller)]) as runtime:
        pool = await runtime.pools.pool("out")
        ref = runtime.ref("teller", Teller)
        for round_ in range(1, 20):
            await ref.cast(Teller.add, 5)
            committed, value = await ref.call(Teller.tell_outside, pool)
            assert committed == value == 5 * round_


async def test_a_batch_of_durable_agents_is_durable_when_it_returns(
    tmp_path: Path,
) -> None:
    """S39"""
    tellers = [ChildSpec(f"t{number}", Teller) for number in range(20)]
    async with running(tmp_path, tellers) as runtime:
        batch = Batch(await runtime.pools.pool("batches"))
        for number, spec in enumerate(tellers):
            batch.call(runtime.ref(spec.id, Teller), Teller.add, number)
        outcomes = await batch.run()
        assert all(isinstance(one, Done) for one in outcomes)
    async with running(tmp_path, tellers) as runtime:
        for number, spec in enumerate(tellers):
            assert await runtime.ref(spec.id, Teller).call(Teller.add, 0) == number
