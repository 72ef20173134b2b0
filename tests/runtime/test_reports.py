"""What a runtime makes of its reports: the journal, the log, records for a collector."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from treewarden import (
    Agent,
    AgentCrashed,
    Application,
    ChildSpec,
    Config,
    open_runtime,
)
from treewarden.exits import Shutdown
from treewarden.telemetry import Severity
from treewarden.testing import wait_restarted

if TYPE_CHECKING:
    from pathlib import Path

    from treewarden import Runtime
    from treewarden.telemetry import LogRecord

LOGGER = "treewarden.supervision"


class Account(msgspec.Struct):
    owner: str = "Ada"
    cents: int = 7


class Teller(Agent[Account]):
    @classmethod
    def redact(cls, state: Account) -> object:
        return {"owner": "***", "cents": state.cents}

    @classmethod
    def redact_message(cls, operation: str, arguments: dict[str, object]) -> object:
        return {**arguments, "card": "***"}

    async def take(self, cents: int) -> None:
        self.state.cents += cents

    async def pay(self, cents: int, card: str) -> None:
        self.label = "counter 3"
        raise ValueError(f"cannot pay {cents}")

    async def send(self, other: str) -> None:
        self.cast(self.runtime.ref(other, Teller), Teller.pay, 2, card="1234")


def config(tmp_path: Path) -> Config:
    return Config(store=tmp_path / "test.db", socket=False)


async def crash(runtime: Runtime, restarts: int = 1) -> None:
    teller = runtime.ref("teller", Teller)
    with pytest.raises(AgentCrashed):
        await teller.call(Teller.pay, 5, card="1234")
    with trio.fail_after(30):
        while runtime.tree()["/teller"].restarts < restarts:  # noqa: ASYNC110 - a state
            await trio.sleep(0.001)


TELLER = Application("test", [ChildSpec("teller", Teller)])


async def test_an_agents_crash_is_logged_with_its_redacted_message_and_state(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """LOG-03, MON-15, MSG-11, SYS-07, pitfall 74"""
    caplog.set_level(logging.DEBUG, LOGGER)
    async with open_runtime(TELLER, config=config(tmp_path)) as runtime:
        await runtime.ref("teller", Teller).call(Teller.take, 3)
        await crash(runtime)
    [record] = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert record.getMessage() == (
        "agent /teller (counter 3) crashed: ValueError: cannot pay 5, handling pay"
    )
    shown = vars(record)
    assert shown["operation"] == "pay"
    assert msgspec.json.decode(shown["arguments"]) == {"cents": 5, "card": "***"}
    assert msgspec.json.decode(shown["state"]) == {"owner": "***", "cents": 10}
    assert (shown["sender"], shown["label"]) == ("outside the tree", "counter 3")
    assert shown["start"] == f"{__name__}.Teller"
    assert "1234" not in f"{shown}"
    assert "Ada" not in f"{shown}"


async def test_the_agent_that_sent_the_message_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """LOG-03"""
    app = Application("test", [ChildSpec("a", Teller), ChildSpec("b", Teller)])
    async with open_runtime(app, config=config(tmp_path)) as runtime:
        await runtime.ref("a", Teller).call(Teller.send, "b")
        with trio.fail_after(30):
            while runtime.tree()["/b"].restarts < 1:  # noqa: ASYNC110 - it is a state
                await trio.sleep(0.001)
    [record] = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert (vars(record)["path"], vars(record)["sender"]) == ("/b", "/a")


async def test_the_journal_says_what_was_in_hand_and_how_much_of_the_budget_is_spent(
    tmp_path: Path,
) -> None:
    """LOG-02, LOG-03"""
    async with open_runtime(TELLER, config=config(tmp_path)) as runtime:
        await crash(runtime)
        await runtime.store.settled()
        found: dict[str, dict[str, Any]] = {}
        with trio.fail_after(30):
            while "supervision.restarted" not in found:
                await trio.sleep(0.01)
                entries = await runtime.store.entries(since=0, limit=1_000)
                found = {
                    one.topic: msgspec.json.decode(one.payload)
                    for one in entries
                    if one.source == "/teller"
                }
    ended, again = found["supervision.exited"], found["supervision.restarted"]
    assert (ended["operation"], ended["sender"]) == ("pay", "")
    assert ended["exit"] == "crashed: ValueError: cannot pay 5"
    assert ended["budget"] == {"spent": 0, "limit": 3, "period": 5.0}
    assert again["budget"] == {"spent": 1, "limit": 3, "period": 5.0}
    assert "operation" not in found["supervision.started"]


async def test_a_child_is_followed_through_all_its_incarnations(tmp_path: Path) -> None:
    """MON-07: a monitor is of one of them; this is what tells of all."""
    told: list[tuple[str, object]] = []
    async with open_runtime(TELLER, config=config(tmp_path)) as runtime:
        with runtime.ref("teller", Teller).monitor() as monitor:
            reports = runtime.bus.reports("supervision.*")
            await crash(runtime)
            await crash(runtime, restarts=2)
            with trio.fail_after(30):
                async for report in reports:
                    if report.source == "/teller":
                        assert isinstance(report.payload, dict)
                        told.append((report.topic, report.payload["incarnation"]))
                    if told and told[-1] == ("supervision.restarted", 3):
                        break
            assert (await monitor.wait_down()).incarnation == 1
    assert told[-4:] == [
        ("supervision.exited", 1),
        ("supervision.restarted", 2),
        ("supervision.exited", 2),
        ("supervision.restarted", 3),
    ]


async def test_a_collectors_records_are_written_when_they_are_taken_not_before(
    tmp_path: Path,
) -> None:
    """LOG-07"""
    async with open_runtime(TELLER, config=config(tmp_path)) as runtime:
        logs = runtime.telemetry.logs
        logs.enabled = True
        await crash(runtime)
        taken = logs.take(100)
        assert all(callable(one) for one in taken)
        written: list[LogRecord] = [*logs.written(taken)]
    crashed, restarted = (one for one in written if "/teller" in one.body)
    assert (crashed.severity, restarted.severity) == (Severity.ERROR, Severity.DEBUG)
    assert crashed.event == "supervision.exited"
    assert crashed.attributes["exception.type"] == "ValueError"
    assert crashed.attributes["treewarden.operation"] == "pay"
    assert crashed.context is None or not crashed.context.span_id
    assert not [name for name in restarted.attributes if "exception" in name]


async def test_a_crash_between_messages_has_none_in_hand(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """LOG-03"""
    app = Application("test", [ChildSpec("teller", Teller)])
    async with open_runtime(app, config=config(tmp_path)) as runtime:
        await crash(runtime)
        runtime.injections.crash("/teller", by="test")
        with trio.fail_after(30):
            while runtime.tree()["/teller"].restarts < 2:  # noqa: ASYNC110 - a state
                await trio.sleep(0.001)
    first, second = (one for one in caplog.records if one.levelno >= logging.ERROR)
    assert vars(first)["operation"] == "pay"
    assert "operation" not in vars(second)
    assert "handling" not in second.getMessage()


class Stray(Agent[None]):
    """Says, in every place where it can, what cannot be written as UTF-8."""

    def rename(self) -> None:
        self.label = "\udcff"

    def leave(self) -> None:
        self.stop(Shutdown("\udcff"))

    def fail(self) -> None:
        exec(compile("raise KeyError('\\udcff')", "/srv/\udcff.py", "exec"), {})  # noqa: S102


async def test_words_that_no_file_takes_end_nobody(tmp_path: Path) -> None:
    """Pitfall 76: a report rides in a commit, and what fails there fails in trio itself."""
    app = Application("test", [ChildSpec("a", Stray)])
    async with open_runtime(app, config=config(tmp_path)) as runtime:
        stray = runtime.ref("a", Stray)
        await stray.call(Stray.rename)
        await stray.call(Stray.leave)
        await wait_restarted(stray, 2)
        with pytest.raises(AgentCrashed):
            await stray.call(Stray.fail)
        await wait_restarted(stray, 3)
        pool = await runtime.pools.pool("p")
        failed = pool.start(trio.sleep, "\udcff", name="\udcff")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await failed.result()
        await runtime.store.settled()
        assert runtime.tree()["/a"].label == "\\udcff"
        assert msgspec.json.encode(runtime.tree()["/a"])
    async with open_runtime(app, config=config(tmp_path)) as runtime:
        await runtime.ref("a", Stray).call(Stray.rename)
