"""What mypy must make of what is sent and submitted: `make lint` reads this file.

Each `type: ignore` stands for a mistake that has to be found; mypy reports those that
are not needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from treewarden import Agent, Buffered, Delivered

if TYPE_CHECKING:
    from treewarden import AgentRef, Exchange, TaskDistributor


class Counter(Agent[int]):
    async def add(self, amount: int, *, twice: bool = False) -> int:
        return self.state + amount * (1 + twice)

    def name(self) -> str:
        return self.path


async def sends(exchange: Exchange, counter: AgentRef[Counter]) -> None:
    sent = await exchange.send(counter, Counter.add, 3, twice=True)
    assert_type(sent, Delivered[int] | Buffered)
    match await exchange.send(counter, Counter.name):
        case Delivered(value=name):
            assert_type(name, str)
        case Buffered(ahead=ahead):
            assert_type(ahead, int)
    await exchange.send(counter, Counter.add, "3")  # type: ignore[call-overload]
    exchange.send_nowait(counter, Counter.add, 3)
    exchange.send_nowait(counter, Counter.add)  # type: ignore[call-arg]


async def submits(distributor: TaskDistributor) -> None:
    assert_type(await distributor.submit({"gpu"}, Counter.add, 3), int)
    assert_type(await distributor.submit(["gpu"], Counter.name), str)
    await distributor.submit({"gpu"}, Counter.add, "3")  # type: ignore[call-overload]
