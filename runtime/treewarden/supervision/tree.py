"""The tree as one picture: who is where, how it is, and what just happened to whom.

Supervisors own their children; the tree only knows them all, by path and by id, so that
an address can be resolved and a console can draw. Changes are counted, never polled.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, cast

from treewarden.clock import wall_ns
from treewarden.errors import NameAmbiguous, NameUnknown
from treewarden.exits import Crash
from treewarden.injection import places

from .crash_loops import CrashLoops
from .node import Kind, NodeState
from .report import ITEM_LIMIT, Report, cut, in_hand
from .report_log import ReportLog
from .strategy import Strategy
from .timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from treewarden.exits import Exit

    from .cause import Cause
    from .node import Node
    from .remembered import Memory
    from .supervisor import Supervisor


# About 1.5 MB when full; see Directory.add.
_REMEMBERED_PATHS = 10_000
# A task that starts children gives way at least this often (style rule 14): a pass of the
# loop a start was a fifth of it, and the writer's thread comes to run in each.
_STARTS_A_TURN = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatistics:
    """A node as others may see it; `budget` is (spent, limit, period in seconds)."""

    path: str
    id: str
    kind: Kind
    state: NodeState
    parent: str | None
    order: int
    incarnation: int
    restart: str
    restarts: int
    last_exit: Exit | None
    started_at_ns: int | None
    label: str = ""
    strategy: str = ""
    budget: tuple[int, int, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSnapshot:
    """The whole tree at one moment: parents before children, siblings in start order."""

    nodes: tuple[NodeStatistics, ...]

    def __getitem__(self, path: str) -> NodeStatistics:
        """The node at `path`; KeyError when there is none."""
        for node in self.nodes:
            if node.path == path:
                return node
        raise KeyError(path)


class Directory:
    """All nodes of one tree."""

    def __init__(self) -> None:
        self.timers = Timers()
        self.version = 0
        """Grows with every change that a snapshot would show."""
        self.root: Node | None = None
        # Supervisors whose own name is left out of their children's paths.
        self.transparent: frozenset[str] = frozenset({"/"})
        # Where nodes stand that have to leave their ids to others: the runtime's own parts
        # are many, and an application may call a child of its own "http".
        self.yielding: tuple[str, ...] = ()
        # Jitter of backoffs; a test gives one of its own.
        self.random = random.Random()  # noqa: S311 - spreading, not secrecy
        # What the layers above give to the children that they know how to run.
        self.services: object = None
        # Where dynamic supervisors remember their children; None: nowhere.
        self.memory: Memory | None = None
        self.hurried = False
        self.interrupt: BaseException | None = None
        self.log = ReportLog(self.timers)
        self.reporter: Callable[[Report], None] | None = None
        self.reports_failed = 0
        """Reports that `reporter` raised at."""
        self.changed: Callable[[], None] | None = None
        self.grown: Callable[[int], None] | None = None
        """Told how many nodes there are, when there is one more."""
        # The last incarnation of nodes that are gone, so that (path, incarnation) never
        # repeats; for the oldest, forgotten here too, one number for all is kept.
        self._last_incarnations: dict[str, int] = {}
        self._incarnations_begun = 0
        # Whether a start that is over in its caller's turn gives way to other tasks. One
        # for all: only one task runs at a time, so none gets further, wherever it starts.
        self.gives_way = cycle([False] * (_STARTS_A_TURN - 1) + [True])
        self.crash_loops = CrashLoops()
        self._by_path: dict[str, Node] = {}
        # By id: the node, or (a dict is 230 bytes) all that share it, by path.
        self._by_id: dict[str, Node | dict[str, Node]] = {}

    def __len__(self) -> int:
        """How many nodes there are."""
        return len(self._by_path)

    def path_below(self, parent: str, id_: str) -> str:
        """The path of a child, below `parent` or, when that is transparent, beside it."""
        if parent in self.transparent:
            parent = parent.rsplit("/", 1)[0]
        return f"{parent}/{id_}"

    def add(self, node: Node) -> None:
        """A supervisor keeps a new child."""
        last = self._last_incarnations.pop(node.path, 0)
        node.incarnation = max(last, self._incarnations_begun)
        self._by_path[node.path] = node
        same = self._by_id.setdefault(node.id, node)
        if isinstance(same, dict):
            same[node.path] = node
        elif same is not node:
            self._by_id[node.id] = {same.path: same, node.path: node}
        if self.grown is not None:
            self.grown(len(self._by_path))
        self.touch()

    def remove(self, node: Node) -> None:
        """A supervisor forgot a child."""
        if self._by_path.get(node.path) is node:
            del self._by_path[node.path]
            same = self._by_id[node.id]
            if isinstance(same, dict) and len(same) > 1:
                del same[node.path]
            else:
                del self._by_id[node.id]
            self._remember(node)
            self.touch()

    def _remember(self, node: Node) -> None:
        last = self._last_incarnations
        last[node.path] = node.incarnation
        if len(last) > _REMEMBERED_PATHS:
            oldest = last.pop(next(iter(last)))
            self._incarnations_begun = max(self._incarnations_begun, oldest)

    def touch(self) -> None:
        """Something that a snapshot shows has changed."""
        self.version += 1
        if self.changed is not None:
            self.changed()

    def find(self, path: str) -> Node | None:
        """The node at exactly this path."""
        return self._by_path.get(path)

    def resolve(self, name: str) -> Node:
        """The node of a path, or of an id that only one node has.

        A `yielding` node does not count while another one has its id.

        Raises:
            NameUnknown: nobody has it.
            NameAmbiguous: several have the id; their paths are listed.
        """
        node = self._by_path.get(name)
        if node is not None:
            return node
        found = self._by_id.get(name)
        if found is None:
            raise NameUnknown(name)
        if not isinstance(found, dict):
            return found
        claims = [path for path in found if not path.startswith(self.yielding)]
        if len(found) == 1 or len(claims) == 1:
            return found[claims[0]] if claims else next(iter(found.values()))
        raise NameAmbiguous(name, tuple(sorted(claims or found)))

    def interrupted(self, error: BaseException) -> None:
        """KeyboardInterrupt or SystemExit came out of a child: stop, then raise it."""
        if self.interrupt is None:
            self.interrupt = error
        if self.root is not None and self.root.life is not None:
            self.root.body.ask_to_stop(self.root.life)

    def hurry(self) -> None:
        """Turn every stop, also those under way, into a kill."""
        self.hurried = True
        if self.root is not None and self.root.life is not None:
            self.root.body.kill(self.root.life)

    def nodes(self) -> Iterator[Node]:
        """Depth first, siblings in start order."""
        if self.root is not None:
            yield from _below(self.root)

    def report(
        self,
        topic: str,
        node: Node,
        *,
        exit_: Exit | None = None,
        cause: Cause | None = None,
        detail: str = "",
        trace: str = "",
        stopping: bool = False,
        budget: tuple[int, int, float] | None = None,
    ) -> None:
        """Tell whoever listens; never waits, and no listener's failure comes back."""
        if places.REPORT.armed is not None:
            places.REPORT.reach()
        report = Report(
            topic=topic,
            path=node.path,
            incarnation=node.incarnation,
            at_ns=wall_ns(),
            exit=exit_,
            cause=cause,
            detail=cut(detail, ITEM_LIMIT) if detail else "",
            trace=trace,
            kind=node.body.kind,
            supervisor=node.parent.path,
            label=node.label,
            spec=node.spec,
            stopping=stopping,
            in_hand=in_hand(node, exit_.fault) if type(exit_) is Crash else None,
            budget=budget,
        )
        if self.reporter is not None:
            try:
                self.reporter(report)
            except Exception:  # noqa: BLE001 - a supervisor outlives who listens to it
                self.reports_failed += 1
        self.log.hear(report)

    def snapshot(self, now: float) -> TreeSnapshot:
        """The tree at `now` (trio's clock)."""
        return TreeSnapshot(nodes=tuple(statistics(n, now) for n in self.nodes()))


def statistics(node: Node, now: float) -> NodeStatistics:
    """What may be seen of one node."""
    supervisor = as_supervisor(node)
    budget = None
    if supervisor is not None:
        window = supervisor.window
        budget = (window.spent(now), window.budget.limit, window.budget.period)
    elif node.budget is not None:
        spent = node.window.spent(now) if node.window is not None else 0
        budget = (spent, node.budget.limit, node.budget.period)
    return NodeStatistics(
        path=node.path,
        id=node.id,
        kind=node.body.kind,
        state=node.state,
        parent=node.parent.path if node.path != "/" else None,
        order=node.order,
        incarnation=node.incarnation,
        restart=node.spec.restart,
        restarts=node.restarts,
        last_exit=node.last_exit,
        started_at_ns=node.started_at_ns,
        label=node.label,
        strategy=_strategy(supervisor),
        budget=budget,
    )


def as_supervisor(node: Node) -> Supervisor | None:
    """The supervisor that a node runs, if it runs one."""
    if node.body.kind is Kind.SUPERVISOR:
        return cast("Supervisor", node.body)
    return None


def _strategy(supervisor: Supervisor | None) -> str:
    if supervisor is None:
        return ""
    return "dynamic" if supervisor.dynamic else Strategy(supervisor.strategy)


def _below(node: Node) -> Iterator[Node]:
    yield node
    supervisor = as_supervisor(node)
    if supervisor is not None:
        for child in supervisor.children.values():
            yield from _below(child)
