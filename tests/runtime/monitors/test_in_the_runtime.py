"""What a runtime has of it: journaled once, signalled on the bus, shown to operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from trio.testing import wait_all_tasks_blocked

from treewarden.cli import showing
from treewarden.control import protocol as wire
from treewarden.control.target import Client
from treewarden.testing import open_sandbox, store_clock, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio


@pytest.fixture
def clock() -> Iterator[trio.abc.Clock]:
    with store_clock() as clock:
        yield clock


async def test_an_alarm_is_one_report_and_one_signal_and_operators_see_it(
    clock: trio.abc.Clock,
) -> None:
    """H23: opened, acknowledged and cleared, each once, with who did it."""
    async with open_sandbox() as sandbox:
        runtime = sandbox.runtime
        desk, client = (
            runtime.desk(),
            Client(name="test", operator="ada", uid=0, pid=0, rights=wire.Rights.RW),
        )

        async def ask(method: str, params: Any) -> Any:
            return await desk.perform(method, params, client)

        async with runtime.bus.subscribe("alarm.>") as signals:
            runtime.resources.gauge("entries", limit=100)
            for value in (96, 97, 98):
                runtime.resources.report("entries", value)
            rows = (await ask("alarms", wire.GetAlarms())).rows
            assert [(one.name, one.subject) for one in rows] == [
                ("pressure", "entries")
            ]
            assert "entries" in showing.alarms_text(rows)
            await ask("acknowledge", wire.Acknowledge(alarm=rows[0].id))
            runtime.resources.report("entries", 10)
            await wait_until(lambda: signals.statistics().pending == 3)
            topics = [(await anext(signals)).topic for _ in range(3)]
        assert topics == ["alarm.opened", "alarm.acknowledged", "alarm.cleared"]
        assert (await ask("alarms", wire.GetAlarms())).rows == []
        runtime.health.watch("/nobody")
        await wait_all_tasks_blocked()
        rows = (await ask("health", wire.GetHealth())).rows
        assert [(one.subject, one.status) for one in rows] == [("/nobody", "dead")]
        assert "/nobody" in showing.health_text(rows)
