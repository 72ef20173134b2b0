"""Who may leave, and who is called back."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden.errors import NotRunning
from treewarden.gateways.door import Door, sender_settled


async def test_nobody_leaves_by_a_closed_door() -> None:
    door = Door("the way")
    with (
        pytest.raises(NotRunning, match="the way is not running; nothing was done"),
        door.outside(),
    ):
        pytest.fail("it was left by")
    door.open()
    with door.outside():
        pass


async def test_who_is_outside_when_it_closes_is_called_back_and_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    door = Door("the way")
    door.open()
    told: list[NotRunning] = []

    async def leave() -> None:
        try:
            with door.outside():
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(1)
        except NotRunning as error:
            told.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(leave)
        await wait_all_tasks_blocked()
        door.close()
        began = trio.current_time()
        await door.wait_home()
        assert trio.current_time() - began == 1.0
        assert not door.is_open
    assert [str(one) for one in told] == ["the way was stopped meanwhile"] * 3
    await door.wait_home()


async def test_a_caller_who_is_cancelled_is_not_told_that_the_door_has_closed() -> None:
    door = Door("the way")
    door.open()
    with trio.CancelScope() as scope, door.outside():
        scope.cancel()
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


async def test_who_waits_for_a_door_goes_on_when_it_opens(
    autojump_clock: trio.testing.MockClock,
) -> None:
    door = Door("the way")
    door.open()
    door.close()
    with trio.move_on_after(5) as scope:
        await door.wait_open()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.wait_open)
        await wait_all_tasks_blocked()
        door.open()


async def test_outside_of_a_handler_there_is_nothing_to_wait_for() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        # No checkpoint, which would be cancelled.
        await sender_settled()
    assert not scope.cancelled_caught
