"""The fault history: by node, a thousand within a day, and nothing for ever."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from treewarden import Agent, Application, ChildSpec, open_runtime
from treewarden.clock import wall_ns
from treewarden.config import Config
from treewarden.errors import AgentCrashed
from treewarden.store import open_store
from treewarden.store.database import open_database
from treewarden.store.faults import FAULT_NS, FAULTS_KEPT, TRIM_ROWS, load_faults
from treewarden.store.group import Group
from treewarden.store.level import Level
from treewarden.store.unit import StagedEvent
from treewarden.store.writer import Writer
from treewarden.supervision import Intensity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from treewarden.store import Store


def faults(path: str, count: int, at_ns: int | None = None) -> Group:
    at_ns = wall_ns() if at_ns is None else at_ns
    reports = [
        StagedEvent("exited", b'"%d"' % n, at_ns, path, kind="report", fault=True)
        for n in range(count)
    ]
    return Group([], reports)


def kept(writer: Writer, path: str) -> list[bytes]:
    found = load_faults(writer.connected(), path, 0, 10 * FAULTS_KEPT)
    return [record.payload for record in found]


async def test_faults_are_found_by_node_and_time_oldest_first(store: Store) -> None:
    store.report("exited", b'"a1"', source="/a", fault=True)
    store.report("exited", b'"b1"', source="/b", fault=True)
    store.report("started", b'"a"', source="/a")
    store.report("exited", b'"a2"', source="/a", fault=True)
    await store.settled()
    while store.position < 4:
        await store.read(lambda connection: connection.total_changes)
    first, second = await store.faults("/a")
    assert (first.payload, second.payload) == (b'"a1"', b'"a2"')
    assert (first.position, second.position) == (1, 4)
    assert await store.faults("/a", limit=1) == [second]
    assert await store.faults("/a", since_ns=second.at_ns + 1) == []
    assert await store.faults("/nobody") == []


async def test_s50_faults_outlive_the_process(file: Path) -> None:
    """S50: the original's history was lost with its process."""
    async with open_store(file) as store:
        store.report("exited", b'"boom"', source="/a", fault=True)
    async with open_store(file) as store:
        assert [one.payload for one in await store.faults("/a")] == [b'"boom"']


def test_s50_the_newest_thousand_faults_of_a_node_are_kept(writer: Writer) -> None:
    """S50"""
    writer.commit(faults("/busy", FAULTS_KEPT + 1200))
    writer.commit(faults("/other", 3))
    writer.rest()
    writer.rest()
    assert kept(writer, "/busy")[0] == b'"1200"'
    writer.commit(faults("/busy", 1))
    writer.rest()
    assert len(kept(writer, "/busy")) == FAULTS_KEPT
    assert len(kept(writer, "/other")) == 3


def test_s50_nothing_stays_of_a_node_that_is_gone(writer: Writer) -> None:
    """S50: the original kept an empty history of every agent for ever."""
    long_ago = wall_ns() - 2 * FAULT_NS
    writer.commit(faults("/gone", TRIM_ROWS + 1, long_ago))
    writer.commit(faults("/here", 1))
    for _ in range(3):
        writer.rest()
    assert kept(writer, "/gone") == []
    assert len(kept(writer, "/here")) == 1


def test_a_report_that_is_rolled_back_leaves_no_fault(writer: Writer) -> None:
    writer.connected().execute("PRAGMA query_only = ON")
    assert writer.commit(faults("/a", 1)).broken is not None
    assert kept(writer, "/a") == []


@contextmanager
def writing(file: Path) -> Iterator[Writer]:
    opened = open_database(file, level=Level.DURABLE, application="", boot="boot")
    writer = Writer(opened)
    yield writer
    writer.close()
    for reader in opened.readers:
        reader.close()
    opened.database.close()


def test_a_flipped_bit_in_a_path_stops_no_trimming(file: Path) -> None:
    with writing(file) as writer:
        writer.commit(faults("/flip", 3, wall_ns() - 2 * FAULT_NS))
        writer.commit(faults("/here", 1))
        (page,) = (
            writer.connected()
            .execute("SELECT rootpage FROM sqlite_schema WHERE name = 'fault'")
            .fetchone()
        )
    content = bytearray(file.read_bytes())
    content[content.index(b"/flip", (page - 1) * 4096) + 1] ^= 1
    file.write_bytes(content)
    with writing(file) as writer:
        for _ in range(2):
            writer.rest()
            assert writer.trouble is None
        assert kept(writer, "/flip") == []
        assert len(kept(writer, "/here")) == 1


class Fragile(Agent[None]):
    persistence = "none"

    def initial_state(self) -> None:
        return None

    async def fail(self, word: str) -> None:
        raise ValueError(word)


async def test_s50_what_crashed_in_a_tree_is_told_by_path_and_survives_a_restart(
    file: Path,
) -> None:
    """S50: nobody has to record it; every crash of every node is in the history."""
    child = ChildSpec("fragile", Fragile, intensity=Intensity(10, 5.0))
    config = Config(store=file, socket=False)
    async with open_runtime(Application("app", [child]), config=config) as runtime:
        fragile = runtime.ref("fragile", Fragile)
        for word in ("one", "two"):
            with pytest.raises(AgentCrashed):
                await fragile.call(Fragile.fail, word)
    async with open_runtime(Application("app", [child]), config=config) as runtime:
        found = await runtime.store.faults("/fragile")
    told = [msgspec.json.decode(one.payload) for one in found]
    assert [one["exit"] for one in told] == [
        "crashed: ValueError: one",
        "crashed: ValueError: two",
    ]
    assert [one["operation"] for one in told] == ["fail", "fail"]
    assert [one.topic for one in found] == ["supervision.exited"] * 2
