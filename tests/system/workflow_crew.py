"""A runtime with workflows that kills itself.

    python workflow_crew.py FILE COUNT [LINES SECONDS]

Runs COUNT payments, started once and gone on with in every life, and says what their steps
and compensations do: `did KEY`, and `undid KEY`. Of each three payments one fails at its last
step. Says how they ended (`ended STATE NUMBER`), what the till has counted (`till PAID
TAKEN_BACK`) and `over` when all have. It dies by `kill -9`, SECONDS after it has said LINES
lines: by its own hand, since nobody outside is quick enough on a busy machine.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from pathlib import Path
from threading import Timer

import msgspec
import trio

from treewarden import (
    Agent,
    Application,
    ChildSpec,
    Config,
    Flow,
    Transaction,
    WorkflowExists,
    WorkflowFailed,
    current_runtime,
    current_step,
    run,
)


class Takings(msgspec.Struct):
    paid: int = 0
    taken_back: int = 0


class Till(Agent[Takings]):
    call_timeout = 60.0

    async def pay(self) -> int:
        self.state.paid += 1
        return self.state.paid

    async def take_back(self) -> None:
        self.state.taken_back += 1

    async def count(self) -> tuple[int, int]:
        return self.state.paid, self.state.taken_back


_said = 0
_lines, _seconds = 0, 0.0


def say(line: str) -> None:
    global _said
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    _said += 1
    if _said == _lines:
        Timer(_seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()


async def pack(parcel: int) -> int:
    await trio.sleep(0.001 * (parcel % 3))
    say(f"did {current_step().key}")
    return parcel


async def unpack(parcel: int) -> None:
    await trio.sleep(0.001 * (parcel % 3))
    say(f"undid {current_step().key}")


async def pay(tx: Transaction) -> int:
    return await tx.call(current_runtime().ref("till", Till), Till.pay)


async def take_back(tx: Transaction, _: int) -> None:
    await tx.call(current_runtime().ref("till", Till), Till.take_back)


async def send(number: int) -> None:
    if number % 3 == 0:
        raise ValueError("nobody lives there")


async def payment(flow: Flow, number: int) -> None:
    till = (current_runtime().ref("till", Till),)
    for parcel in range(4):
        await flow.step(pack, parcel, compensate=unpack)
        await flow.transaction(till, pay, compensate=take_back)
    await flow.step(send, number)


async def teller(count: int) -> None:
    runtime = current_runtime()
    runtime.workflows.register(payment)
    ended: Counter[str] = Counter()
    for number in range(count):
        try:
            await runtime.workflows.start(payment, number, id=f"p{number}")
        except WorkflowExists:
            continue
    for number in range(count):
        try:
            await runtime.workflows.ref(f"p{number}").result()
        except WorkflowFailed as failed:
            ended[failed.state] += 1
        else:
            ended["completed"] += 1
    for state, times in sorted(ended.items()):
        say(f"ended {state} {times}")
    paid, back = await runtime.ref("till", Till).call(Till.count)
    say(f"till {paid} {back}")
    say("over")
    await trio.sleep_forever()


def main() -> None:
    global _lines, _seconds
    file, count = sys.argv[1], int(sys.argv[2])
    if len(sys.argv) > 3:
        _lines, _seconds = int(sys.argv[3]), float(sys.argv[4])
    children = [
        ChildSpec("till", Till),
        ChildSpec("teller", teller, args=(count,), restart="temporary"),
    ]
    run(Application("shop", children), Config(store=Path(file), socket=False))


if __name__ == "__main__":
    main()
