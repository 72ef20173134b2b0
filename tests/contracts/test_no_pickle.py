"""Nothing that is read is ever run: no pickle and its kin, no eval, no unsafe YAML.

State, events, messages and configuration cross borders as values of a known shape. The
one exception, work handed to our own worker processes, is trio-parallel's, not ours.
"""

from __future__ import annotations

import ast
from typing import Protocol

import pytest

UNSAFE_MODULES = {
    "cloudpickle",
    "dill",
    "jsonpickle",
    "marshal",
    "pickle",
    "pickletools",
    "shelve",
}
UNSAFE_BUILTINS = {"eval", "exec", "__import__"}
UNSAFE_ATTRIBUTES = {"unsafe_load", "full_load", "UnsafeLoader", "allow_pickle"}


class Module(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def tree(self) -> ast.Module: ...


def unsafe(tree: ast.AST) -> list[tuple[int, str]]:
    """Line and name of everything in `tree` that turns bytes or text into code."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                names = {alias.name.partition(".")[0] for alias in aliases}
            case ast.ImportFrom(module=str(module), level=0):
                names = {module.partition(".")[0]}
            case ast.Call(func=ast.Name(id=name)) if name in UNSAFE_BUILTINS:
                found.append((node.lineno, name))
                continue
            case ast.Attribute(attr=name) if name in UNSAFE_ATTRIBUTES:
                found.append((node.lineno, name))
                continue
            case _:
                continue
        found += [(node.lineno, name) for name in sorted(names & UNSAFE_MODULES)]
    return found


def test_no_module_of_ours_unpickles_or_evaluates(sources: list[Module]) -> None:
    found = [
        f"{source.path}:{line}: {name}"
        for source in sources
        for line, name in unsafe(source.tree)
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import os, marshal as m",
        "from pickle import loads",
        "def f():\n    import shelve",
        "eval('1')",
        "yaml.unsafe_load(text)",
    ],
)
def test_each_unsafe_way_is_seen(line: str) -> None:
    assert unsafe(ast.parse(line))


@pytest.mark.parametrize(
    "line", ["connection.execute('x')", "import importlib", "session.eval_count += 1"]
)
def test_safe_code_is_left_alone(line: str) -> None:
    assert unsafe(ast.parse(line)) == []
