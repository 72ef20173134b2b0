"""Agents under random crashes, cancelled callers and failing commits, all at once."""

from __future__ import annotations

import math
import random
import sqlite3
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from treewarden import (
    Agent,
    AgentCrashed,
    Application,
    ChildSpec,
    Config,
    Intensity,
    MailboxPolicy,
    NotRunning,
    Refused,
    StoreBroken,
    open_runtime,
)
from treewarden.testing import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from treewarden import Runtime

LEDGERS = 4
WRITERS = 8
STEPS = 40


class Notes(msgspec.Struct):
    ids: list[str] = []


class Ledger(Agent[Notes]):
    mailbox = MailboxPolicy(capacity=3)

    async def note(self, id_: str) -> None:
        self.state.ids.append(id_)

    def note_now(self, id_: str) -> None:
        self.state.ids.append(id_)

    async def note_slowly(self, id_: str) -> None:
        self.state.ids.append(f"half of {id_}")
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        self.state.ids[-1] = id_

    async def note_and_pass_on(self, id_: str, other: str) -> None:
        self.state.ids.append(id_)
        self.cast(self.runtime.ref(other, Ledger), Ledger.note, f"{id_}>")

    async def note_and_fail(self, id_: str) -> None:
        self.state.ids.append(id_)
        raise ValueError("on purpose")

    async def note_and_refuse(self, id_: str) -> None:
        self.state.ids.append(id_)
        raise Refused("on purpose")

    async def read(self) -> list[str]:
        return self.state.ids


def refuse_poison(file: Path) -> None:
    """Commits of a state that holds a `!` fail from now on."""
    foreign = sqlite3.connect(file)
    for event in ("INSERT", "UPDATE"):
        foreign.execute(
            f"CREATE TRIGGER refuse_{event} BEFORE {event} ON agent_state "
            "WHEN NEW.payload LIKE '%!%' BEGIN SELECT RAISE(ABORT, 'poison'); END"
        )
    foreign.commit()
    foreign.close()


class Story:
    """What the callers were told, and what readers saw."""

    def __init__(self, seed: int, runtime: Runtime) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a seed, not a secret
        self.runtime = runtime
        refs = (runtime.ref(f"l{n}", Ledger) for n in range(LEDGERS))
        self.refs = [ref.with_timeout(math.inf) for ref in refs]
        self.kept: list[list[str]] = [[] for _ in self.refs]
        self.lost: list[list[str]] = [[] for _ in self.refs]
        self.read: list[set[str]] = [set() for _ in self.refs]

    async def write(self, writer: int) -> None:
        for step in range(STEPS):
            await self.note(f"{writer}.{step}")

    async def note(self, id_: str) -> None:
        choose = self.random
        number = choose.randrange(LEDGERS)
        if choose.random() < 0.06:
            id_ += "!"
        operation: Any
        operation, args = choose.choice(
            [
                (Ledger.note, (id_,)),
                (Ledger.note_now, (id_,)),
                (Ledger.note_slowly, (id_,)),
                (Ledger.note_and_pass_on, (id_, f"l{choose.randrange(LEDGERS)}")),
                (Ledger.note_and_fail, (id_,)),
                (Ledger.note_and_refuse, (id_,)),
            ]
        )
        try:
            with trio.CancelScope() as scope:
                if choose.random() < 0.1:
                    scope.deadline = trio.current_time() + choose.random() / 1000
                await self.refs[number].call(operation, *args)
        except (StoreBroken, AgentCrashed, Refused):
            self.lost[number].append(id_)
        else:
            if not scope.cancelled_caught:
                self.kept[number].append(id_)

    async def look(self) -> None:
        while True:
            number = self.random.randrange(LEDGERS)
            try:
                self.read[number].update(await self.refs[number].call(Ledger.read))
            except (StoreBroken, AgentCrashed):
                continue

    async def crash(self) -> None:
        while True:
            await trio.sleep(self.random.random() / 200)
            try:
                self.runtime.injections.crash(f"/l{self.random.randrange(LEDGERS)}")
            except NotRunning:
                continue


async def at_rest(story: Story) -> None:
    def quiet() -> bool:
        return all(
            not (s.mailbox or s.outbox or s.uncommitted) and s.doing == "idle"
            for s in (ref.statistics() for ref in story.refs)
        )

    await wait_until(quiet)


def stored(file: Path, path: str) -> list[str]:
    reader = sqlite3.connect(file)
    row = reader.execute(
        "SELECT payload FROM agent_state WHERE path = ?", (path,)
    ).fetchone()
    reader.close()
    return msgspec.json.decode(row[0], type=Notes).ids if row else []


def check(story: Story, number: int, ids: list[str]) -> None:
    noted = set(ids)
    assert len(noted) == len(ids)
    assert noted.issuperset(story.kept[number])
    assert noted.isdisjoint(story.lost[number])
    assert noted.issuperset(story.read[number])
    assert not any(id_.startswith("half") or "!" in id_ for id_ in ids)


@pytest.mark.real_time
@pytest.mark.parametrize("seed", range(5))
async def test_everybody_was_told_the_truth(tmp_path: Path, seed: int) -> None:
    """Invariants 1 to 3, 6, 7 and 12 of the prototype."""
    file = tmp_path / "test.db"
    children = [ChildSpec(f"l{n}", Ledger) for n in range(LEDGERS)]
    app = Application("test", children, intensity=Intensity(100_000, 5.0))
    config = Config(store=file, socket=False)
    async with open_runtime(app, config=config) as runtime:
        refuse_poison(file)
        story = Story(seed, runtime)
        with trio.fail_after(100):
            async with trio.open_nursery() as background:
                background.start_soon(story.look)
                background.start_soon(story.crash)
                async with trio.open_nursery() as writers:
                    for writer in range(WRITERS):
                        writers.start_soon(story.write, writer)
                background.cancel_scope.cancel()
            await at_rest(story)
        everything: set[str] = set()
        for number, ref in enumerate(story.refs):
            ids = await ref.call(Ledger.read)
            check(story, number, ids)
            assert ids == stored(file, ref.path)
            everything.update(ids)
        # What was passed on was set off by something that was kept.
        assert all(id_[:-1] in everything for id_ in everything if id_[-1] == ">")
        assert sum(map(len, story.kept)) > STEPS
        assert any("!" in id_ for ids in story.lost for id_ in ids)
