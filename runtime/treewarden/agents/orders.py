"""What operators, and others from outside, have an agent do besides its operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from .operation import Operation

if TYPE_CHECKING:
    from treewarden.exits import Exit
    from treewarden.supervision import Life

    from .agent import Agent


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
