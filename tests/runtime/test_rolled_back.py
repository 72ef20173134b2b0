"""A handler whose commit failed is rolled back: nobody's crash, wherever it is told of."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import treewarden.control.protocol as wire
from treewarden import (
    Agent,
    Application,
    ChildSpec,
    Config,
    Intensity,
    StoreBroken,
    open_runtime,
)
from treewarden.cli.showing import why_text
from treewarden.control import Client
from treewarden.telemetry import NODE_EXITS
from treewarden.telemetry.metrics import Series
from treewarden.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from treewarden import Runtime

ANN = Client(name="test", operator="ann", uid=0, pid=0, rights=wire.Rights.RO)


class Sum(msgspec.Struct):
    total: int = 0


class Adder(Agent[Sum]):
    async def add(self, amount: int) -> int:
        self.state.total += amount
        return self.state.total

    async def join(self, other: str) -> None:
        self.link(self.runtime.ref(other, Adder))


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[Runtime]:
    """Adders that may never be restarted; the file refuses the sum 7."""
    adders = [ChildSpec(id_, Adder) for id_ in ("one", "two")]
    app = Application("test", adders, intensity=Intensity(limit=0))
    config = Config(store=path / "test.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        await runtime.ref("one", Adder).call(Adder.add, 1)
        with closing(sqlite3.connect(path / "test.db")) as foreign, foreign:
            foreign.execute(
                """CREATE TRIGGER refuse BEFORE UPDATE ON agent_state
                WHEN NEW.payload LIKE '%"total":7}%'
                BEGIN SELECT RAISE(ABORT, 'the test refuses 7'); END"""
            )
        yield runtime


async def roll_back(runtime: Runtime) -> None:
    one = runtime.ref("one", Adder)
    before = one.incarnation
    with pytest.raises(StoreBroken, match="the test refuses 7"):
        await one.call(Adder.add, 6)
    # Answered by the next incarnation.
    assert await one.call(Adder.add, 0) == 1
    assert one.incarnation == before + 1


async def test_it_is_logged_as_a_warning_and_counted_as_no_crash(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as runtime:
        await roll_back(runtime)
        assert runtime.ref("one", Adder).statistics().crashed == 0
        readings = runtime.telemetry.metrics.read()
    told = [one for one in caplog.records if one.name == "treewarden.supervision"]
    [record] = [one for one in told if one.levelno >= logging.INFO]
    assert record.levelno == logging.WARNING
    assert "agent /one was rolled back: StoreBroken: " in record.getMessage()
    assert "Traceback" not in caplog.text
    [exits] = [one for one in readings if one.name == NODE_EXITS]
    assert isinstance(exits, Series)
    assert [attributes["kind"] for attributes, _ in exits.points] == ["rolled_back"]


async def test_it_costs_no_budget_however_often_it_happens(tmp_path: Path) -> None:
    async with running(tmp_path) as runtime:
        for _ in range(5):
            await roll_back(runtime)
        budget = runtime.tree()["/application"].budget
        assert budget is not None
        assert budget[0] == 0


async def test_why_says_what_was_rolled_back_and_finds_nothing_that_failed(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as runtime:
        await roll_back(runtime)
        await runtime.store.settled()
        why: Any = await runtime.desk().perform("why", wire.Why(path="/one"), ANN)
        assert await runtime.store.faults("/one") == []
        assert await runtime.store.crashes("/one") == []
    assert (why.cause, why.faults_total, why.message) == ("rollback", 0, "")
    sentence, *rest = why_text(why).splitlines()
    assert sentence.startswith(
        "/one was rolled back to its last committed state: StoreBroken: "
    )
    assert not any("crashed" in line or "failed" in line for line in rest[:3])


async def test_the_journal_says_rolled_back(tmp_path: Path) -> None:
    async with running(tmp_path) as runtime:
        await roll_back(runtime)

        async def told() -> list[dict[str, Any]]:
            entries = await runtime.store.entries(since=0, limit=1000)
            return [
                msgspec.json.decode(entry.payload)
                for entry in entries
                if entry.topic == "supervision.exited" and entry.source == "/one"
            ]

        while not await told():
            await runtime.store.settled()
        [ended] = await told()
        last = runtime.tree()["/one"].last_exit
    assert ended["exit"].startswith("rolled back: StoreBroken: ")
    assert last is not None


async def test_who_is_linked_with_it_is_rolled_back_too_and_says_by_whom(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as runtime:
        two = runtime.ref("two", Adder)
        await two.call(Adder.join, "one")
        await roll_back(runtime)
        await wait_until(lambda: two.incarnation == 2)
        assert two.statistics().crashed == 0
    assert "/one, which it was linked with, was rolled back: StoreBroken" in caplog.text
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]
