"""What the tests of the project's own rules look at: the tree of its sources."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_SOURCE_ROOTS = ("runtime/treewarden", "console/treewarden_console")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One module of ours: its path from the root of the project, text and syntax tree."""

    path: str
    text: str
    tree: ast.Module


def _read(file: Path) -> Source:
    text = file.read_text(encoding="utf-8")
    return Source(
        path=file.relative_to(ROOT).as_posix(),
        text=text,
        tree=ast.parse(text, str(file)),
    )


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the project."""
    return ROOT


@pytest.fixture(scope="session")
def sources() -> list[Source]:
    """Every module of both packages."""
    files = [
        file for top in _SOURCE_ROOTS for file in sorted((ROOT / top).rglob("*.py"))
    ]
    assert files, "no sources were found: the rules would hold of nothing"
    return [_read(file) for file in files]
