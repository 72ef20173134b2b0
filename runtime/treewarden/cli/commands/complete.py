"""What the shell completes after TAB, asked of whoever can know it; silence when nobody can."""

# No postponed annotations here: they are what typer reads.
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from treewarden.control import RemoteRuntime

# A shell waits for this, and so does whoever pressed TAB.
_SECONDS = 2.0


def runtimes() -> list[str]:
    """The names of the runtimes on this machine."""
    import trio

    from treewarden.control import find_runtimes

    return typable(found.name for found in trio.run(find_runtimes))


def nodes(ctx: typer.Context, incomplete: str) -> list[str]:
    """The paths of the nodes; of the system's only when it is asked for."""
    from treewarden.control.protocol import GetTree, Tree

    rows = _rows(ctx, "tree", GetTree(), Tree)
    wanted = incomplete.startswith("/system")
    return typable(
        row.path for row in rows if wanted or not row.path.startswith("/system")
    )


def agents(ctx: typer.Context) -> list[str]:
    """The paths of the agents."""
    from treewarden.control.protocol import Agents, GetAgents

    return typable(row.path for row in _rows(ctx, "agents", GetAgents(), Agents))


def circuits(ctx: typer.Context) -> list[str]:
    """The names of the circuits."""
    from treewarden.control.protocol import Circuits, GetCircuits

    return typable(row.name for row in _rows(ctx, "circuits", GetCircuits(), Circuits))


def subscriptions(ctx: typer.Context) -> list[str]:
    """The ids of the durable subscriptions."""
    from treewarden.control.protocol import GetSubscriptions, Subscriptions

    rows = _rows(ctx, "subscriptions", GetSubscriptions(), Subscriptions)
    return typable(row.id for row in rows if row.durable)


def workflows(ctx: typer.Context) -> list[str]:
    """The ids of the workflows."""
    from treewarden.control.protocol import GetWorkflows, Workflows

    return typable(row.id for row in _rows(ctx, "workflows", GetWorkflows(), Workflows))


def typable(names: Iterable[str]) -> list[str]:
    """Those names that a shell can be given as they are: nothing in them is obeyed."""
    from treewarden.control.plain import plain

    return [name for name in names if name == plain(name) and name.split() == [name]]


def _rows(ctx: typer.Context, method: str, params: Any, result: Any) -> Any:  # noqa: ANN401 - rows of any kind
    """The rows of a list of the runtime that the words so far mean; none, if it is unknown."""
    from treewarden.cli.asking import ask, request
    from treewarden.errors import TreewardenError

    found = []

    async def look(remote: "RemoteRuntime") -> None:
        found.extend((await request(remote, method, params, result)).rows)

    said = ctx.params
    try:
        ask(said.get("socket"), said.get("runtime"), look, patience=_SECONDS)
    except TreewardenError:
        return []
    return found
