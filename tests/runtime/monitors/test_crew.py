"""Tasks that run for as long as somebody wants them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import ChildSpec, ShuttingDown
from treewarden.monitors.crew import Crew

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_a_task_that_ends_by_itself_is_started_again_after_a_minute(
    autojump_clock: MockClock, ward: Any
) -> None:
    """However it ends, and at nobody's cost: no restart is counted for it."""
    crew = ward.monitors.crew
    starts: list[float] = []
    other = trio.Event()
    began = trio.current_time()

    async def ends() -> None:
        starts.append(trio.current_time() - began)
        if len(starts) % 2:
            raise KeyError("done for")

    crew.want("ends", ends)
    crew.want("stays", other.wait)
    await trio.sleep(200)
    assert starts == [0, 60, 120, 180]
    seen = crew.statistics()
    assert (seen.wanted, seen.waiting, seen.ended_early) == (2, 1, 4)
    assert seen.started == 5
    assert ward.directory.resolve("/monitors/tasks").restarts == 0


async def test_a_task_that_is_dismissed_is_cancelled_and_not_started_again(
    autojump_clock: MockClock, ward: Any
) -> None:
    """While it runs, and while it waits for its next start."""
    crew = ward.monitors.crew
    starts: list[str] = []

    async def stays() -> None:
        starts.append("stays")
        await trio.sleep_forever()

    async def ends() -> None:
        starts.append("ends")

    errands = [crew.want("stays", stays), crew.want("ends", ends)]
    await wait_all_tasks_blocked()
    for errand in errands:
        crew.dismiss(errand)
    await trio.sleep(200)
    assert sorted(starts) == ["ends", "stays"]
    seen = crew.statistics()
    assert (seen.wanted, seen.waiting) == (0, 0)


async def slow(*, task_status: trio.TaskStatus[None]) -> None:
    await trio.sleep(10.0)
    task_status.started()


async def test_a_task_that_is_dismissed_while_nobody_can_start_it_is_never_due(
    autojump_clock: MockClock, ward: Any, nursery: trio.Nursery
) -> None:
    """A start that fails is tried again later; one that nobody wants is not waited for."""
    monitors = ward.root.supervisor("monitors")

    async def occupy() -> None:
        with suppress(ShuttingDown):
            await monitors.supervisor("tasks").start_child(ChildSpec("slow", slow))

    nursery.start_soon(occupy)
    await wait_all_tasks_blocked()
    # In line behind the slow one, and then its supervisor goes.
    crew = Crew(ward.directory, "/monitors/tasks", again=1.0)
    errand = crew.want("never", trio.sleep_forever)
    nursery.start_soon(crew.run)
    await wait_all_tasks_blocked()
    crew.dismiss(errand)
    nursery.start_soon(monitors.terminate_child, "tasks")
    await wait_all_tasks_blocked()
    assert crew.statistics().waiting == 0
