"""What an agent has taken and handled is counted exactly, whatever becomes of a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import msgspec
import trio
from hypothesis import given
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    ChildSpec,
    Intensity,
    Refused,
    open_supervisor,
)
from treewarden.agents import AgentRef
from treewarden.telemetry import Spans

if TYPE_CHECKING:
    from treewarden.agents.body import AgentBody


class Total(msgspec.Struct):
    value: int = 0


class Counted(Agent[Total]):
    """Notes, in each handler, how many messages were handled and taken by then."""

    persistence = "none"

    def __init__(self, notes: list[tuple[int, int]]) -> None:
        self.notes = notes

    def _note(self) -> None:
        seen = self.ref.statistics()
        self.notes.append((seen.handled, seen.accepted - seen.mailbox))

    async def look(self) -> None:
        self._note()

    def plain(self) -> None:
        self._note()

    async def change(self) -> None:
        self._note()
        self.state.value += 1

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()
        self._note()

    async def refuse(self) -> None:
        self._note()
        raise Refused("no")

    async def hold(self) -> None:
        """No message is taken any more until it is resumed."""
        self._note()
        self.ref.suspend()

    async def crash(self) -> None:
        self._note()
        raise ValueError("on purpose")


HANDLED = ["look", "plain", "change", "wait", "hold"]
KINDS = st.sampled_from([*HANDLED, "refuse", "crash", "withdrawn"])


@given(kinds=st.lists(KINDS, max_size=12), traced=st.booleans())
def test_what_was_taken_and_handled_is_exact_at_every_message(
    kinds: list[str], traced: bool
) -> None:
    trio.run(_scenario, kinds, traced)


async def _scenario(kinds: list[str], traced: bool) -> None:
    notes: list[tuple[int, int]] = []
    budget = Intensity(100, 5.0)
    async with (
        open_supervisor(intensity=budget) as supervisor,
        trio.open_nursery() as nursery,
    ):
        await supervisor.start_child(ChildSpec("counted", Counted, args=(notes,)))
        ref = AgentRef[Counted](supervisor.directory, "/counted")
        body: AgentBody = ref.resolve()
        body.spans = Spans(enabled=traced)
        ref.suspend()
        for kind in kinds:
            await _send(ref, kind, nursery)
        for _ in range(1 + kinds.count("hold")):
            ref.resume()
            await wait_all_tasks_blocked()
        seen = ref.statistics()
    expected, handled = [], 0
    for taken, kind in enumerate(kinds, 1):
        if kind != "withdrawn":
            expected.append((handled, taken))
        handled += kind in HANDLED
    assert notes == expected
    assert (seen.accepted, seen.handled) == (len(kinds), handled)
    assert seen.refused == kinds.count("refuse")
    assert seen.crashed == kinds.count("crash")


async def _send(ref: AgentRef[Any], kind: str, nursery: trio.Nursery) -> None:
    """In its place in the mailbox: a call that its caller gives up before it is begun."""
    if kind != "withdrawn":
        await ref.cast(getattr(Counted, kind))
        return
    scope = trio.CancelScope()

    async def call() -> None:
        with scope:
            await ref.call(Counted.look)

    nursery.start_soon(call)
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
