"""What an operator types about subscriptions and dead letters."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden import Application, Config, DurablePolicy, open_runtime

if TYPE_CHECKING:
    from pathlib import Path

BOUND = 200.0
ONCE = DurablePolicy(max_attempts=1)


async def typed(socket: Path, *words: str) -> tuple[int, str]:
    """The exit status of a command, and what it printed."""
    done = await trio.run_process(
        [sys.executable, "-m", "treewarden.cli", *words, "--socket", str(socket)],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    return done.returncode, done.stdout.decode()


async def shown(socket: Path, *words: str) -> Any:
    status, printed = await typed(socket, *words, "--json")
    assert status == 0
    return json.loads(printed)


@pytest.mark.parametrize("what", ["retry", "discard", "purge"])
async def test_dead_letters_are_seen_and_dealt_with_from_the_command_line(
    what: str, short_folder: Path
) -> None:
    socket = short_folder / "s"
    config = Config(store=short_folder / "c.db", socket=socket)
    with trio.fail_after(BOUND):
        async with (
            open_runtime(Application("shop", []), config=config) as runtime,
            runtime.bus.subscribe_durable("billing", "orders", policy=ONCE) as member,
        ):
            await runtime.bus.publish("orders", {"id": 7})
            (await member.__anext__()).nack("no such customer")
            while not await runtime.dead_letters.list():
                await runtime.store.settled()
            (row,) = (await shown(socket, "subscriptions"))["subscriptions"]
            assert (row["id"], row["published"], row["dropped"]) == ("billing", 1, 1)
            (letter,) = (await shown(socket, "dead-letters"))["dead_letters"]
            assert letter["reason"] == "no such customer"
            assert letter["content"]["payload"] == {"id": 7}
            number = [] if what == "purge" else [str(letter["number"])]
            done = await shown(socket, "dead-letter", what, *number)
            assert "dead letter" in done["sentence"]
            assert await runtime.dead_letters.list() == []
            assert member.subscription.pending == (what == "retry")
            status, _ = await typed(socket, "dead-letter", "retry", "99")
            assert status == 1


async def test_a_subscription_is_forgotten_from_the_command_line_once_it_has_no_members(
    short_folder: Path,
) -> None:
    socket = short_folder / "s"
    config = Config(store=short_folder / "c.db", socket=socket)
    with trio.fail_after(BOUND):
        async with open_runtime(Application("shop", []), config=config) as runtime:
            async with runtime.bus.subscribe_durable("billing", "orders"):
                status, _ = await typed(socket, "subscription", "forget", "billing")
                assert status == 1
            done = await shown(socket, "subscription", "forget", "billing")
            assert done["sentence"] == "subscription billing is forgotten"
            assert (await shown(socket, "subscriptions"))["subscriptions"] == []
