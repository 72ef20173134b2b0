"""Links: two incarnations of agents that end together.

Erlang's. What crashes or is killed makes the other crash, in the middle of its message;
what is shut down has the other end with the same exit once its message is handled; what
ends normally leaves the other alone. An agent with `trap_exits` hears of any end through
`on_down` instead. Being linked twice is being linked once, whoever asked.

A link is for agents that stand far apart: children of one supervisor end together by its
strategy, which counts once and starts them in order. A monitor tells and ends nobody.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from treewarden.clock import wall_ns
from treewarden.errors import AgentDown, AgentError
from treewarden.exits import Crash, Exit, Fault, Killed, Shutdown, said_of

from .monitor import Down
from .operation import Operation
from .orders import order
from .request import RequestEnvelope

if TYPE_CHECKING:
    from treewarden.supervision import Life

    from .agent import Agent
    from .body import AgentBody
    from .ref import AgentRef

_BROKEN: Final = f"{__name__}.LinkBroken"
"""The type that the fault of whoever had to go along names; its cause is the first."""


class Link:
    """It watches both lives, and lets go of both when one of them ends."""

    __slots__ = ("_lives",)

    def __init__(self, one: Life, other: Life) -> None:
        self._lives = {one: other, other: one}
        for life in self._lives:
            life.watchers.append(self)

    def __call__(self, gone: Life) -> None:
        """One of the two has ended."""
        other = self._lives.get(gone)
        if other is not None:
            self.cancel()
            _tell(other, gone)

    def cancel(self) -> None:
        """Let go of both."""
        for life in self._lives:
            life.watchers.remove(self)
        self._lives = {}

    def joins(self, one: Life, other: Life) -> bool:
        """Whether it is the link between these two."""
        return self._lives.get(one) is other


def join(body: AgentBody, own: Life, ref: AgentRef[Any]) -> None:
    """See `Agent.link`."""
    try:
        other = _life_of(ref)
    except AgentError:
        if not body.agent_type.trap_exits:
            raise
        body.tied.tell_down(Down(path=ref.path, incarnation=0, exit=None))
        return
    if other is not own and _between(own, other) is None:
        Link(own, other)


def part(own: Life, ref: AgentRef[Any]) -> None:
    """See `Agent.unlink`."""
    with suppress(AgentError):
        link = _between(own, _life_of(ref))
        if link is not None:
            link.cancel()


def _life_of(ref: AgentRef[Any]) -> Life:
    life = ref.resolve().node.life
    if life is None or life.ended:
        raise AgentDown(ref.path, "there is nobody to be linked with")
    return life


def _between(one: Life, other: Life) -> Link | None:
    # An agent that many are linked with must not be searched each time.
    watchers = min(one.watchers, other.watchers, key=len)
    return next(
        (w for w in watchers if isinstance(w, Link) and w.joins(one, other)), None
    )


def _tell(life: Life, gone: Life) -> None:
    """What the end of `gone` means for `life`."""
    body: AgentBody = life.node.body  # type: ignore[assignment] # only agents are linked
    exit_ = gone.exit
    if body.agent_type.trap_exits:
        path, incarnation = gone.node.path, gone.incarnation
        body.tied.tell_down(Down(path=path, incarnation=incarnation, exit=exit_))
    elif isinstance(exit_, (Crash, Killed)):
        life.fail(_fault(life, gone, exit_), rolled_back=gone.rolled_back)
    elif isinstance(exit_, Shutdown):
        with suppress(AgentDown):
            order(body, RequestEnvelope(_LEAVE, (life, exit_), {}))


def _fault(life: Life, gone: Life, exit_: Crash | Killed) -> Fault:
    first = exit_.fault if isinstance(exit_, Crash) else None
    if first is not None and first.type == _BROKEN:
        # However long the chain, it says who was the first.
        text, first = first.message, first.cause
    else:
        text = f"{gone.node.path}, which it was linked with, {said_of(exit_)}"
    return Fault(
        type=_BROKEN,
        message=text,
        path=life.node.path,
        incarnation=life.incarnation,
        at_ns=wall_ns(),
        trace=first.trace if first is not None else "",
        cause=first,
    )


def _leave(agent: Agent[Any], life: Life, exit_: Exit) -> None:
    # Should that incarnation be over, the next one has nothing to do with it.
    if agent.treewarden_body.node.life is life:
        agent.stop(exit_)


_LEAVE: Final = Operation("linked", _leave)
"""What the orderly end of somebody linked is handled by, at the next message boundary."""
