"""The programs of assets/examples do what their first lines say, through restarts too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden import AgentCrashed, Config, Refused, WorkflowState, open_runtime
from treewarden.testing import crash, store_clock, wait_restarted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from trio.testing import MockClock

EXAMPLES = Path(__file__).parents[2] / "assets" / "examples"
LONGEST_EXAMPLE = 130
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Import an example by its name, as `treewarden run NAME:app` does."""

    def load(name: str) -> Any:
        path = EXAMPLES / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # By its name it is found again: what remembers children writes down names.
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(store=tmp_path / "example.db", level="crash_safe", socket=False)


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


async def until(look: Callable[[], Awaitable[object]]) -> None:
    """Wait until `look` finds something; in virtual time it takes as long as it takes."""
    while not await look():  # noqa: ASYNC110 - what it asks has no event
        await trio.sleep(0.1)


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem
)
def test_an_example_is_read_in_one_sitting_and_says_how_to_run_it(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_EXAMPLE
    assert f"treewarden run {path.stem}:app" in text


# --- fleet ---------------------------------------------------------------------------------


async def test_five_hundred_bots_are_found_by_room_and_come_back_with_their_memory(
    example: Callable[[str], Any], config: Config, clock: MockClock
) -> None:
    fleet = example("fleet")
    async with open_runtime(fleet.app, config=config) as runtime:

        async def all_are_there() -> bool:
            return runtime.tree()["/fleet"].label == "500 bots"

        await until(all_are_there)
        bot = runtime.ref("bot-7", fleet.Bot)
        assert await bot.call(fleet.Bot.move, "attic") == "hall"
        everybody = runtime.ref("fleet", fleet.Fleet)
        assert await everybody.call(fleet.Fleet.hail, "attic") == 1
        assert await everybody.call(fleet.Fleet.hail, "hall") == 499
        with pytest.raises(AgentCrashed, match="I hailed myself"):
            await bot.call(fleet.Bot.hail, bot.path)
        await wait_restarted(bot, 2)
        assert await everybody.call(fleet.Fleet.hail, "attic") == 1
    async with open_runtime(fleet.app, config=config) as runtime:
        assert runtime.supervisor("/bots").count_children().active == 500
        bot = runtime.ref("bot-7", fleet.Bot)
        assert b'"hails":2' in bot.inspect()
        (found,) = runtime.registry.find(room="attic")
        assert found.ref.path == "/bots/bot-7"


# --- approvals -----------------------------------------------------------------------------


async def test_a_trip_waits_for_a_person_through_restarts_and_is_cancelled_by_a_no(
    example: Callable[[str], Any],
    config: Config,
    clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    approvals = example("approvals")
    cancelled: list[str] = []

    async def cancel(number: str) -> None:
        cancelled.append(number)

    monkeypatch.setattr(approvals, "cancel", cancel)
    desk_type = approvals.Desk
    async with open_runtime(approvals.app, config=config) as runtime:
        desk = runtime.ref("desk", desk_type)
        await desk.call(desk_type.plan, "rome", "a day in Rome")
        await desk.call(desk_type.plan, "lisbon", "three days in Lisbon")
        with pytest.raises(Refused, match="there is a trip 'rome' already"):
            await desk.call(desk_type.plan, "rome", "a day in Rome")
        await crash(desk)
    async with open_runtime(approvals.app, config=config) as runtime:
        desk = runtime.ref("desk", desk_type)

        async def both_wait() -> bool:
            return set(await desk.call(desk_type.open)) == {"lisbon", "rome"}

        await until(both_wait)
        await desk.call(desk_type.decide, "rome", True)
        await desk.call(desk_type.decide, "lisbon", False)
        rome, lisbon = (runtime.workflows.ref(trip) for trip in ("rome", "lisbon"))
        (flight,) = await rome.result()
        assert flight.startswith("flight-")

        async def is_taken_back() -> bool:
            return (await lisbon.status()).state is WorkflowState.COMPENSATED

        await until(is_taken_back)
        assert [number.split("-")[0] for number in cancelled] == ["hotel", "flight"]
        with pytest.raises(Refused, match="nobody asks about 'rome'"):
            await desk.call(desk_type.decide, "rome", True)


# --- poller --------------------------------------------------------------------------------


async def test_what_is_to_be_polled_survives_a_restart_and_a_page_is_seen_to_change(
    example: Callable[[str], Any],
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    nursery: trio.Nursery,
) -> None:
    poller = example("poller")
    monkeypatch.setattr(poller, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(poller, "IDLE_SECONDS", 0.01)
    body = b"v1"

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(4096)
            await stream.send_all(ANSWER + body)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, answer, [listener])
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"

    async with open_runtime(poller.app, config=config) as runtime:
        polls = runtime.ref("polls", poller.Polls)
        assert await polls.call(poller.Polls.add, url)
        assert not await polls.call(poller.Polls.add, url)
        await until(lambda: polls.call(poller.Polls.found, url))
        await crash(polls)
    body = b"v2"
    async with open_runtime(poller.app, config=config) as runtime:
        polls = runtime.ref("polls", poller.Polls)

        async def has_changed() -> bool:
            return polls.inspect() == b'{"changes":1}'

        await until(has_changed)
        dead = "http://127.0.0.1:1/"
        await polls.call(poller.Polls.failed, dead, "nobody answers")
        page = await polls.call(poller.Polls.found, dead)
        assert (page.error, page.failures) == ("nobody answers", 1)
    nursery.cancel_scope.cancel()
