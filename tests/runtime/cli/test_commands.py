"""What can be typed: its help, and what a command line says of a configuration."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from treewarden.cli.commands import Given, app
from treewarden.cli.commands.complete import typable
from treewarden.cli.commands.group import Section


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
    usages = {names: text.splitlines()[0] for names, text in helps.items()}
    assert [names for names, usage in usages.items() if "[[" in usage] == []


def test_no_line_of_a_list_of_commands_is_cut_at_eighty_columns() -> None:
    for words in ([], ["db"]):
        text = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*words, "--help"]).output
        assert "..." not in text.split("Options:")[1]
        assert max(map(len, text.splitlines())) <= 80


def test_every_command_is_in_one_section_of_the_help() -> None:
    found = get_command(app)
    listed = CliRunner().invoke(app, ["--help"]).output
    for name, command in getattr(found, "commands", {}).items():
        assert command.rich_help_panel in set(Section), name
        assert listed.count(f"\n  {name} ") == 1, name


def test_every_word_that_a_command_takes_is_explained() -> None:
    bare = [
        (*names, one.name)
        for names, command in commands(get_command(app))
        for one in command.params
        if not (one.help or getattr(one, "hidden", False))
    ]
    assert bare == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dead-letter", "retry"], "retry which? `dead-letters` lists their numbers"),
        (["dead-letter", "discard"], "discard which?"),
        (["dead-letter", "purge", "7"], "purge takes no number"),
        (["dead-letter", "retry", "7", "--days", "2"], "--days goes with purge"),
        (["acknowledge", "it"], "ALARM"),
        (["circuit", "hug", "x"], "'hug' is not one of 'trip'"),
    ],
)
def test_words_that_make_no_sense_together_are_refused_before_anybody_is_asked(
    words: list[str], said: str
) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_console_is_attached_to_one_runtime_by_either_way_to_name_it() -> None:
    done = CliRunner().invoke(app, ["attach", "shop", "--runtime", "yard"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "treewarden: attach to shop or to yard? Name one\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["console"], "No such command 'console'. Did you mean 'attach'?"),
        (["--runtime", "shop", "ps"], "--runtime goes behind a command: "),
        (["--socket=x", "tree"], "--socket goes behind a command: "),
    ],
)
def test_a_near_miss_is_told_what_would_be_right(words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, words)
    assert said in result.output
    assert result.exit_code == 2


def test_completion_is_silent_when_nobody_can_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    asked = {
        "XDG_RUNTIME_DIR": str(tmp_path),
        "COMP_WORDS": "treewarden state ",
        "COMP_CWORD": "2",
        "_TREEWARDEN_COMPLETE": "complete_bash",
    }
    done = CliRunner().invoke(app, [], prog_name="treewarden", env=asked)
    assert (done.exit_code, done.output.strip()) == (0, "")


def test_no_name_that_a_shell_or_terminal_would_obey_is_offered() -> None:
    assert typable(
        ["/a", "web/10.0.0.1:80", "two words", "", "\x1b]0;x\x07", "\u202e"]
    ) == [
        "/a",
        "web/10.0.0.1:80",
    ]


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
