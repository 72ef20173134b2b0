"""The command `treewarden`: how its help is laid out, and what a failure looks like."""

# No postponed annotations here: they are what typer reads.
import os
import sys
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

STATUSES = """
Exit status: 0 done; 1 what was asked for is wrong or failed; 2 the command line cannot be
parsed; 3 no such runtime; 130 interrupted.
"""


class Section(StrEnum):
    """The parts of the help, in this order."""

    RUN = "Run"
    LOOK = "Look"
    LIST = "List one kind of thing"
    ACT = "Act"
    BREAK = "Break, to see it heal"
    FILES = "Look after the file"


_MEANT = {"console": "attach", "ls": "ps", "log": "events", "logs": "events"}
"""What people type, and what they look for."""


class Commands(TyperGroup):
    """The commands, and what their failures look like: one line and a status."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - click's own signature
        """Read the words up to the command; a near miss is told what would be right."""
        word = args[0].partition("=")[0] if args and not ctx.resilient_parsing else ""
        if word in _MEANT:
            ctx.fail(f"No such command {word!r}. Did you mean {_MEANT[word]!r}?")
        if word in self._options_of_commands():
            ctx.fail(
                f"{word} goes behind a command: {ctx.command_path} tree {word} ..."
            )
        return super().parse_args(ctx, args)

    def _options_of_commands(self) -> set[str]:
        """Those that some command has, and this one has not."""
        theirs = {
            option
            for command in self.commands.values()
            for parameter in command.params
            for option in parameter.opts
            if option.startswith("--")
        }
        return theirs - {option for one in self.params for option in one.opts}

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - click's own signature
        """Write a list of commands for each section."""
        commands = [
            (name, command)
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) and not command.hidden
        ]
        longest = max(len(name) for name, _ in commands)
        for section in Section:
            # What has no section would be in none of them: a test looks for it.
            rows = [
                (name.ljust(longest), command.get_short_help_str(formatter.width))
                for name, command in commands
                if getattr(command, "rich_help_panel", None) == section
            ]
            with formatter.section(section):
                formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - click's own signature
        """Run one command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # The reader, say `head`, has seen enough.
            give_up_stdout()
            raise typer.Exit(0) from None
        except Exception as error:  # noqa: BLE001 - re-raised unless it is for the user
            fail(error)
        return result


def give_up_stdout() -> None:
    """Have what is still to be written go nowhere: Python would fail over it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(error: Exception) -> NoReturn:
    """End with one line about `error`; one that is not ours is a bug, and shown as such."""
    from treewarden.cli.loading import origin
    from treewarden.control.plain import plain
    from treewarden.errors import ChildStartFailed, NoRuntime, TreewardenError

    if not isinstance(error, TreewardenError):
        raise error
    place = origin(error) if isinstance(error, ChildStartFailed) else ""
    print(f"treewarden: {plain(f'{error}{place}')}", file=sys.stderr)
    raise typer.Exit(3 if isinstance(error, NoRuntime) else 1) from None


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Erlang-grade supervision for Python: run applications, watch and steer them.",
    epilog=STATUSES,
)


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
