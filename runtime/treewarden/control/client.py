"""The asking end on trio: connect, ask, watch; used by the command line and by tests.

No task runs in the background. Whoever waits for a reply reads the socket until it has
come; notices that come before it wait, bounded, for the next `watch`.
"""

from __future__ import annotations

import getpass
from collections import deque
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Final

import trio

from treewarden import errors
from treewarden.errors import (
    ControlError,
    LocalProtocolError,
    NoRuntime,
    TreewardenError,
)

from .address import FoundRuntime, fallback_folder, short_path, sockets
from .protocol import Message, Rights, RuntimeRow, Topic, Watch, Welcome
from .session import (
    Broken,
    ClientSession,
    Failed,
    IllegalMessage,
    Noticed,
    Replied,
    UnknownNotice,
    Welcomed,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from pathlib import Path

    from .session import ClientEvent

_RECEIVE_BYTES: Final = 1 << 16
# Notices that nobody takes; ten a second and topic, so some seconds' worth.
_KEPT_NOTICES: Final = 1000
# A live runtime answers within milliseconds; one that is stopped never does.
_PROBE_SECONDS: Final = 1.0


@asynccontextmanager
async def connect(
    path: Path,
    *,
    rights: Rights = Rights.RO,
    name: str = "treewarden",
    operator: str | None = None,
) -> AsyncIterator[RemoteRuntime]:
    """A connection to the runtime at `path`, until the block is left.

    It may grant less than `rights`; `welcome.rights` says what it did. `operator` (default:
    the user's name) is who the runtime will say did it.

    Raises:
        NoRuntime: nobody listens there.
        ControlError: it did not take us in; the text says why.
    """
    stream = await _open(path)
    async with stream:
        remote = RemoteRuntime(stream)
        await remote.greet(rights, name, user_name() if operator is None else operator)
        yield remote


async def _open(path: Path) -> trio.SocketStream:
    try:
        return await trio.open_unix_socket(short_path(path))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NoRuntime(
            f"no runtime listens at {path}; `treewarden ps` lists those that run"
        ) from error
    except OSError as error:
        raise NoRuntime(f"cannot connect to {path}: {error.strerror}") from error


def user_name() -> str:
    """Who operates; empty where the system has no name for the user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


class RemoteRuntime:
    """A runtime at the other end of a connection; one request at a time."""

    welcome: Welcome

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._session = ClientSession()
        self._turn = trio.Lock()
        self._notices: deque[Noticed | UnknownNotice] = deque(maxlen=_KEPT_NOTICES)

    async def greet(self, rights: Rights, name: str, operator: str) -> None:
        """Say hello and wait for the welcome; `connect` does it."""
        hello = self._session.hello(client=name, operator=operator, rights=rights)
        await self._send(hello)
        while True:
            match await self._event():
                case Welcomed(welcome=welcome):
                    self.welcome = welcome
                    return
                case _:
                    continue

    async def request(self, method: str, params: Message) -> Message:
        """The runtime's answer, of the method's result type.

        If cancelled, the request may have been carried out; acts have a key to ask again
        with.

        Raises:
            LocalProtocolError: there is no such request; nothing was sent.
            NoRuntime: the runtime went away.
            TreewardenError: the runtime's refusal, of the class that it has there.
        """
        async with self._turn:
            try:
                id_, frame = self._session.request(method, params)
            except IllegalMessage as error:
                raise LocalProtocolError(str(error)) from error
            try:
                await self._send(frame)
                return await self._reply(id_)
            finally:
                self._session.forget(id_)

    async def watch(
        self, topics: Sequence[Topic], *, interval: float = 0.1
    ) -> AsyncGenerator[Noticed | UnknownNotice, None]:
        """Whatever changes in `topics`, at most once in `interval` seconds a topic.

        Endless. Close it (`contextlib.aclosing`) before another request.
        """
        await self.request("watch", Watch(topics=list(topics), interval=interval))
        while True:
            while not self._notices:
                await self._event()
            yield self._notices.popleft()

    async def _reply(self, id_: int) -> Message:
        while True:
            match await self._event():
                case Replied(id=answered, result=result) if answered == id_:
                    return result
                case Failed(id=answered, kind=kind, message=message) if answered in (
                    id_,
                    None,
                ):
                    raise remote_error(kind, message)
                case _:
                    continue

    async def _event(self) -> ClientEvent | None:
        """The next thing that happens; None when bytes came but no whole frame."""
        event = next(iter(self._session.receive(b"")), None)
        if event is None:
            event = next(iter(self._session.receive(await self._receive())), None)
        if isinstance(event, Broken):
            raise remote_error(event.kind, event.reason)
        if isinstance(event, Noticed | UnknownNotice):
            self._notices.append(event)
        return event

    async def _receive(self) -> bytes:
        try:
            data = await self._stream.receive_some(_RECEIVE_BYTES)
        except trio.BrokenResourceError as error:
            raise NoRuntime("the runtime went away") from error
        if not data:
            raise NoRuntime("the runtime closed the connection")
        return bytes(data)

    async def _send(self, frame: bytes) -> None:
        try:
            await self._stream.send_all(frame)
        except trio.BrokenResourceError:
            # It may have said why before it closed, which is better news than this.
            return
        except trio.Cancelled:
            # Half a frame may be out; what follows it could not be read.
            await trio.aclose_forcefully(self._stream)
            raise


def remote_error(kind: str, message: str) -> TreewardenError:
    """The error that the peer named, with its text; `ControlError` if we do not know it.

    It is of the class that was raised there, so that it can be caught by that name; the
    fields of the original are not there.
    """
    return _remote_class(kind)(message)


@cache
def _remote_class(kind: str) -> type[TreewardenError]:
    known = getattr(errors, kind, None)
    if not (isinstance(known, type) and issubclass(known, TreewardenError)):
        known = ControlError

    def __init__(self: TreewardenError, message: str) -> None:
        self.args = (message,)

    def __str__(self: TreewardenError) -> str:
        return str(self.args[0])

    body = {"__init__": __init__, "__str__": __str__, "__module__": known.__module__}
    return type(known.__name__, (known,), body)


async def find_runtimes() -> list[FoundRuntime]:
    """The runtimes of this user on this machine, by name.

    One that holds its socket but does not answer is listed without its row.
    """
    found = [await _probe(path) for path in sockets()]
    return sorted(
        (one for one in found if one is not None), key=lambda one: (one.name, one.path)
    )


async def _probe(path: Path) -> FoundRuntime | None:
    runtime: RuntimeRow | None = None
    with trio.move_on_after(_PROBE_SECONDS):
        try:
            async with connect(path, name="ps") as remote:
                runtime = remote.welcome.runtime
        except NoRuntime:
            return None
        except ControlError:
            pass  # somebody is there, and does not want us
    name = path.stem
    if runtime is not None and path.parent == fallback_folder():
        name = runtime.name  # the path is a hash, which says nothing
    return FoundRuntime(name=name, path=path, runtime=runtime)
