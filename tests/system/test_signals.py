"""`treewarden.run` and the signals of its process."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Start = Callable[[str], "Child"]

PATIENCE = 30.0

# What happens is told line by line; the order of stopping is the order of the lines.
PROGRAM = """
import logging
import sys
import time
from pathlib import Path
import trio
from treewarden import Agent, Application, ChildSpec, Config, run

def say(text):
    print(text, flush=True)

class Quick(Agent[None]):
    def __init__(self, name):
        self.name = name
    async def on_stop(self, exit):
        say(f"{self.name} stopped")

class Slow(Quick):
    async def on_stop(self, exit):
        say(f"{self.name} stopping")
        await trio.sleep(60)
        say(f"{self.name} stopped")

class Busy(Agent[None]):
    async def on_start(self):
        self.continue_with(Busy.work)
    async def work(self):
        say("up")
        while True:
            time.sleep(0.01)

async def tell():
    say("up")
    await trio.sleep_forever()

async def hang(task_status=trio.TASK_STATUS_IGNORED):
    say("up")
    await trio.sleep_forever()

async def tear():
    raise ValueError("torn")

class Deaf(Agent[None]):
    async def on_stop(self, exit):
        say("cancelled")
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

second = {"quick": ChildSpec("second", Quick, args=("second",)),
          "slow": ChildSpec("second", Slow, args=("second",), shutdown=60.0),
          "deaf": ChildSpec("second", Deaf),
          "busy": ChildSpec("second", Busy),
          "torn": ChildSpec("second", tear),
          "hang": ChildSpec("second", hang)}[sys.argv[2]]
if sys.argv[2] == "deaf":
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
children = [ChildSpec("first", Quick, args=("first",)), second]
if sys.argv[2] != "hang":
    children.append(ChildSpec("teller", tell))
run(Application("signals", children), Config(store=Path(sys.argv[1]), socket=False))
say("ran")
"""


class Child:
    """The program, running; everything waited for is bounded by the fixture."""

    def __init__(self, file: Path, kind: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(file), kind],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.wait_for("up")

    def wait_for(self, text: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == text:
                return
        pytest.fail(f"it ended without saying {text!r}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def rest(self) -> tuple[list[str], int]:
        # Not communicate(): that forgets what the file object has read ahead.
        assert self.process.stdout is not None
        lines = self.process.stdout.read().splitlines()
        return lines, self.process.wait(PATIENCE)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    children: list[Child] = []

    def make(kind: str) -> Child:
        children.append(Child(tmp_path / "signals.db", kind))
        return children[-1]

    yield make
    for child in children:
        child.process.kill()
        child.process.communicate()


IN_ORDER = ["second stopped", "first stopped"]


def test_sigterm_stops_in_order_and_ends_with_0(start: Start) -> None:
    """SHD-24"""
    child = start("quick")
    child.signal(signal.SIGTERM)
    assert child.rest() == ([*IN_ORDER, "ran"], 0)


def test_sigint_stops_in_order_and_is_a_keyboard_interrupt(start: Start) -> None:
    """SHD-24"""
    child = start("quick")
    child.signal(signal.SIGINT)
    # Python ends by the signal itself when nobody catches it: 130 for a shell.
    assert child.rest() == (IN_ORDER, -signal.SIGINT)


def test_sigint_stops_it_also_if_whoever_started_it_ignores_sigint(
    start: Start,
) -> None:
    """As a shell does for what its scripts leave in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child = start("quick")
    finally:
        signal.signal(signal.SIGINT, before)
    child.signal(signal.SIGINT)
    assert child.rest() == (IN_ORDER, -signal.SIGINT)


def test_a_second_signal_hurries(start: Start) -> None:
    """SHD-24"""
    child = start("slow")
    child.signal(signal.SIGTERM)
    child.wait_for("second stopping")
    child.signal(signal.SIGTERM)
    lines, status = child.rest()
    assert "second stopped" not in lines
    assert (lines[-1], status) == ("ran", 0)


def test_a_stop_wins_over_a_start_that_hangs(start: Start) -> None:
    child = start("hang")
    child.signal(signal.SIGTERM)
    assert child.rest() == (["first stopped", "ran"], 0)


def test_an_interrupt_wins_over_a_start_that_hangs(start: Start) -> None:
    child = start("hang")
    child.signal(signal.SIGINT)
    assert child.rest() == (["first stopped"], -signal.SIGINT)


def test_a_tree_that_gives_up_is_cleaned_up_and_a_failure(start: Start) -> None:
    """ESC-08: the application gives up four times, and with the fourth the root does."""
    child = start("torn")
    lines, status = child.rest()
    assert lines == ["first stopped", *["up", "first stopped"] * 3]
    assert status == 1


def test_a_third_signal_ends_what_heeds_nothing(start: Start) -> None:
    child = start("deaf")
    child.signal(signal.SIGINT)
    child.wait_for("cancelled")
    child.signal(signal.SIGINT)
    # The task that heard the first two is gone then, as all that can be killed.
    child.wait_for("task /system/signals was killed while it was being stopped")
    child.signal(signal.SIGINT)
    assert child.process.wait(PATIENCE) == 130


def test_who_goes_on_signalling_ends_a_process_whose_loop_is_blocked(
    start: Start,
) -> None:
    child = start("busy")
    for _ in range(int(PATIENCE)):
        child.signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            assert child.process.wait(1.0) == 130
            return
    pytest.fail("it heeds no signal")
