"""No unsupervised task: few files may start tasks, and this is the list.

Everything that runs at the same time is a child in the tree, which restarts it, stops
it in order and shows it. A nursery opened anywhere else would be a second tree.
"""

from __future__ import annotations

import ast
from typing import Protocol

MAY_OPEN_NURSERIES = (
    "runtime/treewarden/supervision/",
    "runtime/treewarden/work/pool.py",
    "runtime/treewarden/control/server.py",
    "runtime/treewarden/resilience/hedge.py",
)

# Each of these starts a task of its own, with or without a nursery in sight.
STARTERS = {
    "as_safe_channel",
    "create_task_group",
    "open_nursery",
    "open_service_nursery",
    "serve_task_group",
    "spawn_system_task",
    "TaskGroup",
}


class Module(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def tree(self) -> ast.Module: ...


def starters(tree: ast.AST) -> list[tuple[int, str]]:
    """Line and name of everything in `tree` that can start a task."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) if name in STARTERS:
                found.append((node.lineno, name))
            case ast.ImportFrom(names=aliases):
                found += [(node.lineno, a.name) for a in aliases if a.name in STARTERS]
            case _:
                pass
    return found


def test_nurseries_are_opened_only_where_the_design_says(sources: list[Module]) -> None:
    astray = [
        f"{source.path}:{line}: {name}"
        for source in sources
        if source.path.startswith("runtime/")
        and not source.path.startswith(MAY_OPEN_NURSERIES)
        for line, name in starters(source.tree)
    ]
    assert astray == []


def test_every_way_to_open_a_nursery_is_seen() -> None:
    text = (
        "async with trio.open_nursery() as n: pass\n"
        "from trio import open_nursery as quietly\n"
        "trio.lowlevel.spawn_system_task(f)\n"
        "@trio.as_safe_channel\n"
        "async def g(): yield\n"
    )
    assert [line for line, _ in sorted(starters(ast.parse(text)))] == [1, 2, 3, 4]


def test_the_list_of_places_names_what_the_design_names(sources: list[Module]) -> None:
    used = [
        s.path for s in sources if s.path.startswith("runtime/") and starters(s.tree)
    ]
    assert any(path.startswith("runtime/treewarden/supervision/") for path in used)
