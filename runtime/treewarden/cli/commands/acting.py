"""Commands that do something to a runtime or one of its parts."""

# No postponed annotations here: they are what typer reads.
import math
from enum import StrEnum
from typing import Annotated

import typer

from . import complete
from .group import Section, app
from .options import Remote, RightsWord, asking

AgentName = Annotated[
    str,
    typer.Argument(
        metavar="AGENT", help="A path or unique id.", autocompletion=complete.agents
    ),
]
NodePath = Annotated[
    str,
    typer.Argument(
        metavar="PATH", help="A path or unique id.", autocompletion=complete.nodes
    ),
]


class CircuitWord(StrEnum):
    """What can be done to a circuit."""

    TRIP = "trip"
    RESET = "reset"
    DISABLE = "disable"
    METRICS_ONLY = "metrics-only"


class WorkflowWord(StrEnum):
    """What can be done about a workflow."""

    CANCEL = "cancel"
    RESUME = "resume"


class SubscriptionWord(StrEnum):
    """What can be done about a durable subscription."""

    FORGET = "forget"


class LetterWord(StrEnum):
    """What can be done about a dead letter."""

    RETRY = "retry"
    DISCARD = "discard"
    PURGE = "purge"


@app.command(rich_help_panel=Section.ACT)
@asking
def call(
    agent: AgentName,
    operation: Annotated[
        str, typer.Argument(metavar="OPERATION", help="A method of it.")
    ],
    remote: Remote,
    pairs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Values are JSON, or else text: name=ada, name='\"7\"', n=7.",
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="How long to wait [the agent's own].")
    ] = None,
) -> None:
    """Call an operation of an agent, print its answer.

    \b
    --json: {"value": ...}
    """
    from treewarden.cli import showing
    from treewarden.cli.asking import ANSWER_SECONDS, arguments, request_and_print
    from treewarden.control.protocol import Call, CallResult
    from treewarden.errors import BadArguments
    from treewarden.ids import new_id

    params = Call(
        agent=agent,
        operation=operation,
        arguments=arguments(pairs or []),
        key=new_id(),
        seconds=seconds,
    )

    def show(answer: CallResult) -> str:
        if remote.as_json:
            return showing.as_json(answer)
        return "\n".join(showing.value_lines(answer.value))

    # Without --seconds the agent's own deadline ends it, whatever that is.
    patience = math.inf if seconds is None else seconds + ANSWER_SECONDS
    conversation = request_and_print("call", params, CallResult, show)
    try:
        remote.ask(conversation, RightsWord.RW, patience)
    except BadArguments as error:
        if "Expected `str`" not in str(error):
            raise
        # 7 is a number here, whatever the operation takes.
        raise BadArguments(
            f"{error}; text that could be JSON is given in quotes: name='\"7\"'"
        ) from error


@app.command(rich_help_panel=Section.ACT)
@asking
def restart(path: NodePath, remote: Remote) -> None:
    """Restart a node.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import Restart

    remote.act("restart", Restart(path=path))


@app.command(rich_help_panel=Section.ACT)
@asking
def stop(path: NodePath, remote: Remote) -> None:
    """Stop a node and leave it stopped.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import Stop

    remote.act("stop", Stop(path=path))


@app.command(rich_help_panel=Section.ACT)
@asking
def shutdown(remote: Remote) -> None:
    """Stop the whole runtime, in order, as SIGTERM does.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import Shutdown

    remote.act("shutdown", Shutdown())


@app.command(rich_help_panel=Section.ACT)
@asking
def suspend(path: AgentName, remote: Remote) -> None:
    """Have an agent take no message until resumed.

    Messages wait, each with its deadline. A restart or a stop ends it too.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import Suspend

    remote.act("suspend", Suspend(path=path))


@app.command(rich_help_panel=Section.ACT)
@asking
def resume(path: AgentName, remote: Remote) -> None:
    """Let a suspended agent go on.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import Resume

    remote.act("resume", Resume(path=path))


@app.command(rich_help_panel=Section.ACT)
@asking
def circuit(
    what: Annotated[
        CircuitWord,
        typer.Argument(metavar="trip|reset|disable|metrics-only", help="What to do."),
    ],
    name: Annotated[
        str,
        typer.Argument(
            metavar="CIRCUIT",
            help="As `circuits` lists it.",
            autocompletion=complete.circuits,
        ),
    ],
    remote: Remote,
) -> None:
    """Trip, reset or disable a circuit.

    With metrics-only it lets every call through and only watches.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import CircuitAct

    remote.act("circuit", CircuitAct(name=name, act=what.value))


@app.command(rich_help_panel=Section.ACT)
@asking
def workflow(
    what: Annotated[
        WorkflowWord, typer.Argument(metavar="cancel|resume", help="What to do.")
    ],
    id_: Annotated[
        str,
        typer.Argument(
            metavar="WORKFLOW",
            help="As `workflows` lists it.",
            autocompletion=complete.workflows,
        ),
    ],
    remote: Remote,
) -> None:
    """Cancel a workflow, or resume one that stands still.

    Cancelled, it is stopped for good and what it has done is compensated. Resumed, it goes
    on where it was, with new attempts.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import WorkflowAct

    remote.act("workflow", WorkflowAct(act=what.value, id=id_))


@app.command(rich_help_panel=Section.ACT)
@asking
def acknowledge(
    alarm: Annotated[
        int, typer.Argument(metavar="ALARM", help="Its id, as `alarms` lists it.")
    ],
    remote: Remote,
) -> None:
    """Say that you know of an alarm.

    It stays open until it is over.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import Acknowledge

    remote.act("acknowledge", Acknowledge(alarm=alarm))


@app.command(rich_help_panel=Section.ACT)
@asking
def subscription(
    what: Annotated[
        SubscriptionWord, typer.Argument(metavar="forget", help="What to do.")
    ],
    id_: Annotated[
        str,
        typer.Argument(
            metavar="SUBSCRIPTION",
            help="As `subscriptions` lists it.",
            autocompletion=complete.subscriptions,
        ),
    ],
    remote: Remote,
) -> None:
    """Forget a durable subscription nobody uses.

    Refused while it has members. Its dead letters stay, and can only be discarded; whoever
    subscribes by its name again begins anew.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import SubscriptionAct

    remote.act("subscription", SubscriptionAct(act=what.value, id=id_))


@app.command(rich_help_panel=Section.ACT)
@asking
def dead_letter(
    what: Annotated[
        LetterWord, typer.Argument(metavar="retry|discard|purge", help="What to do.")
    ],
    remote: Remote,
    number: Annotated[
        int | None,
        typer.Argument(
            min=1, metavar="NUMBER", help="Of the letter; purge has none: it takes all."
        ),
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0, help="purge: only those given up before.")
    ] = None,
) -> None:
    """Retry or discard a dead letter, or purge all.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.clock import wall_ns
    from treewarden.control.protocol import DeadLetterAct

    purging = what is LetterWord.PURGE
    if purging and number is not None:
        raise typer.BadParameter("purge takes no number; discard forgets one letter")
    if not purging and number is None:
        raise typer.BadParameter(f"{what} which? `dead-letters` lists their numbers")
    if days is not None and not purging:
        raise typer.BadParameter(f"--days goes with purge, not with {what}")
    before_ns = wall_ns() - int(days * 86_400 * 1e9) if days else None
    params = DeadLetterAct(act=what.value, number=number or 0, before_ns=before_ns)
    remote.act("dead_letter", params)
