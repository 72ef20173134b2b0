"""The blast radius of an act: who stops, who starts again, and what it spends.

Planned with the same pure functions that restart children, so what is said before is what
happens then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import trio

from treewarden.supervision import (
    Kind,
    Member,
    Restart,
    Supervisor,
    as_supervisor,
    plan_restart,
)

from .protocol import Act, Preview

if TYPE_CHECKING:
    from collections.abc import Sequence

    from treewarden.agents import AgentBody
    from treewarden.supervision import Node


_SENTENCES: Final = {
    Act.STOP: "stops and stays stopped",
    Act.SUSPEND: "takes no more messages until it is resumed; they wait",
    Act.RESUME: "takes messages again",
}


def subtree(node: Node) -> list[Node]:
    """A node and all below it, parents before children, siblings in start order."""
    found = [node]
    supervisor = as_supervisor(node)
    if supervisor is not None:
        for child in supervisor.children.values():
            found += subtree(child)
    return found


def preview(act: Act, node: Node) -> Preview:
    """What `act` would do to `node` and others now."""
    match act:
        case Act.STOP:
            return _planned(act, node, stops=[node], starts=[])
        case Act.RESTART:
            return _planned(act, node, stops=[node], starts=[node])
        case Act.SUSPEND | Act.RESUME:
            return _planned(act, node, stops=[], starts=[])
        case Act.CRASH:
            return _crashed(node)


def _crashed(node: Node) -> Preview:
    parent = node.parent
    crash = Act.CRASH
    if not isinstance(parent, Supervisor):
        return _planned(crash, node, stops=[node], starts=[], gives_up=True)
    if node.spec.restart == Restart.TEMPORARY:
        return _planned(crash, node, stops=[node], starts=[])
    window = parent.window_of(node)
    if window.spent(trio.current_time()) + 1 > window.budget.limit:
        stops = [node] if node.budget is not None else [parent.node]
        return _planned(crash, node, stops=stops, starts=[], gives_up=True)
    members = [
        Member(id=n.id, restart=Restart(n.spec.restart), running=n.running)
        for n in parent.children.values()
    ]
    plan = plan_restart(parent.strategy, members, node.id)
    return _planned(
        crash,
        node,
        stops=[node, *(parent.children[id_] for id_ in plan.stops)],
        starts=[parent.children[id_] for id_ in plan.starts],
    )


def _planned(
    act: Act,
    node: Node,
    *,
    stops: Sequence[Node],
    starts: Sequence[Node],
    gives_up: bool = False,
) -> Preview:
    parent = node.parent
    window = parent.window_of(node) if isinstance(parent, Supervisor) else None
    stopping = [n for top in stops for n in subtree(top)]
    agents = [n for n in stopping or [node] if n.body.kind is Kind.AGENT]
    return Preview(
        act=act,
        path=node.path,
        incarnation=node.incarnation,
        stops=[n.path for top in stops for n in reversed(subtree(top))],
        starts=[n.path for top in starts for n in subtree(top)],
        sentence=_sentence(act, node, stops, starts, gives_up=gives_up),
        spent=window.spent(trio.current_time()) if window is not None else 0,
        limit=window.budget.limit if window is not None else None,
        period=window.budget.period if window is not None else None,
        gives_up=gives_up,
        messages_waiting=sum(len(cast("AgentBody", n.body).mailbox) for n in agents),
    )


def _sentence(
    act: Act,
    node: Node,
    stops: Sequence[Node],
    starts: Sequence[Node],
    *,
    gives_up: bool,
) -> str:
    others = [n.path for n in stops if n is not node]
    if gives_up:
        who = others[0] if others else node.path
        return f"this spends the restart budget: {who} gives up"
    if act in _SENTENCES:
        return f"{node.path} {_SENTENCES[act]}"
    if not starts:
        return f"{node.path} ends and is not started again ({node.spec.restart})"
    if others:
        return f"{node.path} restarts and takes along {', '.join(others)}"
    return f"only {node.path} restarts"
