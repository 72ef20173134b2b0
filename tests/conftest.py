"""What every test gets: Hypothesis profiles, its turn, and a watch over what is left.

`make test` runs in several processes, by pytest-xdist. Tests of whole systems are dealt
out first, since they take longest; those marked `alone`, which measure how soon something
happens, come last and have the machine to themselves.
"""

from __future__ import annotations

import fcntl
import gc
import inspect
import os
import random
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import HealthCheck, Phase, settings
from trio.testing import MockClock

from treewarden.testing import store_clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
    from types import FrameType

    from trio.lowlevel import Task

# A shell has what it starts in the background ignore Ctrl-C, and so would every child
# that a test starts and interrupts: tests of it would wait forever.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Where a machine has a proxy, the way to our own loopback would lead there.
for _name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[_name]

# No time limits: the machine is shared, and what is slow is not wrong. The same examples
# each time: what no run before has seen is looked for by `make soak`, not by whoever is
# about to land something else.
settings.register_profile(
    "default",
    deadline=None,
    max_examples=50,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "ci", settings.get_profile("default"), max_examples=100, print_blob=True
)
# Whether an example fails is all that is asked; the smallest one may take minutes to find.
settings.register_profile(
    "sabotage",
    settings.get_profile("default"),
    phases=(Phase.explicit, Phase.generate),
)
settings.register_profile(
    "soak",
    settings.get_profile("default"),
    max_examples=10_000,
    derandomize=False,
    print_blob=True,
)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE")
    or ("ci" if os.environ.get("CI") else "default")
)

# How long a thread that was told to end may take before it counts as left behind.
_LINGER_SECONDS = 30.0


def _ours() -> set[threading.Thread]:
    """Living threads, without those that trio keeps for its next `to_thread` call."""
    return {
        thread
        for thread in threading.enumerate()
        if not thread.name.startswith("Trio thread")
    }


# A kernel takes some 100 bytes for a socket's path, and homes and names need most of them.
_SHORT_BYTES = 30


@pytest.fixture(scope="session")
def short_place() -> str:
    """Where folders for what is temporary have short paths, whatever TMPDIR says."""
    place = gettempdir()
    return place if len(place) <= _SHORT_BYTES else "/tmp"  # noqa: S108 - folders are made in it


@pytest.fixture
def short_folder(short_place: str) -> Iterator[Path]:
    """A folder with room for a socket's name in its path, which `tmp_path` may not have."""
    with TemporaryDirectory(prefix="tw", dir=short_place) as folder:
        yield Path(folder)


def _all_tasks() -> Iterator[Task]:
    root = trio.lowlevel.current_root_task()
    pending = [root] if root is not None else []
    while pending:
        task = pending.pop()
        yield task
        for nursery in task.child_nurseries:
            pending.extend(nursery.child_tasks)


@pytest.fixture(scope="session")
def all_tasks() -> Callable[[], Iterator[Task]]:
    """Every task of the run around."""
    return _all_tasks


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    """Fail the test that leaves a thread running: its owner did not close it."""
    before = _ours()
    yield
    left = _ours() - before
    for thread in left:
        thread.join(_LINGER_SECONDS)
    alive = sorted(thread.name for thread in left if thread.is_alive())
    if alive:
        pytest.fail(f"threads left running: {', '.join(alive)}")


# --- turns ------------------------------------------------------------------------------

_SHARED = "PYTEST_XDIST_WORKER" in os.environ
_SYSTEM = Path(__file__).parent / "system"


def pytest_configure(config: pytest.Config) -> None:
    """Say what our marks mean."""
    config.addinivalue_line("markers", "alone: no other test runs beside it")
    config.addinivalue_line(
        "markers",
        "real_time: it works with threads, processes or a store, which no clock hurries",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Virtual time; and, among several processes, what takes long first."""
    for item in items:
        run = _run_of(item)
        if run is not None:
            item.add_marker(pytest.mark.trio(run=run), append=False)
    if _SHARED:
        items.sort(key=_turn)


def pytest_collection_finish() -> None:
    """Spare tests that collect garbage the thousands of tests: a third of a second each."""
    gc.collect()
    gc.freeze()


def _turn(item: pytest.Item) -> int:
    if item.get_closest_marker("alone"):
        return 2
    return 0 if _SYSTEM in item.path.parents else 1


@contextmanager
def _room(item: pytest.Item) -> Iterator[None]:
    """Beside others, or after them and before the next: a lock of readers and writers."""
    if not _SHARED:
        yield
        return
    alone = item.get_closest_marker("alone") is not None
    with Path(__file__).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            yield
        finally:
            # By hand: a child that was forked meanwhile has the file open as well.
            fcntl.flock(file, fcntl.LOCK_UN)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Wait for room outside of everything that has a time limit."""
    with _room(item), _told_where_it_hangs(item):
        return (yield)


# --- virtual time -----------------------------------------------------------------------

_RUNTIME = Path(__file__).parent / "runtime"


def run_in_virtual_time(
    main: Callable[[], Awaitable[None]],
    *,
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
    seed: int | None = None,
) -> None:
    """trio.run on a clock that jumps, with the order of trio's batches fixed by a seed."""
    # pytest-randomly seeds `random` before each test, so that a failure can be repeated.
    trio._core._run._r.seed(random.getrandbits(64) if seed is None else seed)
    clock = clock or MockClock(autojump_threshold=0)
    trio.run(main, clock=clock, instruments=instruments)


def run_in_store_time(
    main: Callable[[], Awaitable[None]],
    *,
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> None:
    """The same, and the clock stands still as long as a store owes an answer.

    So nobody loses patience because the machine is slow.
    """
    if clock is not None:
        run_in_virtual_time(main, clock=clock, instruments=instruments)
        return
    with store_clock() as clock:
        run_in_virtual_time(main, clock=clock, instruments=instruments)


# How the async tests of a folder are run, those marked `real_time` excepted.
_RUN_IN = {
    _RUNTIME / "supervision": run_in_virtual_time,
    _RUNTIME / "work": run_in_virtual_time,
    _RUNTIME / "coordination": run_in_virtual_time,
    _RUNTIME / "agents": run_in_store_time,
    _RUNTIME / "workflows": run_in_store_time,
}


def _run_of(item: pytest.Item) -> Callable[..., None] | None:
    is_async = inspect.iscoroutinefunction(getattr(item, "function", None))
    if not is_async or item.get_closest_marker("real_time"):
        return None
    return next((_RUN_IN[one] for one in item.path.parents if one in _RUN_IN), None)


@pytest.fixture(scope="session")
def play() -> Callable[..., None]:
    """`run_in_virtual_time`, for tests that run trio themselves."""
    return run_in_virtual_time


# --- tests that hang --------------------------------------------------------------------

# So much before pytest's `faulthandler_timeout`, which tells of threads, not of tasks.
_EARLIER_SECONDS = 5.0
# Where every wait ends; nobody learns from it.
_TRAPS = str(Path(trio.__file__).parent / "_core")


@contextmanager
def _told_where_it_hangs(item: pytest.Item) -> Iterator[None]:
    """Print where each task of trio waits when a test takes so long."""
    capture = item.config.pluginmanager.getplugin("capturemanager")

    def tell(number: int, frame: FrameType | None) -> None:
        with capture.global_and_fixture_disabled():
            os.write(2, f"\n{item.nodeid} hangs:\n{_tasks()}\n".encode())

    limit = float(item.config.getini("faulthandler_timeout"))
    before = signal.signal(signal.SIGALRM, tell)
    signal.setitimer(signal.ITIMER_REAL, max(limit - _EARLIER_SECONDS, 0.0))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _tasks() -> str:
    try:
        root = trio.lowlevel.current_root_task()
    except RuntimeError:
        root = None
    return "\n".join(_lines(root, 1)) if root else "  no task of trio"


def _lines(task: Task, depth: int) -> Iterator[str]:
    calls = [
        f"{frame.f_code.co_name} ({Path(file).name}:{line})"
        for frame, line in task.iter_await_frames()
        if not (file := frame.f_code.co_filename).startswith(_TRAPS)
    ]
    yield f"{'  ' * depth}{task.name}: {' > '.join(calls)}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _lines(child, depth + 1)
