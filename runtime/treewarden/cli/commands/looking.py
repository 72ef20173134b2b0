"""Commands that look at runtimes, their trees and agents, and at what happened."""

# No postponed annotations here: they are what typer reads.
import math
import os
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from . import complete
from .acting import AgentName, NodePath
from .group import Section, app
from .options import Json, Remote, asking

if TYPE_CHECKING:
    from treewarden.control import RemoteRuntime


@app.command(rich_help_panel=Section.LOOK)
def ps(as_json: Json = False) -> None:
    """List the runtimes on this machine.

    \b
    --json: {"runtimes": [{"name", "socket", "runtime": {"name", "pid", "boot",
             "version", "started_at_ns", "level", "store", "rights"} or null}]}
    """
    import trio

    from treewarden.cli import showing
    from treewarden.control import find_runtimes

    found = trio.run(find_runtimes)
    if as_json:
        print(showing.runtimes_json(found))
    elif found:
        print(showing.runtimes_text(found))
    else:
        print("no runtime runs")


@app.command(rich_help_panel=Section.LOOK)
@asking
def tree(
    remote: Remote,
    root: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="Only what is below.", autocompletion=complete.nodes
        ),
    ] = "/",
) -> None:
    """Show the tree, or the part below PATH.

    Of the whole tree, what is below /system is only counted while all of it is well.

    \b
    --json: {"level", "nodes": [{"path", "id", "kind", "state", "incarnation",
             "restarts", "children": [...]}]}
    """
    from treewarden.cli import showing
    from treewarden.cli.asking import request
    from treewarden.control.protocol import GetTree, Tree

    async def conversation(runtime: "RemoteRuntime") -> None:
        rows = (await request(runtime, "tree", GetTree(root=root), Tree)).rows
        level = runtime.welcome.runtime.level
        if remote.as_json:
            print(showing.tree_json(rows, level))
        else:
            print(showing.tree_text(rows, fold="/system" if root == "/" else ""))

    remote.ask(conversation)


@app.command(rich_help_panel=Section.LOOK)
@asking
def agents(
    remote: Remote,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD>=VALUE", help="Of their committed state; = != ~ too."
        ),
    ] = None,
    stored_as: Annotated[
        str,
        typer.Option(
            "--type", metavar="TYPE", help="Only those whose state is of this type."
        ),
    ] = "",
) -> None:
    """List the agents, all or some by their state.

    A field of a type that has an index is looked up in it. With --where or --type the
    last line tells how many rows of the store were examined.

    \b
    --json: {"agents": [{"path", "type", "incarnation", "mailbox", "capacity",
             "waiting_senders", "handled", "failed", "refused", "doing",
             "state_version", "state_bytes", "uncommitted"}],
             "rows_examined": NUMBER or null}
    """
    from treewarden.cli import showing
    from treewarden.cli.asking import criteria
    from treewarden.control.protocol import Agents, GetAgents

    def text(answer: Agents) -> str:
        found = showing.agents_text(answer.rows) if answer.rows else "no such agent"
        examined = answer.rows_examined
        if examined is None:
            return found
        return (
            f"{found}\n{examined} row{'s were' if examined != 1 else ' was'} examined"
        )

    remote.show(
        "agents",
        GetAgents(type=stored_as, where=criteria(where or [])),
        Agents,
        text,
        lambda answer: {"agents": answer.rows, "rows_examined": answer.rows_examined},
    )


@app.command(rich_help_panel=Section.LOOK)
@asking
def state(agent: AgentName, remote: Remote) -> None:
    """Show the last committed state of an agent.

    \b
    --json: {"path", "type", "version", "incarnation", "state", "size_bytes",
             "committed_at_ns", "durable"}
    """
    from treewarden.cli import showing
    from treewarden.control.protocol import AgentState, GetState

    remote.show("state", GetState(agent=agent), AgentState, showing.state_text)


@app.command(rich_help_panel=Section.LOOK)
@asking
def why(path: NodePath, remote: Remote) -> None:
    """Tell why a node restarted, is down, or hangs.

    And what one that runs awaits at this moment: calls with their lines.

    \b
    --json: {"path", "incarnation", "cause", "sentence", "at_ns", "origin", "by",
             "message", "fault", "took_down", "state_before", "state_after", "chain",
             "now", "faults", "faults_total"}
    """
    from treewarden.cli import showing
    from treewarden.control.protocol import Explanation, Why

    remote.show("why", Why(path=path), Explanation, showing.why_text)


@app.command(rich_help_panel=Section.LOOK)
@asking
def events(
    remote: Remote,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on.")] = False,
    limit: Annotated[int, typer.Option(min=0, max=1000, help="At most so many.")] = 20,
    since: Annotated[
        int | None, typer.Option(metavar="POSITION", help="Those after it.")
    ] = None,
    pattern: Annotated[
        str,
        typer.Option(metavar="PATTERN", help="Which topics: orders.*, or orders.> ."),
    ] = ">",
) -> None:
    """Show what happened; --follow: what happens.

    \b
    --json: one line an event: {"position", "topic", "at_ns", "kind", "source", "trace",
             "payload"}
    """
    from treewarden.cli import asking, showing
    from treewarden.control.protocol import Events, GetEvents

    show = showing.as_json if remote.as_json else showing.event_text

    async def once(runtime: "RemoteRuntime") -> None:
        ask = GetEvents(since=since, limit=max(limit, 1), pattern=pattern)
        answer = await asking.request(runtime, "events", ask, Events)
        for row in answer.rows if limit else []:
            print(show(row))

    asking.check(pattern)
    if follow:
        # This only reads, so there is nothing to bring in order first.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        following = asking.follow(show, last=limit, pattern=pattern)
        remote.ask(following, patience=math.inf)
    else:
        remote.ask(once)
