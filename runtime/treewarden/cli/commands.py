"""What can be typed. Each command imports what it needs when it is run."""

# No postponed annotations here: they are what typer reads.
import inspect
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from . import db as database

if TYPE_CHECKING:
    from treewarden import Config

    from .asking import Conversation

STATUSES = """
Exit status: 0 done; 1 what was asked for is wrong or failed; 2 the command line cannot be
parsed; 3 no such runtime; 130 interrupted.
"""


class Commands(TyperGroup):
    """The commands, and what their failures look like: one line and a status."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - click's own signature
        """Run one command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # The reader, say `head`, has seen enough. Python would say so at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except Exception as error:  # noqa: BLE001 - re-raised unless it is for the user
            fail(error)
        return result


def fail(error: Exception) -> NoReturn:
    """End with one line about `error`; one that is not ours is a bug, and shown as such."""
    from treewarden.control.plain import plain
    from treewarden.errors import NoRuntime, TreewardenError

    if not isinstance(error, TreewardenError):
        raise error
    print(f"treewarden: {plain(str(error))}", file=sys.stderr)
    raise typer.Exit(3 if isinstance(error, NoRuntime) else 1) from None


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Erlang-grade supervision for Python: run applications, watch and steer them.",
    epilog=STATUSES,
)


class RightsWord(StrEnum):
    """What an operator may do."""

    RO = "ro"
    RW = "rw"
    CHAOS = "chaos"


class LevelWord(StrEnum):
    """What an acknowledged change survives."""

    DURABLE = "durable"
    CRASH_SAFE = "crash_safe"
    VOLATILE = "volatile"


class LogWord(StrEnum):
    """What is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class InjectionWord(StrEnum):
    """What can be broken."""

    CRASH = "crash"


class CircuitWord(StrEnum):
    """What can be done to a circuit."""

    TRIP = "trip"
    RESET = "reset"
    DISABLE = "disable"
    METRICS_ONLY = "metrics-only"


class LetterWord(StrEnum):
    """What can be done about a dead letter."""

    RETRY = "retry"
    DISCARD = "discard"
    PURGE = "purge"


class SubscriptionWord(StrEnum):
    """What can be done about a durable subscription."""

    FORGET = "forget"


# --- options that several commands have --------------------------------------------------

Socket = Annotated[
    Path | None, typer.Option("--socket", metavar="PATH", help="The runtime's socket.")
]
RuntimeName = Annotated[
    str | None,
    typer.Option(
        "--runtime", metavar="NAME", help="The runtime's name; the only one needs none."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Headless = Annotated[
    bool,
    typer.Option("--headless", help="No console (so it is anyway without a terminal)."),
]
Db = Annotated[
    Path | None,
    typer.Option("--db", metavar="FILE", help="The database file [the state folder]."),
]
ListenAt = Annotated[
    str | None,
    typer.Option("--socket", metavar="PATH", help="Where to listen; false: nowhere."),
]
Otlp = Annotated[
    str | None,
    typer.Option("--otlp", metavar="URL", help="Export telemetry to this collector."),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A TOML file.")
]
Name = Annotated[
    str | None, typer.Option("--name", help="The runtime's name [the application's].")
]
Level = Annotated[
    LevelWord | None, typer.Option("--level", help="What a change survives [durable].")
]
Cap = Annotated[
    RightsWord | None,
    typer.Option("--rights", help="The most that anybody gets [rw; the demo: chaos]."),
]
LogLevel = Annotated[LogWord | None, typer.Option("--log-level", help="[info]")]
UntilConsoleGone = Annotated[
    float | None, typer.Option("--until-console-gone", hidden=True)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a command line says of a configuration: a file, and what wins over it."""

    file: Path | None = None
    flags: Mapping[str, object] = field(default_factory=dict)

    def config(self, **defaults: object) -> "Config":
        """The whole configuration, checked; `defaults` lose against everything."""
        from treewarden.config import load_config

        return load_config(self.file, os.environ, self.flags, defaults)

    def words(self) -> list[str]:
        """The command line that gives a child the same configuration."""
        words = [] if self.file is None else ["--config", str(self.file)]
        for key, value in self.flags.items():
            option = "--db" if key == "store" else f"--{key.replace('_', '-')}"
            words += [option, str(value)]
        return words


def _given(
    db: Db = None,
    socket: ListenAt = None,
    otlp: Otlp = None,
    config: ConfigFile = None,
    name: Name = None,
    level: Level = None,
    rights: Cap = None,
    log_level: LogLevel = None,
    until_console_gone: UntilConsoleGone = None,
) -> Given:
    """The options of every command that runs something."""
    flags = {
        "store": db,
        "socket": socket,
        "otlp": otlp,
        "name": name,
        "level": level and str(level),
        "rights": rights and str(rights),
        "log_level": log_level and str(log_level),
        "until_console_gone": until_console_gone,
    }
    said = {key: value for key, value in flags.items() if value is not None}
    return Given(file=config, flags=said)


def _configured(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `_given`; it takes what they said as `given`."""
    own = inspect.signature(command).parameters
    shared = inspect.signature(_given).parameters

    @wraps(command)
    def with_options(**said: Any) -> None:  # noqa: ANN401 - typer's, by name
        given = _given(**{name: said.pop(name) for name in shared})
        command(**said, given=given)

    asked = [one for name, one in own.items() if name != "given"]
    # The signature is what typer reads.
    with_options.__signature__ = inspect.Signature([*asked, *shared.values()])  # type: ignore[attr-defined] # as functools does it
    return with_options


def _has_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _check_console(config: "Config") -> None:
    if config.socket is False:
        from treewarden.errors import ConfigError

        raise ConfigError("a console needs the control socket; or run it --headless")


def _run_here(target: str, config: "Config") -> None:
    import treewarden

    from .loading import load_application

    treewarden.run(load_application(target), config)


def _end(status: int) -> None:
    if status:
        raise typer.Exit(status)


# --- running ---------------------------------------------------------------------------------


@app.command()
@_configured
def run(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:APP", help="An Application, or a function that makes one."
        ),
    ],
    given: Given,
    headless: Headless = False,
) -> None:
    """Run an application, with a console to watch it or --headless.

    With a console the runtime is a process of its own, and leaving the console asks
    whether it should go on. Options win over TREEWARDEN_* variables, and these over the
    file.
    """
    settings = given.config()
    if headless or not _has_terminal():
        _run_here(target, settings)
        return
    _check_console(settings)
    from .launching import launch

    words = ["run", target, "--headless", *given.words()]
    _end(
        launch(
            words,
            label=settings.name or target,
            socket=settings.socket or None,
            owner="run",
            rights="rw",
        )
    )


demo = typer.Typer(
    rich_markup_mode=None,
    help="Crawl the standard library's documentation and watch it heal.",
)
app.add_typer(demo, name="demo")
app.add_typer(database.app, name="db")


@demo.callback(invoke_without_command=True)
@_configured
def run_demo(
    ctx: typer.Context,
    given: Given,
    headless: Headless = False,
    seconds: Annotated[
        float | None,
        typer.Option(min=0, help="End after so many seconds; without a console."),
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Crawl this site instead.")
    ] = None,
) -> None:
    """Crawl the standard library's documentation, or a site, and watch it heal.

    Without a terminal it prints what it does, breaks two of its own parts, and ends with a
    summary.
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = given
        return
    settings = given.config(rights="chaos")
    if "until_console_gone" in given.flags:
        _demo_of_a_console(settings, url)
    elif headless or seconds is not None or not _has_terminal():
        from treewarden.demo import headless as run_headless

        _end(run_headless(settings, seconds=seconds, url=url))
    else:
        _demo_with_console(settings, url, given.words())


def _demo_of_a_console(settings: "Config", url: str | None) -> None:
    import treewarden
    from treewarden.demo import application

    treewarden.run(application(settings, url=url), settings)


def _demo_with_console(
    settings: "Config", url: str | None, arguments: list[str]
) -> None:
    from .launching import launch

    _check_console(settings)
    # A demo that nobody watches any more is of no use to anybody.
    words = ["demo", "--headless", "--until-console-gone", "10", *arguments]
    if url is not None:
        words += ["--url", url]
    _end(
        launch(
            words,
            label=settings.name or "demo",
            socket=settings.socket or None,
            owner="demo",
            rights="chaos",
        )
    )


@demo.command("search")
def search_demo(
    ctx: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="WORDS...", help='"Quotes" make a phrase.')
    ],
    as_json: Json = False,
) -> None:
    """Answer from what the demo has indexed.

    \b
    --json: {"hits": [{"title", "url", "snippet"}]}
    """
    from treewarden.control.plain import plain
    from treewarden.demo import application, search

    from . import showing

    settings = ctx.obj.config()
    hits = search(settings.store_path(application(settings).name), " ".join(words))
    if as_json:
        rows = [
            {"title": hit.title, "url": hit.url, "snippet": hit.snippet} for hit in hits
        ]
        print(showing.as_json({"hits": rows}))
        return
    for hit in hits:
        print(f"{plain(hit.title)}\n  {plain(hit.url)}\n  {plain(hit.snippet)}")
    if not hits:
        print("treewarden: nothing found; did the demo run?", file=sys.stderr)
        _end(1)


@app.command()
def attach(
    name: Annotated[str | None, typer.Argument(metavar="NAME")] = None,
    socket: Socket = None,
    rights: Annotated[
        RightsWord, typer.Option(help="What to ask for.")
    ] = RightsWord.RO,
) -> None:
    """Open a console on a running runtime; it can look, unless told otherwise."""
    from treewarden.errors import ConfigError

    from .asking import find

    if not _has_terminal():
        raise ConfigError("a console needs a terminal; `treewarden tree` needs none")
    path = find(socket, name)
    from treewarden_console.app import run_console

    _end(run_console(path, rights=str(rights), owner="attach"))


# --- looking ---------------------------------------------------------------------------------


def _ask(
    socket: Path | None,
    name: str | None,
    conversation: "Conversation",
    rights: RightsWord = RightsWord.RO,
    patience: float | None = None,
) -> None:
    from treewarden.control.protocol import Rights

    from .asking import ANSWER_SECONDS, ask

    ask(
        socket,
        name,
        conversation,
        rights=Rights(rights),
        patience=ANSWER_SECONDS if patience is None else patience,
    )


@app.command()
def ps(as_json: Json = False) -> None:
    """List the runtimes on this machine.

    \b
    --json: {"runtimes": [{"name", "socket", "runtime": {"name", "pid", "boot",
             "version", "started_at_ns", "level", "store", "rights"} or null}]}
    """
    import trio

    from treewarden.control import find_runtimes

    from . import showing

    found = trio.run(find_runtimes)
    if as_json:
        print(showing.runtimes_json(found))
    elif found:
        print(showing.runtimes_text(found))
    else:
        print("no runtime runs")


@app.command()
def tree(
    root: Annotated[str, typer.Argument(metavar="[PATH]")] = "/",
    as_json: Json = False,
    socket: Socket = None,
    runtime: RuntimeName = None,
) -> None:
    """Show the tree, or the part below PATH.

    \b
    --json: {"level", "nodes": [{"path", "id", "kind", "state", "incarnation",
             "restarts", "children": [...]}]}
    """
    from treewarden.control.protocol import GetTree, Tree

    from . import showing
    from .asking import request

    async def conversation(remote: Any) -> None:  # noqa: ANN401 - a RemoteRuntime, not loaded yet
        rows = (await request(remote, "tree", GetTree(root=root), Tree)).rows
        level = remote.welcome.runtime.level
        print(showing.tree_json(rows, level) if as_json else showing.tree_text(rows))

    _ask(socket, runtime, conversation)


@app.command()
def agents(
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD>=VALUE", help="Of their committed state; = != ~ too."
        ),
    ] = None,
    stored_as: Annotated[
        str, typer.Option("--type", help="Only those whose state is of this type.")
    ] = "",
    as_json: Json = False,
    socket: Socket = None,
    runtime: RuntimeName = None,
) -> None:
    """List the agents, all or those whose state is as you say.

    A field of a type that has an index is looked up in it. With --where or --type the
    last line tells how many rows of the store were examined.

    \b
    --json: {"agents": [{"path", "type", "incarnation", "mailbox", "capacity",
             "waiting_senders", "handled", "failed", "refused", "doing",
             "state_version", "state_bytes", "uncommitted"}],
             "rows_examined": NUMBER or null}
    """
    from treewarden.control.protocol import Agents, GetAgents

    from . import showing
    from .asking import criteria, request_and_print

    def show(answer: Agents) -> str:
        examined = answer.rows_examined
        if as_json:
            rows = {"agents": answer.rows, "rows_examined": examined}
            return showing.as_json(rows)
        text = showing.agents_text(answer.rows)
        return text if examined is None else f"{text}\n{examined} rows were examined"

    params = GetAgents(type=stored_as, where=criteria(where or []))
    _ask(socket, runtime, request_and_print("agents", params, Agents, show))


@app.command()
def state(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="A path or unique id.")],
    as_json: Json = False,
    socket: Socket = None,
    runtime: RuntimeName = None,
) -> None:
    """Show the last committed state of an agent.

    \b
    --json: {"path", "type", "version", "incarnation", "state", "size_bytes",
             "committed_at_ns", "durable"}
    """
    from treewarden.control.protocol import AgentState, GetState

    from . import showing
    from .asking import request_and_print

    show = showing.as_json if as_json else showing.state_text
    conversation = request_and_print("state", GetState(agent=agent), AgentState, show)
    _ask(socket, runtime, conversation)


@app.command()
def why(
    path: str,
    as_json: Json = False,
    socket: Socket = None,
    runtime: RuntimeName = None,
) -> None:
    """Tell why a node restarted, or ended, last.

    \b
    --json: {"path", "incarnation", "cause", "sentence", "at_ns", "origin", "by",
             "message", "fault", "took_down", "state_before", "state_after", "chain",
             "faults", "faults_total"}
    """
    from treewarden.control.protocol import Explanation, Why

    from . import showing
    from .asking import request_and_print

    show = showing.as_json if as_json else showing.why_text
    _ask(socket, runtime, request_and_print("why", Why(path=path), Explanation, show))


@app.command()
def circuits(
    as_json: Json = False, socket: Socket = None, runtime: RuntimeName = None
) -> None:
    """List the circuits, and the policies around calls.

    \b
    --json: {"circuits": [{"name", "state", "since_ns", "window_calls",
             "window_failures", "window_slow", "in_a_row", "threshold", "retry_after",
             "probes", "half_open_calls", "probe_successes", "success_threshold",
             "calls", "succeeded", "failed", "rejected", "not_counted", "in_flight",
             "slow", "timed_out", "opened", "openings", "last_error"}],
             "policies": [{"name", "calls", "succeeded", "failed", "cancelled",
             "in_flight", "layers": [{"layer", "numbers"}]}]}
    """
    from treewarden.control.protocol import Circuits, GetCircuits

    from . import showing
    from .asking import request_and_print

    def show(answer: Circuits) -> str:
        if as_json:
            return showing.as_json(
                {"circuits": answer.rows, "policies": answer.policies}
            )
        circuits = showing.circuits_text(answer.rows)
        if not answer.policies:
            return circuits
        return f"{circuits}\n\n{showing.policies_text(answer.policies)}"

    _ask(socket, runtime, request_and_print("circuits", GetCircuits(), Circuits, show))


@app.command()
def queues(
    as_json: Json = False, socket: Socket = None, runtime: RuntimeName = None
) -> None:
    """List the durable queues and maps of the agents, and how much is in them.

    \b
    --json: {"queues": [{"path", "name", "kind", "items"}]}
    """
    from treewarden.control.protocol import GetQueues, Queues

    from . import showing
    from .asking import request_and_print

    def show(answer: Queues) -> str:
        if as_json:
            return showing.as_json({"queues": answer.rows})
        return showing.queues_text(answer.rows)

    _ask(socket, runtime, request_and_print("queues", GetQueues(), Queues, show))


@app.command()
def workflows(
    as_json: Json = False, socket: Socket = None, runtime: RuntimeName = None
) -> None:
    """List the workflows, those that were started last first.

    \b
    --json: {"workflows": [{"id", "name", "version", "state", "steps_over",
             "attempts", "reason", "begun_at_ns", "ended_at_ns"}]}
    """
    from treewarden.control.protocol import GetWorkflows, Workflows

    from . import showing
    from .asking import request_and_print

    def show(answer: Workflows) -> str:
        if as_json:
            return showing.as_json({"workflows": answer.rows})
        return showing.workflows_text(answer.rows)

    ask = request_and_print("workflows", GetWorkflows(), Workflows, show)
    _ask(socket, runtime, ask)


@app.command()
def exchanges(
    as_json: Json = False, socket: Socket = None, runtime: RuntimeName = None
) -> None:
    """List what exchanges have for each receiver, and the circuit before it.

    \b
    --json: {"exchanges": [{"exchange", "receiver", "circuit", "stalled", "pending",
             "capacity", "accepted", "delivered", "failed", "dropped", "withdrawn",
             "refused", "attempts", "last_error"}]}
    """
    from treewarden.control.protocol import Exchanges, GetExchanges

    from . import showing
    from .asking import request_and_print

    def show(answer: Exchanges) -> str:
        if as_json:
            return showing.as_json({"exchanges": answer.rows})
        return showing.exchanges_text(answer.rows)

    ask = request_and_print("exchanges", GetExchanges(), Exchanges, show)
    _ask(socket, runtime, ask)


@app.command()
def alarms(
    as_json: Json = False, socket: Socket = None, runtime: RuntimeName = None
) -> None:
    """List what is wrong now, in the order in which it began.

    \b
    --json: {"alarms": [{"id", "name", "severity", "message", "opened_at_ns",
             "updated_at_ns", "count", "subject", "value", "acknowledged_by"}]}
    """
    from treewarden.control.protocol import GetAlarms, OpenAlarms

    from . import showing
    from .asking import request_and_print

    def show(answer: OpenAlarms) -> str:
        if as_json:
            return showing.as_json({"alarms": answer.rows})
        return showing.alarms_text(answer.rows)

    _ask(socket, runtime, request_and_print("alarms", GetAlarms(), OpenAlarms, show))


@app.command()
def acknowledge(
    alarm: int,
    as_json: Json = False,
    socket: Socket = None,
    runtime: RuntimeName = None,
) -> None:
    """Say that you know of an alarm, by its id; it stays open until it is over.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import Acknowledge
    from treewarden.ids import new_id

    from .asking import act

    params = Acknowledge(alarm=alarm, key=new_id())
    _ask(socket, runtime, act("acknowledge", params, as_json=as_json), RightsWord.RW)


@app.command()
def health(
    as_json: Json = False, socket: Socket = None, runtime: RuntimeName = None
) -> None:
    """List the subjects of the health checks, and how each is.

    \b
    --json: {"health": [{"subject", "status", "reason", "since_ns", "checks",
             "failures", "late"}]}
    """
    from treewarden.control.protocol import GetHealth, HealthOfSubjects

    from . import showing
    from .asking import request_and_print

    def show(answer: HealthOfSubjects) -> str:
        if as_json:
            return showing.as_json({"health": answer.rows})
        return showing.health_text(answer.rows)

    ask = request_and_print("health", GetHealth(), HealthOfSubjects, show)
    _ask(socket, runtime, ask)


@app.command()
def locks(
    as_json: Json = False, socket: Socket = None, runtime: RuntimeName = None
) -> None:
    """List the locks, elections, barriers and ballots that somebody takes part in.

    NUMBER is the token of a lock, the term of a leader, how many a barrier is for, how many
    votes decide; WAITING who wants the lock or the office, has come, or has voted.

    \b
    --json: {"locks": [{"kind", "name", "holder", "number", "waiting"}]}
    """
    from treewarden.control.protocol import GetMeetings, Meetings

    from . import showing
    from .asking import request_and_print

    def show(answer: Meetings) -> str:
        if as_json:
            return showing.as_json({"locks": answer.rows})
        return showing.meetings_text(answer.rows)

    _ask(socket, runtime, request_and_print("meetings", GetMeetings(), Meetings, show))


@app.command()
def subscriptions(
    as_json: Json = False, socket: Socket = None, runtime: RuntimeName = None
) -> None:
    """List the subscriptions, and what became of the events published to them.

    Durable ones that nobody takes events of are listed too, with how far they are behind.

    \b
    --json: {"subscriptions": [{"id", "pattern", "owner", "capacity", "overflow",
             "published", "delivered", "dropped", "pending", "dropped_by", "refused",
             "durable", "members", "cursor", "lag", "leased", "waiting", "redelivered",
             "last_fault"}]}
    """
    from treewarden.control.protocol import GetSubscriptions, Subscriptions

    from . import showing
    from .asking import request_and_print

    def show(answer: Subscriptions) -> str:
        if as_json:
            return showing.as_json({"subscriptions": answer.rows})
        return showing.subscriptions_text(answer.rows)

    ask = request_and_print("subscriptions", GetSubscriptions(), Subscriptions, show)
    _ask(socket, runtime, ask)


@app.command()
def dead_letters(
    after: Annotated[int, typer.Option(min=0, metavar="NUMBER")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 100,
    as_json: Json = False,
    socket: Socket = None,
    runtime: RuntimeName = None,
) -> None:
    """List messages and events that were given up, and why.

    \b
    --json: {"dead_letters": [{"number", "path", "operation", "attempts", "reason",
             "at_ns", "sender", "subscription", "content"}]}
    """
    from treewarden.control.protocol import DeadLetters, GetDeadLetters

    from . import showing
    from .asking import request_and_print

    def show(answer: DeadLetters) -> str:
        if as_json:
            return showing.as_json({"dead_letters": answer.rows})
        return showing.letters_text(answer.rows)

    ask = GetDeadLetters(after=after, limit=limit)
    _ask(socket, runtime, request_and_print("dead_letters", ask, DeadLetters, show))


@app.command()
def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on.")] = False,
    limit: Annotated[int, typer.Option(min=0, max=1000, help="At most so many.")] = 20,
    since: Annotated[
        int | None, typer.Option(metavar="POSITION", help="Those after it.")
    ] = None,
    pattern: Annotated[str, typer.Option(help="Which topics.")] = ">",
    as_json: Json = False,
    socket: Socket = None,
    runtime: RuntimeName = None,
) -> None:
    """Show what happened last, and with --follow what happens.

    \b
    --json: one line an event: {"position", "topic", "at_ns", "kind", "source", "trace",
             "payload"}
    """
    from treewarden.control.protocol import EventRow, Events, GetEvents

    from . import asking, showing

    show = showing.as_json if as_json else showing.event_text

    async def once(remote: Any) -> None:  # noqa: ANN401 - a RemoteRuntime, not loaded yet
        ask = GetEvents(since=since, limit=max(limit, 1), pattern=pattern)
        answer = await asking.request(remote, "events", ask, Events)
        rows: list[EventRow] = answer.rows if limit else []
        for row in rows:
            print(show(row))

    asking.check(pattern)
    if follow:
        # This only reads, so there is nothing to bring in order first.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        conversation = asking.follow(show, last=limit, pattern=pattern)
        _ask(socket, runtime, conversation, patience=math.inf)
    else:
        _ask(socket, runtime, once)


# --- acting ----------------------------------------------------------------------------------


@app.command()
def call(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="A path or unique id.")],
    operation: str,
    pairs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE...]",
            help="Values are JSON, or else text: name=ada, name='\"7\"', n=7.",
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="How long to wait [the agent's own].")
    ] = None,
    as_json: Json = False,
    socket: Socket = None,
    runtime: RuntimeName = None,
) -> None:
    """Call an operation of an agent and print its answer.

    \b
    --json: {"value": ...}
    """
    from treewarden.control.protocol import Call, CallResult
    from treewarden.ids import new_id

    from . import showing
    from .asking import ANSWER_SECONDS, arguments, request_and_print

    params = Call(
        agent=agent,
        operation=operation,
        arguments=arguments(pairs or []),
        key=new_id(),
        seconds=seconds,
    )

    def show(answer: CallResult) -> str:
        if as_json:
            return showing.as_json(answer)
        return "\n".join(showing.value_lines(answer.value))

    conversation = request_and_print("call", params, CallResult, show)
    # Without --seconds the agent's own deadline ends it, whatever that is.
    patience = math.inf if seconds is None else seconds + ANSWER_SECONDS
    _ask(socket, runtime, conversation, RightsWord.RW, patience)


@app.command()
def restart(
    path: str,
    as_json: Json = False,
    socket: Socket = None,
    runtime: RuntimeName = None,
) -> None:
    """Restart a node.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import Restart
    from treewarden.ids import new_id

    from .asking import act

    conversation = act("restart", Restart(path=path, key=new_id()), as_json=as_json)
    _ask(socket, runtime, conversation, RightsWord.RW)


@app.command()
def stop(
    path: str,
    as_json: Json = False,
    socket: Socket = None,
    runtime: RuntimeName = None,
) -> None:
    """Stop a node and leave it stopped.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import Stop
    from treewarden.ids import new_id

    from .asking import act

    conversation = act("stop", Stop(path=path, key=new_id()), as_json=as_json)
    _ask(socket, runtime, conversation, RightsWord.RW)


@app.command()
def circuit(
    what: Annotated[
        CircuitWord, typer.Argument(metavar="trip|reset|disable|metrics-only")
    ],
    name: str,
    as_json: Json = False,
    socket: Socket = None,
    runtime: RuntimeName = None,
) -> None:
    """Trip, reset or disable a circuit, or let it only watch.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import CircuitAct
    from treewarden.ids import new_id

    from .asking import act

    params = CircuitAct(name=name, act=what.value, key=new_id())
    _ask(socket, runtime, act("circuit", params, as_json=as_json), RightsWord.RW)


@app.command()
def subscription(
    what: Annotated[SubscriptionWord, typer.Argument(metavar="forget")],
    id_: Annotated[
        str, typer.Argument(metavar="SUBSCRIPTION", help="As `subscriptions` lists it.")
    ],
    as_json: Json = False,
    socket: Socket = None,
    runtime: RuntimeName = None,
) -> None:
    """Forget a durable subscription that nobody takes events of any more.

    Refused while it has members. Its dead letters stay, and can only be discarded; whoever
    subscribes by its name again begins anew.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import SubscriptionAct
    from treewarden.ids import new_id

    from .asking import act

    params = SubscriptionAct(act=what.value, id=id_, key=new_id())
    _ask(socket, runtime, act("subscription", params, as_json=as_json), RightsWord.RW)


@app.command()
def dead_letter(
    what: Annotated[LetterWord, typer.Argument(metavar="retry|discard|purge")],
    number: Annotated[
        int, typer.Argument(min=0, metavar="[NUMBER]", help="Not with purge.")
    ] = 0,
    days: Annotated[
        float, typer.Option(min=0, help="purge: only those given up before.")
    ] = 0.0,
    as_json: Json = False,
    socket: Socket = None,
    runtime: RuntimeName = None,
) -> None:
    """Have a dead letter delivered again, forget it, or forget all of them.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.clock import wall_ns
    from treewarden.control.protocol import DeadLetterAct
    from treewarden.ids import new_id

    from .asking import act

    before_ns = wall_ns() - int(days * 86_400 * 1e9) if days else None
    params = DeadLetterAct(
        act=what.value, number=number, before_ns=before_ns, key=new_id()
    )
    _ask(socket, runtime, act("dead_letter", params, as_json=as_json), RightsWord.RW)


@app.command()
def inject(
    kind: Annotated[InjectionWord, typer.Argument(metavar="crash")],
    path: str,
    as_json: Json = False,
    socket: Socket = None,
    runtime: RuntimeName = None,
) -> None:
    """Break a node on purpose, and see it heal.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import Inject
    from treewarden.ids import new_id

    from .asking import act

    params = Inject(kind=kind.value, path=path, key=new_id())
    _ask(socket, runtime, act("inject", params, as_json=as_json), RightsWord.CHAOS)


@app.command()
def load(
    file: Annotated[Path, typer.Argument(metavar="PLAN.toml")],
    as_json: Json = False,
    socket: Socket = None,
    runtime: RuntimeName = None,
) -> None:
    """Break a runtime by plan, for as long as the plan says: see `injections`.

    The plan has a name, how many seconds it holds, and a list of [[injections]]: point
    (a name, or a pattern like store.*), do (kill, raise, cancel, stall), and, if wanted,
    error, delay, nth, times, probability, seed.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    import msgspec

    from treewarden.control.protocol import Load, Raw
    from treewarden.ids import new_id
    from treewarden.injection import read_plan

    from .asking import act

    plan = Raw(msgspec.json.encode(read_plan(file)))
    conversation = act("load", Load(plan=plan, key=new_id()), as_json=as_json)
    _ask(socket, runtime, conversation, RightsWord.CHAOS)


@app.command()
def lift(
    name: Annotated[str, typer.Argument(metavar="PLAN")],
    as_json: Json = False,
    socket: Socket = None,
    runtime: RuntimeName = None,
) -> None:
    """End a plan of injections now.

    \b
    --json: {"sentence", "path", "incarnation"}
    """
    from treewarden.control.protocol import Lift
    from treewarden.ids import new_id

    from .asking import act

    conversation = act("lift", Lift(name=name, key=new_id()), as_json=as_json)
    _ask(socket, runtime, conversation, RightsWord.CHAOS)


@app.command()
def injections(
    as_json: Json = False, socket: Socket = None, runtime: RuntimeName = None
) -> None:
    """List where a runtime can be broken, and the plans that do so now.

    \b
    --json: {"plans": [{"name", "by", "injections", "done", "seconds_left"}],
             "points": [{"name", "about", "home", "kinds", "reached", "armed"}]}
    """
    from treewarden.control.protocol import GetInjections, Injections

    from . import showing
    from .asking import request_and_print

    def show(answer: Injections) -> str:
        if as_json:
            return showing.as_json({"plans": answer.plans, "points": answer.points})
        return showing.injections_text(answer)

    conversation = request_and_print("injections", GetInjections(), Injections, show)
    _ask(socket, runtime, conversation)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"treewarden {version('treewarden')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print it."
        ),
    ] = False,
) -> None:
    """Erlang-grade supervision for Python: run applications, watch and steer them."""


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a letter gets its code instead of a traceback.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    app(prog_name="treewarden")
