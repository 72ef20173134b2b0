from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentDown,
    AgentRef,
    ChildSpec,
    Intensity,
    NoSuitableAgent,
    Refused,
    Registry,
    TaskDistributor,
    UnknownOperation,
    open_supervisor,
)
from treewarden.coordination import Choice
from treewarden.coordination.distributor import Loads
from treewarden.supervision import current_life


class Shop:
    """Workers that register what they can do, and a record of who did what."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.registry: Registry[AgentRef[Any]] = Registry()
        self.done: list[tuple[str, int]] = []
        self.modes: dict[str, str] = defaultdict(str)
        self.opened = trio.Event()
        self.notes: list[tuple[str, str]] = []

    async def hire(self, **workers: str) -> list[AgentRef[Worker]]:
        for name, skills in workers.items():
            args = (self, frozenset(skills.split()))
            await self.root.start_child(
                ChildSpec(
                    name, Worker, args=args, shutdown=0, intensity=Intensity(99, 5.0)
                )
            )
        return [AgentRef(self.root.directory, f"/{name}") for name in workers]

    def distributor(self, **options: Any) -> TaskDistributor:
        return TaskDistributor(
            self.registry,
            tell=lambda note: self.notes.append((note.kind, note.agent)),
            **options,
        )


class Worker(Agent[None]):
    persistence = "none"

    def __init__(self, shop: Shop, skills: frozenset[str]) -> None:
        self.shop = shop
        self.skills = skills

    async def on_start(self) -> None:
        life = current_life.get()
        assert life is not None
        self.shop.registry.register(
            self.path, self.ref, owner=life, attributes={"capabilities": self.skills}
        )

    async def work(self, number: int) -> str:
        mode = self.shop.modes[self.path]
        if mode == "crash":
            raise ValueError(number)
        if mode == "refuse":
            raise Refused("not that one")
        if mode == "other is down":
            raise AgentDown("/other", "it is gone")
        if mode == "hold":
            await self.shop.opened.wait()
        self.shop.done.append((self.path, number))
        return f"{self.path} did {number}"


@pytest.fixture
async def shop() -> Any:
    async with open_supervisor(intensity=Intensity(1000, 5.0)) as root:
        yield Shop(root)


def at_rest(distributor: TaskDistributor) -> bool:
    seen = distributor.statistics()
    over = seen.done + seen.failed + seen.rejected
    return (seen.waiting, seen.under_way, seen.loads, seen.submitted) == (
        0,
        0,
        {},
        over,
    )


# --- the rules -------------------------------------------------------------------------------


@given(
    st.sampled_from(list(Choice)),
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40),
)
def test_loads_choose_as_a_list_would(
    choice: Choice, steps: list[tuple[str, bool]]
) -> None:
    loads = Loads(choice, 2)
    under_way: list[str] = []
    turns: list[str] = []
    for name, give in steps:
        if give and under_way.count(name) < 2:
            loads.take(name)
            under_way.append(name)
            turns.append(name)
        elif name in under_way:
            loads.free(name)
            under_way.remove(name)
        last = {
            one: max((n for n, o in enumerate(turns) if o == one), default=-1)
            for one in "abc"
        }
        free = [one for one in "abc" if under_way.count(one) < 2]
        if choice is Choice.ROUND_ROBIN:
            expected = min(free, key=lambda one: last[one], default=None)
        else:
            expected = min(
                free, key=lambda one: (under_way.count(one), last[one]), default=None
            )
        assert loads.choose("abc") == expected
        assert loads.loads() == {one: under_way.count(one) for one in set(under_way)}


# --- with agents --------------------------------------------------------------------------------


async def test_a_task_goes_to_somebody_who_can_do_it(shop: Any) -> None:
    await shop.hire(a="render", b="render gpu", c="gpu fetch")
    with shop.distributor() as distributor:
        for number in range(3):
            answer = await distributor.submit({"render", "gpu"}, Worker.work, number)
            assert answer == f"/b did {number}"
        assert await distributor.submit(["fetch"], Worker.work, 3) == "/c did 3"
        with pytest.raises(NoSuitableAgent) as nobody:
            await distributor.submit({"render", "fetch"}, Worker.work, 4)
        assert (nobody.value.reason, nobody.value.tried) == ("no_suitable_agent", ())
        with pytest.raises(UnknownOperation):
            await distributor.submit({"gpu"}, Shop.hire)
        assert at_rest(distributor)


async def test_the_least_loaded_is_chosen_and_then_the_longest_idle(shop: Any) -> None:
    await shop.hire(a="x", b="x", c="x")
    with shop.distributor() as distributor:
        for number in range(6):
            await distributor.submit({"x"}, Worker.work, number)
        assert [path for path, _ in shop.done] == ["/a", "/b", "/c"] * 2
        shop.modes["/a"] = "hold"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(distributor.submit, {"x"}, Worker.work, 6)
            await wait_all_tasks_blocked()
            for number in range(7, 11):
                await distributor.submit({"x"}, Worker.work, number)
            shop.opened.set()
        assert [path for path, _ in shop.done[6:]] == ["/b", "/c"] * 2 + ["/a"]
        assert at_rest(distributor)


async def test_round_robin_takes_turns_whatever_the_load(shop: Any) -> None:
    await shop.hire(a="x", b="x")
    with shop.distributor(choice="round_robin") as distributor:
        shop.modes["/a"] = "hold"
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(distributor.submit, {"x"}, Worker.work, number)
                await wait_all_tasks_blocked()
            assert distributor.statistics().loads == {"/a": 2}
            shop.opened.set()
    with pytest.raises(ValueError, match="random"):
        shop.distributor(choice="random")


async def test_who_crashed_over_it_is_passed_over(shop: Any) -> None:
    await shop.hire(a="x", b="x", c="x")
    shop.modes.update({"/a": "crash", "/b": "crash"})
    with shop.distributor() as distributor:
        assert await distributor.submit({"x"}, Worker.work, 1) == "/c did 1"
        assert shop.notes == [
            ("assigned", "/a"),
            ("reassigned", "/b"),
            ("reassigned", "/c"),
        ]
        shop.modes["/c"] = "crash"
        with pytest.raises(NoSuitableAgent) as failed:
            await distributor.submit({"x"}, Worker.work, 2)
        assert failed.value.reason == "all_failed"
        assert sorted(failed.value.tried) == ["/a", "/b", "/c"]
        assert at_rest(distributor)


async def test_who_is_gone_is_not_asked_and_what_it_held_goes_to_another(
    shop: Any,
) -> None:
    await shop.hire(a="x", b="x")
    shop.modes["/a"] = "hold"
    answers: list[str] = []
    with shop.distributor() as distributor:
        async with trio.open_nursery() as nursery:

            async def submit() -> None:
                answers.append(await distributor.submit({"x"}, Worker.work, 1))

            nursery.start_soon(submit)
            await wait_all_tasks_blocked()
            await shop.root.terminate_child("a")
        assert answers == ["/b did 1"]
        assert await distributor.submit({"x"}, Worker.work, 2) == "/b did 2"
        assert at_rest(distributor)


@pytest.mark.parametrize(
    ("mode", "kind"), [("refuse", Refused), ("other is down", AgentDown)]
)
async def test_an_agents_own_answer_is_the_answer(
    shop: Any, mode: str, kind: type[Exception]
) -> None:
    await shop.hire(a="x", b="x")
    shop.modes["/a"] = mode
    with shop.distributor() as distributor:
        with pytest.raises(kind):
            await distributor.submit({"x"}, Worker.work, 1)
        assert shop.done == []
        assert at_rest(distributor)


async def test_tasks_wait_in_one_line_for_whoever_is_free_and_can(shop: Any) -> None:
    await shop.hire(a="x", b="y")
    shop.modes.update({"/a": "hold", "/b": "hold"})
    with shop.distributor(limit=1, queue=3) as distributor:
        async with trio.open_nursery() as nursery:
            for number, skill in enumerate(["x", "y", "x", "y", "x"]):
                nursery.start_soon(distributor.submit, {skill}, Worker.work, number)
                await wait_all_tasks_blocked()
            assert distributor.statistics().waiting == 3
            with pytest.raises(NoSuitableAgent) as full:
                await distributor.submit({"x"}, Worker.work, 9)
            assert full.value.reason == "overloaded"
            assert shop.notes[-1] == ("rejected", "")
            shop.opened.set()
        by = {path: [n for p, n in shop.done if p == path] for path in ("/a", "/b")}
        assert by == {"/a": [0, 2, 4], "/b": [1, 3]}
        assert at_rest(distributor)


async def test_a_new_agent_gets_what_waits(shop: Any) -> None:
    await shop.hire(a="x")
    shop.modes["/a"] = "hold"
    with shop.distributor(limit=1) as distributor:
        async with trio.open_nursery() as nursery:
            for number in range(2):
                nursery.start_soon(distributor.submit, {"x"}, Worker.work, number)
                await wait_all_tasks_blocked()
            await shop.hire(c="y")
            await wait_all_tasks_blocked()
            assert shop.done == []
            await shop.hire(b="x")
            await wait_all_tasks_blocked()
            assert shop.done == [("/b", 1)]
            shop.opened.set()
    assert at_rest(distributor)


async def test_a_task_that_somebody_began_is_never_given_to_another(shop: Any) -> None:
    await shop.hire(a="x", b="x")
    shop.modes["/a"] = "hold"
    with shop.distributor(timeout=10.0) as distributor:
        begun = trio.current_time()
        with pytest.raises(NoSuitableAgent) as late:
            await distributor.submit({"x"}, Worker.work, 1)
        assert trio.current_time() - begun == pytest.approx(10.0)
        assert (late.value.reason, late.value.begun) == ("timeout", True)
        shop.opened.set()
        await wait_all_tasks_blocked()
        assert shop.done == [("/a", 1)]
        assert at_rest(distributor)


async def test_waiting_counts_too_and_what_waited_in_vain_is_not_done(
    shop: Any,
) -> None:
    await shop.hire(a="x")
    shop.modes["/a"] = "hold"
    with shop.distributor(limit=1, timeout=10.0) as distributor:
        async with trio.open_nursery() as nursery:

            async def held() -> None:
                with pytest.raises(NoSuitableAgent):
                    await distributor.submit({"x"}, Worker.work, 1)

            nursery.start_soon(held)
            await wait_all_tasks_blocked()
            with trio.move_on_after(1.0):
                await distributor.submit({"x"}, Worker.work, 2)
            with pytest.raises(NoSuitableAgent) as late:
                await distributor.submit({"x"}, Worker.work, 3)
            assert (late.value.reason, late.value.begun) == ("timeout", False)
            shop.opened.set()
        await wait_all_tasks_blocked()
        assert shop.done == [("/a", 1)]
        assert at_rest(distributor)


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"queue": -1}, {"retries": -1}, {"timeout": 0}]
)
def test_a_number_that_is_no_bound_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be >"):
        TaskDistributor(Registry(), **wrong)


async def test_what_waits_for_others_costs_a_task_that_is_done_next_to_nothing(
    shop: Shop,
) -> None:
    """A thousand may wait; to ask the registry for each of them held the loop for 10 ms."""
    shop.modes["/held"] = "hold"
    await shop.hire(held="x", free="y")
    with shop.distributor(limit=1) as tasks:
        async with trio.open_nursery() as nursery:
            for number in range(201):
                nursery.start_soon(tasks.submit, {"x"}, Worker.work, number)
            await wait_all_tasks_blocked()
            assert tasks.statistics().waiting == 200
            before = shop.registry.statistics().queries
            assert await tasks.submit({"y"}, Worker.work, 1) == "/free did 1"
            assert shop.registry.statistics().queries - before <= 3
            shop.opened.set()
        assert len(shop.done) == 202
        assert at_rest(tasks)
