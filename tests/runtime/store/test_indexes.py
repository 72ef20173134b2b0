"""A8: a bit that flips in an indexed column, or in an index, is in nobody's way for ever.

SQLite refuses to change a row that an index does not have where the row says, and calls the
file malformed; so the row could be neither handled nor given up.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.clock import wall_ns
from treewarden.store import (
    DurableMap,
    DurableQueue,
    StateFilter,
    StateWrite,
    StoredMessage,
    Unit,
    check_file,
    insert_applied,
    insert_effect,
    insert_letter,
    insert_message,
    open_store,
    scrub_file,
)
from treewarden.store.database import open_database
from treewarden.store.group import Group
from treewarden.store.level import Level
from treewarden.store.writer import IndexMended, Writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORDS = (b"agent-1", b"waits-1", b"letter-1", b"applied-1", b"key-1")


async def fill(file: Path) -> None:
    """Three rows of everything that has an index; the flips are in the second."""
    async with open_store(file) as store:
        await store.index_states("Counter", "n")
        for number in range(3):
            path = f"/agent-{number}"
            unit = Unit(path, StateWrite("Counter", 1, 1, b'{"n":%d}' % number))
            waits, letter = (
                StoredMessage(
                    seq=store.next_sequence(),
                    path=path,
                    id=f"{name}-{number}",
                    operation="note",
                    arguments=b"{}",
                    sender="",
                    at_ns=wall_ns(),
                )
                for name in ("waits", "letter")
            )
            unit.writes = [
                insert_message(waits),
                insert_effect(path, waits.id, 0, b"1"),
                *insert_letter(letter, letter.seq, 3, wall_ns(), "crashed"),
                insert_applied(path, f"applied-{number}", wall_ns(), None),
            ]
            queue = DurableQueue(store, path, "queue", int)
            await queue.put(number, key=f"key-{number}")
            queue.seal(unit)
            pages = DurableMap[str, int](store, path, "pages", int)
            await pages.set(f"key-{number}", number)
            pages.seal(unit)
            store.hand_over(unit)
        await store.settled()


@pytest.fixture
def whole(file: Path) -> bytes:
    """The bytes of a file that has rows in every table with an index."""
    trio.run(fill, file)
    return file.read_bytes()


def places(whole: bytes) -> Iterator[int]:
    """Where the words stand, in rows and in indexes."""
    for word in WORDS:
        at = whole.find(word)
        while at >= 0:
            yield at
            at = whole.find(word, at + 1)


def flip(file: Path, whole: bytes, at: int) -> None:
    content = bytearray(whole)
    content[at] ^= 0x10
    file.write_bytes(content)


def test_damaged_rows_and_indexes_can_always_be_taken_out_and_mended(
    file: Path, whole: bytes
) -> None:
    """A8"""
    looked = 0
    for at in places(whole):
        flip(file, whole, at)
        assert check_file(file).problems, at
        done = scrub_file(file, remove=True)
        assert done.indexes or done.damaged, at
        assert done.removed == len(done.damaged)
        assert check_file(file).problems == [], at
        looked += 1
    assert looked > 20


@pytest.mark.usefixtures("whole")
async def test_a_state_is_found_again_by_an_index_that_was_mended(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("DELETE FROM state_index WHERE path = '/agent-1'")
    (problem,) = check_file(file).problems
    assert "state_index: 1 entries are not as the states" in problem
    scrub_file(file, remove=True)
    async with open_store(file) as store:
        found = await store.query("Counter", [StateFilter("n", "eq", 1)])
        assert [one.path for one in found.found] == ["/agent-1"]


@pytest.mark.parametrize(
    ("word", "table"),
    [
        (b"agent-1", "inbox"),
        (b"applied-1", "applied"),
        (b"key-1", "queue_item"),
        (b"key-1", "map_item"),
    ],
)
def test_a_row_that_no_index_has_can_be_changed_and_somebody_is_told(
    file: Path, whole: bytes, word: bytes, table: str
) -> None:
    """A8"""
    flip(file, whole, whole.find(word, first_page(file, table)))
    delete = f"DELETE FROM {table} WHERE rowid > ?"  # noqa: S608 - our own names
    opened = open_database(file, level=Level.DURABLE, application="", boot="boot")
    writer = Writer(opened)
    try:
        unit = Unit("/agent-1", writes=[(delete, (0,))])
        decision = writer.commit(Group([unit]))
        assert (decision.broken, decision.errors) == (None, {})
        assert [type(one) for one in writer.take_found()] == [IndexMended]
        assert writer.trouble is None
        assert writer.commit(Group([Unit("/b", writes=[(delete, (0,))])])).rows == 0
        assert writer.take_found() == []
    finally:
        writer.close()
        for reader in opened.readers:
            reader.close()
        opened.database.close()


def first_page(file: Path, table: str) -> int:
    """Where in the file a table's rows begin."""
    with closing(sqlite3.connect(file)) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)
        ).fetchone()
    return (int(page) - 1) * 4096
