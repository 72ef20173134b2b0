"""Which rows are on show, in which order, and where the cursor is.

A tree is shown as a flat list of visible ids with depths; a list is a tree of depth 0.
Everything here goes by id, never by row number: the cursor stays on its node through
sorting, restarts and a new snapshot.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from treewarden.control.protocol import NodeRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A visible row; `children` counts direct ones, shown or folded away."""

    id: str
    depth: int = 0
    children: int = 0
    folded: bool = False


class Outline:
    """The visible lines, the folds and the cursor."""

    def __init__(self, folded: Iterable[str] = ()) -> None:
        self.lines: Sequence[Line] = ()
        self.index: dict[str, int] = {}
        self.folded: set[str] = set(folded)
        self.cursor: str | None = None

    @property
    def row(self) -> int:
        """The cursor's row; 0 when there are none."""
        return self.index.get(self.cursor or "", 0)

    def show(self, lines: Sequence[Line]) -> None:
        """Replace the lines; a cursor whose id is gone goes to the row's new tenant."""
        row = self.row
        self.lines = lines
        self.index = {line.id: at for at, line in enumerate(lines)}
        if self.cursor not in self.index:
            self.go(row)

    def go(self, row: int) -> None:
        """Put the cursor on a row, or on the nearest there is."""
        last = len(self.lines) - 1
        self.cursor = self.lines[max(0, min(row, last))].id if last >= 0 else None

    def fold(self) -> bool:
        """Fold the cursor's node, else go to its parent; True when lines must change."""
        line = self._line()
        if line is None:
            return False
        if line.children and not line.folded:
            self.folded.add(line.id)
            return True
        self._to_parent(line)
        return False

    def unfold(self) -> bool:
        """Unfold the cursor's node, else go to its first child; True as for `fold`."""
        line = self._line()
        if line is None or not line.children:
            return False
        if line.folded:
            self.folded.discard(line.id)
            return True
        self.go(self.row + 1)
        return False

    def toggle(self, id_: str) -> None:
        """Fold or unfold a node."""
        self.folded.symmetric_difference_update({id_})

    def _line(self) -> Line | None:
        return self.lines[self.row] if self.lines else None

    def _to_parent(self, line: Line) -> None:
        for row in range(self.row - 1, -1, -1):
            if self.lines[row].depth < line.depth:
                self.go(row)
                return


def tree_lines(
    nodes: Mapping[str, NodeRow],
    folded: set[str],
    keep: Callable[[str], bool] | None = None,
) -> list[Line]:
    """The nodes as a tree, in start order; the runtime's own branch comes last.

    With `keep`, only the paths that it keeps and the way to them, and nothing is folded.
    """
    if keep is not None:
        nodes = _kept(nodes, keep)
        folded = set()
    children = children_of(nodes)
    lines: list[Line] = []
    # A list, not recursion: the tree is as deep as its author likes.
    stack = [(path, 0) for path in reversed(children.get(None, ()))]
    while stack:
        path, depth = stack.pop()
        below = children.get(path, ())
        shut = path in folded and bool(below)
        lines.append(Line(id=path, depth=depth, children=len(below), folded=shut))
        if not shut:
            stack.extend((child, depth + 1) for child in reversed(below))
    return lines


def children_of(nodes: Mapping[str, NodeRow]) -> dict[str | None, list[str]]:
    """Children by parent, in start order; a node whose parent is unknown is a root."""
    children: dict[str | None, list[str]] = defaultdict(list)
    for path, node in nodes.items():
        children[node.parent if node.parent in nodes else None].append(path)
    for below in children.values():
        below.sort(key=lambda path: (nodes[path].system, nodes[path].order, path))
    return children


def nodes_named(nodes: Mapping[str, NodeRow], typed: str) -> list[str]:
    """The paths that `typed` may mean: a path, or an id, or failing that a part of one."""
    if typed in nodes:
        return [typed]
    named = [path for path, node in nodes.items() if node.id == typed]
    return named or [path for path in nodes if typed in path]


def flat_lines(ids: Iterable[str]) -> list[Line]:
    """Ids as a list."""
    return [Line(id=id_) for id_ in ids]


def _kept(
    nodes: Mapping[str, NodeRow], keep: Callable[[str], bool]
) -> dict[str, NodeRow]:
    wanted: set[str] = set()
    for path in nodes:
        at: str | None = path if keep(path) else None
        while at is not None and at in nodes and at not in wanted:
            wanted.add(at)
            at = nodes[at].parent
    return {path: node for path, node in nodes.items() if path in wanted}
