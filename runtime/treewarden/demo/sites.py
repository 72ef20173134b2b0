"""Real HTTP/1.1 servers on loopback, each with its own way of being difficult.

h11 speaks the protocol, trio moves the bytes. Each site is a supervised function child
that appends a line of JSON to its own log for every start (what it `serves`) and, before
an answer leaves, for every request. Whoever wants to know what a crawl could have found
and what it was given reads these logs; nothing else is told.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
import random
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import h11
import trio

from treewarden.clock import wall_ns

from .pages import host_of, read_library

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

Ports: TypeAlias = MutableMapping[str, int]
"""Host name to the loopback port where it listens in this run: our /etc/hosts."""

LOOPBACK: Final = "127.0.0.1"
_ROBOTS_PATH: Final = "/robots.txt"
_ROBOTS: Final = b"User-agent: *\nDisallow:\n"
# Logged for a request that got no answer at all.
_HUNG_UP: Final = 0
# A client that says nothing for so long has gone.
_IDLE_SECONDS: Final = 30.0
_CHUNK_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """How a site behaves.

    `delay` is the least and most seconds before an answer; `fails` and `hangs_up` the
    shares of page requests answered with status 500, or with a closed connection; `away`
    the seconds that it is up and gone, in turn, the last pair for ever.
    """

    delay: tuple[float, float] = (0.0, 0.0)
    fails: float = 0.0
    hangs_up: float = 0.0
    away: tuple[tuple[float, float], ...] = ()


HABITS: Final[Mapping[str, Habit]] = {
    "healthy": Habit(),
    "slow": Habit(delay=(0.03, 0.08)),
    "flaky": Habit(fails=0.2, hangs_up=0.05),
    "dying": Habit(away=((3.0, 5.0), (30.0, 5.0))),
}


def log_path(folder: Path, site: str) -> Path:
    """Where a site logs its requests."""
    return folder / f"{site}.jsonl"


class RequestLog:
    """Lines of JSON, each one write to the file: a killed process loses no line."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._file)

    def write(self, **fields: object) -> None:
        """Append one line, with the time as `at` (nanoseconds since the epoch)."""
        line = json.dumps({**fields, "at": wall_ns()})
        os.write(self._file, line.encode() + b"\n")


async def serve_site(
    site: str,
    ports: Ports,
    *,
    library: Path,
    logs: Path,
    habit: Habit | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """A child that serves one site until it is stopped; ready when it listens.

    It listens on the port that `ports` has for it from an earlier life, else on a free
    one, and says so there. Open connections are cut when it stops.

    Raises:
        FileNotFoundError: the library was not rendered.
        OSError: it cannot listen.
    """
    pages = await trio.to_thread.run_sync(_load, library, site)
    habit = habit or HABITS[site]
    host = host_of(site)
    with RequestLog(log_path(logs, site)) as log:
        log.write(site=site, serves=sorted(pages))
        server = _Server(site=site, pages=pages, habit=habit, log=log)
        ready = False
        for up, down in _spells(habit):
            with trio.move_on_after(up):
                listeners = await _listen(host, ports)
                if not ready:
                    task_status.started()
                    ready = True
                await trio.serve_listeners(server.converse, listeners)
            await trio.sleep(down)


def _load(library: Path, site: str) -> dict[str, bytes]:
    return read_library(library).pages(site)


def _spells(habit: Habit) -> Iterator[tuple[float, float]]:
    """Seconds up and seconds gone, for ever."""
    *first, last = habit.away or ((math.inf, 0.0),)
    return itertools.chain(first, itertools.repeat(last))


async def _listen(host: str, ports: Ports) -> list[trio.SocketListener]:
    try:
        listeners = await trio.open_tcp_listeners(ports.get(host, 0), host=LOOPBACK)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or host not in ports:
            raise
        # Somebody took the port while the site was away.
        listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
    ports[host] = listeners[0].socket.getsockname()[1]
    return listeners


@dataclass(slots=True, kw_only=True)
class _Server:
    """Answers from `pages` as `habit` has it; one `converse` a connection."""

    site: str
    pages: Mapping[str, bytes]
    habit: Habit
    log: RequestLog
    # Seeded: a site misbehaves the same way in every run.
    random: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311

    async def converse(self, stream: trio.SocketStream) -> None:
        """One connection, until either end has had enough."""
        connection = h11.Connection(h11.SERVER)
        # A client that breaks off or talks nonsense is no failure of the site.
        with contextlib.suppress(trio.BrokenResourceError, h11.RemoteProtocolError):
            while (request := await _next_request(connection, stream)) is not None:
                if not await self._answer(request, connection, stream):
                    return
                connection.start_next_cycle()

    async def _answer(
        self,
        request: h11.Request,
        connection: h11.Connection,
        stream: trio.SocketStream,
    ) -> bool:
        """Whether the connection can be used for another request."""
        path = request.target.decode("ascii", "replace").partition("?")[0]
        await trio.sleep(self.random.uniform(*self.habit.delay))
        status = self._status(path, request.method)
        self.log.write(site=self.site, path=path, status=status)
        if status == _HUNG_UP:
            return False
        body, kind = self._body(path, status)
        headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
        response = h11.Response(status_code=status, headers=headers)
        out = connection.send(response) or b""
        if request.method != b"HEAD":
            out += connection.send(h11.Data(data=body)) or b""
        out += connection.send(h11.EndOfMessage()) or b""
        await stream.send_all(out)
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    def _status(self, path: str, method: bytes) -> int:
        if method not in {b"GET", b"HEAD"}:
            return 405
        if path == _ROBOTS_PATH:
            return 200
        if path not in self.pages:
            return 404
        chance = self.random.random()
        if chance < self.habit.fails:
            return 500
        return _HUNG_UP if chance < self.habit.fails + self.habit.hangs_up else 200

    def _body(self, path: str, status: int) -> tuple[bytes, str]:
        if status != 200:
            return f"{status}\n".encode(), "text/plain"
        if path == _ROBOTS_PATH:
            return _ROBOTS, "text/plain"
        return self.pages[path], "text/html; charset=utf-8"


async def _next_request(
    connection: h11.Connection, stream: trio.SocketStream
) -> h11.Request | None:
    """The next request, its body passed over; None when the client is done."""
    request: h11.Request | None = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            with trio.move_on_after(_IDLE_SECONDS) as idle:
                connection.receive_data(await stream.receive_some(_CHUNK_BYTES))
            if idle.cancelled_caught:
                return None
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            return request
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            return None
