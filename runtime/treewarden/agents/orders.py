"""What operators, and others from outside, have an agent do besides its operations."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

import trio

from treewarden.errors import AgentDown, StateNotEncodable
from treewarden.supervision import NodeState

from .mailbox import NO_MESSAGES
from .operation import Operation

if TYPE_CHECKING:
    from treewarden.exits import Exit
    from treewarden.supervision import Life

    from .agent import Agent
    from .body import AgentBody
    from .envelope import Envelope


def order(body: AgentBody, envelope: Envelope) -> None:
    """Have it done at the next message boundary, before all that waits.

    Raises:
        AgentDown: nobody will ever do it.
    """
    if body.resting:
        raise AgentDown(body.node.path, body.resting)
    if body.orders is NO_MESSAGES:
        body.orders = deque()
    body.orders.append(envelope)
    body.called_away = True
    if body.blocked is not None:
        body.blocked.cancel()
    body.wake()


def suspend(body: AgentBody) -> None:
    """See `AgentRef.suspend`."""
    if body.suspended is not None:
        return
    if body.node.state is not NodeState.RUNNING:
        raise AgentDown(body.node.path, f"it is {body.node.state}")
    body.suspended = trio.Event()
    body.called_away = True
    body.node.state = NodeState.SUSPENDED
    body.directory.touch()
    body.wake()


def resume(body: AgentBody) -> None:
    """See `AgentRef.resume`."""
    suspended, body.suspended = body.suspended, None
    if suspended is None:
        return
    suspended.set()
    if body.node.state is NodeState.SUSPENDED:
        body.node.state = NodeState.RUNNING
        body.directory.touch()


def encode_state(body: AgentBody, state: object) -> bytes:
    """`state` as the agent's class keeps it.

    Raises:
        StateNotEncodable: it is no state of this agent.
    """
    codec, path = body.agent_class.codec, body.node.path
    if codec is None:
        raise StateNotEncodable(f"{path} keeps no state")
    payload = codec.encode(state, path)
    codec.check(payload, path)
    return codec.encode(codec.decode(payload, path), path)


def _replace_state(agent: Agent[Any], payload: bytes) -> None:
    codec = agent.treewarden_class.codec
    assert codec is not None  # noqa: S101 - there was one to encode it
    agent.state = codec.decode(payload, agent.path)


ON_STOP: Final = Operation("on_stop", lambda agent: None)
"""Stands for the hook in the record of its crash; nobody sends it."""

REPLACE_STATE: Final = Operation("replace_state", _replace_state)
"""What an operator's new state is handled by: a handler like any other."""


class Ending:
    """How the incarnation ended that took a stop; waited for by who asked for it."""

    __slots__ = ("exit", "over", "wanted")

    def __init__(self, wanted: Exit) -> None:
        self.wanted = wanted
        self.exit: Exit | None = None
        self.over = trio.Event()

    def __call__(self, life: Life) -> None:
        # Rolled back, it takes the message again in its next life.
        if not life.rolled_back:
            self.exit = life.exit
            self.over.set()


def _stop(agent: Agent[Any], ending: Ending) -> None:
    life = agent.treewarden_body.node.life
    assert life is not None  # noqa: S101 - it runs this
    life.watchers.append(ending)
    agent.stop(ending.wanted)


STOP: Final = Operation("stop", _stop)
"""What somebody else's wish to end is handled by, in its turn."""
