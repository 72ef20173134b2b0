"""What an operator sees of HTTP clients and programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import trio

import treewarden.control.protocol as wire
from treewarden import Application, ChildSpec, Config, current_runtime, open_runtime
from treewarden.cli import showing
from treewarden.control import Client
from treewarden.errors import HttpFailed, ProgramFailed

if TYPE_CHECKING:
    from treewarden import Runtime

READER = Client(name="test", operator="alice", uid=0, pid=0, rights=wire.Rights.RO)


async def gateways(runtime: Runtime) -> dict[str, wire.GatewayRow]:
    answer = await runtime.desk().perform("gateways", wire.GetGateways(), READER)
    assert isinstance(answer, wire.Gateways)
    for row in answer.rows:
        assert row.asked == row.succeeded + row.failed + row.cancelled + row.active
    return {row.name: row for row in answer.rows}


async def linger() -> None:
    """A child that runs a program until it is stopped."""
    program = "import sys; sys.stdin.read()"
    await current_runtime().programs.run([sys.executable, "-c", program], timeout=600)


async def test_clients_and_programs_are_listed_with_their_accounts() -> None:
    config = Config(level="volatile", socket=False)
    async with open_runtime(Application("out", []), config=config) as runtime:
        with pytest.raises(ProgramFailed):
            await runtime.programs.run([sys.executable, "-c", "raise SystemExit(3)"])
        await runtime.programs.run([sys.executable, "-c", ""])
        client = runtime.http.client("shops")
        with pytest.raises(HttpFailed):
            await client.request("POST", "http://127.0.0.1:9/")  # nobody listens there
        found = await gateways(runtime)
    assert (found["programs"].succeeded, found["programs"].failed) == (1, 1)
    assert (found["shops"].asked, found["shops"].failed) == (1, 1)
    assert sum(found["shops"].numbers.values()) == 1
    [_, shops, programs] = showing.gateways_text([*found.values()]).splitlines()
    assert shops.split()[:5] == ["shops", "http", "0/20", "0/100", "1"]
    assert programs.split()[:5] == ["programs", "programs", "0/5", "0/100", "2"]


async def test_a_program_that_runs_is_named_with_its_caller_and_without_its_arguments() -> (
    None
):
    config = Config(level="volatile", socket=False)
    app = Application("out", [ChildSpec("linger", linger)])
    async with open_runtime(app, config=config) as runtime:
        while not (row := (await gateways(runtime))["programs"]).running:
            await trio.lowlevel.checkpoint()
        assert (row.active, row.asked) == (1, 1)
        [running] = row.running
        assert running.startswith(sys.executable)
        assert running.endswith(" for /linger")
        assert "import" not in running
