"""What several commands have: words to choose from, options, and what they come to.

A command that runs something takes `given: Given`, one that asks a runtime takes
`remote: Remote`; `configured` and `asking` give it the options that these are made of.
"""

# No postponed annotations here: they are what typer reads.
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from . import complete

if TYPE_CHECKING:
    from treewarden import Config
    from treewarden.cli.asking import Conversation
    from treewarden.control.protocol import Message

    M = TypeVar("M", bound=Message)


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


# --- what runs something -----------------------------------------------------------------

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
    str | None,
    typer.Option(
        "--name", metavar="NAME", help="The runtime's name [the application's]."
    ),
]
Level = Annotated[
    LevelWord | None, typer.Option("--level", help="What a change survives [durable].")
]
Cap = Annotated[
    RightsWord | None,
    typer.Option("--rights", help="The most that anybody gets [rw; the demo: chaos]."),
]
LogLevel = Annotated[
    LogWord | None,
    typer.Option("--log-level", help="The least that is logged, on stderr [info]."),
]
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


# --- what asks a runtime -----------------------------------------------------------------

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Socket = Annotated[
    Path | None,
    typer.Option(
        "--socket", metavar="PATH", help="The runtime's socket [TREEWARDEN_SOCKET]."
    ),
]
RuntimeName = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="The runtime's name [TREEWARDEN_NAME, or the only one].",
        autocompletion=complete.runtimes,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """The runtime that a command line means, and how its answer is to be printed."""

    socket: Path | None = None
    name: str | None = None
    as_json: bool = False

    def ask(
        self,
        conversation: "Conversation",
        rights: RightsWord = RightsWord.RO,
        patience: float | None = None,
    ) -> None:
        """Have a conversation with it; `patience` is in seconds, None: as any answer."""
        from treewarden.cli.asking import ANSWER_SECONDS, ask
        from treewarden.control.protocol import Rights

        ask(
            self.socket,
            self.name,
            conversation,
            rights=Rights(rights),
            patience=ANSWER_SECONDS if patience is None else patience,
        )

    def show(
        self,
        method: str,
        params: "Message",
        result: "type[M]",
        text: "Callable[[M], str]",
        json: "Callable[[M], object] | None" = None,
    ) -> None:
        """Ask once, and print the answer: `text` of it, or as JSON what `json` makes of it."""
        from treewarden.cli.asking import request_and_print
        from treewarden.cli.showing import as_json

        def show(answer: "M") -> str:
            if self.as_json:
                return as_json(answer if json is None else json(answer))
            return text(answer)

        self.ask(request_and_print(method, params, result, show))

    def list(
        self,
        method: str,
        params: "Message",
        result: "type[M]",
        text: "Callable[[Any], str]",
        *,
        key: str,
        none: str,
    ) -> None:
        """Ask for rows, and print them: a table, or `none`; as JSON below `key`."""

        def rows(answer: Any) -> Sequence[object]:  # noqa: ANN401 - whatever has rows
            return answer.rows  # type: ignore[no-any-return] # every list has

        self.show(
            method,
            params,
            result,
            lambda answer: text(rows(answer)) if rows(answer) else none,
            lambda answer: {key: rows(answer)},
        )

    def act(
        self, method: str, params: "Message", rights: RightsWord = RightsWord.RW
    ) -> None:
        """Do something, with a key of its own, and print what became of it."""
        import msgspec

        from treewarden.cli.asking import request_and_print
        from treewarden.cli.showing import as_json
        from treewarden.control.plain import plain
        from treewarden.control.protocol import Done
        from treewarden.ids import new_id

        def show(done: Done) -> str:
            return as_json(done) if self.as_json else plain(done.sentence)

        keyed = msgspec.structs.replace(params, key=new_id())
        self.ask(request_and_print(method, keyed, Done, show), rights)


def _remote(
    as_json: Json = False, socket: Socket = None, runtime: RuntimeName = None
) -> Remote:
    """The options of every command that asks a runtime."""
    return Remote(socket=socket, name=runtime, as_json=as_json)


# --- giving them to commands -------------------------------------------------------------


def _with_options(
    name: str, make: Callable[..., object]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of `make`; it takes what they come to as `name`."""
    shared = inspect.signature(make).parameters

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command).parameters

        @wraps(command)
        def with_options(**said: Any) -> None:  # noqa: ANN401 - typer's, by name
            made = make(**{option: said.pop(option) for option in shared})
            command(**said, **{name: made})

        asked = [one for own_name, one in own.items() if own_name != name]
        # The signature is what typer reads.
        with_options.__signature__ = inspect.Signature([*asked, *shared.values()])  # type: ignore[attr-defined] # as functools does it
        return with_options

    return decorate


configured = _with_options("given", _given)
asking = _with_options("remote", _remote)
