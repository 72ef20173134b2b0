"""The system's tree: everything essential is in it, the same everywhere, in order.

The original had three applications with a tree each (S46, S47, S49), a fourth that joined
them in the wrong order (S48), and children that were missing under test. Here is one tree,
built by one function; decision 0002 says what is restarted with what.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

import treewarden
from treewarden import (
    Agent,
    Application,
    CallingSelf,
    ChildSpec,
    ChildStartFailed,
    Config,
    IntensityExceeded,
    SupervisorSpec,
    cleanup,
    current_runtime,
    open_runtime,
    open_supervisor,
)
from treewarden import runtime as runtimes
from treewarden.runtime import Runtime
from treewarden.supervision import DynamicSupervisorSpec, Report
from treewarden.testing import store_clock, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from trio.testing import MockClock

    from treewarden import Down

FOR_EVER = float("inf")

# What everybody who depends on the tree may rely on: (path, restart, shutdown seconds).
PARTS = [
    ("/system", "permanent", FOR_EVER),
    ("/system/store", "permanent", 30.0),
    ("/system/bus", "permanent", 5.0),
    ("/system/edge", "permanent", FOR_EVER),
    ("/system/edge/pools", "permanent", FOR_EVER),
    ("/system/edge/transactions", "permanent", 5.0),
    ("/system/edge/circuits", "permanent", 5.0),
    ("/system/edge/limits", "permanent", 5.0),
    ("/system/edge/cache", "permanent", 5.0),
    ("/system/edge/exchange", "permanent", 5.0),
    ("/system/edge/monitors", "permanent", FOR_EVER),
    ("/system/edge/monitors/tasks", "permanent", FOR_EVER),
    ("/system/edge/monitors/crew", "permanent", 5.0),
    ("/system/edge/monitors/signals", "permanent", 5.0),
    ("/system/edge/monitors/readings", "permanent", 5.0),
    ("/system/edge/monitors/deadlines", "permanent", 5.0),
    ("/system/edge/programs", "permanent", 5.0),
    ("/system/edge/http", "permanent", FOR_EVER),
    ("/system/edge/telemetry", "permanent", 4.0),
    ("/system/edge/heartbeat", "permanent", 5.0),
    ("/system/edge/watchdog", "permanent", 5.0),
    ("/system/edge/control", "permanent", 5.0),
    ("/application", "permanent", FOR_EVER),
    ("/workflows", "permanent", FOR_EVER),
    ("/workflows/running", "permanent", FOR_EVER),
    ("/workflows/recovery", "permanent", 5.0),
]

# Supervisors of the runtime's own: (path, strategy, restarts, in seconds).
BUDGETS = [
    ("/", "rest_for_one", 3, 5.0),
    ("/system", "rest_for_one", 0, 5.0),
    ("/system/edge", "one_for_one", 3, 5.0),
    ("/system/edge/pools", "dynamic", 3, 5.0),
    ("/system/edge/monitors", "rest_for_one", 3, 5.0),
    ("/system/edge/monitors/tasks", "dynamic", 3, 5.0),
    ("/system/edge/http", "dynamic", 3, 5.0),
    ("/application", "one_for_one", 3, 5.0),
    ("/workflows", "rest_for_one", 3, 5.0),
    ("/workflows/running", "dynamic", 3, 5.0),
]

NO_CHILDREN = Application("app", [])


class Note(msgspec.Struct):
    text: str = ""


class Pad(Agent[Note]):
    async def write(self, text: str) -> None:
        self.state.text = text

    async def read(self) -> str:
        return self.state.text


def config(tmp_path: Path, **options: Any) -> Config:
    return Config(store=tmp_path / "test.db", socket=tmp_path / "sock", **options)


def below(path: str, spec: object) -> Iterator[tuple[str, object]]:
    """All specifications of a tree with their paths, in start order."""
    yield path, spec
    for child in getattr(getattr(spec, "start", spec), "children", ()):
        yield from below(f"{path.rstrip('/')}/{child.id}", child)


def supervisors(
    spec: SupervisorSpec,
) -> list[tuple[str, SupervisorSpec | DynamicSupervisorSpec]]:
    found = ((path, getattr(one, "start", one)) for path, one in below("/", spec))
    return [
        (path, one)
        for path, one in found
        if isinstance(one, (SupervisorSpec, DynamicSupervisorSpec))
    ]


def is_whole(runtime: Runtime) -> bool:
    return all(node.state == "running" for node in runtime.tree().nodes)


async def killed(runtime: Runtime, path: str) -> None:
    """Kill one node and wait until the whole tree runs again. Real threads take part."""
    node = runtime.directory.find(path)
    assert node is not None
    before = node.incarnation
    runtime.injections.crash(path)

    def again() -> bool:
        now = runtime.directory.find(path)
        return now is not None and now.incarnation > before and is_whole(runtime)

    await wait_until(again, f"{path} runs again")


# --- the same everywhere ------------------------------------------------------------------------


DUMP = """
import re
from treewarden import Application, Config
from treewarden.runtime import Runtime
spec = Runtime(Application("app", []), Config()).root_spec()
print(re.sub(" at 0x[0-9a-f]+", "", repr(spec)))
"""

ENVIRONMENTS = [
    {},
    {"CI": "1", "PYTEST_CURRENT_TEST": "test", "TREEWARDEN_ENV": "test"},
    {"ENV": "production", "PYTHONOPTIMIZE": "2"},
    {"PYTHONDEVMODE": "1", "MIX_ENV": "dev"},
]


def dump(environment: dict[str, str]) -> str:
    """The tree as a process of its own, without pytest, would build it."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", DUMP],
        env={**kept, **environment},
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()


def test_f38_the_tree_is_the_same_in_every_environment() -> None:
    """F38, S46: every field of every specification, to the byte; under test as well."""
    here = Runtime(NO_CHILDREN, Config()).root_spec()
    expected = re.sub(" at 0x[0-9a-f]+", "", repr(here))
    assert [dump(one) for one in ENVIRONMENTS] == [expected] * len(ENVIRONMENTS)


@pytest.mark.parametrize("level", ["durable", "crash_safe", "volatile"])
@pytest.mark.parametrize("otlp", [None, "http://127.0.0.1:1"])
def test_s46_nothing_that_is_configured_leaves_a_part_of_the_tree_out(
    tmp_path: Path, level: str, otlp: str | None
) -> None:
    """S46, F38"""
    settings = config(tmp_path, level=level, otlp=otlp)
    spec = Runtime(NO_CHILDREN, settings).root_spec()
    assert [path for path, _ in below("/", spec)] == ["/", *(one[0] for one in PARTS)]


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


@pytest.mark.parametrize("path", ["/application", "/system/bus", "/system/store"])
async def test_f38_the_fourth_failure_in_five_seconds_escalates_the_third_does_not(
    clock: MockClock, tmp_path: Path, path: str
) -> None:
    """F38, S47: 3 in 5 s, under test as anywhere."""
    settings = config(tmp_path, level="volatile")
    with pytest.raises(IntensityExceeded) as caught:
        async with open_runtime(NO_CHILDREN, config=settings) as runtime:
            for spent in (1, 2, 3):
                await killed(runtime, path)
                assert runtime.tree()["/"].budget == (spent, 3, 5.0)
            runtime.injections.crash(path)
            await trio.sleep_forever()
    assert caught.value.path == "/"


def test_s47_every_supervisor_of_the_runtime_has_the_budget_that_it_is_known_for() -> (
    None
):
    """S47, S49, F38: rest_for_one where one stands on the other."""
    root = Runtime(NO_CHILDREN, Config()).root_spec()
    assert [
        (
            path,
            getattr(spec, "strategy", "dynamic"),
            spec.intensity.limit,
            spec.intensity.period,
        )
        for path, spec in supervisors(root)
    ] == BUDGETS


def _imports(file: Path) -> set[str]:
    """Every word of every line that imports something."""
    text = file.read_text(encoding="utf-8")
    lines = re.findall(r"^\s*(?:from|import)\s.*", text, re.MULTILINE)
    return {word for line in lines for word in re.findall(r"\w+", line)}


def _sources() -> list[Path]:
    console = importlib.util.find_spec("treewarden_console")
    assert console is not None
    roots = [Path(treewarden.__file__).parent, Path(str(console.origin)).parent]
    return [file for root in roots for file in root.rglob("*.py")]


def test_f39_nothing_that_ships_knows_the_tests_or_what_is_made_for_them() -> None:
    """F39"""
    sources = _sources()
    assert len(sources) > 100
    for_tests = {"pytest", "tests", "conftest", "_pytest", "hypothesis"}
    guilty = {
        file.name: names for file in sources if (names := for_tests & _imports(file))
    }
    assert guilty == {}


def test_s45_what_tests_need_is_in_one_module_that_nothing_else_imports() -> None:
    """S45: `treewarden.testing`; a runtime never finds itself on a clock that jumps."""
    importers = [file.name for file in _sources() if "testing" in _imports(file)]
    assert importers == ["testing.py"]


def test_f39_no_supervisor_of_the_runtime_forgives_more_than_three_in_five() -> None:
    """F39: the lenient limits that crash tests had, 100 in 10 s, are nowhere."""
    root = Runtime(NO_CHILDREN, Config()).root_spec()
    assert max(spec.intensity.limit for _, spec in supervisors(root)) == 3
    assert min(spec.intensity.period for _, spec in supervisors(root)) == 5.0


# --- what each part declares ------------------------------------------------------------------


def test_f48_every_part_declares_how_it_restarts_and_how_long_its_stop_may_take() -> (
    None
):
    """F48, S53: id, restart and shutdown, as its neighbours rely on them."""
    root = Runtime(NO_CHILDREN, Config()).root_spec()
    declared = [
        (path, child.restart, child.shutdown_seconds())
        for path, child in below("/", root)
        if isinstance(child, ChildSpec)
    ]
    assert declared == PARTS


async def _ignores_its_stop() -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(20)


async def test_f48_a_child_that_ignores_its_stop_is_stuck_from_its_own_limit_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """F48, S53, pitfall 49: by the one's 5 s and the other's 10; reported, and never abandoned."""
    children = [
        ChildSpec("five", _ignores_its_stop),
        ChildSpec("ten", _ignores_its_stop, shutdown=10.0),
    ]
    async with open_supervisor(children) as root:
        await trio.testing.wait_all_tasks_blocked()

        def states() -> dict[str, str]:
            return {one.id: one.state for one in root.which_children()}

        async with trio.open_nursery() as nursery:
            nursery.start_soon(root.terminate_child, "five")
            await trio.sleep(4.9)
            assert states()["five"] == "stopping"
            await trio.sleep(1.2)
            assert states()["five"] == "stuck"
        assert trio.current_time() == 20.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(root.terminate_child, "ten")
            await trio.sleep(9.9)
            assert states()["ten"] == "stopping"
            await trio.sleep(1.2)
            assert states()["ten"] == "stuck"
        assert states() == {"five": "stopped", "ten": "stopped"}


def test_s53_the_id_follows_the_name_and_two_of_one_are_refused_with_it() -> None:
    """S53"""
    spec = SupervisorSpec([ChildSpec("left", Pad), ChildSpec("right", Pad)])
    assert [child.id for child in spec.children] == ["left", "right"]
    with pytest.raises(ValueError, match="two children have the id 'left'"):
        SupervisorSpec([ChildSpec("left", Pad), ChildSpec("left", Pad)])


async def test_an_application_has_as_long_to_start_as_its_children_need(
    clock: MockClock, tmp_path: Path
) -> None:
    """STA-08, S48: each of them has its own limit, and may have a longer one."""

    async def slow(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(25)
        task_status.started()
        await trio.sleep_forever()

    app = Application("app", [ChildSpec("a", slow), ChildSpec("b", slow)])
    settings = config(tmp_path, level="volatile")
    async with open_runtime(app, config=settings) as runtime:
        assert trio.current_time() >= 50
        assert runtime.tree()["/b"].state == "running"


async def test_what_does_not_start_is_told_with_every_level_above_it(
    tmp_path: Path,
) -> None:
    """STA-10, S53: application, supervisors, child, and what it raised."""

    async def torn(*, task_status: trio.TaskStatus[None]) -> None:
        raise LookupError("torn")

    group = SupervisorSpec([ChildSpec("leaf", torn)])
    app = Application("app", [ChildSpec("pad", Pad), ChildSpec("group", group)])
    with pytest.raises(ChildStartFailed) as caught:
        async with open_runtime(app, config=config(tmp_path)):
            pytest.fail("the block was entered")
    levels: list[str] = []
    error: BaseException | None = caught.value
    while isinstance(error, ChildStartFailed):
        levels.append(error.path)
        error = error.__cause__
    assert levels == ["/application", "/group", "/group/leaf"]
    assert isinstance(error, LookupError)
    assert error.__traceback__ is not None
    assert all(level in str(caught.value) for level in levels)


# --- order ----------------------------------------------------------------------------------------


async def test_a_child_may_have_the_runtime_stopped_and_waits_for_nobody(
    tmp_path: Path,
) -> None:
    """SHD-20: where to wait for the stop would be to wait for itself."""
    said: list[str] = []
    may_leave = trio.Event()

    async def leaves() -> None:
        await may_leave.wait()
        with pytest.raises(CallingSelf):
            await current_runtime().supervisor("/").stop()
        current_runtime().stop()
        said.append("asked")
        try:
            await trio.sleep_forever()
        finally:
            said.append("stopped")

    app = Application("app", [ChildSpec("pad", Pad), ChildSpec("leaves", leaves)])
    async with open_runtime(app, config=config(tmp_path)):
        may_leave.set()
        await trio.sleep_forever()
    assert said == ["asked", "stopped"]


async def test_f50_the_stop_is_the_start_backwards_and_the_system_outlives_its_users(
    tmp_path: Path,
) -> None:
    """F50, S48: recorded; whoever cleans up can still use the store and the bus."""
    heard: list[tuple[str, str]] = []
    published: list[treewarden.Event] = []

    async def says_goodbye() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with cleanup():
                event = await current_runtime().bus.publish("bye", "so long")
                published.append(event)

    app = Application(
        "app",
        [
            ChildSpec("first", Pad),
            ChildSpec("group", SupervisorSpec([ChildSpec("inner", Pad)])),
            ChildSpec("last", says_goodbye),
        ],
    )
    runtime = Runtime(app, config(tmp_path))
    runtime.directory.reporter = lambda report: heard.append(
        (report.topic, report.path)
    )
    async with runtimes.running(runtime):
        await trio.testing.wait_all_tasks_blocked()
    started = [path for topic, path in heard if topic == "supervision.started"]
    ended = [path for topic, path in heard if topic == "supervision.exited"]
    parents = {
        "/system",
        "/system/edge",
        "/system/monitors",
        "/application",
        "/group",
        "/workflows",
    }
    assert sorted(started) == sorted(ended)
    leaves = [path for path in started if path not in parents]
    assert leaves == [
        "/system/store",
        "/system/bus",
        "/system/pools",
        "/system/transactions",
        "/system/circuits",
        "/system/limits",
        "/system/cache",
        "/system/exchange",
        "/system/monitors/tasks",
        "/system/monitors/crew",
        "/system/monitors/signals",
        "/system/monitors/readings",
        "/system/monitors/deadlines",
        "/system/programs",
        "/system/http",
        "/system/telemetry",
        "/system/heartbeat",
        "/system/watchdog",
        "/system/control",
        "/first",
        "/group/inner",
        "/last",
        "/workflows/running",
        "/workflows/recovery",
    ]
    assert [path for path in ended if path not in parents] == leaves[::-1]
    assert ended.index("/application") < ended.index("/system/control")
    assert len(published) == 1


async def test_s48_the_system_is_ready_before_the_first_child_and_until_the_last(
    tmp_path: Path,
) -> None:
    """S48: one tree, in which the application comes after all that it uses."""
    seen: list[set[str]] = []

    def look() -> None:
        nodes = current_runtime().tree().nodes
        system = [node for node in nodes if node.path.startswith("/system")]
        parts = [path for path, *_ in PARTS if path.startswith("/system")]
        assert len(system) == len(parts)
        seen.append({node.state for node in system})

    async def looks() -> None:
        look()
        try:
            await trio.sleep_forever()
        finally:
            look()

    app = Application("app", [ChildSpec("looks", looks)])
    async with open_runtime(app, config=config(tmp_path)):
        await trio.testing.wait_all_tasks_blocked()
    assert seen == [{"running"}] * 2


@pytest.mark.parametrize("victim", range(6))
async def test_f51_the_one_that_failed_and_those_after_it_restart_and_nobody_else(
    autojump_clock: trio.testing.MockClock, victim: int
) -> None:
    """F51, S49: child k of a rest_for_one tree, for each k; in order."""
    trace: list[str] = []

    async def part(name: str, *, task_status: trio.TaskStatus[None]) -> None:
        trace.append(f"start {name}")
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            trace.append(f"end {name}")

    names = ["a", "b", "c", "d", "e", "f"]
    children = [ChildSpec(name, part, args=(name,)) for name in names]
    async with open_supervisor(children, strategy="rest_for_one") as root:
        trace.clear()
        life = root.directory.resolve(names[victim]).life
        assert life is not None
        life.fail(_fault())
        await trio.testing.wait_all_tasks_blocked()
        after = names[victim + 1 :]
        assert trace == [
            f"end {names[victim]}",
            *(f"end {name}" for name in reversed(after)),
            *(f"start {name}" for name in names[victim:]),
        ]


def _fault() -> treewarden.Fault:
    return treewarden.Fault(type="Injected", message="on purpose")


EVERYTHING = {path.replace("/edge/", "/") for path, *_ in PARTS} | {"/pad"}
MONITORS = {path for path in EVERYTHING if path.startswith("/system/monitors")}
WORKFLOWS = {"/workflows", "/workflows/running", "/workflows/recovery"}
FALLS = [
    # A part that others stand on takes everything along: decision 0002.
    ("/system/store", EVERYTHING),
    ("/system/bus", EVERYTHING),
    ("/system/edge", EVERYTHING),
    ("/system", EVERYTHING),
    # Parts that nobody stands on fail alone, and the application fails above the system.
    ("/system/pools", {"/system/pools"}),
    ("/system/transactions", {"/system/transactions"}),
    ("/system/circuits", {"/system/circuits"}),
    ("/system/limits", {"/system/limits"}),
    ("/system/cache", {"/system/cache"}),
    ("/system/exchange", {"/system/exchange"}),
    ("/system/programs", {"/system/programs"}),
    ("/system/http", {"/system/http"}),
    ("/system/monitors", MONITORS),
    ("/system/telemetry", {"/system/telemetry"}),
    ("/system/heartbeat", {"/system/heartbeat"}),
    ("/system/watchdog", {"/system/watchdog"}),
    ("/system/control", {"/system/control"}),
    ("/application", {"/application", "/pad", *WORKFLOWS}),
    ("/workflows", WORKFLOWS),
    ("/workflows/running", {"/workflows/running", "/workflows/recovery"}),
    ("/workflows/recovery", {"/workflows/recovery"}),
    ("/pad", {"/pad"}),
]


@pytest.mark.parametrize(("victim", "fallen"), FALLS)
async def test_f51_each_part_that_is_killed_takes_along_who_stands_on_it(
    tmp_path: Path, victim: str, fallen: set[str]
) -> None:
    """F51, S47, S48; H28: and is there again."""
    app = Application("app", [ChildSpec("pad", Pad)])
    async with open_runtime(app, config=config(tmp_path)) as runtime:
        await killed(runtime, victim)
        again = {node.path for node in runtime.tree().nodes if node.incarnation > 1}
        assert again == fallen


# --- everything is in it ------------------------------------------------------------------------


def _tasks_below(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield child
            yield from _tasks_below(child)


async def test_h28_no_task_of_the_runtime_is_outside_the_tree(tmp_path: Path) -> None:
    """H28, S46: every long-lived task is a node's, or below one; the timers tick for all."""
    app = Application("app", [ChildSpec("pad", Pad)])
    before = set(_tasks_below(trio.lowlevel.current_root_task()))  # type: ignore[arg-type]
    async with open_runtime(app, config=config(tmp_path)) as runtime:
        paths = {node.path for node in runtime.tree().nodes}
        ours = set(_tasks_below(trio.lowlevel.current_root_task())) - before  # type: ignore[arg-type]
        homeless = {
            task.name
            for task in ours
            if task.name not in paths and not _is_below(task, paths)
        }
        assert homeless <= {"timers"}
        assert paths <= {task.name for task in ours}


def _is_below(task: trio.lowlevel.Task, paths: set[str]) -> bool:
    """Whether a node's own task stands above this one."""
    parent = task.parent_nursery
    while parent is not None:
        if parent.parent_task.name in paths - {"/"}:
            return True
        parent = parent.parent_task.parent_nursery
    return False


async def test_h28_what_each_part_is_for_works_again_after_it_was_killed(
    tmp_path: Path,
) -> None:
    """H28: store, bus, pools, telemetry, heartbeat, watchdog and control in turn."""
    app = Application("app", [ChildSpec("pad", Pad)])
    async with open_runtime(app, config=config(tmp_path)) as runtime:
        pad = runtime.ref("pad", Pad)
        for part in (
            "pools",
            "circuits",
            "limits",
            "cache",
            "exchange",
            "monitors",
            "telemetry",
            "heartbeat",
            "watchdog",
            "control",
            "store",
        ):
            await killed(runtime, f"/system/{part}")
            await pad.call(Pad.write, part)
            assert await pad.call(Pad.read) == part
            assert await _publishes(runtime)
            assert runtime.control is not None
            stream = await trio.open_unix_socket(str(tmp_path / "sock"))
            await stream.aclose()


async def _publishes(runtime: Runtime) -> bool:
    async with runtime.bus.subscribe("news") as news:
        await runtime.bus.publish("news", 1)
        async for event in news:
            return bool(event.topic == "news")
    return False


async def test_s49_names_are_taken_anew_when_the_whole_tree_is_started_again(
    tmp_path: Path,
) -> None:
    """S49: entries go with their owners before anybody comes back for them."""
    app = Application("app", [ChildSpec("clerk", Clerk)])
    async with open_runtime(app, config=config(tmp_path)) as runtime:
        for path in ("/clerk", "/application", "/system/store"):
            await killed(runtime, path)
            assert runtime.registry.whereis("desk") == runtime.ref("/clerk")
        statistics = runtime.registry.statistics()
        assert (statistics.registered, statistics.ended) == (4, 3)


class Clerk(Pad):
    """An agent with everything that hangs on it: a name, a subscription, a colleague."""

    def __init__(self, colleague: str = "") -> None:
        self.colleague = colleague

    async def on_start(self) -> None:
        self.register("desk")
        self.subscribe("news")
        if self.colleague:
            self.monitor(self.runtime.ref(self.colleague))

    async def on_event(self, event: treewarden.Event) -> None:
        self.state.text = str(event.payload)

    async def on_down(self, down: Down) -> None:
        self.state.text = f"{down.path} is down"


async def test_h22_a_killed_agent_is_there_again_with_all_that_hung_on_it(
    tmp_path: Path,
) -> None:
    """H22: the same address and state; it hears events, and watches whom it watched."""
    app = Application(
        "app", [ChildSpec("mate", Pad), ChildSpec("clerk", Clerk, args=("mate",))]
    )
    async with open_runtime(app, config=config(tmp_path)) as runtime:
        clerk = runtime.ref("/clerk", Clerk)
        await clerk.call(Clerk.write, "kept")
        await killed(runtime, "/clerk")
        assert runtime.tree()["/clerk"].incarnation == 2
        assert await clerk.call(Clerk.read) == "kept"
        await runtime.bus.publish("news", "heard")
        await wait_until_reads(clerk, "heard")
        assert runtime.registry.whereis("desk") == clerk
        await killed(runtime, "/mate")
        await wait_until_reads(clerk, "/mate is down")


async def wait_until_reads(clerk: treewarden.AgentRef[Clerk], text: str) -> None:
    with trio.fail_after(30):
        while await clerk.call(Clerk.read) != text:
            await trio.lowlevel.checkpoint()


async def test_h22_every_agent_stands_below_a_supervisor(tmp_path: Path) -> None:
    """H22, S47: there is no way to start one that is linked to its caller instead."""
    app = Application(
        "app",
        [
            ChildSpec("group", SupervisorSpec([ChildSpec("static", Pad)])),
            ChildSpec("many", DynamicSupervisorSpec()),
        ],
    )
    async with open_runtime(app, config=config(tmp_path)) as runtime:
        await runtime.supervisor("/many").start_child(ChildSpec("dynamic", Pad))
        tree = runtime.tree()
        agents = [node for node in tree.nodes if node.kind == "agent"]
        assert [node.path for node in agents] == ["/group/static", "/many/dynamic"]
        assert {tree[str(node.parent)].kind for node in agents} == {"supervisor"}


# --- hooks only observe -------------------------------------------------------------------------


class Meddler(Pad):
    async def on_stop(self, exit_: treewarden.Exit) -> None:
        self.state.text = "spoiled"
        if self.label:
            raise ValueError(f"{exit_}: not my day")

    async def take_offence(self) -> None:
        self.label = "offended"


@pytest.mark.parametrize("fails", [False, True])
async def test_s54_what_a_stop_hook_does_to_the_state_is_nobodys(
    tmp_path: Path, fails: bool
) -> None:
    """S54: state changes in handlers only; a hook that fails harms nobody."""
    app = Application("app", [ChildSpec("pad", Meddler), ChildSpec("mate", Pad)])
    async with open_runtime(app, config=config(tmp_path)) as runtime:
        pad = runtime.ref("pad", Meddler)
        await pad.call(Meddler.write, "kept")
        if fails:
            await pad.call(Meddler.take_offence)
        await runtime.supervisor("/application").bounce_child("pad")
        assert await pad.call(Meddler.read) == "kept"
        assert runtime.tree()["/mate"].incarnation == 1
        assert runtime.tree()["/"].budget == (0, 3, 5.0)


@pytest.fixture
async def reports(tmp_path: Path) -> AsyncIterator[tuple[Runtime, list[Report]]]:
    """A runtime with one agent, and what its supervisors told."""
    heard: list[Report] = []
    runtime = Runtime(Application("app", [ChildSpec("pad", Pad)]), config(tmp_path))
    tell = runtime.directory.reporter
    assert tell is not None

    def hear(report: Report) -> None:
        heard.append(report)
        tell(report)

    runtime.directory.reporter = hear
    async with runtimes.running(runtime):
        yield runtime, heard


async def test_s54_start_and_end_of_an_agent_are_told_without_a_hook(
    reports: tuple[Runtime, list[Report]],
) -> None:
    """S54: by its supervisor, once each, with the reason."""
    runtime, heard = reports
    await killed(runtime, "/pad")
    told = [report.topic for report in heard if report.path == "/pad"]
    assert told == [
        "supervision.started",
        "supervision.exited",
        "supervision.restarted",
    ]
