"""Any history of an exchange, against what must hold of each message in it."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from treewarden import Backoff, CircuitPolicy, ExchangePolicy, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

POLICY = ExchangePolicy(
    capacity=4,
    total=6,
    max_attempts=3,
    backoff=Backoff(initial=1.0, maximum=2.0, jitter=0.0),
    circuit=CircuitPolicy(failure_threshold=2, reset_timeout=7.0),
    idle=20.0,
)
NAMES = ("a", "b")
STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from(NAMES)),
    st.tuples(st.just("send"), st.sampled_from(NAMES)),
    st.tuples(st.just("hand over"), st.sampled_from(NAMES)),
    st.tuples(st.just("hand over"), st.sampled_from(NAMES)),
    st.tuples(st.just("give up"), st.sampled_from(NAMES)),
    st.tuples(st.just("take"), st.sampled_from(NAMES)),
    st.tuples(st.just("crash"), st.sampled_from(NAMES)),
    st.tuples(st.just("hang"), st.sampled_from(NAMES)),
    st.tuples(st.just("refuse"), st.sampled_from(NAMES)),
    st.tuples(st.just("trip"), st.sampled_from(NAMES)),
    st.tuples(st.just("reset"), st.sampled_from(NAMES)),
    st.tuples(st.just("restart"), st.sampled_from(NAMES)),
    st.tuples(st.just("replace"), st.sampled_from(NAMES)),
    st.tuples(st.just("worker crashes"), st.sampled_from(NAMES)),
    st.tuples(st.just("exchange crashes"), st.just("")),
    st.tuples(st.just("wait"), st.sampled_from(["0.5", "3", "8", "30"])),
)


class Story:
    """What was sent in one history, and what each sender was told."""

    def __init__(self, hall: Any, nursery: trio.Nursery) -> None:
        self.hall = hall
        self.nursery = nursery
        self.refs: dict[str, Any] = {}
        self.told: dict[int, str] = {}
        self.sent: dict[str, list[int]] = {f"/{name}": [] for name in NAMES}
        self.scopes: dict[str, list[trio.CancelScope]] = {name: [] for name in NAMES}

    async def begin(self) -> None:
        for name, ref in zip(NAMES, await self.hall.start(*NAMES), strict=True):
            self.refs[name] = ref

    def next(self, name: str) -> int:
        number = sum(len(numbers) for numbers in self.sent.values())
        self.sent[f"/{name}"].append(number)
        return number

    async def send(self, name: str, number: int, scope: trio.CancelScope) -> None:
        self.told[number] = "cancelled"
        with scope:
            outcome = await self.hall.trial(self.refs[name], number)
            self.told[number] = getattr(outcome, "reason", type(outcome).__name__)
            if getattr(outcome, "begun", False):
                self.told[number] = "begun"

    async def step(self, what: str, name: str) -> None:
        hall, ref = self.hall, self.refs.get(name)
        match what:
            case "send":
                scope = trio.CancelScope()
                self.scopes[name].append(scope)
                self.nursery.start_soon(self.send, name, self.next(name), scope)
            case "hand over":
                number = self.next(name)
                try:
                    hall.exchange.send_nowait(ref, hall.box.take, number)
                    self.told[number] = "Buffered"
                except Exception as error:  # noqa: BLE001 - it is judged at the end
                    self.told[number] = type(error).__name__
            case "give up":
                for scope in self.scopes[name]:
                    scope.cancel()
                self.scopes[name].clear()
            case "take" | "crash" | "hang" | "refuse":
                hall.mode(ref, what)
            case "trip" | "reset":
                circuit = hall.exchange.circuit(ref)
                if circuit is not None:
                    getattr(circuit, what)()
            case "restart":
                await hall.root.bounce_child(name)
            case "replace":
                await hall.gone(name)
                await hall.start(name)
            case "worker crashes":
                for child in hall.root.supervisor("exchange").which_children():
                    if child.id.startswith(name + "."):
                        self.crash(child.path)
            case "exchange crashes":
                hall.directory.resolve("/exchange").body.crash(_fault("/exchange"))
            case "wait":
                await trio.sleep(float(name))
        await hall.settle()

    def crash(self, path: str) -> None:
        life = self.hall.directory.resolve(path).life
        if life is not None:
            life.fail(_fault(path))

    async def end(self) -> None:
        """All is well again, and everybody had the time to say so."""
        for name in NAMES:
            await self.step("take", name)
            await self.step("reset", name)
        await trio.sleep(60)


def _fault(path: str) -> Fault:
    return Fault(type="Injected", message="on purpose", path=path)


async def live(open_hall: Callable[..., Any], steps: list[tuple[str, str]]) -> None:
    async with open_hall(POLICY) as hall, trio.open_nursery() as nursery:
        story = Story(hall, nursery)
        await story.begin()
        for what, name in steps:
            await story.step(what, name)
            check(hall.exchange.statistics())
        await story.end()
        judge(story)


def check(seen: Any) -> None:
    assert seen.pending <= seen.total
    assert seen.pending == sum(line.pending for line in seen.lines)
    assert all(line.pending <= seen.capacity for line in seen.lines)
    over = seen.delivered + seen.failed + seen.dropped + seen.withdrawn
    assert seen.accepted == over + seen.pending


def judge(story: Story) -> None:
    """The reference: each message has one fate, in order, and its sender was not told wrong."""
    hall, told = story.hall, story.told
    for path, sent in story.sent.items():
        begun, log = hall.began[path], hall.log[path]
        # Each at most once, and in the order of sending. A handler that an operator's
        # restart cut off begins again: nothing of the first time happened.
        assert begun == sorted(begun)
        assert log == sorted(set(log))
        for number in sent:
            match told[number]:
                case "Delivered":
                    assert number in log
                case "LineFull" | "NotRunning" | "delivery_timeout":
                    assert number not in log
                case _:
                    pass  # it went with its receiver, or nobody waited: it may have been
    # What was accepted for later was delivered or is a dead letter: none just vanished.
    seen, fates = hall.exchange.statistics(), Counter(told.values())
    assert seen.pending == 0
    at_last = seen.delivered - fates["Delivered"]
    lost = len(hall.dead_letters)
    assert fates["Buffered"] - at_last <= lost <= fates["Buffered"] + fates["cancelled"]


@settings(
    max_examples=max(500, settings().max_examples),
    # The fixture is a function that knows nothing of the last history.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEPS, min_size=5, max_size=15), seed=st.integers(0, 1 << 32))
def test_no_history_loses_repeats_or_reorders_a_message(
    open_hall: Callable[..., Any], steps: list[tuple[str, str]], seed: int
) -> None:
    trio._core._run._r.seed(seed)
    trio.run(partial(live, open_hall, steps), clock=MockClock(autojump_threshold=0))
