"""The link against a real socket, where an asyncio server speaks the runtime's end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from treewarden.control.protocol import (
    Events,
    GetEvents,
    GetState,
    Hello,
    ProcessUpdate,
    Rights,
    Topic,
    TreeUpdate,
    Watch,
    Watching,
)
from treewarden.control.session import Asked, ServerSession
from treewarden_console import link as link_module
from treewarden_console.link import (
    Connected,
    Link,
    LinkLost,
    LinkNews,
    Lost,
    RequestFailed,
    Told,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from treewarden.control.protocol import Message, Update


# How long anything may take on a busy machine before it counts as stuck.
BOUND = 90


class Runtime:
    """One runtime's socket: answers hello and watch, keeps what else was asked."""

    def __init__(self, path: Path, welcome: Any) -> None:
        self.path = path
        self.welcome = welcome
        self.asked: list[tuple[str, Message]] = []
        self.answers: dict[str, Message | Exception] = {}
        self.refusal = ""
        self.silent = False
        self._came = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._session = ServerSession()
        self._writer: asyncio.StreamWriter | None = None

    async def listen(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.hang_up()

    async def heard(self, method: str) -> None:
        """Wait until this was asked."""
        async with asyncio.timeout(BOUND):
            while method not in (one for one, _ in self.asked):
                self._came.clear()
                await self._came.wait()

    def hang_up(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def tell(self, topic: Topic, update: Update) -> None:
        assert self._writer is not None
        self._writer.writelines(self._session.notice(topic, update))

    def send(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._session, self._writer = ServerSession(), writer
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                for event in self._session.receive(data):
                    if isinstance(event, Asked):
                        writer.write(self._answer(event))
        writer.close()

    def _answer(self, asked: Asked) -> bytes:
        self.asked.append((asked.method, asked.params))
        self._came.set()
        session = self._session
        if self.silent:
            return b""
        if asked.method == "hello":
            if self.refusal:
                return session.turn_away(self.refusal, id_=asked.id)
            return session.welcome(asked.id, self.welcome)
        if asked.method in ("watch", "unwatch"):
            return b"".join(session.reply(asked.id, Watching(topics=list(Topic))))
        answer = self.answers.get(asked.method)
        if answer is None:
            return b""
        if isinstance(answer, Exception):
            return session.refuse(asked.id, str(answer), kind="NameUnknown")
        return b"".join(session.reply(asked.id, answer))


class Heard:
    """The news a link told, and a way to wait for more."""

    def __init__(self) -> None:
        self.news: list[LinkNews] = []
        self._came = asyncio.Event()

    def __call__(self, news: LinkNews) -> None:
        self.news.append(news)
        self._came.set()

    async def wait(self, kind: type[LinkNews], number: int = 1) -> Any:
        """The latest news of a kind, once `number` of it came."""
        async with asyncio.timeout(BOUND):
            while sum(isinstance(one, kind) for one in self.news) < number:
                self._came.clear()
                await self._came.wait()
        return [one for one in self.news if isinstance(one, kind)][-1]


@asynccontextmanager
async def linked(runtime: Runtime, **options: Any) -> AsyncIterator[tuple[Link, Heard]]:
    link = Link(runtime.path, **options)
    heard = Heard()
    running = asyncio.create_task(link.run(heard))
    try:
        yield link, heard
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await runtime.close()


@pytest.fixture
def runtime(short_folder: Path, canned: Any) -> Runtime:
    return Runtime(short_folder / "x.sock", canned.welcome())


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    # Real sockets, so real time: only the waits between attempts are made short.
    monkeypatch.setattr(link_module, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(link_module, "LONGEST_WAIT", 0.01)


def test_it_says_hello_watches_everything_and_hands_the_news_on(
    runtime: Runtime, canned: Any
) -> None:
    async def main() -> None:
        await runtime.listen()
        async with linked(runtime, rights=Rights.RW, operator="alice") as (_, heard):
            connected = await heard.wait(Connected)
            assert connected.welcome == canned.welcome()
            await runtime.heard("watch")
            update = TreeUpdate(sequence=1, full=True, rows=canned.nodes())
            runtime.tell(Topic.TREE, update)
            assert (await heard.wait(Told)).update == update

    asyncio.run(main())
    (_, hello), (_, watch) = runtime.asked
    assert isinstance(hello, Hello)
    assert (hello.client, hello.operator, hello.rights) == ("console", "alice", "rw")
    assert isinstance(watch, Watch)
    assert set(watch.topics) == set(Topic)


def test_a_request_gets_its_reply_also_when_it_fails(runtime: Runtime) -> None:
    runtime.answers = {"events": Events(rows=[]), "state": ValueError("nobody")}

    async def main() -> None:
        await runtime.listen()
        async with linked(runtime) as (link, heard):
            await heard.wait(Connected)
            assert await link.request("events", GetEvents()) == Events(rows=[])
            with pytest.raises(RequestFailed, match="nobody") as refused:
                await link.request("state", GetState(agent="/x"))
            assert refused.value.kind == "NameUnknown"
            with pytest.raises(RequestFailed):
                await link.request("state", GetEvents())

    asyncio.run(main())


def test_a_request_without_a_session_fails_at_once(runtime: Runtime) -> None:
    async def main() -> None:
        async with linked(runtime) as (link, heard):
            lost = await heard.wait(Lost)
            assert lost == Lost(why="no runtime answers there")
            with pytest.raises(LinkLost):
                await link.request("events", GetEvents())

    asyncio.run(main())


def test_a_request_whose_link_breaks_fails_and_is_not_sent_again(
    runtime: Runtime,
) -> None:
    async def main() -> None:
        await runtime.listen()
        async with linked(runtime) as (link, heard):
            await heard.wait(Connected)
            asking = asyncio.create_task(link.request("events", GetEvents()))
            await runtime.heard("events")
            runtime.hang_up()
            with pytest.raises(LinkLost):
                await asking
            await heard.wait(Connected, 2)

    asyncio.run(main())
    assert [method for method, _ in runtime.asked].count("events") == 1


def test_an_answer_that_does_not_come_is_told_after_a_while(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "PATIENCE", 0.01)

    async def main() -> None:
        await runtime.listen()
        async with linked(runtime) as (link, heard):
            await heard.wait(Connected)
            with pytest.raises(LinkLost, match="no answer to events"):
                await link.request("events", GetEvents())

    asyncio.run(main())


def test_it_comes_back_for_ever(runtime: Runtime, canned: Any) -> None:
    async def main() -> None:
        async with linked(runtime) as (_, heard):
            await heard.wait(Lost, 4)
            for boot in range(3):
                runtime.welcome = canned.welcome(f"boot-{boot}")
                await runtime.listen()
                connected = await heard.wait(Connected, boot + 1)
                assert connected.welcome.runtime.boot == f"boot-{boot}"
                await runtime.close()
                await heard.wait(Lost, 5 + boot)

    asyncio.run(main())


def test_the_wait_between_attempts_doubles_up_to_its_limit(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    real = asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await real(0)

    monkeypatch.setattr(link_module, "FIRST_WAIT", 0.25)
    monkeypatch.setattr(link_module, "LONGEST_WAIT", 2.0)
    monkeypatch.setattr(asyncio, "sleep", noted)

    async def main() -> None:
        async with linked(runtime) as (_, heard):
            await heard.wait(Lost, 6)

    asyncio.run(main())
    assert waits[:6] == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    "noise",
    [b"{]\n", b'{"jsonrpc":"2.0","method":5}\n', b"x" * (1 << 21), b"[" * 9999 + b"\n"],
    ids=["not JSON", "no method", "too long", "too deep"],
)
def test_noise_ends_the_session_and_a_new_one_begins(
    runtime: Runtime, noise: bytes
) -> None:
    async def main() -> None:
        await runtime.listen()
        async with linked(runtime) as (_, heard):
            await heard.wait(Connected)
            runtime.send(noise)
            await heard.wait(Lost)
            await heard.wait(Connected, 2)

    asyncio.run(main())


def test_news_of_a_newer_runtime_is_passed_over(runtime: Runtime) -> None:
    async def main() -> None:
        await runtime.listen()
        async with linked(runtime) as (_, heard):
            await heard.wait(Connected)
            runtime.send(b'{"jsonrpc":"2.0","method":"stars.update","params":{}}\n')
            runtime.tell(Topic.PROCESS, ProcessUpdate(sequence=1))
            assert isinstance((await heard.wait(Told)).update, ProcessUpdate)
            assert not [one for one in heard.news if isinstance(one, Lost)]

    asyncio.run(main())


def test_a_refusal_is_told_with_its_reason(runtime: Runtime) -> None:
    runtime.refusal = "64 clients are connected already"

    async def main() -> None:
        await runtime.listen()
        async with linked(runtime) as (_, heard):
            lost = await heard.wait(Lost)
            assert lost == Lost(why=runtime.refusal, refused=True)

    asyncio.run(main())


def test_a_runtime_that_never_says_welcome_is_given_up(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "HANDSHAKE", 0.01)
    runtime.silent = True

    async def main() -> None:
        await runtime.listen()
        async with linked(runtime) as (_, heard):
            assert await heard.wait(Lost) == Lost(why="the runtime does not answer")

    asyncio.run(main())


def test_requests_in_flight_are_bounded(runtime: Runtime) -> None:
    async def main() -> None:
        await runtime.listen()
        async with linked(runtime) as (link, heard):
            await heard.wait(Connected)
            asking = [
                asyncio.create_task(link.request("events", GetEvents()))
                for _ in range(64)
            ]
            await runtime.heard("events")
            with pytest.raises(LinkLost, match="64 requests"):
                await link.request("events", GetEvents())
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    asyncio.run(main())


def test_a_farewell_stops_watching(runtime: Runtime) -> None:
    async def main() -> None:
        await runtime.listen()
        async with linked(runtime) as (link, heard):
            await heard.wait(Connected)
            await link.farewell()
        assert runtime.asked[-1][0] == "unwatch"

    asyncio.run(main())


def test_a_farewell_to_nobody_is_no_error(runtime: Runtime) -> None:
    asyncio.run(Link(runtime.path).farewell())


def test_the_app_over_a_real_socket_shows_its_tree_and_reconnects(
    runtime: Runtime, canned: Any, console: Callable[..., Any], drive: Any
) -> None:
    async def journey(pilot: Any) -> None:
        await runtime.listen()
        async with asyncio.timeout(BOUND):
            while not app.desk.model.hearing.connected:
                await pilot.pause()
            await runtime.heard("watch")
            runtime.tell(Topic.TREE, canned.snapshot()[0])
            while not app.desk.model.nodes.rows:
                await pilot.pause()
            await runtime.close()
            while app.desk.model.hearing.connected:
                await pilot.pause()
            app.tick()
            assert app.desk.standing() == "STALE"
            await runtime.listen()
            while not app.desk.model.hearing.connected:
                await pilot.pause()
            app.tick()
            assert app.desk.standing() == "LIVE"
        await runtime.close()

    app = console()
    app.link = Link(runtime.path)
    drive(app, journey)
