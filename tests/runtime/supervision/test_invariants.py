"""What is checked after every test of the runtime: that it is, and that it can fail."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden import Agent, ChildSpec
from treewarden.agents import AgentRef, Down
from treewarden.agents.monitor import Monitor, tell_nobody
from treewarden.registry import Registry
from treewarden.supervision import Directory, SupervisorSpec, open_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.runtime.conftest import Books
    from tests.runtime.supervision.conftest import World

    from treewarden.supervision import Node


class Watcher(Agent[None]):
    async def watch(self, whom: AgentRef[Watcher]) -> None:
        self.monitor(whom)


@pytest.fixture
def books(balanced_books: Books, new_books: Callable[[], Books]) -> Iterator[Books]:
    """Books of a test that breaks them; those of every test are pardoned for it."""
    balanced_books.pardoned |= {f"TRI-0{number}" for number in range(1, 6)}
    books = new_books()
    with pytest.MonkeyPatch.context() as patch:
        books.keep(patch)
        yield books


async def sleep(*, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await trio.sleep_forever()


def one_child() -> SupervisorSpec:
    return SupervisorSpec([ChildSpec("a", sleep)])


def test_every_test_of_the_runtime_is_checked(
    request: pytest.FixtureRequest, balanced_books: Books
) -> None:
    """TRI-01, TRI-02, TRI-04, TRI-05"""
    assert "balanced_books" in request.fixturenames
    autouse = request.session._fixturemanager._getautousenames(request.node)
    assert "balanced_books" in set(autouse)


async def test_a_tree_that_is_well_leaves_balanced_books(books: Books) -> None:
    """TRI-01, TRI-02, TRI-04, TRI-05"""
    spec = SupervisorSpec([ChildSpec(id_, Watcher) for id_ in ("a", "b")])
    directory = Directory()
    async with open_tree(spec, directory=directory):
        a = AgentRef[Watcher](directory, "/a")
        await a.call(Watcher.watch, AgentRef[Watcher](directory, "/b"))
    assert books.violations() == []
    assert (len(books.opened), books.begun.total(), books.ended.total()) == (1, 2, 2)
    assert len(books.notices) == 1


async def test_a_task_that_outlives_its_tree_is_found(books: Books) -> None:
    """TRI-01"""

    async def leave_something(*, task_status: trio.TaskStatus[None]) -> None:
        trio.lowlevel.spawn_system_task(
            trio.sleep_forever,
            name="left",
            context=contextvars.copy_context(),
        )
        task_status.started()
        await trio.sleep_forever()

    async with open_tree(SupervisorSpec([ChildSpec("a", leave_something)])):
        pass
    assert books.violations() == ["TRI-01: tasks are left: ['left']"]


async def test_a_node_that_stays_in_the_table_is_found(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRI-02"""
    remove = Directory.remove

    def forget_to(directory: Directory, node: Node) -> None:
        if node is directory.root:
            remove(directory, node)

    monkeypatch.setattr(Directory, "remove", forget_to)
    async with open_tree(one_child()) as root:
        await root.terminate_child("a")
        await root.delete_child("a")
    assert books.violations() == ["TRI-02: 1 nodes are left"]


async def test_a_name_that_outlives_its_owner_is_found(books: Books) -> None:
    """TRI-02"""
    names = Registry[str]()
    directory = Directory()
    async with open_tree(one_child(), directory=directory):
        life = directory.resolve("a").life
        assert life is not None
        names.register("well", "a", owner=life)
        names.register("left", "a", owner=life)
        names.unregister("well", owner=life)
        life.watchers.clear()
    assert books.violations() == ["TRI-02: names of /a are left"]


async def test_a_group_that_leaves_the_tree_is_found(
    new_world: Callable[[], World],
) -> None:
    """TRI-03"""
    world = new_world()
    with pytest.raises(BaseExceptionGroup):
        async with world.open():
            raise BaseExceptionGroup("of a nursery", [KeyError("a")])
    assert world.violations() == ["TRI-03: a group left the tree"]


@pytest.mark.parametrize(
    ("times", "said"),
    [(0, "started 1, ended 0 times"), (2, "started 1, ended 2 times")],
)
async def test_an_end_that_is_not_reported_once_is_found(
    books: Books, monkeypatch: pytest.MonkeyPatch, times: int, said: str
) -> None:
    """TRI-04"""
    report: Callable[..., None] = Directory.report

    def stutter(
        directory: Directory, topic: str, *args: object, **rest: object
    ) -> None:
        is_end = topic == "supervision.exited" and directory.root not in args
        for _ in range(times if is_end else 1):
            report(directory, topic, *args, **rest)

    monkeypatch.setattr(Directory, "report", stutter)
    async with open_tree(one_child()):
        pass
    assert books.violations() == [f"TRI-04: /a #1 {said}"]


async def test_a_monitor_with_two_notices_or_none_is_found(books: Books) -> None:
    """TRI-02, TRI-04"""
    directory = Directory()
    async with open_tree(one_child(), directory=directory) as root:
        life = directory.resolve("a").life
        assert life is not None
        told, twice, never, off = (
            Monitor(path, life, tell_nobody, set())
            for path in ("told", "twice", "never", "off")
        )
        twice._notify(Down(path="a", incarnation=1, exit=None))
        life.watchers.remove(never._ended)
        off.cancel()
        await root.terminate_child("a")
    assert told.down is not None
    assert books.violations() == [
        "TRI-02: never is watched still",
        "TRI-04: a monitor of twice had 2 notices",
        "TRI-04: a monitor of never had 0 notices",
    ]


async def test_two_live_incarnations_are_found(books: Books) -> None:
    """TRI-05"""
    directory = Directory()
    async with open_tree(one_child(), directory=directory):
        node = directory.resolve("a")
        life = node.life
        node.born()
        node.life, node.incarnation = life, 1
    assert books.violations() == ["TRI-05: two live incarnations: /a"]
