"""What a class of agents may be, and what an agent may ask for: timers, monitors, an end."""

from __future__ import annotations

import functools
import math
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentCrashed,
    AgentDown,
    AgentRef,
    ChildSpec,
    ChildStartFailed,
    Down,
    DurableQueue,
    Refused,
    StateNotEncodable,
    Stop,
    open_supervisor,
)
from treewarden.exits import Normal, Shutdown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from .conftest import StartAgents

    Address = Callable[..., Any]

T = TypeVar("T")
S = TypeVar("S")


class Total(msgspec.Struct):
    value: int = 0


class Numbers(msgspec.Struct, Generic[T]):
    items: list[T] = []


# --- classes ---------------------------------------------------------------------------------


def test_a_name_of_the_agents_own_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Bad\.publish would hide Agent\.publish"):
        type("Bad", (Agent,), {"publish": lambda self: None})
    with pytest.raises(TypeError, match=r"Bad\.log would hide"):

        class Bad(Agent[None]):
            log: DurableQueue[str]  # type: ignore[assignment]


def test_any_in_a_state_is_refused() -> None:
    class Loose(msgspec.Struct):
        anything: Any = None

    with pytest.raises(TypeError, match=r"Loose.*\.anything is Any"):

        class Bad(Agent[Loose]):
            pass


def test_a_state_that_is_no_stored_type_is_refused() -> None:
    class Handle:
        pass

    with pytest.raises(TypeError, match="Handle, which cannot be stored"):

        class Bad(Agent[Handle]):
            pass

    with pytest.raises(TypeError, match="cannot be read: name 'Task' is not defined"):

        class Worse(Agent[trio.Event]):
            pass


def test_a_quoted_state_type_is_refused() -> None:
    with pytest.raises(TypeError, match="name it without quotes"):

        class Bad(Agent["Total"]):
            pass


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("persistence", "sometimes"),
        ("persistence", []),
        ("mailbox", 3),
        ("call_timeout", -1.0),
        ("call_timeout", math.nan),
        ("call_timeout", "5"),
        ("call_timeout", True),
        ("refuses", ValueError),
        ("refuses", (KeyboardInterrupt,)),
        ("refuses", ("ValueError",)),
        ("trap_exits", 1),
        ("state_version", 0),
        ("state_version", True),
        ("state_version", 1.5),
        ("store_as", None),
    ],
)
def test_an_option_that_cannot_be_is_refused(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"Bad\.{option} must be .*, not ") as caught:
        type("Bad", (Agent,), {option: value})
    assert repr(value) in str(caught.value)


def test_a_mixed_in_name_of_the_agents_own_is_refused() -> None:
    class Loud:
        def publish(self) -> None: ...

    with pytest.raises(TypeError, match=r"Loud\.publish would hide Agent\.publish"):
        type("Bad", (Loud, Agent), {})
    type("Fine", (Agent, Loud), {})  # Agent's own is what is found


def test_a_constructor_must_not_be_async() -> None:
    async def make(self: object) -> None: ...

    with pytest.raises(
        TypeError, match=r"Bad\.__init__ must not be async; on_start is"
    ):
        type("Bad", (Agent,), {"__init__": make})


@pytest.mark.parametrize(
    ("hook", "called"),
    [
        ("on_start", "on_start(self)"),
        ("on_stop", "on_stop(self, exit)"),
        ("on_down", "on_down(self, down)"),
        ("on_event", "on_event(self, event)"),
    ],
)
def test_a_hook_that_could_not_be_called_is_refused(hook: str, called: str) -> None:
    """Else it shows when it is, which for `on_stop` is too late."""

    async def wrong(self: object, one: object, another: object) -> None: ...

    with pytest.raises(TypeError, match="missing a required argument") as caught:
        type("Bad", (Agent,), {hook: wrong})
    assert f"Bad.{hook} is called as {called}" in str(caught.value)


def test_an_operation_that_is_a_generator_is_refused() -> None:
    async def pages(self: object) -> AsyncIterator[int]:
        yield 1

    def numbers(self: object) -> Iterator[int]:
        yield 1

    for name, function in (("pages", pages), ("numbers", numbers)):
        with pytest.raises(TypeError, match=rf"Bad\.{name} is a generator"):
            type("Bad", (Agent,), {name: function})
        type("Fine", (Agent,), {f"_{name}": function})


@pytest.mark.parametrize("value", [None, functools.partialmethod(print), property()])
def test_an_operation_overridden_by_what_is_no_method_is_refused(value: object) -> None:
    """Else callers would get the one that is overridden."""

    class Fine(Agent[None]):
        def add(self) -> None: ...

    with pytest.raises(TypeError, match=r"Bad\.add overrides the operation add"):
        type("Bad", (Fine,), {"add": value})


@pytest.mark.parametrize("hook", ["on_start", "on_stop"])
def test_a_hook_that_is_awaited_must_be_async(hook: str) -> None:
    with pytest.raises(TypeError, match=rf"Bad\.{hook} must be async"):
        type("Bad", (Agent,), {hook: lambda self, *args: None})


def test_the_state_of_a_generic_agent_is_found() -> None:
    class Collects(Agent[Numbers[T]], Generic[S, T]):
        pass

    class Plain(Agent[T]):
        pass

    class Fixed(Agent[Total], Generic[T]):
        pass

    assert Plain[Total].__origin__.treewarden_class.codec is None  # type: ignore[attr-defined]
    assert _state_of(type("A", (Plain,), {"__orig_bases__": (Plain[Total],)})) is Total
    assert _state_of(_subclass(Collects[str, int])) == Numbers[int]
    assert _state_of(_subclass(Fixed[str])) is Total
    assert _state_of(type("B", (_subclass(Fixed[str]),), {})) is Total


def _subclass(generic: Any) -> type:
    return type("Sub", (generic.__origin__,), {"__orig_bases__": (generic,)})


def _state_of(cls: Any) -> object:
    return cls.treewarden_class.codec.type


@dataclass
class Point:
    x: int
    y: int


class Needy(Agent[Point]):
    persistence = "none"


async def test_a_state_that_needs_arguments_needs_an_initial_state(
    autojump_clock: object,
) -> None:
    with pytest.raises(ChildStartFailed) as caught:
        async with open_supervisor([ChildSpec("needy", Needy)]):
            pass
    assert "Needy needs an initial_state()" in str(caught.value.__cause__)


class Unborn(Agent[Total]):
    persistence = "none"

    def __init__(self) -> None:
        raise OSError("no port")


class Odd(Agent[Total]):
    persistence = "none"

    def initial_state(self) -> Total:
        return Total(value=float("nan"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "cause"), [(Unborn, OSError), (Odd, StateNotEncodable)]
)
async def test_an_agent_that_cannot_be_made_does_not_start(
    autojump_clock: object, kind: type, cause: type
) -> None:
    with pytest.raises(ChildStartFailed) as caught:
        async with open_supervisor([ChildSpec("odd", kind)]):
            pass
    assert isinstance(caught.value.__cause__, cause)


# --- a running one -----------------------------------------------------------------------------

_asker: ContextVar[str] = ContextVar("asker", default="nobody")


def twice(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


class Busy(Agent[Total]):
    persistence = "none"

    def __init__(self, downs: list[Down] | None = None) -> None:
        self.downs = downs if downs is not None else []
        self.timer: Any = None

    async def on_down(self, down: Down) -> None:
        self.downs.append(down)

    def note(self, amount: int) -> None:
        self.state.value += amount

    async def later(self, seconds: float) -> None:
        self.timer = self.send_after(seconds, Busy.note, 1)

    async def later_and_refuse(self, seconds: float) -> None:
        self.send_after(seconds, Busy.note, 1)
        self.stop()
        raise Refused("after all not")

    async def call_off(self) -> None:
        self.timer.cancel()

    async def later_and_never(self, times: int) -> None:
        for _ in range(times):
            self.send_after(100, Busy.note, 1).cancel()

    def get(self) -> int:
        return self.state.value

    @twice
    async def decorated(self, amount: int) -> int:
        await trio.lowlevel.checkpoint()
        return amount

    async def who_asks(self) -> str:
        return _asker.get()

    def who_asks_now(self) -> str:
        return _asker.get()

    async def watch(self, path: str) -> None:
        ref: AgentRef[Any] = AgentRef(self.treewarden_body.directory, path)
        self.monitor(ref)

    async def watch_and_forget(self, path: str) -> None:
        ref: AgentRef[Any] = AgentRef(self.treewarden_body.directory, path)
        monitor = self.monitor(ref)
        monitor.cancel()
        monitor.cancel()

    async def fail(self) -> None:
        raise ValueError("on purpose")

    async def end(self) -> None:
        raise Stop(Shutdown("enough"))

    async def interrupt(self) -> None:
        raise KeyboardInterrupt

    def interrupt_now(self) -> None:
        raise KeyboardInterrupt

    async def hang(self, seconds: float) -> None:
        await trio.sleep(seconds)


@pytest.fixture
async def busy(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> Any:
    supervisor = await start_agents(ChildSpec("busy", Busy))
    return address(supervisor, "/busy")


async def test_a_timer_sends_its_message_once(
    busy: Any, autojump_clock: object
) -> None:
    await busy.call(Busy.later, 10)
    assert await busy.call(Busy.get) == 0
    await trio.sleep(11)
    assert await busy.call(Busy.get) == 1


async def test_a_timer_can_be_called_off(busy: Any, autojump_clock: object) -> None:
    await busy.call(Busy.later, 10)
    await busy.call(Busy.call_off)
    await trio.sleep(11)
    assert await busy.call(Busy.get) == 0


async def test_a_timer_ends_with_the_incarnation_that_asked_for_it(
    busy: Any, autojump_clock: object
) -> None:
    await busy.call(Busy.later, 10)
    with pytest.raises(AgentCrashed):
        await busy.call(Busy.fail)
    await trio.sleep(11)
    assert await busy.call(Busy.get) == 0


async def test_a_refused_handler_leaves_no_timer_and_does_not_stop(
    busy: Any, autojump_clock: object
) -> None:
    with pytest.raises(Refused):
        await busy.call(Busy.later_and_refuse, 10)
    await trio.sleep(11)
    assert await busy.call(Busy.get) == 0
    assert busy.incarnation == 1


async def test_timers_that_were_called_off_are_not_kept(
    busy: Any, autojump_clock: object
) -> None:
    await busy.call(Busy.later_and_never, 1000)
    assert len(busy.resolve().tied.timers) < 50


async def test_finished_calls_leave_no_timers_behind_one_that_is_stuck(
    busy: Any, start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """Invariant 11."""
    supervisor = await start_agents(ChildSpec("other", Busy))
    other = address(supervisor, "/other")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.with_timeout(1000).call, Busy.hang, 500)
        await wait_all_tasks_blocked()
        for _ in range(5_000):
            await busy.call(Busy.decorated, 1)
        assert len(supervisor.directory.timers) < 200


async def test_a_decorated_operation_is_awaited(
    busy: Any, autojump_clock: object
) -> None:
    assert await busy.call(Busy.decorated, 3) == 3


@pytest.mark.parametrize("operation", [Busy.who_asks, Busy.who_asks_now])
async def test_a_handler_runs_in_the_agents_own_context(
    busy: Any, operation: Any, autojump_clock: object
) -> None:
    """Invariant 10: in its caller's turn as well."""
    _asker.set("a caller")
    assert await busy.call(operation) == "nobody"


@pytest.mark.parametrize("operation", [Busy.interrupt, Busy.interrupt_now])
@pytest.mark.parametrize("queued", [False, True])
async def test_an_interrupt_in_a_handler_stops_the_tree_and_hangs_nobody(
    autojump_clock: object, operation: Any, queued: bool
) -> None:
    """END-15"""
    answers: list[str] = []

    async def call(ref: Any, what: Any, *args: object) -> None:
        try:
            await ref.with_timeout(1e9).call(what, *args)
            answers.append("answered")
        except AgentDown:
            answers.append("down")

    with trio.fail_after(1000):
        async with trio.open_nursery() as callers:
            with pytest.raises(KeyboardInterrupt):
                async with open_supervisor([ChildSpec("busy", Busy)]) as supervisor:
                    ref: AgentRef[Any] = AgentRef(supervisor.directory, "/busy")
                    if queued:
                        callers.start_soon(call, ref, Busy.hang, 1)
                        await wait_all_tasks_blocked()
                    callers.start_soon(call, ref, operation)
                    await trio.sleep_forever()
    assert answers == ["answered", "down"][-1 - queued :]


async def test_an_agent_may_end_itself_with_an_exit(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    supervisor = await start_agents(ChildSpec("busy", Busy, restart="transient"))
    with pytest.raises(AgentDown, match="stopped itself"):
        await address(supervisor, "/busy").call(Busy.end)
    await wait_all_tasks_blocked()
    (child,) = supervisor.which_children()
    assert child.last_exit == Shutdown("enough")
    assert not isinstance(child.last_exit, Normal)


async def test_a_watcher_that_ends_leaves_nothing_with_whom_it_watched(
    busy: Any, start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MON-09, pitfall 62"""
    supervisor = await start_agents(ChildSpec("watcher", Busy))
    watcher = address(supervisor, "/watcher")
    await watcher.call(Busy.watch, "/busy")
    await watcher.call(Busy.watch_and_forget, "/busy")
    life: Any = busy.resolve().node.life
    assert len(life.watchers) == 1
    with pytest.raises(AgentCrashed):
        await watcher.call(Busy.fail)
    await wait_all_tasks_blocked()
    assert life.watchers == []


async def test_a_monitor_that_was_called_off_tells_nothing(
    busy: Any, start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MON-04"""
    downs: list[Down] = []
    supervisor = await start_agents(ChildSpec("watcher", Busy, args=(downs,)))
    await address(supervisor, "/watcher").call(Busy.watch_and_forget, "/busy")
    with pytest.raises(AgentCrashed):
        await busy.call(Busy.fail)
    await wait_all_tasks_blocked()
    assert downs == []


class Strict(Agent[Total]):
    persistence = "none"
    refuses: ClassVar[tuple[type[Exception], ...]] = (KeyError,)

    async def add_and_raise(self, kind: str) -> None:
        self.state.value += 1
        raise {"key": KeyError, "lookup": LookupError, "refused": Refused}[kind](kind)

    async def get(self) -> int:
        return self.state.value


async def test_a_class_says_what_is_an_answer_and_no_crash(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-12: by itself, and by nothing else than what it names."""
    ref = address(await start_agents(ChildSpec("strict", Strict)), "/strict")
    with pytest.raises(KeyError, match="key"):
        await ref.call(Strict.add_and_raise, "key")
    assert (ref.incarnation, await ref.call(Strict.get)) == (1, 0)
    for kind in ("lookup", "refused"):
        with pytest.raises(AgentCrashed, match=kind):
            await ref.call(Strict.add_and_raise, kind)
    await wait_all_tasks_blocked()
    assert ref.incarnation == 3


# --- what is mixed in, and mistakes that show at run time ------------------------------------


class Greets:
    def greet(self) -> str:
        return "hello"

    def add(self) -> int:
        return 2


class Adds(Agent[None]):
    def add(self) -> int:
        return 1


class Politely(Greets, Adds):
    pass


async def test_what_is_mixed_in_is_an_operation_and_overrides_like_one(
    start_agents: StartAgents, address: Address
) -> None:
    supervisor = await start_agents(ChildSpec("a", Politely))
    ref = address(supervisor, "/a")
    assert await ref.call(Politely.greet) == "hello"
    assert await ref.call(Adds.add) == await ref.call(Greets.add) == 2


class Hasty(Agent[None]):
    def __init__(self, what: str) -> None:
        self.seen = getattr(self, what)


@pytest.mark.parametrize("what", ["state", "path", "ref", "runtime", "incarnation"])
async def test_a_constructor_that_asks_too_early_is_told_so(
    start_agents: StartAgents, what: str
) -> None:
    with pytest.raises(ChildStartFailed, match="are there from on_start on"):
        await start_agents(ChildSpec("a", Hasty, args=(what,)))
    with pytest.raises(ChildStartFailed, match="no attribute 'wings'"):
        await start_agents(ChildSpec("a", Hasty, args=("wings",)))


async def test_agent_itself_is_no_agent(start_agents: StartAgents) -> None:
    with pytest.raises(TypeError, match="/a: Agent itself does nothing"):
        await start_agents(ChildSpec("a", Agent))


class Answers(Agent[None]):
    async def on_start(self) -> Any:
        return "IGNORE"


async def test_an_answer_of_on_start_that_nobody_reads_is_refused(
    start_agents: StartAgents,
) -> None:
    """IGN-07: what is not understood is an error that carries it."""
    with pytest.raises(ChildStartFailed, match="None or IGNORE, not 'IGNORE'"):
        await start_agents(ChildSpec("a", Answers))


class Forgets(Agent[None]):
    async def _work(self) -> None:
        raise AssertionError("nobody awaits it")

    def forget(self) -> Any:
        return self._work()


async def test_a_handler_that_forgets_to_await_crashes_and_is_told_why(
    start_agents: StartAgents, address: Address
) -> None:
    """Also for a cast, where it would count as handled and nothing would be done."""
    supervisor = await start_agents(ChildSpec("a", Forgets))
    ref = address(supervisor, "/a")
    with pytest.raises(AgentCrashed, match="forget returned a coroutine that nobody"):
        await ref.call(Forgets.forget)
    await ref.cast(Forgets.forget)
    await wait_all_tasks_blocked()
    assert (ref.statistics().crashed, ref.statistics().handled) == (2, 0)


class Leaves(Agent[None]):
    def leave(self, exit_: Any) -> None:
        self.stop(exit_)


@pytest.mark.parametrize("no_exit", ["bye", ValueError("no"), Normal, Shutdown(3)])  # type: ignore[arg-type]
async def test_an_agent_cannot_be_stopped_with_what_is_no_exit(
    start_agents: StartAgents, address: Address, no_exit: Any
) -> None:
    supervisor = await start_agents(ChildSpec("a", Leaves))
    ref = address(supervisor, "/a")
    with pytest.raises(TypeError, match="an exit is Normal"):
        await ref.stop(no_exit)
    assert ref.incarnation == 1
    with pytest.raises(AgentCrashed, match="an exit is Normal"):
        await ref.call(Leaves.leave, no_exit)
