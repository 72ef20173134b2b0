"""What mypy must make of calls: `make lint` reads this file, nothing runs it.

Each `type: ignore` stands for a mistake that has to be found; mypy reports those that
are not needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from treewarden import Agent

if TYPE_CHECKING:
    from treewarden import AgentRef, Runtime


class Counter(Agent[int]):
    async def add(self, amount: int, *, twice: bool = False) -> int:
        return self.state + amount * (1 + twice)

    def name(self) -> str:
        return self.path

    async def on_start(self) -> None:
        self.send_after(1.0, Counter.add, 1)
        self.cast(self.ref, Counter.add, 2, twice=True)
        self.cast(self.ref, Counter.add, "2")  # type: ignore[arg-type]


class Loud(Counter):
    def shout(self) -> str:
        return self.name().upper()


async def calls(runtime: Runtime, loud: AgentRef[Loud]) -> None:
    counter = runtime.ref("counter", Counter)
    assert_type(counter, "AgentRef[Counter]")
    assert_type(await counter.call(Counter.add, 3), int)
    assert_type(await counter.call(Counter.add, 3, twice=True), int)
    assert_type(await counter.call(Counter.name), str)
    assert_type(await loud.call(Counter.add, 3), int)
    assert_type(await loud.call(Loud.shout), str)
    assert_type(await counter.request(Counter.add, 3).result(), int)
    assert_type(await loud.request(Loud.shout).result(), str)
    counter.request(Counter.add, "3")  # type: ignore[call-overload]
    await counter.cast(Counter.add, 3)
    await counter.call(Counter.add, "3")  # type: ignore[call-overload]
    await counter.call(Counter.add)  # type: ignore[call-overload]
    await counter.call(Loud.shout)  # type: ignore[call-overload]
    await counter.cast(Counter.add, amount="3")  # type: ignore[arg-type]
