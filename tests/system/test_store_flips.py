"""Bits that flip and pages that go astray: nothing wrong is ever read without a word.

Every damage is made in a copy of a good file; then the store is opened and everything is
read back. What differs from what was written must have been refused, marked as damaged, or
named by the check that a runtime makes of a file (`problems`: scrubber and structure).
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden.errors import RestoreError, StoreError
from treewarden.store import (
    CrashRecord,
    DurableMap,
    DurableQueue,
    StagedEvent,
    StateWrite,
    Store,
    Unit,
    open_store,
)
from treewarden.store.checking import problems
from treewarden.store.database import connect_read_only

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Damage = Callable[[bytearray, random.Random], None]

PAGE = 4096
DAMAGES = 400
AGENTS = 40
ITEMS = 120


def payload(number: int) -> bytes:
    return b'{"n":%d,"text":"%s"}' % (number, b"word " * (number % 60))


async def fill(file: Path) -> None:
    async with open_store(file, application="shop") as store:
        queue = DurableQueue(store, "/queue", "pending", str)
        for number in range(AGENTS):
            unit = Unit(f"/agent/{number}")
            unit.state = StateWrite("Counter", 1, number, payload(number))
            unit.events = [StagedEvent("made", payload(number), 5, unit.path)]
            store.hand_over(unit)
            store.record_crash(crash(number))
        unit = Unit("/queue")
        for number in range(ITEMS):
            await queue.put(f"item {number}" * 3, key=str(number))
        queue.seal(unit)
        pages = DurableMap[str, str](store, "/queue", "pages", str)
        for number in range(ITEMS):
            await pages.set(str(number), f"page {number}" * 3)
        pages.seal(unit)
        store.hand_over(unit)
        await store.settled()


def crash(number: int) -> CrashRecord:
    return CrashRecord(
        path=f"/agent/{number}",
        at_ns=number,
        incarnation=1,
        operation="add",
        message=b"[]",
        fault=b'{"type":"E"}',
        revision=number,
        payload=payload(number),
    )


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that was closed in order."""
    file = tmp_path_factory.mktemp("good") / "store.db"
    trio.run(fill, file)
    return file


def flip_bit(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content))
    content[at] ^= 1 << chance.randrange(8)


def change_byte(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(len(content))] = chance.randrange(256)


def zero_page(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content) // PAGE) * PAGE
    content[at : at + PAGE] = bytes(PAGE)


def swap_pages(content: bytearray, chance: random.Random) -> None:
    one, other = (chance.randrange(len(content) // PAGE) * PAGE for _ in range(2))
    first, second = content[one : one + PAGE], content[other : other + PAGE]
    content[one : one + PAGE], content[other : other + PAGE] = second, first


def cut_off(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(1, len(content)) :]


KINDS: list[tuple[Damage, int]] = [
    (flip_bit, 6),
    (change_byte, 1),
    (zero_page, 1),
    (swap_pages, 1),
    (cut_off, 1),
]


async def read_states(store: Store) -> list[str]:
    """Paths whose state is not what was written and was not refused either."""
    wrong = []
    for number in range(AGENTS):
        try:
            stored = await store.load(f"/agent/{number}", "Counter")
        except RestoreError:
            continue
        found = None if stored is None else (stored.revision, stored.payload)
        if found != (number, payload(number)):
            wrong.append(f"/agent/{number}: {found}")
    return wrong


async def read_history(store: Store) -> list[str]:
    wrong = []
    for entry in await store.entries(since=0, limit=1000):
        number = entry.position - 1
        written = (f"/agent/{number}", payload(number), "made")
        if not entry.damaged and (entry.source, entry.payload, entry.topic) != written:
            wrong.append(f"entry {entry.position}")
    for number in range(AGENTS):
        records = await store.crashes(f"/agent/{number}")
        if records not in ([], [crash(number)]):
            wrong.append(f"crash of {number}")
    return wrong


async def read_queue(store: Store) -> list[str]:
    """Items that are not what was put; and those that are missing, as one word."""
    queue = DurableQueue(store, "/queue", "pending", str)
    wrong: list[str] = []
    found = 0
    while True:
        try:
            item = await queue.take()
        except RestoreError:
            return wrong
        if item is None:
            break
        found += 1
        if item.value != f"item {item.key}" * 3 or item.attempts != 1:
            wrong.append(f"item {item.key}")
    return wrong + (["missing items"] if found != ITEMS else [])


async def read_map(store: Store) -> list[str]:
    """The same of a map, by key and one after the other."""
    pages = DurableMap[str, str](store, "/queue", "pages", str)
    wrong: list[str] = []
    found: set[str] = set()
    for number in range(0, ITEMS, 10):
        with suppress(RestoreError):
            page = await pages.get(str(number))
            if page is None:
                wrong.append("missing items")
            elif page != f"page {number}" * 3:
                wrong.append(f"page {number}")
    items = pages.items()
    with suppress(RestoreError):
        async for key, page in items:
            found.add(key)
            if page != f"page {key}" * 3:
                wrong.append(f"page {key} of all")
        if len(found) != ITEMS:
            wrong.append("missing items")
    return sorted(set(wrong))


async def read_all(file: Path) -> list[str]:
    """What was read wrongly without a word; empty also when the file was refused."""
    wrong: list[str] = []
    try:
        async with open_store(file, application="shop") as store:
            for read in (read_states, read_history, read_queue, read_map):
                try:
                    wrong += await read(store)
                except StoreError:
                    continue
    except StoreError:
        return []
    return wrong


def said(file: Path) -> list[str]:
    """What the check of a file, that every runtime makes, says of this one."""
    with closing(connect_read_only(file)) as connection:
        return problems(connection)


def reads_wrong(file: Path) -> list[str]:
    wrong = trio.run(read_all, file)
    if set(wrong) == {"missing items"}:
        return [] if said(file) else wrong
    return wrong


def test_what_was_written_is_read_back(good: Path, tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    shutil.copy(good, file)
    assert trio.run(read_all, file) == []
    assert said(file) == []


def test_no_damage_is_read_as_if_it_were_right(good: Path, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)  # noqa: S311
    chance = random.Random(seed)  # noqa: S311
    kinds = [kind for kind, weight in KINDS for _ in range(weight)]
    original = good.read_bytes()
    silent: list[Any] = []
    for number in range(DAMAGES):
        kind = chance.choice(kinds)
        content = bytearray(original)
        kind(content, chance)
        file = tmp_path / f"{number}.db"
        file.write_bytes(content)
        wrong = reads_wrong(file)
        if wrong:
            silent.append((number, kind.__name__, wrong[:3]))
    assert not silent, f"of {DAMAGES} with seed {seed}"


def test_without_checksums_damage_is_read_as_if_it_were_right(
    good: Path, tmp_path: Path
) -> None:
    """The control: SQLite alone reads changed values without a word."""
    chance = random.Random(7)  # noqa: S311
    original = good.read_bytes()
    start = original.index(b"word word word")
    silent = 0
    for _ in range(20):
        content = bytearray(original)
        content[start + chance.randrange(14)] ^= 1 << chance.randrange(8)
        file = tmp_path / "plain.db"
        file.write_bytes(content)
        with closing(sqlite3.connect(file)) as plain:
            plain.text_factory = bytes
            try:
                rows = plain.execute("SELECT payload FROM agent_state").fetchall()
                sound = plain.execute("PRAGMA quick_check").fetchone() == (b"ok",)
            except sqlite3.DatabaseError:
                continue
        written = [(payload(number),) for number in range(AGENTS)]
        silent += sound and sorted(rows) != sorted(written)
    assert silent > 0
