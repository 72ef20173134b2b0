"""Durable mailboxes under crashes, refusals, failed commits, stops and restarts, at once."""

from __future__ import annotations

import random
import sqlite3
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from treewarden import (
    Agent,
    AgentCrashed,
    AgentDown,
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
from treewarden.injection import Deed, InjectionPlan, Rule, load_plan, places
from treewarden.testing import crash, store_clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio.testing import MockClock

    from treewarden import AgentRef, Runtime

SENDERS = 4
STEPS = 40
LIVES = 3


class Heard(msgspec.Struct):
    words: list[str] = []


class Hearer(Agent[Heard]):
    """What it hears may be more than it, or the disk, can bear at the first attempt."""

    mailbox = MailboxPolicy(capacity=5, durable=True, max_attempts=1000)

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice

    async def hear(self, word: str) -> None:
        self.state.words.append(f"half of {word}")
        for _ in range(self.dice.randrange(3)):
            await trio.lowlevel.checkpoint()
        if self.dice.random() < 0.1:
            raise ValueError("on purpose")
        if self.dice.random() < 0.1:
            raise Refused("on purpose")
        if self.dice.random() < 0.1:
            word += "!"  # the disk refuses this
        self.state.words[-1] = word

    async def words(self) -> list[str]:
        return self.state.words


class Teller(Agent[Heard]):
    async def tell(self, word: str) -> None:
        self.state.words.append(word)
        self.cast(self.runtime.ref("hearer", Hearer), Hearer.hear, word)
        if word.endswith("7"):
            raise Refused("on purpose")


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


class Life:
    """What several senders do in one life of the runtime, and what they were told."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.sent: dict[str, list[str]] = {}
        self.kept: set[str] = set()
        self.said = 0

    async def send(self, runtime: Runtime, name: str, life: int) -> None:
        hearer: AgentRef[Hearer] = runtime.ref("hearer", Hearer)
        teller: AgentRef[Teller] = runtime.ref(name, Teller)
        for number in range(STEPS):
            staged = self.dice.random() < 0.5
            sender = f"{name}{'s' if staged else 'd'}"
            word = f"{sender}-{life}-{number}"
            self.sent.setdefault(sender, []).append(word)
            try:
                if staged:
                    await teller.call(Teller.tell, word)
                else:
                    await hearer.cast(Hearer.hear, word)
            except (AgentDown, AgentCrashed, Refused, StoreBroken, NotRunning):
                continue
            self.kept.add(word)

    async def disturb(self, runtime: Runtime) -> None:
        """Crash it, stop it, fail the disk, now and then."""
        application = runtime.supervisor("/application")
        hearer: AgentRef[Hearer] = runtime.ref("hearer", Hearer)
        while True:
            await trio.sleep(self.dice.random() * 0.02)
            match self.dice.randrange(4):
                case 0:
                    try:
                        await crash(hearer)
                    except NotRunning:
                        continue
                case 1:
                    with trio.CancelScope(shield=True):
                        await application.terminate_child("hearer")
                        await application.restart_child("hearer")
                case _:
                    await self.fail_a_commit()

    async def fail_a_commit(self) -> None:
        rule = Rule(
            point=places.BEFORE_COMMIT.name, do=Deed.RAISE, error="full", nth=1, times=1
        )
        loaded = load_plan(InjectionPlan(name="disk", injections=(rule,), seconds=60.0))
        await trio.sleep(0.005)
        loaded.lift()


def application(dice: random.Random) -> Application:
    return Application(
        "random",
        [
            ChildSpec("hearer", Hearer, args=(dice,), shutdown=0.01),
            *(ChildSpec(f"t{number}", Teller) for number in range(SENDERS)),
        ],
        intensity=Intensity(1_000_000, 5.0),
    )


async def drained(runtime: Runtime) -> list[str]:
    """What was heard, once all that waits is handled."""
    hearer: AgentRef[Hearer] = runtime.ref("hearer", Hearer)
    while True:
        try:
            heard = await hearer.with_timeout(1e9).call(Hearer.words)
        except StoreBroken:
            continue  # it told of what was not kept
        break
    left = await runtime.store.read(
        lambda db: db.execute("SELECT count(*) FROM inbox").fetchone()
    )
    assert left == (0,)
    return [word.rstrip("!") for word in heard]


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


@pytest.mark.parametrize("seed", range(3))
async def test_f14_each_message_is_applied_once_and_in_order_whatever_happens(
    tmp_path: Path, clock: MockClock, seed: int
) -> None:
    """F11, F14: none that was accepted is lost, none counts twice, none is half."""
    dice = random.Random(seed)  # noqa: S311
    life = Life(dice)
    config = Config(store=tmp_path / "d.db", socket=False)
    for number in range(LIVES):
        async with open_runtime(application(dice), config=config) as runtime:
            if number == 0:
                refuse_poison(tmp_path / "d.db")
            async with trio.open_nursery() as disturbing:
                disturbing.start_soon(life.disturb, runtime)
                async with trio.open_nursery() as sending:
                    for name in range(SENDERS):
                        sending.start_soon(life.send, runtime, f"t{name}", number)
                disturbing.cancel_scope.cancel()
    async with open_runtime(application(dice), config=config) as runtime:
        heard = await drained(runtime)
        assert runtime.vitals.dead_letters == 0
    assert len(heard) == len(set(heard))
    assert life.kept <= set(heard)
    for sent in life.sent.values():
        mine = [word for word in heard if word in set(sent)]
        assert mine == [word for word in sent if word in set(heard)]
