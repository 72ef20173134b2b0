"""Bits that flip and pages that go astray: nothing wrong is ever read without a word.

Every damage is made in a copy of a good file in which every table has rows; then the store
is opened, everything is read back and the writer does its housekeeping. What differs from
what was written must have been refused, marked as damaged, or named by the check that a
runtime makes of a file (`problems`: scrubber and structure). And nothing falls: what comes
out is an error of the store's. `SOAK=100` makes it a hundred times as long, with other seeds.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden.clock import wall_ns
from treewarden.errors import RestoreError, StoreError
from treewarden.store import (
    CrashRecord,
    DurableMap,
    DurableQueue,
    Outcome,
    StagedEvent,
    StateFilter,
    StateWrite,
    StepState,
    Store,
    StoredDelivery,
    StoredMessage,
    StoredStep,
    StoredSubscription,
    StoredWorkflow,
    Unit,
    Verdict,
    WorkflowState,
    insert_applied,
    insert_effect,
    insert_letter,
    insert_message,
    insert_workflow,
    keep_policy_state,
    keep_step,
    load_children,
    load_deliveries,
    load_effects,
    load_letters,
    load_messages,
    load_policy_states,
    load_steps,
    load_subscriptions,
    load_transactions,
    load_unfinished,
    load_workflow,
    load_workflows,
    log_transaction,
    note_delivery,
    open_store,
    remember_child,
    save_subscription,
)
from treewarden.store.applied import find_applied
from treewarden.store.checking import problems
from treewarden.store.checksums import TABLES
from treewarden.store.database import connect_read_only, open_database
from treewarden.store.level import Level
from treewarden.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from treewarden.store.unit import Write

    Damage = Callable[[bytearray, random.Random], None]

PAGE = 4096
DAMAGES = 400
SEEDS = range(1, 1 + int(os.environ.get("SOAK", "1")))
AGENTS = 40
ITEMS = 120
MESSAGES = 20
FAULTS = 10
NOW = wall_ns()


def payload(number: int) -> bytes:
    return b'{"n":%d,"text":"%s"}' % (number, b"word " * (number % 60))


async def fill(file: Path) -> str:
    """Something in every table; which run it was."""
    async with open_store(file, application="shop") as store:
        queue = DurableQueue(store, "/queue", "pending", str)
        for number in range(AGENTS):
            unit = Unit(f"/agent/{number}")
            unit.state = StateWrite("Counter", 1, number, payload(number))
            unit.events = [StagedEvent("made", payload(number), NOW, unit.path)]
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
        unit = Unit("/inbox")
        unit.writes = [write for number in range(MESSAGES) for write in rows_of(number)]
        store.hand_over(unit)
        for number in range(FAULTS):
            store.report("faulted", payload(number), source="/faulty", fault=True)
        await store.index_states("Counter", "n")
        await store.settled()
        return store.boot


def rows_of(number: int) -> list[Write]:
    """A row of each kind that messages, transactions and remembered children have."""
    message, key = message_of(number), str(number)
    return [
        insert_message(message),
        *insert_letter(message, 500 + number, 3, NOW, "poison"),
        insert_applied("/inbox", key, NOW, payload(number)),
        insert_effect("/inbox", "message", number, payload(number)),
        log_transaction(key, Verdict.COMMIT, [f"bank {number}"]),
        remember_child("/crew", key, payload(number)),
        keep_policy_state("circuit", key, payload(number)),
        *save_subscription(subscription_of(number)),
        note_delivery(("/inbox", "0"), delivery_of(number)),
        insert_workflow(workflow_of(number)),
        keep_step(step_of(number)),
    ]


def workflow_of(number: int) -> StoredWorkflow:
    return StoredWorkflow(
        id=str(number),
        name="trip",
        version=1,
        state=WorkflowState.RUNNING,
        attempts=number,
        begun_ns=NOW + number,
        ended_ns=0,
        resume_as="",
        reason=f"reason {number}",
        outcome=b"null",
        arguments=payload(number),
    )


def step_of(number: int) -> StoredStep:
    return StoredStep(
        workflow="0",
        number=number,
        name="book",
        state=StepState.DONE,
        attempts=1,
        compensation="cancel",
        undo_failures=0,
        at_ns=NOW,
        outcome=payload(number),
    )


def message_of(number: int) -> StoredMessage:
    return StoredMessage(
        seq=1000 + number,
        path="/inbox",
        id=str(number),
        operation="add",
        arguments=payload(number),
        sender="/sender",
        at_ns=number,
    )


def subscription_of(number: int) -> StoredSubscription:
    return StoredSubscription(
        owner="/inbox",
        name=str(number),
        pattern=f"made.{number}",
        cursor=number,
        begun=1000,
        at_ns=number,
    )


def delivery_of(number: int) -> StoredDelivery:
    return StoredDelivery(position=100 + number, attempts=1, event=payload(number))


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
    """A file that was closed in order; it has the name of the run that filled it."""
    file = tmp_path_factory.mktemp("good") / "store.db"
    return file.rename(file.with_name(trio.run(fill, file)))


def flip_bit(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content))
    content[at] ^= 1 << chance.randrange(8)


def flip_used_bit(content: bytearray, chance: random.Random) -> None:
    """Where something is: records, their headers, the pointers to them."""
    at = chance.randrange(len(content))
    while not content[at]:
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
    (flip_bit, 3),
    (flip_used_bit, 6),
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
        written = (
            (f"/agent/{number}", payload(number), "made")
            if number < AGENTS
            else ("/faulty", payload(number - AGENTS), "faulted")
        )
        if not entry.damaged and (entry.source, entry.payload, entry.topic) != written:
            wrong.append(f"entry {entry.position}")
    for fault in await store.faults("/faulty"):
        number = fault.position - 1 - AGENTS
        if (fault.topic, fault.payload) != ("faulted", payload(number)):
            wrong.append(f"fault {fault.position}")
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


async def read_messages(store: Store) -> list[str]:
    """Messages, letters and what was remembered of them."""
    messages = await store.read(partial(load_messages, path="/inbox"))
    letters = await store.read(partial(load_letters, after=0, limit=1000))
    wrong = [
        f"message {one.seq}"
        for one in messages
        if one.sound and one != message_of(one.seq - 1000)
    ]
    wrong += [
        f"letter {one.seq}"
        for one in letters
        if one.sound and one.arguments != payload(one.seq - 500)
    ]
    missing = len(messages) != MESSAGES or len(letters) != MESSAGES
    for number in range(MESSAGES):
        key = str(number)
        found = await store.read(partial(find_applied, id_=key))
        missing = missing or not found
        if any(one.sound and one.answer != payload(number) for one in found):
            wrong.append(f"answer {key}")
        if found and await store.outcome(key) is not Outcome.APPLIED:
            wrong.append(f"outcome of {key}")
    return wrong + ["missing items"] * missing


async def read_calls(store: Store, boot: str) -> list[str]:
    """What became of calls of the run that filled the file."""
    outcomes = {await store.outcome(f"{boot}:{number}") for number in range(1, AGENTS)}
    never = await store.outcome(f"{boot}:1000000") is Outcome.APPLIED
    return ["a call that never was"] * never + [
        "missing items" for one in outcomes if one is Outcome.NOT_APPLIED
    ]


async def read_effects(store: Store) -> list[str]:
    effects = await store.read(partial(load_effects, path="/inbox", id_="message"))
    wrong = [
        f"effect {number}" for number in effects if effects[number] != payload(number)
    ]
    return wrong + ["missing items"] * (len(effects) != MESSAGES)


async def read_kept(store: Store) -> list[str]:
    """Transactions that are not over, and remembered children."""
    logged = await store.read(load_transactions)
    children = await store.read(partial(load_children, supervisor="/crew"))
    wrong = [
        f"transaction {one.id}"
        for one in logged
        if one.participants is not None
        and (one.verdict, one.participants) != (Verdict.COMMIT, (f"bank {one.id}",))
    ]
    wrong += [
        f"child {id_}"
        for id_, spec in children
        if spec is not None and spec != payload(int(id_))
    ]
    missing = len(logged) != MESSAGES or len(children) != MESSAGES
    return wrong + ["missing items"] * missing


async def read_subscriptions(store: Store) -> list[str]:
    """How far subscriptions have come, and what policies keep."""
    found = await store.read(load_subscriptions)
    wrong = [
        f"subscription {one.name}"
        for one in found
        if one.sound and one != subscription_of(int(one.name))
    ]
    deliveries = await store.read(partial(load_deliveries, key=("/inbox", "0")))
    wrong += [
        f"delivery {one.position}"
        for one in deliveries
        if one.sound and one != delivery_of(one.position - 100)
    ]
    kept = await store.read(partial(load_policy_states, kind="circuit"))
    wrong += [
        f"policy {name}"
        for name, state in kept.items()
        if state is not None and state != payload(int(name))
    ]
    missing = {len(found), len(deliveries), len(kept)} != {MESSAGES}
    return wrong + ["missing items"] * missing


async def read_workflows(store: Store) -> list[str]:
    """Workflows by id and all at once, and steps."""
    found = await store.read(
        partial(load_workflows, states=set(WorkflowState), limit=100)
    )
    unfinished = await store.read(partial(load_unfinished, after=""))
    one = await store.read(partial(load_workflow, id_="7"))
    wrong = [
        f"workflow {two.id}"
        for two in (*found, *unfinished, *([one] if one else []))
        if two.sound and two != workflow_of(int(two.id))
    ]
    steps = await store.read(partial(load_steps, id_="0"))
    wrong += [f"step {two.number}" for two in steps if two != step_of(two.number)]
    missing = {len(found), len(unfinished), len(steps)} != {MESSAGES}
    return wrong + ["missing items"] * missing


async def read_found(store: Store) -> list[str]:
    """States by a field that has an index, and by one that has none."""
    wrong: list[str] = []
    for field, wanted in (("n", 7), ("text", "word " * 7)):
        answer = await store.query("Counter", [StateFilter(field, "eq", wanted)])
        wrong += [
            f"{found.path} by {field}"
            for found in answer.found
            if (found.path, found.payload) != ("/agent/7", payload(7))
        ]
        if not answer.found and not answer.damaged:
            wrong.append("missing items")
    return wrong


READS = (
    read_states,
    read_history,
    read_queue,
    read_map,
    read_messages,
    read_effects,
    read_kept,
    read_subscriptions,
    read_workflows,
    read_found,
)


async def read_everything(store: Store, boot: str) -> list[str]:
    """What was read wrongly without a word."""
    wrong: list[str] = []
    for read in (*READS, partial(read_calls, boot=boot)):
        # A reading that goes round in circles is an error, and does not end by itself.
        with trio.fail_after(30), suppress(StoreError, RestoreError):
            wrong += await read(store)
    return wrong


async def read_all(file: Path, boot: str) -> list[str]:
    """The same of a file; empty also when it was refused."""
    try:
        async with open_store(file, application="shop") as store:
            return await read_everything(store, boot)
    except StoreError:
        return []


def keep_house(file: Path, damage: Callable[[], None] = lambda: None) -> None:
    """What the writer does at rest: it meets damage, and is not surprised."""
    with suppress(StoreError):
        opened = open_database(
            file, level=Level.DURABLE, application="shop", boot="another"
        )
        for reader in opened.readers:
            reader.close()
        damage()
        writer = Writer(opened)
        for _ in range(2 * len(TABLES)):
            writer.rest()
            assert "please report" not in str(writer.trouble), writer.trouble
        writer.close()
        opened.database.close()


def said(file: Path) -> list[str]:
    """What the check of a file, that every runtime makes, says of this one."""
    with closing(connect_read_only(file)) as connection:
        return problems(connection)


def reads_wrong(file: Path, boot: str) -> list[str]:
    wrong = trio.run(read_all, file, boot)
    keep_house(file)
    if set(wrong) == {"missing items"}:
        return [] if said(file) else wrong
    return wrong


def test_what_was_written_is_read_back(good: Path, tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    shutil.copy(good, file)
    assert trio.run(read_all, file, good.name) == []
    assert said(file) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_no_damage_is_read_as_if_it_were_right(
    good: Path, tmp_path: Path, seed: int
) -> None:
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
        wrong = reads_wrong(file, good.name)
        if wrong:
            silent.append((number, kind.__name__, wrong[:3]))
        file.unlink()
    assert not silent, f"of {DAMAGES} with seed {seed}"


def rows_as_sqlite_has_them(file: Path) -> list[list[Any]] | None:
    """Every row of the file; None when SQLite itself sees that something is wrong."""
    with closing(sqlite3.connect(file)) as plain:
        plain.text_factory = bytes
        try:
            if plain.execute("PRAGMA quick_check").fetchone() != (b"ok",):
                return None
            return [
                plain.execute(f"SELECT * FROM {name}").fetchall()  # noqa: S608
                for name in TABLES
            ]
        except sqlite3.DatabaseError:
            return None


def test_without_checksums_damage_is_read_as_if_it_were_right(
    good: Path, tmp_path: Path
) -> None:
    """The control: SQLite alone reads changed values without a word."""
    chance = random.Random(7)  # noqa: S311
    original = good.read_bytes()
    start = original.index(b"word word word")
    file = tmp_path / "plain.db"
    shutil.copy(good, file)
    written = rows_as_sqlite_has_them(file)
    silent = 0
    for _ in range(20):
        content = bytearray(original)
        content[start + chance.randrange(14)] ^= 1 << chance.randrange(8)
        file.write_bytes(content)
        silent += rows_as_sqlite_has_them(file) not in (None, written)
    assert silent > 0


# --- a value of another type ------------------------------------------------------------

OTHERS = (None, 7_000_000, 7.5, "seven", b"seven", b"\xff\xfe")
COLUMNS = [
    (table.name, column)
    for table in TABLES.values()
    for column in (*table.columns, "crc")
]


def put_values_of_other_types(file: Path, table: str, column: str) -> None:
    """Into one column of the first rows, as a flipped bit would: SQLite is not asked."""
    place = TABLES[table].key[0] if table == "meta" else "rowid"
    with closing(sqlite3.connect(file, isolation_level=None)) as plain:
        query = "SELECT sql FROM sqlite_schema WHERE name = ?"
        (schema,) = plain.execute(query, (table,)).fetchone()
        lax = (
            schema.replace("STRICT,", "").replace("STRICT", "").replace("NOT NULL", "")
        )
        set_schema(plain, table, lax)
        rows = plain.execute(f"SELECT {place} FROM {table} ORDER BY 1")  # noqa: S608
        for value, row in zip(OTHERS, rows.fetchall(), strict=False):
            # The number of a row is one, and the key of a fact is never nothing.
            with suppress(sqlite3.IntegrityError):
                change = f"UPDATE {table} SET {column} = ? WHERE {place} = ?"  # noqa: S608
                plain.execute(change, (value, *row))
        set_schema(plain, table, schema)


def set_schema(plain: sqlite3.Connection, table: str, schema: str) -> None:
    plain.execute("PRAGMA writable_schema = ON")
    change = "UPDATE sqlite_schema SET sql = ? WHERE name = ?"
    plain.execute(change, (schema, table))
    plain.execute("PRAGMA writable_schema = RESET")


async def read_behind(file: Path, damage: Callable[[], None], boot: str) -> list[str]:
    """What is read wrongly when it is damaged while the store is open."""
    async with open_store(file, application="shop") as store:
        damage()
        return await read_everything(store, boot)


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_column_may_hold_anything_and_nothing_falls(
    good: Path, tmp_path: Path, table: str, column: str
) -> None:
    file = tmp_path / "store.db"
    damage = partial(put_values_of_other_types, file, table, column)
    shutil.copy(good, file)
    wrong = trio.run(read_behind, file, damage, good.name)
    assert said(file)
    assert set(wrong) <= {"missing items"}
    shutil.copy(good, file)
    keep_house(file, damage)
