"""Circuits in a runtime: who hears of them, and what outlives the process."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import msgspec
import pytest
import trio

import treewarden.control.protocol as wire
from treewarden import (
    Agent,
    Application,
    ChildSpec,
    CircuitOpen,
    CircuitPolicy,
    Config,
    StoreError,
    open_runtime,
)
from treewarden.cli import showing
from treewarden.clock import wall_ns
from treewarden.control import Client
from treewarden.resilience import (
    CircuitState,
    Policies,
    Policy,
    Retry,
    circuit_kept,
    policies,
)
from treewarden.store import keep_policy_state
from treewarden.testing import wait_restarted, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from treewarden import Runtime

KEPT = CircuitPolicy(failure_threshold=1, reset_timeout=3600.0, persist=True)


OBSERVER = Client(name="cli", operator="", uid=0, pid=0, rights=wire.Rights.RO)


class Nothing(msgspec.Struct):
    pass


class Caller(Agent[Nothing]):
    async def call(self) -> None:
        circuit = self.runtime.circuits.circuit("site", KEPT)
        await circuit.call(refuse)


async def refuse() -> NoReturn:
    raise ConnectionRefusedError("nobody listens")


def config(tmp_path: Path, **options: Any) -> Config:
    return Config(store=tmp_path / "test.db", socket=False, **options)


def app() -> Application:
    return Application("app", [ChildSpec("caller", Caller)])


async def open_site(runtime: Runtime) -> None:
    circuit = runtime.circuits.circuit("site", KEPT)
    with pytest.raises(ConnectionRefusedError):
        await circuit.call(refuse)
    await runtime.store.settled()


def rows(tmp_path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
        return connection.execute("SELECT kind, name FROM policy_state").fetchall()


def is_again(runtime: Runtime, path: str) -> bool:
    node = runtime.directory.find(path)
    return node is not None and node.incarnation == 2 and node.state == "running"


async def reported(runtime: Runtime, topic: str) -> object:
    """The only report of a topic, once it is in the journal."""
    with trio.fail_after(30):
        while not (
            entries := await runtime.store.entries(since=0, limit=9, pattern=topic)
        ):
            await trio.lowlevel.checkpoint()
    (entry,) = entries
    return msgspec.json.decode(entry.payload)


async def test_an_open_circuit_is_still_open_in_the_next_run(tmp_path: Path) -> None:
    async with open_runtime(app(), config=config(tmp_path)) as runtime:
        await open_site(runtime)
    assert rows(tmp_path) == [("circuit", "site")]
    async with open_runtime(app(), config=config(tmp_path)) as runtime:
        circuit = runtime.circuits.circuit("site", KEPT)
        with pytest.raises(CircuitOpen) as caught:
            await circuit.call(refuse)
        assert caught.value.retry_after is not None
        assert 3000 < caught.value.retry_after <= 3600
        circuit.reset("ada")
        await runtime.store.settled()
    assert rows(tmp_path) == []


async def test_a_damaged_row_is_told_of_and_forgotten_and_the_circuit_is_closed(
    tmp_path: Path,
) -> None:
    async with open_runtime(app(), config=config(tmp_path)) as runtime:
        await open_site(runtime)
    with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
        connection.execute("UPDATE policy_state SET state = '{}'")
        connection.commit()
    async with open_runtime(app(), config=config(tmp_path)) as runtime:
        circuit = runtime.circuits.circuit("site", KEPT)
        assert circuit.state is CircuitState.CLOSED
        assert await reported(runtime, "circuit.unreadable") == {"name": "site"}
    assert rows(tmp_path) == []


async def test_what_is_long_over_goes_though_nobody_declares_its_name_again(
    tmp_path: Path,
) -> None:
    """Names made from data must not fill the file; an operator's orders stand."""
    async with open_runtime(app(), config=config(tmp_path)):
        pass
    now, day = wall_ns(), 24 * 3600 * 10**9
    kept = {
        "gone": circuit_kept.KeptCircuit(
            state=CircuitState.OPEN, until_ns=now - 8 * day, seconds=9.0
        ),
        "late": circuit_kept.KeptCircuit(
            state=CircuitState.OPEN, until_ns=now - 6 * day, seconds=9.0
        ),
        "ordered": circuit_kept.KeptCircuit(state=CircuitState.FORCED_OPEN),
    }
    with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
        for name, one in kept.items():
            connection.execute(
                *keep_policy_state("circuit", name, circuit_kept.encode(one))
            )
        connection.commit()
    async with open_runtime(app(), config=config(tmp_path)) as runtime:
        assert runtime.circuits.circuit("ordered", KEPT).state == "forced_open"
    assert rows(tmp_path) == [("circuit", "late"), ("circuit", "ordered")]


async def test_what_no_store_could_take_is_kept_once_there_is_one(
    tmp_path: Path,
) -> None:
    async with open_runtime(app(), config=config(tmp_path)) as runtime:
        store, runtime.surroundings.store = runtime.store, None
        circuit = runtime.circuits.circuit("site", KEPT)
        circuit.trip("ada")
        runtime.surroundings.store = store
        await wait_until(lambda: rows(tmp_path) == [("circuit", "site")])


async def test_a_store_that_comes_back_brings_no_old_state_with_it(
    tmp_path: Path,
) -> None:
    async with open_runtime(app(), config=config(tmp_path)) as runtime:
        await open_site(runtime)
        store, runtime.surroundings.store = runtime.store, None
        runtime.circuits.circuit("site", KEPT).reset("ada")
        runtime.circuits.remove("site")
        runtime.surroundings.store = store
        runtime.injections.crash("/system/store")
        await wait_until(lambda: is_again(runtime, "/caller"))
        circuit = runtime.circuits.circuit("site", KEPT)
        assert circuit.state is CircuitState.CLOSED


async def test_every_transition_is_a_report_and_an_event_with_its_numbers(
    tmp_path: Path,
) -> None:
    expected = {
        "circuit": "site",
        "from": "closed",
        "reason": "a failure",
        "calls": 1,
        "failures": 1,
        "slow": 0,
        "by": "",
    }
    async with open_runtime(app(), config=config(tmp_path)) as runtime:
        async with runtime.bus.subscribe("circuit.*") as events:
            await open_site(runtime)
            with trio.fail_after(30):
                event = await anext(events)
            assert (event.topic, event.payload) == ("circuit.open", expected)
        assert await reported(runtime, "circuit.open") == expected


async def test_h16_a_circuit_that_an_agent_made_outlives_the_agents_crash(
    tmp_path: Path,
) -> None:
    """H16: the agent that used it first is gone, and what it found out is not."""
    async with open_runtime(app(), config=config(tmp_path)) as runtime:
        caller = runtime.ref("caller", Caller)
        with pytest.raises(Exception, match="nobody listens"):
            await caller.call(Caller.call)
        await wait_restarted(caller, 2)
        with pytest.raises(CircuitOpen):
            await caller.call(Caller.call)


async def test_f57_without_the_store_that_keeps_circuits_nothing_runs_unprotected(
    tmp_path: Path,
) -> None:
    """F57: the start fails, names what is missing, and no call went out."""
    ran = False

    async def calls(*, task_status: trio.TaskStatus[None]) -> None:
        nonlocal ran
        ran = True
        task_status.started()

    unprotected = Application("app", [ChildSpec("calls", calls)])
    (tmp_path / "test.db").mkdir()
    with pytest.raises(StoreError, match=r"test\.db"):
        async with open_runtime(unprotected, config=config(tmp_path)):
            raise AssertionError
    assert not ran


@pytest.mark.parametrize(
    ("act", "state"),
    [
        ("trip", "forced_open"),
        ("disable", "disabled"),
        ("metrics-only", "metrics_only"),
        ("reset", "closed"),
    ],
)
async def test_an_operator_does_to_a_circuit_what_can_be_done(
    tmp_path: Path, act: Literal["trip", "disable", "metrics-only", "reset"], state: str
) -> None:
    operator = Client(name="cli", operator="ada", uid=0, pid=0, rights=wire.Rights.RW)
    async with open_runtime(app(), config=config(tmp_path)) as runtime:
        circuit = runtime.circuits.circuit("site")
        circuit.disable() if act == "reset" else circuit.reset()
        asked = wire.CircuitAct(name="site", act=act)
        answer = await runtime.desk().perform("circuit", asked, operator)
        assert isinstance(answer, wire.Done)
        assert answer.sentence == f"circuit site is {state} now"
        assert await reported(runtime, f"operator.{act}") == {
            "circuit": "site",
            "by": "ada",
        }


async def test_an_operator_sees_the_order_and_the_numbers_of_policies(
    tmp_path: Path,
) -> None:
    async with open_runtime(app(), config=config(tmp_path)) as runtime:
        circuit = runtime.circuits.circuit("site", KEPT)
        policy = Policy(name="site", timeout=9.0, retry=Retry(), circuit=circuit)
        assert runtime.policies.add(policy) is policy
        before = runtime.policies.version
        with pytest.raises(CircuitOpen):
            await policy.call(refuse)
        assert runtime.policies.version != before
        answer = await runtime.desk().perform("circuits", wire.GetCircuits(), OBSERVER)
        assert isinstance(answer, wire.Circuits)
        (row,) = msgspec.json.decode(
            msgspec.json.encode(answer), type=wire.Circuits
        ).policies
        assert (row.name, row.calls, row.failed, row.in_flight) == ("site", 1, 1, 0)
        assert [layer.layer for layer in row.layers] == ["timeout", "retry", "circuit"]
        _, retry, site = row.layers
        assert retry.numbers["attempts"] == 2
        assert site.numbers["state"] == "open"
        shown = showing.policies_text([row])
        assert "attempts=2" in shown
        assert "state=open" in shown


async def test_a_policys_name_is_taken_once_and_the_shown_ones_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(policies, "LIMIT", 2)
    shown = Policies()
    first = shown.add(Policy(name="a"))
    assert shown.add(first) is first
    with pytest.raises(ValueError, match="another policy 'a'"):
        shown.add(Policy(name="a"))
    shown.add(Policy(name="b"))
    with pytest.raises(ValueError, match="'c' is one too many"):
        shown.add(Policy(name="c"))
    before = shown.version
    assert (shown.remove("a"), shown.remove("a")) == (True, False)
    assert shown.version > before
    assert [one.name for one in shown.statistics()] == ["b"]
    assert shown.get("a") is None


async def test_an_operator_sees_window_probes_and_the_time_that_is_left(
    tmp_path: Path,
) -> None:
    policy = CircuitPolicy(half_open_calls=3, success_threshold=2, slow_call=10.0)
    async with open_runtime(app(), config=config(tmp_path)) as runtime:
        circuit = runtime.circuits.circuit("site", policy)
        for _ in range(5):
            with pytest.raises(ConnectionRefusedError):
                await circuit.call(refuse)
        desk = runtime.desk()
        answer = await desk.perform("circuits", wire.GetCircuits(), OBSERVER)
        assert isinstance(answer, wire.Circuits)
        (row,) = answer.rows
        assert (row.state, row.window_failures, row.window_calls) == ("open", 5, 5)
        assert (row.half_open_calls, row.success_threshold, row.probes) == (3, 2, 0)
        assert (row.opened, row.openings, row.in_flight) == (1, 1, 0)
        assert row.retry_after is not None
        assert 20 < row.retry_after <= 30
        shown = showing.circuits_text(answer.rows)
        assert "5/5" in shown
        assert "100%" in shown
        assert "0/3" in shown
        assert "5 in a row or 50% of the last 20 over 10 s" in shown
