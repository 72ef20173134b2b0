"""A hall: agents that do as they are told, an exchange between them, and a record."""

from __future__ import annotations

import math
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentRef,
    ChildSpec,
    Delivered,
    DeliveryFailed,
    Exchange,
    ExchangePolicy,
    Intensity,
    Refused,
    open_supervisor,
)
from treewarden.agents import Surroundings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from treewarden import Buffered, SupervisorRef


class Boom(Exception):
    """What a box crashes with."""


class Box(Agent[None]):
    """Writes down what it is given, unless it is told to do worse."""

    persistence = "none"

    def __init__(self, hall: Hall) -> None:
        self.hall = hall

    async def take(self, number: int) -> int:
        mode = self.hall.modes[self.path]
        if mode == "crash" or number >= self.hall.crashes_from.get(self.path, math.inf):
            raise Boom(number)
        if mode == "refuse":
            raise Refused(f"no {number}")
        if mode == "down":
            raise DeliveryFailed("/elsewhere", "take", "receiver_not_found")
        self.hall.began[self.path].append(number)
        while self.hall.modes[self.path] == "hang":
            await self.hall.changed.wait()
        self.hall.log[self.path].append(number)
        return number

    async def sleep(self, seconds: float, number: int) -> int:
        await trio.sleep(seconds)
        self.hall.log[self.path].append(number)
        return number

    async def send_on(self, receiver: AgentRef[Box], number: int) -> int:
        sent = await self.hall.exchange.send(receiver, Box.take, number)
        assert isinstance(sent, Delivered)
        return sent.value

    async def send_to_itself(self) -> None:
        await self.hall.exchange.send(self.ref, Box.take, 1)


class Hall:
    """One test's agents and what became of their messages."""

    box = Box

    def __init__(self, root: SupervisorRef) -> None:
        self.root = root
        self.directory = root.directory
        self.exchange = Exchange(self.directory, "/exchange")
        self.modes: dict[str, str] = defaultdict(lambda: "take")
        self.crashes_from: dict[str, int] = {}
        self.began: dict[str, list[int]] = defaultdict(list)
        self.log: dict[str, list[int]] = defaultdict(list)
        self.changed = trio.Event()
        self.dead_letters: list[tuple[str, str, str]] = []
        self.reports: list[tuple[str, str]] = []
        # Before the first agent: they ask for it when they are made.
        self.directory.services = Surroundings(
            dead_letter=lambda *letter: self.dead_letters.append(letter)
        )
        self.directory.reporter = lambda report: self.reports.append(
            (report.topic, report.detail)
        )

    async def open(self, policy: ExchangePolicy | None = None) -> Exchange:
        """The exchange between them."""
        policy = policy or ExchangePolicy()
        await self.root.start_child(ChildSpec("exchange", Exchange, args=(policy,)))
        return self.exchange

    async def start(self, *names: str) -> list[AgentRef[Box]]:
        """Boxes of these names."""
        for name in names:
            await self.root.start_child(
                ChildSpec(name, Box, args=(self,), shutdown=1.0)
            )
        return [AgentRef(self.directory, f"/{name}") for name in names]

    async def gone(self, *names: str) -> None:
        """Stop them for good."""
        for name in names:
            await self.root.terminate_child(name)
            await self.root.delete_child(name)

    def mode(self, ref: AgentRef[Box], mode: str) -> None:
        """What a box does from now on: take, crash, refuse, down or hang."""
        self.modes[ref.path] = mode
        changed, self.changed = self.changed, trio.Event()
        changed.set()

    async def settle(self) -> None:
        """Until nobody can go on without time passing."""
        await wait_all_tasks_blocked()

    async def trial(
        self, ref: AgentRef[Box], number: int
    ) -> Delivered[int] | Buffered | Exception:
        """What `send` gives or raises."""
        try:
            return await self.exchange.send(ref, Box.take, number)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            return error


@asynccontextmanager
async def hall_opened(policy: ExchangePolicy | None = None) -> AsyncIterator[Hall]:
    async with open_supervisor(intensity=Intensity(1_000_000, 5.0)) as root:
        hall = Hall(root)
        await hall.open(policy)
        yield hall


@pytest.fixture
def open_hall() -> Callable[..., Any]:
    """`async with open_hall(policy) as hall:`."""
    return hall_opened


@pytest.fixture
async def hall() -> AsyncIterator[Hall]:
    """A hall with an exchange of the default policy, in virtual time."""
    async with hall_opened() as opened:
        yield opened
