"""The console's end of a control session: asyncio carries the bytes, for ever.

It connects, says hello, watches every topic and hands the news on; when the connection
ends it tries again, after 0.25 s at first and every 2 s later, until it is told to stop.
Meanwhile requests fail at once with `LinkLost`: an act is never sent twice, and never
waits for a runtime that may come back as another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, assert_never

from treewarden.control.protocol import (
    Message,
    Rights,
    Topic,
    Unwatch,
    Update,
    Watch,
    Welcome,
)
from treewarden.control.session import (
    Broken,
    ClientEvent,
    ClientSession,
    Failed,
    IllegalMessage,
    Noticed,
    Replied,
    UnknownNotice,
    Welcomed,
)

if TYPE_CHECKING:
    from pathlib import Path

FIRST_WAIT: Final = 0.25
LONGEST_WAIT: Final = 2.0
"""Seconds between attempts to connect; doubled from the first to the longest."""
HANDSHAKE: Final = 5.0
"""Seconds within which a runtime must connect and say welcome."""
PATIENCE: Final = 10.0
"""Seconds within which a request is answered, else the operator is told."""
_IN_FLIGHT: Final = 64
_CHUNK_BYTES: Final = 1 << 16
_GOODBYE: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """A session began; snapshots of all topics follow."""

    welcome: Welcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The session ended or could not begin, `why` in words.

    `refused`: the runtime is there and turned us away.
    """

    why: str
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A notice of a topic."""

    update: Update


LinkNews: TypeAlias = Connected | Lost | Told
Listener: TypeAlias = Callable[[LinkNews], None]


# Not in treewarden.errors: that module needs trio, which the console never loads.
class LinkError(Exception):
    """A request was not answered with a result; its text is for the operator."""


class LinkLost(LinkError):
    """There is no session, or it ended first; an act may or may not have been done."""


class RequestFailed(LinkError):
    """The runtime answered with an error; `kind` is the error's name there."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message or kind)


class Source(Protocol):
    """Where the app's news comes from, and where its requests go."""

    async def run(self, tell: Listener) -> None:
        """Bring news until cancelled."""

    async def request(self, method: str, params: Message) -> Message:
        """Ask the runtime; raises `LinkError`."""

    async def farewell(self) -> None:
        """Leave on purpose."""


class Link:
    """A session over a Unix socket that comes back whenever it is lost."""

    def __init__(
        self,
        socket: Path,
        *,
        rights: Rights = Rights.RO,
        operator: str = "",
        interval: float = 0.1,
    ) -> None:
        self._socket = socket
        self._rights = rights
        self._operator = operator
        self._interval = interval
        self._session = ClientSession()
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._watching: int | None = None
        self._began = False

    async def run(self, tell: Listener) -> None:
        """Connect, and connect again, until cancelled."""
        wait = FIRST_WAIT
        while True:
            lost = await self._visit(tell)
            wait = FIRST_WAIT if self._began else wait
            tell(lost)
            await asyncio.sleep(wait)
            wait = min(LONGEST_WAIT, wait * 2)

    async def request(self, method: str, params: Message) -> Message:
        """Ask the runtime and wait for the answer.

        If cancelled, the answer is dropped when it comes; an act is done all the same.

        Raises:
            LinkLost: no session, or no answer in time.
            RequestFailed: the runtime answered with an error.
        """
        if self._writer is None or not self._session.welcomed:
            raise LinkLost("not connected")
        if len(self._waiting) >= _IN_FLIGHT:
            raise LinkLost(f"{_IN_FLIGHT} requests wait for an answer already")
        try:
            id_, frame = self._session.request(method, params)
        except IllegalMessage as error:
            raise RequestFailed("LocalProtocolError", str(error)) from error
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = answer
        try:
            async with asyncio.timeout(PATIENCE):
                self._writer.write(frame)
                await self._writer.drain()
                return await answer
        except TimeoutError as error:
            raise LinkLost(f"no answer to {method} within {PATIENCE:g} s") from error
        except OSError as error:
            raise LinkLost("the link was lost") from error
        finally:
            self._waiting.pop(id_, None)
            self._session.forget(id_)

    async def farewell(self) -> None:
        """Say that we leave on purpose: who stops watching first has not vanished."""
        with suppress(LinkError, TimeoutError):
            async with asyncio.timeout(_GOODBYE):
                await self.request("unwatch", Unwatch(topics=list(Topic)))

    # --- one session ------------------------------------------------------------------

    async def _visit(self, tell: Listener) -> Lost:
        """One session, from connecting to its end; returns how it ended."""
        self._session, self._watching, self._began = ClientSession(), None, False
        try:
            async with asyncio.timeout(HANDSHAKE) as handshake:
                reader, self._writer = await asyncio.open_unix_connection(self._socket)
                self._writer.write(self._hello())
                while data := await reader.read(_CHUNK_BYTES):
                    for event in self._session.receive(data):
                        if (lost := self._take(event, tell)) is not None:
                            return lost
                    if self._session.welcomed:
                        handshake.reschedule(None)
            return Lost(why="the runtime closed the connection")
        except TimeoutError:
            return Lost(why="the runtime does not answer")
        except OSError as error:
            return Lost(why=_in_words(error))
        finally:
            self._hang_up()

    def _hello(self) -> bytes:
        return self._session.hello(
            client="console", operator=self._operator, rights=self._rights
        )

    def _take(self, event: ClientEvent, tell: Listener) -> Lost | None:
        """Act on one event; a `Lost` ends the session."""
        match event:
            case Noticed(update=update):
                tell(Told(update=update))
            case Welcomed(welcome=welcome):
                self._began = True
                self._watch()
                tell(Connected(welcome=welcome))
            case Replied(id=id_, result=result):
                if (answer := self._waiting.get(id_)) and not answer.done():
                    answer.set_result(result)
            case Failed(id=id_, kind=kind, message=message):
                return self._failed(id_, kind, message)
            case UnknownNotice():
                pass  # of a newer runtime; nothing here can show it
            case Broken(reason=reason):
                return Lost(why=reason, refused=not self._session.welcomed)
            case _:
                assert_never(event)
        return None

    def _watch(self) -> None:
        watch = Watch(topics=list(Topic), interval=self._interval)
        self._watching, frame = self._session.request("watch", watch)
        if self._writer is not None:
            self._writer.write(frame)

    def _failed(self, id_: int | None, kind: str, message: str) -> Lost | None:
        if id_ is not None and id_ == self._watching:
            return Lost(why=message)
        answer = self._waiting.get(id_) if id_ is not None else None
        if answer is not None and not answer.done():
            answer.set_exception(RequestFailed(kind, message))
        return None

    def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(LinkLost("the link was lost before the answer"))


def _in_words(error: OSError) -> str:
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            return "no runtime answers there"
        case PermissionError():
            return "the socket belongs to somebody else"
        case _:
            return error.strerror or str(error)
