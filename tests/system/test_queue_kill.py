"""A queue of tasks whose worker is killed, and then the whole process: nothing is lost.

Each step of the worker is one commit: the effect of the task in hand, its removal from the
queue, and the lease of the next one. An effect is a row; its value counts how often it
happened, and at which attempt.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from treewarden import (
    Agent,
    AgentCrashed,
    Application,
    ChildSpec,
    Config,
    DurableMap,
    DurableQueue,
    Intensity,
    open_runtime,
)

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from treewarden import AgentRef, Runtime

TASKS = 500
AGENT_KILLS = 5
PROCESS_KILLS = 3
PATIENCE = 90.0
FOR_EVER = 1e9


class Effect(msgspec.Struct, frozen=True):
    """What came of a task: how often, and at which attempt it was done."""

    times: int
    attempt: int


class Desk(msgspec.Struct):
    """The task in hand, its attempt, and the tasks that were in hand at an end."""

    in_hand: str = ""
    attempt: int = 0
    interrupted: list[str] = []


class Worker(Agent[Desk]):
    """Works through a queue, one task after the other."""

    call_timeout = 60.0
    tasks: DurableQueue[str]
    effects: DurableMap[str, Effect]

    def __init__(self, lease: float, pause: float) -> None:
        self.lease = lease
        self.pause = pause

    async def on_start(self) -> None:
        if self.state.in_hand:
            self.state.interrupted.append(self.state.in_hand)
            self.state.in_hand = ""
        self.continue_with(Worker.work)

    async def enqueue(self, names: list[str]) -> None:
        for name in names:
            await self.tasks.put(name, key=name)

    async def work(self) -> None:
        if self.state.in_hand:
            before = await self.effects.get(self.state.in_hand)
            times = 1 + (before.times if before is not None else 0)
            effect = Effect(times, self.state.attempt)
            await self.effects.set(self.state.in_hand, effect)
            await self.tasks.ack(self.state.in_hand)
        item = await self.tasks.take(lease=self.lease)
        self.state.in_hand = "" if item is None else item.key
        self.state.attempt = 0 if item is None else item.attempts
        # With nothing to do now, there may be a lease that runs out.
        self.send_after(self.pause if item is not None else 0.01, Worker.work)

    async def done(self) -> int:
        return len(self.effects)

    async def outcome(self) -> tuple[dict[str, Effect], list[str], int]:
        effects = {name: effect async for name, effect in self.effects.items()}
        return effects, self.state.interrupted, len(self.tasks)


def opened(
    file: Path, *, lease: float, pause: float
) -> AbstractAsyncContextManager[Runtime]:
    budget = Intensity(100, 1.0)
    worker = ChildSpec("worker", Worker, args=[lease, pause], intensity=budget)
    config = Config(store=file, socket=False)
    return open_runtime(Application("shop", [worker]), config=config)


async def enqueue(ref: AgentRef[Worker]) -> None:
    await ref.call(Worker.enqueue, [f"task-{number}" for number in range(TASKS)])


async def wait_done(ref: AgentRef[Worker], count: int) -> None:
    """Wait until so many tasks are done, whatever happens to the worker meanwhile."""
    done = 0
    while done < count:
        with suppress(AgentCrashed):
            done = await ref.call(Worker.done)


async def check(ref: AgentRef[Worker]) -> list[str]:
    """Each task is done once; those that were in hand at an end, at a later attempt."""
    effects, interrupted, left = await ref.call(Worker.outcome)
    assert effects.keys() == {f"task-{number}" for number in range(TASKS)}
    assert {effect.times for effect in effects.values()} == {1}
    assert left == 0
    for name in interrupted:
        assert effects[name].attempt >= 2
    return interrupted


async def test_f11_a_killed_agent_loses_no_task_and_repeats_none(
    tmp_path: Path,
) -> None:
    """F11"""
    async with opened(tmp_path / "shop.db", lease=0.2, pause=0.001) as runtime:
        ref = runtime.ref("worker", Worker)
        await enqueue(ref)
        with trio.fail_after(PATIENCE):
            for moment in sorted(random.sample(range(10, TASKS - 90), AGENT_KILLS)):
                await wait_done(ref, moment)
                runtime.injections.crash(ref.path)
            await wait_done(ref, TASKS)
        assert ref.incarnation == 1 + AGENT_KILLS
        # One that comes between two tasks interrupts none.
        assert 0 < len(await check(ref)) <= AGENT_KILLS


async def work_for_ever(file: Path) -> None:
    """The run that is killed: print how many are done, with one write a line."""
    async with opened(file, lease=FOR_EVER, pause=0.002) as runtime:
        ref = runtime.ref("worker", Worker)
        while True:
            os.write(1, b"%d\n" % await ref.call(Worker.done))


def killed_run(file: Path, more: int) -> int:
    """Kill a run that has done so many tasks; how many it said are done in all."""
    child = subprocess.Popen(
        [sys.executable, __file__, str(file)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        done = int(child.stdout.readline())
        enough = min(done + more, TASKS)
        give_up_at = time.monotonic() + PATIENCE
        while done < enough:
            assert time.monotonic() < give_up_at, f"{done} of {enough} are done"
            done = int(child.stdout.readline())
    finally:
        child.send_signal(signal.SIGKILL)
    for line in child.stdout:
        done = int(line)
    child.stdout.close()
    assert child.wait(PATIENCE) == -signal.SIGKILL
    return done


async def test_f12_a_killed_process_loses_no_task_and_repeats_none(
    tmp_path: Path,
) -> None:
    """F12"""
    file = tmp_path / "shop.db"
    async with opened(file, lease=FOR_EVER, pause=0.002) as runtime:
        await enqueue(runtime.ref("worker", Worker))
    said = 0
    for _ in range(PROCESS_KILLS):
        more = random.randrange(1, TASKS // 10)  # noqa: S311 - no secret
        said = await trio.to_thread.run_sync(killed_run, file, more)
    assert said < TASKS
    async with opened(file, lease=FOR_EVER, pause=0.002) as runtime:
        ref = runtime.ref("worker", Worker)
        assert await ref.call(Worker.done) >= said
        with trio.fail_after(PATIENCE):
            await wait_done(ref, TASKS)
        assert await check(ref)


if __name__ == "__main__":
    trio.run(work_for_ever, Path(sys.argv[1]))
