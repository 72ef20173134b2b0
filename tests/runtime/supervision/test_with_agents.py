"""What OTP promises of a supervisor and a gen_server together, with agents as children."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from treewarden import Agent, AgentCrashed, AgentDown, AgentRef, ChildSpec, Stop
from treewarden.errors import (
    AlreadyStarted,
    ChildStartFailed,
    KeyTaken,
    NotRunning,
    ShuttingDown,
)
from treewarden.exits import Crash, Exit, Killed, Normal, Shutdown
from treewarden.registry import Registry
from treewarden.supervision import (
    DynamicSupervisorSpec,
    SupervisorRef,
    SupervisorSpec,
    cleanup,
)

if TYPE_CHECKING:
    from treewarden import Down

    from .conftest import World


class Notes(msgspec.Struct):
    words: list[str] = []


class Notebook(Agent[Notes]):
    persistence = "none"

    def __init__(self, gate: trio.Event | None = None) -> None:
        self.gate = gate

    async def on_start(self) -> None:
        if self.gate is not None:
            await self.gate.wait()

    async def note(self, word: str) -> None:
        self.state.words.append(word)

    async def words(self) -> list[str]:
        return self.state.words

    async def end(self, how: Exit) -> None:
        raise Stop(how)

    async def fail(self) -> None:
        raise ValueError("no")

    async def scribble(self, word: str) -> str:
        before = getattr(self, "margin", "")
        self.margin = word
        return before


class Farewell(Notebook):
    def __init__(self, heard: list[str]) -> None:
        super().__init__()
        self.heard = heard

    async def on_stop(self, exit: Exit) -> None:  # noqa: A002 - Agent names it so
        self.heard.append(f"{self.path} {exit!r}")


class Editor(Notebook):
    def __init__(self, editors: Registry[AgentRef[Any]]) -> None:
        super().__init__()
        self.editors = editors

    async def on_start(self) -> None:
        self.register("editor", registry=self.editors)


class Watcher(Agent[Notes]):
    persistence = "none"

    def __init__(self, seen: list[Down]) -> None:
        self.seen = seen

    async def watch(self, path: str) -> None:
        body = self.treewarden_body
        self.monitor(AgentRef(body.directory, path))

    async def on_down(self, down: Down) -> None:
        self.seen.append(down)


def notebook(supervisor: SupervisorRef, path: str = "/book") -> AgentRef[Notebook]:
    return AgentRef(supervisor.directory, path)


async def end(book: AgentRef[Notebook], how: Exit) -> None:
    with pytest.raises(AgentDown):
        await book.call(Notebook.end, how)


async def test_an_agent_that_stops_itself_is_restarted_at_its_address_and_begins_anew(
    world: World,
) -> None:
    """STA-05, RST-13"""
    async with world.open(ChildSpec("book", Notebook)) as root:
        book = notebook(root)
        await book.call(Notebook.note, "one")
        assert await book.call(Notebook.words) == ["one"]
        await end(book, Normal())
        assert await book.call(Notebook.words) == []
        assert book.incarnation == 2


async def test_a_transient_agent_that_ended_normally_by_itself_stays_away(
    world: World,
) -> None:
    """RST-13, G17: nobody else can end it "normally"; there are no exit signals."""
    spec = ChildSpec("book", Notebook, restart="transient")
    async with world.open(spec) as root:
        await end(notebook(root), Normal())
        await world.settle()
        assert world.states(root) == {"book": "stopped"}
        assert world.info(root, "book").last_exit == Normal()


async def test_an_agent_that_was_stopped_answers_nobody(world: World) -> None:
    """INI-01"""
    async with world.open(ChildSpec("book", Notebook)) as root:
        book = notebook(root)
        await book.call(Notebook.note, "one")
        await root.terminate_child("book")
        with pytest.raises(AgentDown):
            await book.call(Notebook.words)


async def test_a_monitor_from_the_first_moment_hears_of_one_end_and_its_reason(
    world: World,
) -> None:
    """INI-04"""
    seen: list[Down] = []
    watcher = ChildSpec("watcher", Watcher, args=(seen,))
    async with world.open(ChildSpec("book", Notebook), watcher) as root:
        await AgentRef[Watcher](root.directory, "/watcher").call(Watcher.watch, "/book")
        await end(notebook(root), Shutdown("enough"))
        await end(notebook(root), Shutdown("again"))
        await world.settle()
        ends = [(down.path, down.incarnation, down.exit) for down in seen]
        assert ends == [("/book", 1, Shutdown("enough"))]


async def test_one_id_has_one_agent_and_is_free_when_that_is_gone(world: World) -> None:
    """INI-05, INI-13"""
    spec = ChildSpec("book", Notebook, restart="temporary")
    async with world.open(spec) as root:
        with pytest.raises(AlreadyStarted, match="/book"):
            await root.start_child(spec)
        assert notebook(root).incarnation == 1
        await root.terminate_child("book")
        await root.start_child(spec)
        assert await notebook(root).call(Notebook.words) == []


async def test_a_hand_written_loop_says_itself_that_it_is_ready_and_then_goes_on(
    world: World,
) -> None:
    """INI-13: those after it wait for its word, not for its end; it says so once."""
    steps: list[str] = []
    door = trio.Event()

    async def loop(*, task_status: trio.TaskStatus[str]) -> None:
        steps.append("prepares")
        await trio.sleep(2)
        task_status.started("ready")
        steps.append("goes on")
        await door.wait()
        task_status.started("again")

    async def next_one() -> None:
        steps.append("next")
        await trio.sleep_forever()

    spec = [ChildSpec("loop", loop), ChildSpec("next", next_one)]
    async with world.open(*spec) as root:
        await world.settle()
        assert trio.current_time() == 2
        assert steps == ["prepares", "goes on", "next"]
        door.set()
        await world.settle()
        assert world.incarnations(root) == {"loop": 2, "next": 1}
        exit_ = world.info(root, "loop").last_exit
        assert isinstance(exit_, Crash)
        assert "called twice" in exit_.fault.message


async def test_a_start_that_claims_a_name_of_another_is_refused_and_the_name_stays(
    world: World,
) -> None:
    """INI-13, STA-11"""
    editors: Registry[AgentRef[Any]] = Registry()
    first, second = (ChildSpec(id_, Editor, args=(editors,)) for id_ in ("one", "two"))
    async with world.open(first) as root:
        with pytest.raises(ChildStartFailed) as refused:
            await root.start_child(second)
        assert isinstance(refused.value.__cause__, KeyTaken)
        assert "/one" in str(refused.value)
        assert world.states(root) == {"one": "running"}
        assert editors.ref("editor").path == "/one"
        await root.terminate_child("one")
        await root.start_child(second)
        assert editors.ref("editor").path == "/two"


async def test_a_hand_written_loop_takes_part_like_an_agent(world: World) -> None:
    """SYS-08: it is seen, watched, bounced and stopped in its turn, cleaning up."""
    seen: list[Down] = []
    steps: list[str] = []

    async def loop(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            with cleanup():
                await trio.sleep(1)
                steps.append("cleaned up")

    children = [
        ChildSpec("watcher", Watcher, args=(seen,)),
        ChildSpec("loop", loop),
        ChildSpec("farewell", Farewell, args=(steps,)),
    ]
    async with world.open(*children) as root:
        watcher = AgentRef[Watcher](root.directory, "/watcher")
        await watcher.call(Watcher.watch, "/loop")
        assert world.states(root)["loop"] == "running"
        assert (await root.bounce_child("loop", by="ann")).incarnation == 2
        await world.settle()
        assert [(down.incarnation, down.exit) for down in seen] == [(1, Shutdown())]
    assert steps == ["cleaned up", "/farewell Shutdown(detail=None)", "cleaned up"]


async def test_what_is_sent_during_on_start_is_handled_after_it_in_order(
    world: World,
) -> None:
    """INI-15"""
    gate = trio.Event()
    answers: list[list[str]] = []

    async def ask(book: AgentRef[Notebook]) -> None:
        answers.append(await book.call(Notebook.words))

    async with world.open() as root, trio.open_nursery() as nursery:
        nursery.start_soon(root.start_child, ChildSpec("book", Notebook, args=(gate,)))
        await world.settle()
        book = notebook(root)
        for word in ("one", "two", "three"):
            await book.cast(Notebook.note, word)
        nursery.start_soon(ask, book)
        await world.settle()
        assert answers == []
        gate.set()
        await world.settle()
        assert answers == [["one", "two", "three"]]


async def test_an_address_leads_to_whoever_has_come_after_the_one_before(
    world: World,
) -> None:
    """STR-12"""
    async with world.open(ChildSpec("book", Notebook)) as root:
        book = notebook(root)
        await end(book, Killed())
        assert (await book.call(Notebook.words), book.incarnation) == ([], 2)
        with pytest.raises(AgentCrashed):
            await book.call(Notebook.fail)
        assert (await book.call(Notebook.words), book.incarnation) == ([], 3)
        await root.bounce_child("book")
        assert (await book.call(Notebook.words), book.incarnation) == ([], 4)


@pytest.mark.parametrize("how", ["the tree", "its supervisor", "alone"])
async def test_an_agent_is_told_that_it_is_stopped_whoever_asked(
    world: World, how: str
) -> None:
    """SHD-22, INI-14, G11"""
    heard: list[str] = []
    spec = ChildSpec("book", Farewell, args=(heard,))
    async with world.open(ChildSpec("s", SupervisorSpec([spec]))) as root:
        if how == "its supervisor":
            await root.terminate_child("s")
        elif how == "alone":
            await root.supervisor("s").terminate_child("book")
    assert heard == [f"/s/book {Shutdown()!r}"]


class SlowToStop(Notebook):
    def __init__(self, may_stop: trio.Event) -> None:
        super().__init__()
        self.may_stop = may_stop

    async def on_stop(self, exit: Exit) -> None:  # noqa: A002 - Agent names it so
        await self.may_stop.wait()


async def test_an_agent_without_time_to_stop_is_not_told(world: World) -> None:
    """SHD-03"""
    heard: list[str] = []
    brutal = ChildSpec("brutal", Farewell, args=(heard,), shutdown=0)
    async with world.open(brutal, ChildSpec("kind", Farewell, args=(heard,))):
        pass
    assert heard == [f"/kind {Shutdown()!r}"]
    assert [(report.path, report.exit) for report in world.reported("exited")] == [
        ("/kind", Shutdown()),
        ("/brutal", Killed()),
    ]


class Hermit(Editor):
    async def withdraw(self) -> None:
        self.unregister("editor", registry=self.editors)
        await trio.sleep_forever()


async def test_an_agent_that_has_withdrawn_from_everything_is_gone_in_its_time(
    world: World,
) -> None:
    """SHD-10: nobody finds it, it reads no message and does not end when asked to."""
    editors: Registry[AgentRef[Any]] = Registry()
    spec = ChildSpec("hermit", Hermit, args=(editors,), shutdown=2.0)
    async with world.open(spec, world.child("other")) as root:
        hermit = AgentRef[Hermit](root.directory, "/hermit")
        await hermit.cast(Hermit.withdraw)
        await hermit.cast(Hermit.note, "unread")
        await world.settle()
        assert editors.count() == 0
        await root.terminate_child("hermit")
        assert trio.current_time() == 2
        assert world.info(root, "hermit").last_exit == Killed()
        await world.crashed("other")
        await root.start_child(world.child("next"))
        assert world.incarnations(root) == {"hermit": 1, "other": 2, "next": 1}


async def test_a_call_to_an_agent_that_is_stopping_ends_when_it_is_gone(
    world: World,
) -> None:
    """SHD-19: as in OTP, where the caller hears of the process's end."""
    gate = trio.Event()
    outcomes: list[str] = []

    async def ask(slow: AgentRef[SlowToStop]) -> None:
        with pytest.raises(AgentDown):
            await slow.with_timeout(30).call(Notebook.words)
        outcomes.append("down")

    spec = ChildSpec("slow", SlowToStop, args=(gate,), shutdown=60)
    async with world.open(spec) as root, trio.open_nursery() as nursery:
        nursery.start_soon(root.terminate_child, "slow")
        await world.settle()
        nursery.start_soon(ask, AgentRef[SlowToStop](root.directory, "/slow"))
        await world.settle()
        assert outcomes == []
        gate.set()
        await world.settle()
        assert outcomes == ["down"]
    assert trio.current_time() == 0


async def test_nobody_starts_below_a_supervisor_that_stops_or_is_gone(
    world: World,
) -> None:
    """STA-20: a specification is data and may be used twice; an owner must be alive."""
    spec = ChildSpec("late", Notebook)
    dynamic = ChildSpec("dyn", DynamicSupervisorSpec())
    async with world.open(dynamic) as root:
        dyn = root.supervisor("dyn")
        gate = trio.Event()
        await dyn.start_child(ChildSpec("slow", SlowToStop, args=(gate,), shutdown=60))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(root.terminate_child, "dyn")
            await world.settle()
            with pytest.raises(ShuttingDown):
                await dyn.start_child(spec)
            gate.set()
        with pytest.raises(NotRunning):
            await dyn.start_child(spec)
    with pytest.raises(NotRunning):
        await root.start_child(spec)
    assert world.reported("started")[-1].path == "/dyn/slow"


async def test_every_incarnation_is_an_object_of_its_own(world: World) -> None:
    """Pitfall 50: what is kept outside of the state goes with the incarnation."""
    async with world.open(ChildSpec("book", Notebook)) as root:
        book = notebook(root)
        assert await book.call(Notebook.scribble, "mine") == ""
        assert await book.call(Notebook.scribble, "mine") == "mine"
        with pytest.raises(AgentCrashed):
            await book.call(Notebook.fail)
        assert await book.call(Notebook.scribble, "mine") == ""


async def test_a_message_kills_once(world: World) -> None:
    """Pitfall 56, as overruled by design 5: only what still waits is kept."""
    async with world.open(ChildSpec("book", Notebook)) as root:
        book = notebook(root)
        with pytest.raises(AgentCrashed):
            await book.call(Notebook.fail)
        await book.cast(Notebook.fail)
        await book.cast(Notebook.note, "waited")
        await world.settle()
        assert world.incarnations(root) == {"book": 3}
        assert await book.call(Notebook.words) == ["waited"]
