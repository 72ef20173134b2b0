"""constraints.txt: every pin with hashes, and nothing that names a place."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if TYPE_CHECKING:
    from pathlib import Path

CUT = "# --- development only ---"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One line of constraints.txt, its continuation lines joined."""

    requirement: Requirement
    options: tuple[str, ...]


def pins(text: str) -> list[Pin]:
    """The pins of a constraints file."""
    joined = text.replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    found = []
    for line in lines:
        words, *options = re.split(r"\s+(?=--)", line.strip())
        found.append(Pin(requirement=Requirement(words), options=tuple(options)))
    return found


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return (root / "constraints.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def asked_for(project: dict[str, Any]) -> list[Requirement]:
    """What pyproject.toml asks for: at run time, to build, to develop."""
    groups = project["dependency-groups"]
    lines = [
        *project["project"]["dependencies"],
        *project["build-system"]["requires"],
        *(
            entry
            for group in groups.values()
            for entry in group
            if isinstance(entry, str)
        ),
    ]
    return [Requirement(line) for line in lines]


def test_every_requirement_is_pinned_to_one_version(text: str) -> None:
    loose = [
        str(pin.requirement)
        for pin in pins(text)
        if [part.operator for part in pin.requirement.specifier] != ["=="]
    ]
    assert loose == []


def test_every_pin_has_hashes_and_no_other_option(text: str) -> None:
    sha256 = re.compile(r"--hash=sha256:[0-9a-f]{64}")
    bare = [
        pin.requirement.name
        for pin in pins(text)
        if not pin.options or not all(map(sha256.fullmatch, pin.options))
    ]
    assert bare == []


def test_nothing_in_it_names_a_host_or_a_path(text: str) -> None:
    assert [pin.requirement.name for pin in pins(text) if pin.requirement.url] == []
    assert re.findall(r".*(?:://|--index|--find|--trusted|@|/\w+/).*", text) == []


def test_whatever_pyproject_asks_for_is_pinned_at_a_version_that_fits(
    text: str, project: dict[str, Any]
) -> None:
    pinned = {
        canonicalize_name(pin.requirement.name): next(iter(pin.requirement.specifier))
        for pin in pins(text)
    }
    unfit = [
        str(wanted)
        for wanted in asked_for(project)
        if canonicalize_name(wanted.name) not in pinned
        or Version(pinned[canonicalize_name(wanted.name)].version)
        not in wanted.specifier
    ]
    assert unfit == []


def test_the_first_part_holds_what_runs_and_builds_but_no_tool(
    text: str, project: dict[str, Any]
) -> None:
    head, cut, tail = text.partition(CUT)
    assert cut, "the Makefile cuts the file at this line"
    first = {canonicalize_name(pin.requirement.name) for pin in pins(head)}
    second = {canonicalize_name(pin.requirement.name) for pin in pins(tail)}
    runs = [Requirement(line).name for line in project["project"]["dependencies"]]
    assert {canonicalize_name(name) for name in [*runs, "hatchling"]} <= first
    assert {"pytest", "ruff", "mypy"} <= second
    assert first.isdisjoint(second)
