"""What can be typed: its help, and what a command line says of a configuration."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from treewarden.cli.commands import Given, app


def commands(command: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below this one, with the words that lead to it."""
    yield names, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, *names, name)


def options(command: Any) -> dict[str, list[str]]:
    return {
        one.name: one.opts for one in command.params if one.opts[0].startswith("--")
    }


def test_no_help_text_shows_the_marks_of_how_it_is_set() -> None:
    helps = {
        names: CliRunner().invoke(app, [*names, "--help"]).output
        for names, _ in commands(get_command(app))
    }
    assert len(helps) > 20
    assert [names for names, text in helps.items() if "--help" not in text] == []
    assert [names for names, text in helps.items() if "\\b" in text] == []


def test_what_runs_something_has_every_option_of_a_configuration() -> None:
    found = dict(commands(get_command(app)))
    run, demo = options(found["run",]), options(found["demo",])
    assert {"config", "db", "socket", "otlp", "name", "level", "rights"} <= run.keys()
    assert run.items() <= demo.items()


def test_a_child_is_told_what_the_command_line_said() -> None:
    flags = {"store": Path("a.db"), "log_level": "debug", "socket": "false"}
    given = Given(file=Path("t.toml"), flags=flags)
    assert given.words() == [
        *("--config", "t.toml"),
        *("--db", "a.db"),
        *("--log-level", "debug"),
        *("--socket", "false"),
    ]


def test_options_win_over_the_defaults_of_a_command() -> None:
    assert Given().config(rights="chaos").rights == "chaos"
    assert Given(flags={"rights": "ro"}).config(rights="chaos").rights == "ro"
