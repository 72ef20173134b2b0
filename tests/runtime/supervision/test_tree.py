"""The tree as one picture: addresses, snapshots, and the count of changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.errors import NameAmbiguous, NameUnknown
from treewarden.supervision import (
    ChildSpec,
    Directory,
    Intensity,
    Kind,
    Node,
    SupervisorSpec,
    open_tree,
)

if TYPE_CHECKING:
    from tests.runtime.conftest import Books
    from tests.runtime.supervision.conftest import World


async def test_an_address_is_a_path_or_an_id_that_only_one_node_has(
    world: World,
) -> None:
    left = world.supervisor("left", world.child("a"), world.child("b"))
    right = world.supervisor("right", ChildSpec("a", trio.sleep_forever))
    async with world.open(left, right):
        resolve = world.directory.resolve
        assert resolve("/left/a").path == "/left/a"
        assert resolve("b").path == "/left/b"
        assert resolve("/").path == "/"
        with pytest.raises(NameAmbiguous) as caught:
            resolve("a")
        assert caught.value.paths == ("/left/a", "/right/a")
        for unknown in ("c", "/a", "/left/c", "left/a", ""):
            with pytest.raises(NameUnknown):
                resolve(unknown)
        assert world.directory.find("a") is None


async def test_a_part_of_the_system_leaves_its_id_to_another(world: World) -> None:
    named = [ChildSpec(id_, trio.sleep_forever) for id_ in ("http", "bus", "web")]
    system = world.supervisor("system", *named)
    mine = world.supervisor("mine", *named[:2])
    yours = world.supervisor("yours", named[0])
    async with world.open(system, mine, yours):
        world.directory.yielding = ("/system/",)
        assert world.directory.resolve("web").path == "/system/web"
        assert world.directory.resolve("bus").path == "/mine/bus"
        with pytest.raises(NameAmbiguous) as caught:
            world.directory.resolve("http")
    assert caught.value.paths == ("/mine/http", "/yours/http")


async def test_a_snapshot_shows_parents_first_and_siblings_in_start_order(
    world: World,
) -> None:
    sub = world.supervisor("s", world.child("z"), world.child("a"), limit=7)
    async with world.open(sub, world.dynamic(), strategy="rest_for_one") as root:
        await root.supervisor("dyn").start_child(world.child("d"))
        await world.crashed("z")
        snapshot = world.directory.snapshot(trio.current_time())
    assert [one.path for one in snapshot.nodes] == [
        *("/", "/s", "/s/z", "/s/a", "/dyn", "/dyn/d"),
    ]
    assert [one.parent for one in snapshot.nodes] == [
        None,
        "/",
        "/s",
        "/s",
        "/",
        "/dyn",
    ]
    strategies = [snapshot[path].strategy for path in ("/", "/s", "/s/z", "/dyn")]
    assert strategies == ["rest_for_one", "one_for_one", "", "dynamic"]
    z = snapshot["/s/z"]
    assert (z.kind, z.incarnation, z.restarts) == (Kind.TASK, 2, 1)
    assert snapshot["/s"].budget == (1, 7, 36_000.0)
    assert snapshot["/s"].kind is Kind.SUPERVISOR
    with pytest.raises(KeyError):
        snapshot["/nobody"]


async def test_a_budget_in_a_snapshot_is_what_counts_at_that_moment(
    world: World,
) -> None:
    own = world.child("a", intensity=Intensity(2, 5.0))
    async with world.open(own):
        await world.crashed("a")
        now = trio.current_time()
        assert world.directory.snapshot(now)["/a"].budget == (1, 2, 5.0)
        assert world.directory.snapshot(now + 6)["/a"].budget == (0, 2, 5.0)


async def test_every_change_that_a_snapshot_shows_is_counted(world: World) -> None:
    async with world.open(world.child("a"), world.child("b", start_takes=1.0)) as root:
        seen = [world.directory.snapshot(0.0)]
        versions = [world.directory.version]

        def look() -> None:
            seen.append(world.directory.snapshot(0.0))
            versions.append(world.directory.version)

        world.directory.changed = look
        await world.crashed("a")
        await root.terminate_child("b")
        await root.delete_child("b")
        world.directory.changed = None
    assert versions == sorted(set(versions))
    states = [one["/a"].state for one in seen]
    assert {"starting", "restarting", "running"} <= {*states}
    with pytest.raises(KeyError):
        seen[-1]["/b"]


async def test_the_states_of_a_life_are_shown_in_their_order(world: World) -> None:
    async with world.open() as root:
        states: list[str] = []

        def look() -> None:
            node = world.directory.find("/a")
            if node is not None and (not states or states[-1] != node.state):
                states.append(node.state)

        world.directory.changed = look
        await root.start_child(world.child("a", start_takes=1.0, stop_takes=1.0))
        await world.crashed("a")
        await trio.sleep(5)
        await root.terminate_child("a")
        world.directory.changed = None
    assert states == [
        *("stopped", "starting", "running"),
        *("restarting", "starting", "running"),
        *("stopping", "stopped"),
    ]


async def test_the_root_is_starting_until_all_below_it_is_ready(world: World) -> None:
    directory = Directory()
    states: list[str] = []

    async def looks() -> None:
        await trio.sleep(0.5)
        states.append(directory.snapshot(0.0)["/"].state)

    spec = SupervisorSpec([world.child("a", start_takes=1.0)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(looks)
        async with open_tree(spec, directory=directory):
            states.append(directory.snapshot(0.0)["/"].state)
    assert states == ["starting", "running"]


async def test_the_name_of_a_transparent_supervisor_is_left_out_of_paths(
    world: World,
) -> None:
    directory = Directory()
    directory.transparent = frozenset({"/", "/application"})
    app = world.supervisor("application", world.supervisor("s", world.child("a")))
    async with open_tree(SupervisorSpec([app]), directory=directory):
        assert [node.path for node in directory.nodes()] == [
            *("/", "/application", "/s", "/s/a"),
        ]


async def test_an_empty_directory_has_no_nodes() -> None:
    directory = Directory()
    assert [*directory.nodes()] == []
    assert directory.snapshot(0.0).nodes == ()
    directory.hurry()
    assert directory.hurried


class Nobody:
    """A parent that only has a path."""

    path = "/"

    def __init__(self, directory: Directory) -> None:
        self.directory = directory

    def poke(self) -> None: ...

    def ended(self, life: object) -> None: ...

    def failing(self, life: object) -> None: ...


async def test_incarnations_do_not_repeat_and_what_remembers_them_is_bounded(
    balanced_books: Books,
) -> None:
    """Design 3"""
    balanced_books.pardoned.add("TRI-05")  # nobody lives here, so nobody ends
    directory = Directory()
    parent = Nobody(directory)

    def come_and_go(id_: str, lives: int) -> list[int]:
        node = Node(ChildSpec(id_, trio.sleep_forever), f"/{id_}", parent, 0)
        directory.add(node)
        numbers = [node.born().incarnation for _ in range(lives)]
        directory.remove(node)
        return numbers

    assert come_and_go("a", 3) == [1, 2, 3]
    assert come_and_go("a", 1) == [4]
    assert come_and_go("b", 1) == [1]
    for number in range(30_000):
        come_and_go(f"c{number}", 1)
    assert come_and_go("a", 1)[0] > 4
    assert come_and_go("c29999", 1)[0] > 1
    assert len(directory._last_incarnations) <= 10_000
