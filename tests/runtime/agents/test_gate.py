"""Nothing of a handler leaves before its commit, and a commit that fails leaves nothing.

The writer is held by a foreign lock, or its COMMIT is made to fail at an injection point.
"""

from __future__ import annotations

import gc
import json
import math
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    Application,
    ChildSpec,
    Config,
    DurableQueue,
    Event,
    Refused,
    StoreBroken,
    open_runtime,
)
from treewarden.agents.envelope import Envelope
from treewarden.injection import Deed, InjectionPlan, Rule, load_plan, places
from treewarden.store import Unit
from treewarden.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from treewarden import AgentRef, Runtime


class Count(msgspec.Struct):
    value: int = 0
    heard: list[str] = []


class Counter(Agent[Count]):
    jobs: DurableQueue[int]

    async def add(self, amount: int) -> int:
        self.state.value += amount
        await self.jobs.put(amount)
        return self.state.value

    def add_plainly(self, amount: int) -> int:
        self.state.value += amount
        return self.state.value

    async def tell(self, other: str) -> int:
        self.state.value += 1
        self.publish("counter.told", self.state.value)
        self.cast(self.runtime.ref(other, Counter), Counter.hear, "a cast")
        return self.state.value

    async def refuse(self) -> None:
        raise Refused("no")

    async def look(self) -> int:
        return self.state.value

    def look_plainly(self) -> int:
        return self.state.value

    async def hear(self, word: str) -> None:
        self.state.heard.append(word)

    async def listen(self) -> None:
        self.subscribe("counter.*")

    async def on_event(self, event: Event) -> None:
        self.state.heard.append(event.topic)

    async def heard(self) -> list[str]:
        return self.state.heard

    async def queued(self) -> int:
        return len(self.jobs)

    async def hang(self) -> None:
        await trio.sleep_forever()


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    """Counters on this test's file."""

    def make(*ids: str) -> AbstractAsyncContextManager[Runtime]:
        config = Config(store=tmp_path / "test.db", socket=False)
        specs = [ChildSpec(id_, Counter) for id_ in ids]
        return open_runtime(Application("gate", specs), config=config)

    return make


@contextmanager
def gate(folder: Path) -> Iterator[None]:
    """The writer waits at its next BEGIN."""
    with closing(
        sqlite3.connect(folder / "test.db", isolation_level=None)
    ) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def on_disk(folder: Path) -> dict[str, int]:
    """The value of each counter that has stored one, and how many jobs it has."""
    with closing(sqlite3.connect(folder / "test.db")) as connection:
        rows = connection.execute("SELECT path, payload FROM agent_state")
        return {path: json.loads(payload)["value"] for path, payload in rows}


async def test_nothing_of_a_handler_leaves_before_its_commit(
    opened: Any, tmp_path: Path
) -> None:
    """Reply, refusal, event, cast; of plain, async and only reading handlers."""
    async with opened("counter", "other", "listener") as runtime:
        counter = runtime.ref("counter", Counter)
        other, listener = (
            runtime.ref("other", Counter),
            runtime.ref("listener", Counter),
        )
        await counter.call(Counter.add, 1)
        await listener.call(Counter.listen)
        answers: list[object] = []

        async def call(operation: Any, *args: object) -> None:
            try:
                answers.append(await counter.call(operation, *args))
            except Refused as refusal:
                answers.append(str(refusal))

        async with (
            runtime.bus.subscribe("counter.*") as events,
            trio.open_nursery() as nursery,
        ):
            with gate(tmp_path):
                for operation, *args in (
                    (Counter.add, 10),
                    (Counter.tell, "other"),
                    (Counter.look,),
                    (Counter.look_plainly,),
                    (Counter.refuse,),
                    (Counter.add_plainly, 100),
                    (Counter.look_plainly,),
                ):
                    nursery.start_soon(call, operation, *args)
                    await wait_all_tasks_blocked()
                seen = counter.statistics()
                assert seen.handled + seen.refused == 8
                assert answers == []
                assert events.pending == 0
                # Both are clean and answer at once: nothing has come to them.
                assert await other.call(Counter.heard) == []
                assert await listener.call(Counter.heard) == []
                assert on_disk(tmp_path) == {"/counter": 1}
        # Told in one turn of the loop, in which trio runs tasks in any order.
        assert sorted(map(str, answers)) == ["11", "112", "112", "12", "12", "12", "no"]
        assert await other.call(Counter.heard) == ["a cast"]
        assert await listener.call(Counter.heard) == ["counter.told"]


async def test_a_failed_commit_leaves_memory_equal_to_disk_in_it_and_behind_it(
    opened: Any, tmp_path: Path
) -> None:
    """It spends no restart budget, and the next call succeeds."""
    ids = [f"c{number}" for number in range(10)]
    failure = Rule(point=places.BEFORE_COMMIT.name, do=Deed.RAISE, error="io")
    async with opened(*ids) as runtime:
        refs: list[AgentRef[Counter]] = [runtime.ref(id_, Counter) for id_ in ids]
        for ref in refs:
            await ref.call(Counter.add, 1)
        for turn in range(5):
            errors: list[StoreBroken] = []

            async def add(
                ref: AgentRef[Counter], errors: list[StoreBroken] = errors
            ) -> None:
                with pytest.raises(StoreBroken) as caught:
                    await ref.call(Counter.add, 1000)
                errors.append(caught.value)

            loaded = load_plan(InjectionPlan(name="fail", injections=(failure,)))
            async with trio.open_nursery() as nursery:
                with gate(tmp_path):
                    # The writer has the first half; the others pile up behind it, and
                    # so do second calls that build on the first.
                    for ref in refs[:5]:
                        nursery.start_soon(add, ref)
                    await wait_all_tasks_blocked()
                    for ref in refs[3:]:
                        nursery.start_soon(add, ref)
                    await wait_all_tasks_blocked()
            loaded.lift()
            assert loaded.done == 1
            assert len(set(map(id, errors))) == 12
            expected = 1 + turn
            memory = {ref.path: await ref.call(Counter.look) for ref in refs}
            assert memory == on_disk(tmp_path) == dict.fromkeys(memory, expected)
            queued = [await ref.call(Counter.queued) for ref in refs]
            assert queued == [expected] * len(refs)
            for ref in refs:
                assert await ref.call(Counter.add, 1) == expected + 1
        tree = runtime.tree()
        assert tree["/application"].budget[0] == 0
        assert {ref.incarnation for ref in refs} == {6}
        assert runtime.store.statistics().health == "ok"


async def test_one_stuck_call_keeps_nothing_of_the_others(opened: Any) -> None:
    """Timeouts, held replies and groups: bounded by the calls that are outstanding."""
    async with opened("stuck", "busy") as runtime, trio.open_nursery() as nursery:
        stuck, busy = runtime.ref("stuck", Counter), runtime.ref("busy", Counter)
        nursery.start_soon(stuck.with_timeout(math.inf).call, Counter.hang)
        await wait_until(lambda: stuck.statistics().mailbox == 0)

        async def count_kept() -> int:
            await runtime.store.settled()
            gc.collect()
            return sum(isinstance(one, (Envelope, Unit)) for one in gc.get_objects())

        async def call(times: int) -> None:
            for _ in range(times):
                await busy.call(Counter.add_plainly, 1)

        async def load() -> None:
            async with trio.open_nursery() as calling:
                for _ in range(20):
                    calling.start_soon(call, 100)

        # What is kept in any case: the last messages, which the console shows.
        await load()
        before = await count_kept()
        await load()
        assert await count_kept() < before + 100
        nursery.cancel_scope.cancel()
