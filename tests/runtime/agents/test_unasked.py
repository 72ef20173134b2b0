"""What comes to an agent unasked: notices, events, timers; and names it does not know."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentCrashed,
    Application,
    ChildSpec,
    Config,
    Down,
    Event,
    MailboxPolicy,
    Refused,
    Shutdown,
    UnknownOperation,
    open_runtime,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import StartAgents

    Address = Callable[..., Any]


class Notes(msgspec.Struct):
    seen: list[str] = []


class Clerk(Agent[Notes]):
    """`then` is what it does about whatever comes unasked."""

    persistence = "none"

    def __init__(self, then: str = "") -> None:
        self.then = then
        self.timer: Any = None

    async def note(self, word: str) -> None:
        self.state.seen.append(word)

    def note_now(self, word: str) -> None:
        self.state.seen.append(word)

    async def seen(self) -> list[str]:
        return self.state.seen

    async def watch(self, whom: Any) -> None:
        self.monitor(whom)

    async def listen(self, pattern: str) -> None:
        self.subscribe(pattern)

    async def hang(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def fail(self) -> None:
        raise ValueError("on purpose")

    async def hang_and_fail(self, seconds: float) -> None:
        await trio.sleep(seconds)
        raise ValueError("on purpose")

    async def later(self, seconds: float, word: str) -> None:
        self.timer = self.send_after(seconds, Clerk.note, word)

    async def idle(self, seconds: float, word: str) -> None:
        self.timer = self.when_idle(seconds, Clerk.note, word)

    async def idle_and_refuse(self, seconds: float) -> None:
        self.when_idle(seconds, Clerk.note, "refused")
        raise Refused("no")

    async def idle_or_at_once(self) -> None:
        self.when_idle(0, Clerk.note, "idle")
        self.continue_with(Clerk.note, "at once")

    async def call_off(self) -> None:
        self.timer.cancel()

    async def by_name(self, how: str) -> None:
        if how == "continue":
            self.treewarden_body.stage().continue_with("nonsense", (), {})
        elif how == "timer":
            self.treewarden_body.tied.send_after(1, "nonsense", (), {})
        else:
            self.treewarden_body.stage().cast(self.ref, "nonsense", (), {})

    async def on_down(self, down: Down) -> None:
        self.react(f"down {down.path}")

    async def on_event(self, event: Event) -> None:
        self.react(event.topic)

    def react(self, what: str) -> None:
        self.state.seen.append(what)
        if self.then == "continue":
            self.continue_with(Clerk.note, "continued")
        elif self.then == "timer":
            self.send_after(5, Clerk.note, "timer")
        elif self.then == "stop":
            self.stop(Shutdown("enough"))


class FromStart(Clerk):
    async def on_start(self) -> None:
        # An absolute time: what is left until then.
        at = trio.current_time() + 5
        self.when_idle(at - trio.current_time(), Clerk.note, "idle")


class FromContinue(Clerk):
    async def on_start(self) -> None:
        self.continue_with(Clerk.idle, 5, "idle")


class Tight(Clerk):
    mailbox = MailboxPolicy(capacity=1)


class Deaf(Agent[None]):
    """It asks to be told, and has nothing to hear it with."""

    def __init__(self) -> None:
        self.told = 0

    async def watch(self, whom: Any) -> None:
        self.monitor(whom)

    async def listen(self, pattern: str) -> None:
        self.subscribe(pattern)

    def ping(self) -> str:
        return "pong"


@pytest.fixture
async def clerk(start_agents: StartAgents, address: Address) -> Any:
    return address(await start_agents(ChildSpec("clerk", Clerk)), "/clerk")


@pytest.mark.parametrize(
    ("then", "seen"), [("continue", ["continued"]), ("timer", ["timer"]), ("stop", [])]
)
async def test_a_notice_is_a_message_like_any_other(
    start_agents: StartAgents,
    address: Address,
    then: str,
    seen: list[str],
    autojump_clock: object,
) -> None:
    """MSG-17: its handler may continue, set a timer, stop."""
    supervisor = await start_agents(
        ChildSpec("clerk", Clerk, args=(then,), restart="transient"),
        ChildSpec("other", Clerk),
    )
    clerk = address(supervisor, "/clerk")
    await clerk.call(Clerk.watch, address(supervisor, "/other"))
    await address(supervisor, "/other").stop()
    await trio.sleep(10)
    if then == "stop":
        assert supervisor.which_children()[0].last_exit == Shutdown("enough")
    else:
        assert await clerk.call(Clerk.seen) == ["down /other", *seen]


@pytest.mark.parametrize(
    ("then", "seen"), [("continue", ["continued"]), ("stop", []), ("", [])]
)
async def test_an_event_is_a_message_like_any_other(
    tmp_path: Path, then: str, seen: list[str]
) -> None:
    """MSG-17"""
    app = Application(
        "test", [ChildSpec("clerk", Clerk, args=(then,), restart="transient")]
    )
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        clerk = runtime.ref("clerk", Clerk)
        await clerk.call(Clerk.listen, "news.>")
        await runtime.bus.publish("news.today", None)
        if then == "stop":
            with trio.fail_after(30), clerk.monitor() as monitor:
                assert (await monitor.wait_down()).exit in (Shutdown("enough"), None)
        else:
            assert await clerk.call(Clerk.seen) == ["news.today", *seen]


async def test_a_notice_that_nobody_hears_is_logged_and_harms_nobody(
    start_agents: StartAgents,
    address: Address,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: object,
) -> None:
    """MSG-18"""
    supervisor = await start_agents(ChildSpec("deaf", Deaf), ChildSpec("other", Clerk))
    deaf = address(supervisor, "/deaf")
    await deaf.call(Deaf.watch, address(supervisor, "/other"))
    await address(supervisor, "/other").stop()
    assert await deaf.call(Deaf.ping) == "pong"
    assert deaf.incarnation == 1
    (record,) = [one for one in caplog.records if one.name == "treewarden.agent"]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "/deaf heard that /other is down and has no on_down"


async def test_an_event_that_nobody_hears_is_logged_and_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """MSG-18"""
    app = Application("test", [ChildSpec("deaf", Deaf)])
    config = Config(store=tmp_path / "test.db", socket=False)
    async with open_runtime(app, config=config) as runtime:
        deaf = runtime.ref("deaf", Deaf)
        await deaf.call(Deaf.listen, "news.>")
        await runtime.bus.publish("news.today", None)
        assert await deaf.call(Deaf.ping) == "pong"
        (record,) = [one for one in caplog.records if one.name == "treewarden.agent"]
        assert record.getMessage() == "/deaf heard of news.today and has no on_event"


async def test_who_asks_for_what_there_is_not_is_told_and_harms_nobody(
    clerk: Any, autojump_clock: object
) -> None:
    """MSG-19: the mistake is the sender's, who is told the name; OTP crashes the server."""
    with pytest.raises(UnknownOperation, match="no operation 'nonsense'"):
        await clerk.send_call("nonsense", (), {})
    for ask in (clerk.cast, clerk.call):
        with pytest.raises(UnknownOperation, match="no operation 'nonsense'"):
            await ask("nonsense")
    for ask in (clerk.cast_nowait, clerk.request):
        with pytest.raises(UnknownOperation, match="no operation 'nonsense'"):
            ask("nonsense")
    for how in ("continue", "timer", "cast"):
        with pytest.raises(UnknownOperation, match="no operation 'nonsense'"):
            await clerk.call(Clerk.by_name, how)
    assert clerk.incarnation == 1


# --- timers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [Clerk.note, Clerk.note_now])
async def test_a_message_calls_off_what_waits_for_silence(
    clerk: Any, operation: Any, autojump_clock: object
) -> None:
    """MSG-22"""
    await clerk.call(Clerk.idle, 5, "idle")
    await trio.sleep(4)
    await clerk.call(operation, "word")
    await trio.sleep(10)
    assert await clerk.call(Clerk.seen) == ["word"]


@pytest.mark.parametrize("kind", [FromStart, FromContinue])
@pytest.mark.parametrize("disturbed", [True, False])
async def test_an_agent_may_wait_for_silence_from_its_start(
    start_agents: StartAgents,
    address: Address,
    kind: type[Clerk],
    disturbed: bool,
    autojump_clock: object,
) -> None:
    """INI-11: directly, or through what it continues with."""
    ref = address(await start_agents(ChildSpec("clerk", kind)), "/clerk")
    await trio.sleep(2)
    if disturbed:
        await ref.call(Clerk.note, "word")
    await trio.sleep(10)
    assert await ref.call(Clerk.seen) == (["word"] if disturbed else ["idle"])


async def test_silence_is_told_of_once(clerk: Any, autojump_clock: object) -> None:
    """MSG-22"""
    await clerk.call(Clerk.idle, 5, "idle")
    await trio.sleep(4.9)
    assert clerk.statistics().handled == 1
    await trio.sleep(20)
    assert await clerk.call(Clerk.seen) == ["idle"]


async def test_a_look_from_outside_breaks_no_silence(
    clerk: Any, autojump_clock: object
) -> None:
    """MSG-22: nor does a new state."""
    await clerk.call(Clerk.idle, 5, "idle")
    await trio.sleep(3)
    clerk.inspect()
    clerk.suspend()
    await clerk.replace_state(Notes(seen=["mended"]))
    clerk.resume()
    await trio.sleep(3)
    assert await clerk.call(Clerk.seen) == ["mended", "idle"]


async def test_a_message_that_waits_is_no_silence(
    clerk: Any, autojump_clock: object
) -> None:
    """MSG-22"""
    await clerk.call(Clerk.idle, 5, "idle")
    clerk.suspend()
    await clerk.cast(Clerk.note, "word")
    await trio.sleep(10)
    clerk.resume()
    await trio.sleep(10)
    assert await clerk.call(Clerk.seen) == ["word"]


async def test_asking_again_for_silence_forgets_the_first_wish(
    clerk: Any, autojump_clock: object
) -> None:
    """MSG-22"""
    for seconds in (3, 5):
        await clerk.call(Clerk.idle, seconds, f"after {seconds}")
    await trio.sleep(20)
    assert await clerk.call(Clerk.seen) == ["after 5"]
    await clerk.call(Clerk.idle, 5, "never")
    with pytest.raises(Refused):
        await clerk.call(Clerk.idle_and_refuse, 1)
    await trio.sleep(20)
    assert await clerk.call(Clerk.seen) == ["after 5"]


async def test_at_once_comes_before_what_waits_and_no_silence_does(
    clerk: Any, autojump_clock: object
) -> None:
    """MSG-22: OTP's timeout 0 as an action is `continue_with`."""
    clerk.request(Clerk.idle_or_at_once)
    clerk.request(Clerk.note, "waited")
    await trio.sleep(1)
    assert await clerk.call(Clerk.seen) == ["at once", "waited"]


async def test_a_timer_says_how_long_it_still_is(
    clerk: Any, autojump_clock: object
) -> None:
    """MON-14"""
    await clerk.call(Clerk.later, 5, "called off")
    timer = clerk.resolve().agent.timer
    assert timer.remaining == 5
    await trio.sleep(2)
    assert timer.remaining == 3
    await clerk.call(Clerk.call_off)
    assert timer.remaining is None
    await clerk.call(Clerk.later, 5, "fired")
    timer = clerk.resolve().agent.timer
    await trio.sleep(10)
    assert timer.remaining is None
    await clerk.call(Clerk.call_off)
    assert await clerk.call(Clerk.seen) == ["fired"]


async def test_a_timer_may_be_for_never(clerk: Any, autojump_clock: object) -> None:
    """MON-14"""
    await clerk.call(Clerk.later, math.inf, "never")
    assert clerk.resolve().agent.timer.remaining == math.inf
    await trio.sleep(86_400)
    assert await clerk.call(Clerk.seen) == []


@pytest.mark.parametrize("before", [True, False])
async def test_a_timer_goes_with_its_incarnation(
    clerk: Any, before: bool, autojump_clock: object
) -> None:
    """MON-14: also when it was due already and waited for its turn."""
    await clerk.call(Clerk.later, 1, "stale")
    failing = clerk.request(Clerk.hang_and_fail, 0.5 if before else 2)
    with pytest.raises(AgentCrashed):
        await failing.result()
    await trio.sleep(5)
    assert await clerk.call(Clerk.seen) == []
    assert clerk.incarnation == 2


async def test_who_waits_for_room_moves_up_when_a_notice_is_taken_back(
    start_agents: StartAgents, address: Address, autojump_clock: object
) -> None:
    """A stale timer made the mailbox full: its going strands nobody behind it."""
    clerk = address(await start_agents(ChildSpec("clerk", Tight)), "/clerk")
    await clerk.call(Clerk.later, 1, "stale")
    failing = clerk.request(Clerk.hang_and_fail, 2)
    await trio.sleep(1.5)
    with trio.fail_after(100):
        await _send_two_and_crash(clerk, failing)
    assert await clerk.call(Clerk.seen) == ["one", "two"]


async def _send_two_and_crash(clerk: Any, failing: Any) -> None:
    async with trio.open_nursery() as nursery:
        for word in ("one", "two"):
            nursery.start_soon(clerk.cast, Clerk.note, word)
            await wait_all_tasks_blocked()
        assert clerk.statistics().waiting_senders == 2
        with pytest.raises(AgentCrashed):
            await failing.result()
