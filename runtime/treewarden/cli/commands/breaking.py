"""Commands that break something on purpose."""

# No postponed annotations here: they are what typer reads.
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .acting import NodePath
from .group import Section, app
from .options import Remote, RightsWord, asking


class InjectionWord(StrEnum):
    """What can be broken."""

    CRASH = "crash"


@app.command(rich_help_panel=Section.BREAK)
@asking
def inject(
    kind: Annotated[InjectionWord, typer.Argument(metavar="crash", help="What.")],
    path: NodePath,
    remote: Remote,
) -> None:
    """Break a node on purpose, and see it heal.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import Inject

    remote.act("inject", Inject(kind=kind.value, path=path), RightsWord.CHAOS)


@app.command(rich_help_panel=Section.BREAK)
@asking
def load(
    file: Annotated[
        Path, typer.Argument(metavar="PLAN.toml", help="What to break, and how.")
    ],
    remote: Remote,
) -> None:
    """Break a runtime by plan, as long as it says.

    The plan has a name, how many seconds it holds, and a list of [[injections]]: point
    (a name that `injections` lists, or a pattern like store.*), do (kill, raise, cancel,
    stall), and, if wanted, error, delay, nth, times, probability, seed.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    import msgspec

    from treewarden.control.protocol import Load, Raw
    from treewarden.injection import read_plan

    plan = Raw(msgspec.json.encode(read_plan(file)))
    remote.act("load", Load(plan=plan), RightsWord.CHAOS)


@app.command(rich_help_panel=Section.BREAK)
@asking
def lift(
    name: Annotated[
        str, typer.Argument(metavar="PLAN", help="The name that is in its file.")
    ],
    remote: Remote,
) -> None:
    """End a plan of injections now.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import Lift

    remote.act("lift", Lift(name=name), RightsWord.CHAOS)


@app.command(rich_help_panel=Section.BREAK)
@asking
def injections(remote: Remote) -> None:
    """List where it can be broken, and the plans in force.

    \b
    --json: {"plans": [{"name", "by", "injections", "done", "seconds_left"}],
             "points": [{"name", "about", "home", "kinds", "reached", "armed"}]}
    """
    from treewarden.cli import showing
    from treewarden.control.protocol import GetInjections, Injections

    remote.show(
        "injections",
        GetInjections(),
        Injections,
        showing.injections_text,
        lambda answer: {"plans": answer.plans, "points": answer.points},
    )
