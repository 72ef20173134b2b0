"""For tests of agents and trees: a runtime of their own, virtual time, crashes, waits.

Two fixtures are all that a test file needs, once pytest-trio is installed and told to run
async tests (`trio_mode = true` in the ini file of pytest). trio's autojump clock counts a
task that waits for a thread as idle and fires deadlines while the disk is busy;
`store_clock` stands still as long as a store owes an answer. pytest-trio runs a test on the
clock that it asks for:

    @pytest.fixture
    def clock():
        with store_clock() as clock:
            yield clock

    @pytest.fixture
    async def sandbox(clock):
        async with open_sandbox() as sandbox:
            yield sandbox

    async def test_a_crash_costs_only_its_own_message(sandbox, clock):
        counter = await sandbox.start_supervised(Counter)
        await counter.call(Counter.add)
        await crash(counter)
        await wait_restarted(counter, 2)
        assert await counter.call(Counter.add) == 2

For everything else outside of the loop (a process child, a pool of threads or processes, a
program, HTTP) virtual time does not wait: deadlines fire before it has begun. A test that
needs it asks for no clock, and takes real time.

What a test starts is stopped when the sandbox closes, the last one first, and before the
fixtures that it stands on. `crash` and the waits also serve the tests of an application as
a whole (`open_runtime`) and of supervision alone (`open_supervisor`).
"""

from __future__ import annotations

import math
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import trio
from trio.testing import MockClock

from treewarden.agents import Agent, AgentRef
from treewarden.clock import wall_ns
from treewarden.config import Config
from treewarden.errors import AgentDown, NameUnknown, NotRunning, UnknownChild
from treewarden.exits import Fault
from treewarden.runtime import open_runtime
from treewarden.store import waiting_observer
from treewarden.supervision import Application, ChildSpec, Intensity, NodeState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from treewarden.runtime import Runtime
    from treewarden.supervision import ChildInfo, Node, SupervisorRef

__all__ = [
    "DeadLetter",
    "Sandbox",
    "crash",
    "open_sandbox",
    "store_clock",
    "wait_gone",
    "wait_handled",
    "wait_restarted",
    "wait_until",
]

A = TypeVar("A", bound=Agent[Any])

PATIENCE_SECONDS: Final = 30.0
"""Real seconds after which a wait gives up: a loaded machine, not a slow program."""
_PAUSE_SECONDS: Final = 0.0005
# Steps in which the waits let time pass: at least this, and 1 % of what has passed.
_STEP_SECONDS: Final = 0.001
_STEP_SHARE: Final = 0.01
# What a test crashes on purpose must not end the sandbox around it.
_NO_BUDGET: Final = Intensity(1_000_000, 5.0)


@contextmanager
def store_clock() -> Iterator[MockClock]:
    """A clock that jumps to the next deadline when nothing can happen before it.

    Its time stands still while a thread of a store that was opened under it owes an
    answer. Give it to `trio.run(..., clock=clock)` inside the block, or yield it from a
    fixture. One run at a time.
    """
    clock = MockClock(autojump_threshold=0)
    owing = 0

    def observe(waiting: bool) -> None:
        nonlocal owing
        owing += 1 if waiting else -1
        clock.autojump_threshold = math.inf if owing else 0

    token = waiting_observer.set(observe)
    try:
        yield clock
    finally:
        waiting_observer.reset(token)


async def wait_until(condition: Callable[[], object], what: str = "") -> None:
    """Let everything run until `condition()` is true; checked at each turn of the loop.

    For what has no event to wait for. It keeps the loop busy, so that virtual time stands
    still meanwhile; at most `PATIENCE_SECONDS` of real time.

    Raises:
        TimeoutError: it never became true; `what` says what was waited for.
    """
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > give_up_at:
            raise TimeoutError(
                f"{what or condition} is not so after {PATIENCE_SECONDS:g} s"
            )
        # Threads get the interpreter, tasks get a turn.
        time.sleep(_PAUSE_SECONDS)  # noqa: ASYNC251 - a trio sleep would be virtual
        await trio.lowlevel.checkpoint()


# --- a runtime for one test ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message to the agent at `path` that nobody will handle, and why."""

    path: str
    operation: str
    reason: str


class Sandbox:
    """A runtime that has nothing in it but what the test starts; see `open_sandbox`.

    Attributes:
        runtime: The runtime, with its bus, store, circuits and so on.
        dead_letters: Every message since the sandbox opened that nobody will handle.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.dead_letters: list[DeadLetter] = []
        self._tell = runtime.surroundings.dead_letter
        runtime.surroundings.dead_letter = self._dead_letter

    @property
    def root(self) -> SupervisorRef:
        """The supervisor of what the test starts."""
        return self.runtime.supervisor("/application")

    @overload
    async def start_supervised(self, child: ChildSpec, /) -> ChildInfo | None: ...

    @overload
    async def start_supervised(
        self, child: type[A], /, *args: object, **kwargs: object
    ) -> AgentRef[A]: ...

    async def start_supervised(
        self, child: ChildSpec | type[A], /, *args: object, **kwargs: object
    ) -> ChildInfo | AgentRef[A] | None:
        """Start a child and wait until it is ready; it is stopped with the sandbox.

        An agent class, with the arguments of its `__init__`, gets its own name as its id
        and is answered by its ref. A child of that id that has ended makes way.

        Raises:
            ChildStartFailed, StartTimeout: it did not start, which fails the test.
            AlreadyStarted: a child of that id runs.
            NotRunning: the sandbox is closed.
        """
        if isinstance(child, ChildSpec):
            return await self._start(child)
        spec = ChildSpec(child.__name__, child, args=args, kwargs=kwargs)
        await self._start(spec)
        return AgentRef(self.runtime.directory, f"/{spec.id}")

    async def _start(self, spec: ChildSpec) -> ChildInfo | None:
        root = self._open_root()
        for kept in root.which_children():
            if kept.id == spec.id and kept.state in _ENDED:
                await root.delete_child(spec.id)
        return await root.start_child(spec)

    async def stop_supervised(self, child: AgentRef[Any] | str) -> None:
        """Stop a child for good, by its ref or id, and wait until it is gone.

        Raises:
            UnknownChild: there is none of that id.
            NotRunning: the sandbox is closed.
        """
        root = self._open_root()
        id_ = child if isinstance(child, str) else child.path.removeprefix("/")
        if not any(one.id == id_ for one in root.which_children()):
            raise UnknownChild(root.path, id_)
        await root.terminate_child(id_)
        if any(one.id == id_ for one in root.which_children()):
            await root.delete_child(id_)

    def _open_root(self) -> SupervisorRef:
        if self.runtime.directory.root is None:
            raise NotRunning("the sandbox is closed: use it inside of its block")
        return self.root

    def _dead_letter(self, path: str, operation: str, reason: str) -> None:
        letter = DeadLetter(path=path, operation=operation, reason=reason)
        self.dead_letters.append(letter)
        if self._tell is not None:
            self._tell(path, operation, reason)


_ENDED: Final = frozenset({NodeState.STOPPED, NodeState.FAILED})


@asynccontextmanager
async def open_sandbox(*, config: Config | None = None) -> AsyncIterator[Sandbox]:
    """A runtime for one test: its store in memory and no socket, unless `config` says so.

    It never gives up, however often a child is crashed; give it a SupervisorSpec as a
    child to see what a budget does.
    """
    settings = config if config is not None else Config(level="volatile", socket=False)
    app = Application("sandbox", [], intensity=_NO_BUDGET)
    async with open_runtime(app, config=settings) as runtime:
        yield Sandbox(runtime)


# --- crashes and waits -----------------------------------------------------------------------


async def crash(ref: AgentRef[Any], message: str = "crashed by a test") -> Fault:
    """Crash an agent's present incarnation, in whatever it is doing, and see it end.

    It counts like any crash, and the message in hand is treated as after any. What its
    supervisor does about it comes after: see `wait_restarted` and `wait_gone`. Crash any
    other node, as an operator would, with `runtime.injections.crash(path)`.

    Raises:
        NotRunning: there is no incarnation to crash.
        NameUnknown, AgentDown: there is no such agent.
    """
    life = ref.resolve().node.life
    if life is None or life.ended or life.stopping:
        raise NotRunning(f"{ref.path} is not running; there is nothing to crash")
    fault = Fault(
        type=f"{__name__}.CrashedByATest",
        message=message,
        path=ref.path,
        incarnation=life.incarnation,
        at_ns=wall_ns(),
    )
    with ref.monitor() as monitor:
        life.fail(fault)
        await monitor.wait_down()
    return fault


async def wait_restarted(ref: AgentRef[Any], incarnation: int) -> None:
    """Wait until an agent is in that incarnation, or a later one, and ready for messages.

    Time passes meanwhile, also virtual time: a backoff runs off, in steps of 1 %.

    Raises:
        TimeoutError: it is not so after `PATIENCE_SECONDS` of real time.
    """

    def is_ready() -> bool:
        node = _node_of(ref)
        return (
            node is not None
            and node.incarnation >= incarnation
            and node.state is NodeState.RUNNING
        )

    await _let_pass(is_ready, f"{ref.path} runs in incarnation {incarnation}")


async def wait_gone(ref: AgentRef[Any]) -> None:
    """Wait until an agent has ended and will not be started again by its supervisor.

    Time passes meanwhile, as in `wait_restarted`.

    Raises:
        TimeoutError: it is not so after `PATIENCE_SECONDS` of real time.
    """

    def is_gone() -> bool:
        node = _node_of(ref)
        return node is None or (node.life is None and node.state in _ENDED)

    await _let_pass(is_gone, f"{ref.path} is gone")


async def wait_handled(ref: AgentRef[Any], count: int) -> None:
    """Wait until an agent has handled `count` messages since the run began.

    Those that it refused or crashed on count as well. To wait for all that was sent
    before, a call is enough: messages of one sender are handled in order. Time passes
    meanwhile, as in `wait_restarted`.

    Raises:
        TimeoutError: it is not so after `PATIENCE_SECONDS` of real time.
    """

    def are_handled() -> bool:
        seen = ref.statistics()
        return seen.handled + seen.refused + seen.crashed >= count

    await _let_pass(are_handled, f"{ref.path} has handled {count} messages")


def _node_of(ref: AgentRef[Any]) -> Node | None:
    try:
        return ref.resolve().node
    except (AgentDown, NameUnknown):
        return None


async def _let_pass(condition: Callable[[], object], what: str) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    began = trio.current_time()
    while not condition():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"not after {PATIENCE_SECONDS:g} s: {what}")
        passed = trio.current_time() - began
        await trio.sleep(max(_STEP_SECONDS, _STEP_SHARE * passed))
