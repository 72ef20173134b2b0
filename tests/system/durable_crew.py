"""A runtime with a durable mailbox that is to be killed.

    python durable_crew.py FILE LIFE SEED COUNT

Sends COUNT words to an agent, half of them staged by another agent's handler, and says
`kept WORD` once each was accepted; COUNT 0 says `heard WORD` for all that the agent has
noted, when nothing waits any more, and ends; COUNT -1 is about a message that kills the
process whenever it is handled. The agent writes each word into FILE.once by
an outside call that it keeps, so the file tells how often that was made.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import msgspec
import trio

from treewarden import (
    Agent,
    Application,
    ChildSpec,
    Config,
    MailboxPolicy,
    current_runtime,
    run,
)


class Heard(msgspec.Struct):
    words: list[str] = []
    count: int = 0


def write(file: str, word: str) -> str:
    with Path(file).open("a") as lines:
        lines.write(word + "\n")
    return word


class Hearer(Agent[Heard]):
    mailbox = MailboxPolicy(capacity=50, durable=True, max_attempts=1000)

    def __init__(self, file: str) -> None:
        self.file = file

    async def hear(self, word: str) -> None:
        self.state.words.append(word)
        for _ in range(int(word.rsplit("-")[-1]) % 3):
            await trio.lowlevel.checkpoint()
        self.state.count += 1
        if word.endswith("0"):
            await self.once(write, self.file, word)

    async def words(self) -> list[str]:
        assert self.state.count == len(self.state.words)
        return self.state.words


class Teller(Agent[Heard]):
    async def tell(self, word: str) -> None:
        self.state.words.append(word)
        self.cast(self.runtime.ref("hearer", Hearer), Hearer.hear, word)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Frail(Agent[Heard]):
    """One of its messages is the process's death."""

    mailbox = MailboxPolicy(durable=True, max_attempts=2)

    async def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def note(self, word: str) -> None:
        self.state.words.append(word)

    async def words(self) -> list[str]:
        return self.state.words


async def send_poison(life: int) -> None:
    """`poison` in the first life; all lives say what was heard and what was given up."""
    runtime = current_runtime()
    frail = runtime.ref("frail", Frail).with_timeout(60)
    if life == 0:
        frail.cast_nowait(Frail.die)
        frail.cast_nowait(Frail.note, "after")
        await trio.sleep_forever()
    for word in await frail.call(Frail.words):
        say(f"heard {word}")
    await runtime.store.settled()
    for letter in await runtime.dead_letters.list():
        say(f"dead {letter.operation} {letter.attempts} {letter.reason}")
    say("over")
    await trio.sleep_forever()


async def send(life: int, seed: int, count: int) -> None:
    runtime = current_runtime()
    hearer = runtime.ref("hearer", Hearer).with_timeout(60)
    teller = runtime.ref("teller", Teller).with_timeout(60)
    dice = random.Random(seed)  # noqa: S311 - a seed, not a secret
    for number in range(count):
        if dice.random() < 0.5:
            word = f"direct-{life}-{number}"
            await hearer.cast(Hearer.hear, word)
        else:
            word = f"staged-{life}-{number}"
            await teller.call(Teller.tell, word)
        say(f"kept {word}")
    if not count:
        for word in await hearer.call(Hearer.words):
            say(f"heard {word}")
        say("over")
    await trio.sleep_forever()


def main() -> None:
    file, life, seed, count = sys.argv[1], *map(int, sys.argv[2:])
    app = Application(
        "durable",
        [
            ChildSpec("hearer", Hearer, args=(f"{file}.once",)),
            ChildSpec("teller", Teller),
            ChildSpec("frail", Frail),
            ChildSpec("sender", send, args=(life, seed, count))
            if count >= 0
            else ChildSpec("sender", send_poison, args=(life,)),
        ],
    )
    run(app, Config(store=Path(file), socket=False))


if __name__ == "__main__":
    main()
