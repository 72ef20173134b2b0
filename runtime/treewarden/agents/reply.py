"""An answer that is owed: a handler puts it off, a later one gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .body import AgentBody
    from .envelope import Envelope


class Reply:
    """Made by `Agent.defer`; kept in an attribute of the agent, not in its state.

    It is good for the incarnation that made it: when that ends, who still waits is told
    `AgentCrashed` or `AgentDown`.
    """

    __slots__ = ("_body", "_envelope")

    def __init__(self, body: AgentBody, envelope: Envelope) -> None:
        self._body = body
        self._envelope = envelope

    @property
    def is_wanted(self) -> bool:
        """Whether somebody still waits for it."""
        return self._body.owes(self._envelope)

    def send(self, value: object = None) -> None:
        """In a handler of the same agent: stage the answer, copied now.

        It leaves with this handler's commit, and when the handler fails, not at all: it
        can be sent again. Nothing happens when it was sent before or nobody waits.

        Raises:
            TypeError: `value` is mutable, and the operation that was called has no
                return annotation to copy it by.
            TreewardenError: outside of a handler of this agent.
        """
        self._body.stage().answer(self._envelope, value)
