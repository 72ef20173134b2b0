"""Copies: whole or not there, made while the store is used."""

from __future__ import annotations

import resource
import signal
import sqlite3
import stat
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.errors import StoreBroken, StoreClosed, StoreError
from treewarden.store import Level, Store, open_store
from treewarden.store.copies import (
    begin_copy,
    copy_database,
    partial_name,
    verify_copy,
)
from treewarden.store.group import Group
from treewarden.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from treewarden.store.writer import Writer

    from .conftest import MakeUnit

    Foreign = Callable[[], AbstractContextManager[sqlite3.Connection]]

PAYLOAD = b'"' + b"x" * 5000 + b'"'


def revisions(file: Path) -> dict[str, int]:
    with closing(sqlite3.connect(file)) as connection:
        return dict(connection.execute("SELECT path, revision FROM agent_state"))


def size_and_mode(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, stat.S_IMODE(status.st_mode)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "copies").mkdir()
    return tmp_path / "copies" / "store.backup"


async def fill(store: Store, make: MakeUnit, agents: int) -> None:
    for number in range(agents):
        store.hand_over(make(f"/{number}", 1, payload=PAYLOAD))
    await store.settled()


async def test_a_backup_holds_what_was_acknowledged_before_it(
    store: Store, make: MakeUnit, target: Path
) -> None:
    await fill(store, make, 20)
    backup = await store.backup(target)
    assert revisions(target) == {f"/{number}": 1 for number in range(20)}
    assert (backup.path, backup.damaged) == (target, [])
    assert backup.rows >= 20
    assert size_and_mode(target) == (backup.bytes, 0o600)
    assert names(target.parent) == {"store.backup"}


async def test_a_backup_can_be_opened_as_a_store(
    store: Store, make: MakeUnit, target: Path
) -> None:
    await fill(store, make, 3)
    await store.backup(target)
    async with open_store(target) as copy:
        assert await copy.load("/2", "Counter") is not None


async def test_a_copy_that_cannot_be_made_says_what_to_do(
    store: Store, tmp_path: Path
) -> None:
    with pytest.raises(StoreBroken) as raised:
        await store.backup(tmp_path / "nowhere" / "copy.db")
    assert str(raised.value) == (
        f"cannot make the copy {tmp_path}/nowhere/copy.db: No such file or directory:"
        " it cannot be opened; check that its folder exists"
    )


def test_of_a_copy_that_the_disk_has_no_room_for_nothing_is_left(
    tmp_path: Path, writer: Writer, make: MakeUnit
) -> None:
    """A5, A11"""
    writer.commit(Group([make(f"/{n}", 1, payload=PAYLOAD) for n in range(100)]))
    target = tmp_path / "copies" / "copy.db"
    target.parent.mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    was = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StoreBroken) as raised:
            copy_database(writer.connected(), target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, was)
    assert str(raised.value).startswith(f"cannot make the copy {target}: ")
    assert names(target.parent) == set()


async def test_a_store_in_memory_can_be_kept(make: MakeUnit, target: Path) -> None:
    async with open_store(None, level=Level.VOLATILE) as store:
        await fill(store, make, 3)
        await store.backup(target)
    assert len(revisions(target)) == 3


async def test_commits_go_on_while_a_backup_is_made_and_are_in_it(
    store: Store, make: MakeUnit, target: Path
) -> None:
    """What was committed between two slices is in the copy, also in pages copied before."""
    await fill(store, make, 1000)
    committed: list[int] = []

    async def write() -> None:
        for number in range(2, 1000):
            unit = make("/0", number, payload=PAYLOAD)
            store.hand_over(unit)
            await store.wait(unit)
            committed.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        while not committed:
            await trio.lowlevel.checkpoint()
        before = committed[-1]
        await store.backup(target)
        after = committed[-1]
        nursery.cancel_scope.cancel()
    found = revisions(target)
    assert len(found) == 1000
    assert before <= found["/0"] <= after + 1
    assert store.statistics().failed_commits == 0


@pytest.fixture
def precious(target: Path) -> Path:
    target.write_text("precious")
    return target


async def test_a_backup_never_writes_over_a_file(store: Store, precious: Path) -> None:
    with pytest.raises(StoreError, match="is there already; name another"):
        await store.backup(precious)
    assert size_and_mode(precious)[0] == len("precious")
    assert names(precious.parent) == {"store.backup"}


async def test_a_backup_that_cannot_be_written_says_where(
    store: Store, tmp_path: Path
) -> None:
    with pytest.raises(StoreBroken, match=r"nowhere/store\.backup"):
        await store.backup(tmp_path / "nowhere" / "store.backup")
    store.report("still.working", b"1")


async def test_a_cancelled_backup_leaves_nothing(
    store: Store, make: MakeUnit, target: Path
) -> None:
    await fill(store, make, 500)
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.backup(target)
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.backup, target)
        while not names(target.parent):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert names(target.parent) <= {"store.backup"}
    await fill(store, make, 1)


async def test_a_store_that_is_closed_makes_no_backup(file: Path, target: Path) -> None:
    async with open_store(file) as store:
        pass
    with pytest.raises(StoreClosed):
        await store.backup(target)


async def test_closing_ends_a_backup(file: Path, make: MakeUnit, target: Path) -> None:
    async with trio.open_nursery() as nursery, open_store(file) as store:
        await fill(store, make, 3000)
        jobs = store._thread._jobs

        def until_behind_it_are(count: int) -> Callable[[object], None]:
            def wait(_: object) -> None:
                while jobs.qsize() < count:
                    time.sleep(0.001)

            return wait

        async def back_up() -> None:
            with pytest.raises(StoreClosed):
                await store.backup(target)

        # Between its first two slices the copying finds a job that lasts until the end.
        store._thread.ask(until_behind_it_are(2))
        nursery.start_soon(back_up)
        await wait_until(lambda: jobs.qsize() == 1)
        store._thread.ask(until_behind_it_are(1))
        await wait_until(partial_name(target).exists)
    assert names(target.parent) == set()


async def test_a_damaged_row_is_copied_and_named(
    store: Store, make: MakeUnit, target: Path, foreign: Foreign
) -> None:
    await fill(store, make, 3)
    with foreign() as connection:
        connection.execute("UPDATE agent_state SET revision = 9 WHERE path = '/1'")
    backup = await store.backup(target)
    assert [str(row) for row in backup.damaged] == [
        "agent_state: the row /1 is damaged"
    ]


def test_a_copy_cut_off_half_way_is_not_taken_for_one(
    writer: Writer, target: Path
) -> None:
    begin_copy(writer.connected(), partial_name(target))
    assert not target.exists()
    again = copy_database(writer.connected(), target)
    assert again.path == target
    assert names(target.parent) == {"store.backup"}


def test_a_copy_that_does_not_hold_together_gets_no_name(
    writer: Writer, make: MakeUnit, target: Path
) -> None:
    partial = partial_name(target)
    begin_copy(writer.connected(), partial)
    content = bytearray(partial.read_bytes())
    content[4096:8192] = bytes(4096)
    partial.write_bytes(content)
    with pytest.raises((StoreBroken, sqlite3.DatabaseError)):
        verify_copy(partial, target)
    assert not target.exists()


async def test_a_failed_commit_ends_the_copying_and_not_the_writer(
    store: Store, make: MakeUnit, target: Path
) -> None:
    """The connection that is copied is given up when a commit fails on it."""
    await fill(store, make, 20)
    failures: list[StoreBroken] = []

    async def copy() -> None:
        try:
            await store._thread.copy(partial_name(target))
        except StoreBroken as failure:
            failures.append(failure)

    def fail(_: sqlite3.Connection) -> None:
        store._writer._break(sqlite3.OperationalError("disk I/O error"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy)
        await trio.lowlevel.checkpoint()
        store._thread.ask(fail)
        store._thread.ask(lambda _: None)
    # It may have been through before the commit failed.
    assert all("try again" in str(failure) for failure in failures)
    await fill(store, make, 1)
