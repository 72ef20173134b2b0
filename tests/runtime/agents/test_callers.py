"""Callers: whom they find by which name, many answers at once, and full hands."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentCrashed,
    AgentDown,
    AgentRef,
    Application,
    CallTimeout,
    ChildSpec,
    Config,
    MailboxPolicy,
    NameAmbiguous,
    NameUnknown,
    Request,
    SupervisorSpec,
    open_runtime,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .conftest import StartAgents

    Address = Callable[..., Any]


class Oracle(Agent[None]):
    async def answer(self, question: str, seconds: float) -> str:
        await trio.sleep(seconds)
        if question == "why?":
            raise ValueError("nobody knows")
        return f"{question} 42"

    def ping(self) -> str:
        return "pong"


class Busy(Agent[None]):
    mailbox = MailboxPolicy(capacity=1000)

    async def ask(self, ref: Any, times: int) -> list[str]:
        return [await ref.call(Oracle.answer, "more?", 0) for _ in range(times)]

    async def nothing(self) -> None:
        pass


class Watched(deque[Any]):
    """A line that counts how often somebody searches it, or goes through it."""

    searches = 0

    def __iter__(self) -> Iterator[Any]:
        self.searches += 1
        return super().__iter__()

    def __getitem__(self, index: Any) -> Any:
        self.searches += index != 0
        return super().__getitem__(index)

    def __contains__(self, item: object) -> bool:
        self.searches += 1
        return super().__contains__(item)

    def index(self, *args: Any) -> int:
        self.searches += 1
        return super().index(*args)

    def remove(self, item: Any) -> None:
        self.searches += 1
        super().remove(item)


async def test_several_answers_come_as_they_come_and_each_for_itself(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-14: with labels and one deadline for all, by a nursery; no class is needed."""
    names = ("slow", "never", "quick", "failing")
    supervisor = await start_agents(*(ChildSpec(name, Oracle) for name in names))
    refs = {n: address(supervisor, f"/{n}").with_timeout(60) for n in names}
    waits = {"slow": 2, "never": 30, "quick": 1, "failing": 0}
    requests: dict[str, Request[str]] = {
        name: ref.request(
            Oracle.answer, "why?" if name == "failing" else name, waits[name]
        )
        for name, ref in refs.items()
    }
    came: list[tuple[float, str, str]] = []

    async def read(label: str, request: Request[str]) -> None:
        try:
            answer = await request.result()
        except AgentCrashed as error:
            answer = error.fault.message
        came.append((trio.current_time(), label, answer))

    with trio.move_on_after(5):
        async with trio.open_nursery() as nursery:
            for label, request in requests.items():
                nursery.start_soon(read, label, request)
    assert came == [
        (0, "failing", "nobody knows"),
        (1, "quick", "quick 42"),
        (2, "slow", "slow 42"),
    ]
    # What did not come in time was not given up; and an answer is had once.
    assert await requests["never"].result() == "never 42"
    with pytest.raises(RuntimeError, match="read before"):
        await requests["never"].result()


async def test_a_call_costs_the_same_however_much_waits_at_the_caller(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-25: answers do not stand in the caller's line, and nobody looks for them."""
    supervisor = await start_agents(
        ChildSpec("busy", Busy), ChildSpec("oracle", Oracle)
    )
    busy, oracle = address(supervisor, "/busy"), address(supervisor, "/oracle")
    mailbox = busy.resolve().mailbox
    mailbox.items = line = Watched()
    answers = busy.request(Busy.ask, oracle, 100)
    for _ in range(900):
        busy.cast_nowait(Busy.nothing)
    assert await answers.result() == ["more? 42"] * 100
    await wait_all_tasks_blocked()
    assert (busy.statistics().handled, line.searches) == (901, 0)
    assert mailbox.items is line


async def test_who_is_asked_for_by_which_name(tmp_path: Path) -> None:
    """MSG-06, MSG-28: by path, by an id that is unique, by info, by ref; or nobody."""
    inner = SupervisorSpec([ChildSpec("twin", Oracle)])
    app = Application(
        "test",
        [
            ChildSpec("oracle", Oracle),
            ChildSpec("inner", inner),
            ChildSpec("twin", Oracle),
        ],
    )
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        ref = runtime.ref("/oracle", Oracle)
        assert ref == runtime.ref("oracle") == AgentRef(runtime.directory, "/oracle")
        infos = runtime.supervisor("inner").which_children()
        assert runtime.ref(infos[0], Oracle).path == "/inner/twin"
        with pytest.raises(NameAmbiguous, match=r"/inner/twin.*/twin"):
            runtime.ref("twin")
        nothing: Any = None
        for wrong in ("nobody", "/nobody", "inner", "", nothing):
            with pytest.raises(NameUnknown):
                runtime.ref(wrong)
        with pytest.raises(TypeError, match="/oracle is a Oracle, not a Busy"):
            runtime.ref("oracle", Busy)
        # A key is a name that an agent takes and leaves with its incarnation.
        registry = runtime.registry
        assert registry.whereis("pythia") is None
        life = runtime.directory.resolve("oracle").life
        assert life is not None
        registry.register("pythia", ref, owner=life)
        assert registry.whereis("pythia") == ref
        assert await registry.ref("pythia").call(Oracle.ping) == "pong"


async def test_two_agents_that_wait_for_each_other_are_both_named(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """MSG-33: whoever asked is in the text, beside whom it asked."""

    class Ring(Agent[None]):
        async def ask(self, ref: Any, back: Any) -> None:
            if back is not None:
                await ref.call(Ring.ask, back, None)
            else:
                await ref.call(Ring.nothing)

        async def nothing(self) -> None:
            pass

    supervisor = await start_agents(ChildSpec("a", Ring), ChildSpec("b", Ring))
    a, b = address(supervisor, "/a"), address(supervisor, "/b")
    with pytest.raises(CallTimeout) as caught:
        await a.with_timeout(60).call(Ring.ask, b, a)
    assert str(caught.value) == ("/b did not answer ask of /a within 5 s; doing: ask")
    assert trio.current_time() == 5


async def test_who_waits_in_vain_is_told_when_it_is_known(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """G12: no answer in time, nobody there, killed meanwhile, a stop of nobody."""
    spec = ChildSpec("oracle", Oracle, restart="temporary", shutdown=0)
    supervisor = await start_agents(spec)
    oracle = address(supervisor, "/oracle")
    with pytest.raises(CallTimeout):
        await oracle.with_timeout(1).call(Oracle.answer, "slow", 60)
    assert trio.current_time() == 1
    waiting = oracle.request(Oracle.ping)
    await supervisor.terminate_child("oracle")
    with pytest.raises(AgentDown):
        await waiting.result()
    for ask in (oracle.call(Oracle.ping), oracle.stop()):
        with pytest.raises(AgentDown):
            await ask
    assert trio.current_time() == 1


@pytest.mark.parametrize("loops", [50])
async def test_in_a_crash_loop_a_call_is_answered_or_refused_and_never_hangs(
    start_agents: StartAgents, address: Address, loops: int, autojump_clock: object
) -> None:
    """MSG-06, MSG-07, pitfalls 52, 53 and 59: between look-up and answer all may end."""
    supervisor = await start_agents(
        *(ChildSpec(f"o{n}", Oracle, restart="temporary") for n in range(loops))
    )
    outcomes: list[str] = []

    async def ask(ref: Any, question: str) -> None:
        try:
            await ref.with_timeout(1e9).call(Oracle.answer, question, 1)
            outcomes.append("answered")
        except (AgentCrashed, AgentDown, NameUnknown) as error:
            outcomes.append(type(error).__name__)

    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            for number in range(loops):
                ref = address(supervisor, f"/o{number}")
                for question in ("what?", "why?", "what?"):
                    nursery.start_soon(ask, ref, question)
    assert len(outcomes) == 3 * loops
    assert outcomes.count("AgentCrashed") == loops
    with pytest.raises((AgentDown, NameUnknown)):
        await address(supervisor, "/o0").with_timeout(1e9).call(Oracle.ping)
