"""What the papers say is true: programs run and print that, links lead somewhere.

A ```python block of the README is a program. Each ```text block after it is what one run
prints, in the same home: the second is the run after the first.
"""

from __future__ import annotations

import doctest
import importlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

PAPERS = ("README.md", "runtime/ARCHITECTURE.md", "CHANGELOG.md")
LONGEST_PROGRAM = 25

# Run in front of a program: design.md 3, nothing is ever unpickled.
NEVER_UNPICKLE = """\
import runpy, sys
def refuse(event, args):
    if event == "pickle.find_class":
        raise RuntimeError(f"unpickled {args}")
sys.addaudithook(refuse)
runpy.run_path(sys.argv[1], run_name="__main__")
"""

LOAD = """\
import sys
from treewarden.cli.loading import load_application
print(load_application(sys.argv[1]).name)
"""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"^(?:\$ )?treewarden ([a-z]+)", re.MULTILINE)
_TARGET = re.compile(r"^(?:\$ )?make ([a-z]+)", re.MULTILINE)


class Module(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def text(self) -> str: ...


@dataclass(slots=True)
class Program:
    """A program, and what each run of it prints."""

    code: str
    outputs: list[str]


def programs(text: str) -> list[Program]:
    """The programs of a Markdown text, in order."""
    found: list[Program] = []
    for language, block in _FENCE.findall(text):
        if language == "python":
            found.append(Program(block, []))
        elif language == "text" and found:
            found[-1].outputs.append(block)
    return found


def own_home(folder: Path) -> dict[str, str]:
    """An environment in which everything is kept below `folder`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "OTEL_"))}
    return kept | {"HOME": str(folder), "TMPDIR": str(folder)}


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


def test_each_program_of_the_readme_prints_what_the_readme_says(
    readme: str, short_folder: Path
) -> None:
    found = programs(readme)
    assert found
    for number, program in enumerate(found):
        assert program.outputs, f"nothing says what this prints:\n{program.code}"
        home = short_folder / str(number)
        home.mkdir()
        (home / "program.py").write_text(program.code, encoding="utf-8")
        for expected in program.outputs:
            result = subprocess.run(
                [sys.executable, "-c", NEVER_UNPICKLE, "program.py"],
                cwd=home,
                env=own_home(home),
                capture_output=True,
                text=True,
                check=False,
            )
            assert (result.stdout, result.returncode) == (expected, 0), result.stderr


def test_the_first_program_is_what_treewarden_run_is_given(
    readme: str, short_folder: Path
) -> None:
    [target] = set(re.findall(r"^treewarden run (weather:\w+)", readme, re.MULTILINE))
    (short_folder / "weather.py").write_text(programs(readme)[0].code, "utf-8")
    result = subprocess.run(
        [sys.executable, "-c", LOAD, target],
        cwd=short_folder,
        env=own_home(short_folder),
        capture_output=True,
        text=True,
        check=False,
    )
    # It is loaded, and does not run by being imported.
    assert (result.stdout, result.returncode) == ("weather\n", 0), result.stderr


def test_the_first_program_is_short(readme: str) -> None:
    assert len(programs(readme)[0].code.splitlines()) <= LONGEST_PROGRAM


def test_a_program_is_run_once_for_each_output_that_follows_it() -> None:
    text = (
        "```python\na\n```\nand\n```text\n1\n```\n```text\n2\n```\n```python\nb\n```\n"
    )
    assert programs(text) == [Program("a\n", ["1\n", "2\n"]), Program("b\n", [])]


def test_every_link_leads_to_a_file_and_a_test_that_is_there(root: Path) -> None:
    broken = []
    for paper in PAPERS:
        folder = (root / paper).parent
        for words, target in _LINK.findall((root / paper).read_text(encoding="utf-8")):
            if target.startswith(("https:", "#")):
                continue
            file = folder / target.partition("#")[0]
            name = words.strip("`")
            if not file.exists() or (
                name.startswith("test_") and f"def {name}(" not in file.read_text()
            ):
                broken.append(f"{paper}: [{words}]({target})")
    assert broken == []


def test_every_make_target_that_the_readme_names_is_there(
    readme: str, root: Path
) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    named = {
        name for _, block in _FENCE.findall(readme) for name in _TARGET.findall(block)
    }
    assert {"demo", "test"} <= named
    assert [
        n for n in sorted(named) if not re.search(rf"^{n}:", makefile, re.MULTILINE)
    ] == []


def test_every_command_that_the_readme_names_is_there(readme: str) -> None:
    named = {
        name for _, block in _FENCE.findall(readme) for name in _COMMAND.findall(block)
    }
    assert named
    for name in sorted(named):
        result = subprocess.run(
            [Path(sys.executable).with_name("treewarden"), name, "--help"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, f"treewarden {name}: {result.stderr}"


def test_the_examples_in_docstrings_run(sources: list[Module]) -> None:
    failed = []
    for source in sources:
        if ">>>" not in source.text:
            continue
        _, package, *rest = Path(source.path).with_suffix("").parts
        name = ".".join([package, *(part for part in rest if part != "__init__")])
        module = importlib.import_module(name)
        if doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed:
            failed.append(name)
    assert failed == []
