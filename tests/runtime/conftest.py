"""What must hold after every test that ran a tree, whoever wrote it (TRI-01 to TRI-05).

The books are kept where it happens: each tree, birth, report and monitor of a test is
written down by the real thing, on its way; nothing is replaced. When a test is over they
must be balanced: no task of a closed tree is left, nobody is listed in it any more, no
registry has a name of an owner that ended, no monitor watches, each start that was
reported has one end, each monitor had its one notice unless it was called off, and nobody
was ever born while an earlier incarnation of the same path was alive.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from treewarden.agents.monitor import Monitor
from treewarden.registry import Registry
from treewarden.supervision import Directory, Life, Node, current_life, report_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import trio

    from treewarden.agents import Down

    AllTasks = Callable[[], Iterator[trio.lowlevel.Task]]

BEGINNINGS = {"supervision.started", "supervision.restarted"}
# Longer than any machine is slow. A tree that closes waits half a second for its last
# reports to be logged, and what a test looks for may be among them.
LOGGED_SECONDS = 30.0


class Books:
    """What the trees of one test did, and what of it must not have been."""

    def __init__(self, all_tasks: AllTasks) -> None:
        self._all_tasks = all_tasks
        self.opened: list[Directory] = []
        self.begun: Counter[tuple[int, str, int]] = Counter()
        self.ended: Counter[tuple[int, str, int]] = Counter()
        self.notices: Counter[Monitor] = Counter()
        self.called_off: set[Monitor] = set()
        self.registries: list[Registry[Any]] = []
        # For a test that breaks our own parts on purpose: what that breaks.
        self.pardoned: set[str] = set()
        self._last: dict[tuple[int, str], Life] = {}
        self._violations: list[str] = []

    def keep(self, patch: pytest.MonkeyPatch) -> None:
        """Write down from now on."""
        self._keep_trees(patch)
        self._keep_births(patch)
        self._keep_reports(patch)
        self._keep_monitors(patch)
        self._keep_registries(patch)

    def _keep_trees(self, patch: pytest.MonkeyPatch) -> None:
        add, remove = Directory.add, Directory.remove

        def added(directory: Directory, node: Node) -> None:
            if node is directory.root:
                self.opened.append(directory)
            add(directory, node)

        def removed(directory: Directory, node: Node) -> None:
            remove(directory, node)
            if node is directory.root:
                left = [
                    task.name for task in self._all_tasks() if _tree(task) is directory
                ]
                if left:
                    self._violations.append(f"TRI-01: tasks are left: {left}")

        patch.setattr(Directory, "add", added)
        patch.setattr(Directory, "remove", removed)

    def _keep_births(self, patch: pytest.MonkeyPatch) -> None:
        born = Node.born

        def is_born(
            node: Node, scope: trio.CancelScope | None = None, now: float | None = None
        ) -> Life:
            key = id(node.parent.directory), node.path
            last = self._last.get(key)
            if last is not None and not last.ended:
                self._violations.append(f"TRI-05: two live incarnations: {node.path}")
            self._last[key] = life = born(node, scope, now)
            return life

        patch.setattr(Node, "born", is_born)

    def _keep_reports(self, patch: pytest.MonkeyPatch) -> None:
        report = Directory.report

        def reported(
            directory: Directory, topic: str, node: Node, **fields: Any
        ) -> None:
            life = id(directory), node.path, node.incarnation
            if topic in BEGINNINGS:
                self.begun[life] += 1
            elif topic == "supervision.exited":
                self.ended[life] += 1
            report(directory, topic, node, **fields)

        patch.setattr(Directory, "report", reported)

    def _keep_monitors(self, patch: pytest.MonkeyPatch) -> None:
        notify, cancel = Monitor._notify, Monitor.cancel
        init = Monitor.__init__

        def made(monitor: Monitor, *args: Any) -> None:
            self.notices[monitor] = 0
            init(monitor, *args)

        def notified(monitor: Monitor, down: Down) -> None:
            self.notices[monitor] += 1
            notify(monitor, down)

        def cancelled(monitor: Monitor) -> None:
            self.called_off.add(monitor)
            cancel(monitor)

        patch.setattr(Monitor, "__init__", made)
        patch.setattr(Monitor, "_notify", notified)
        patch.setattr(Monitor, "cancel", cancelled)

    def _keep_registries(self, patch: pytest.MonkeyPatch) -> None:
        init = Registry.__init__

        def made(registry: Registry[Any], *args: Any, **options: Any) -> None:
            init(registry, *args, **options)
            self.registries.append(registry)

        patch.setattr(Registry, "__init__", made)

    def violations(self) -> list[str]:
        """What must not have happened but did; asked when every tree has closed."""
        found = [
            *self._violations,
            *self._left_in_trees(),
            *self._unbalanced(),
            *self._wrong_notices(),
        ]
        return [one for one in found if one.split(":")[0] not in self.pardoned]

    def _left_in_trees(self) -> Iterator[str]:
        for directory in self.opened:
            if len(directory):
                yield f"TRI-02: {len(directory)} nodes are left"
        for registry in self.registries:
            for owner in registry._owned:
                if isinstance(owner, Life) and owner.ended:
                    yield f"TRI-02: names of {owner.node.path} are left"
        for monitor in self.notices:
            if monitor in monitor._watching:
                yield f"TRI-02: {monitor.path} is watched still"

    def _unbalanced(self) -> Iterator[str]:
        for life in self.begun.keys() | self.ended.keys():
            begun, ended = self.begun[life], self.ended[life]
            if (begun, ended) != (1, 1):
                _, path, number = life
                yield f"TRI-04: {path} #{number} started {begun}, ended {ended} times"

    def _wrong_notices(self) -> Iterator[str]:
        for monitor, times in self.notices.items():
            if times > 1 or (times == 0 and monitor not in self.called_off):
                yield f"TRI-04: a monitor of {monitor.path} had {times} notices"


def _tree(task: trio.lowlevel.Task) -> Directory | None:
    life = task.context.get(current_life)
    return life.node.parent.directory if life is not None else None


@pytest.fixture(autouse=True)
def balanced_books(new_books: Callable[[], Books]) -> Iterator[Books]:
    """The invariants of supervision, held after each test of the runtime."""
    books = new_books()
    with pytest.MonkeyPatch.context() as patch:
        books.keep(patch)
        yield books
    assert books.violations() == []


@pytest.fixture(autouse=True)
def every_report_is_logged() -> Iterator[None]:
    """Also the last ones of a tree, by a thread that a busy machine keeps waiting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_log, "CLOSING", LOGGED_SECONDS)
        yield


@pytest.fixture(scope="session")
def new_books(all_tasks: AllTasks) -> Callable[[], Books]:
    """For tests that break an invariant on purpose, and keep books of their own."""
    return partial(Books, all_tasks)
