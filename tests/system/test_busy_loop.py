"""A loop that is busy in short passes, and the threads of its process.

Each runs in a process of its own: what is counted is how often its threads were woken.
"""

from __future__ import annotations

import math
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    UntilWithin = Callable[[float], Iterator[list[float]]]

BUSY = """
import resource, sys, time
import trio
from treewarden import Application, Config, open_runtime

def switches():
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw

async def spin(seconds):
    while True:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        await trio.lowlevel.checkpoint()

def work():
    began = time.thread_time()
    while time.thread_time() - began < 0.002:
        pass

async def main(step, what):
    config = Config(level="volatile", socket=False)
    async with open_runtime(Application("busy", []), config=config) as runtime:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spin, step)
            if what == "switches":
                rates = []
                for _ in range(4):  # housekeeping is due in each
                    before, began = switches(), time.monotonic()
                    await trio.sleep(1.0)
                    rates.append((switches() - before) / (time.monotonic() - began))
                # The least disturbed: where others want the processor, all wake up late.
                print(min(rates))
            else:
                with trio.move_on_after(60):
                    for _ in range(50):
                        await trio.to_thread.run_sync(work, abandon_on_cancel=True)
                    print("done")
            nursery.cancel_scope.cancel()

trio.run(main, float(sys.argv[1]), sys.argv[2])
"""
# Passes in microseconds: as long as a hundred casts, a call or a long handler take.
STEPS = ["0.00003", "0.0005", "0.002"]


def run(step: str, what: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", BUSY, step, what],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize("step", STEPS)
def test_nobody_in_a_busy_runtime_wakes_up_in_vain(
    step: str, until_within: UntilWithin
) -> None:
    """Those who watch and keep house were woken up to 4,000 times a second."""
    for found in until_within(300.0):
        switches, said = run(step, "switches")
        # It turns: nor is it taken for one that is blocked.
        found.append(math.inf if "is blocked" in said else float(switches))


@pytest.mark.parametrize("step", STEPS)
def test_a_thread_gets_its_work_done_beside_a_busy_loop(step: str) -> None:
    """Of 50 pieces of 2 ms one was done in three seconds, at passes of half of one."""
    assert run(step, "work")[0] == "done"
