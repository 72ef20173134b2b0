"""The runtime's control server: a Unix socket, and a conversation with whoever connects.

Each client has an exception barrier of its own and costs a bounded amount: at most
`REQUESTS_AT_ONCE` requests are in flight before no more are read, one frame is in the
hands of the kernel, and what it watches is compared with what it was sent last when there
is time to send again (`updates`). A client that takes nothing for `CUT_OFF_SECONDS` is cut
off. While nobody watches nothing here wakes up.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import trio

from treewarden.errors import TreewardenError
from treewarden.exits import Fault
from treewarden.injection import places

from .acts import Acts, Refusal
from .listening import Peer, claim, has_room, may_connect, peer_of
from .protocol import (
    METHODS,
    PROTOCOL,
    EventRow,
    Events,
    GetEvents,
    Hello,
    Message,
    Rights,
    Topic,
    Unwatch,
    Watch,
    Watching,
    Welcome,
)
from .session import Asked, Broken, Rejected, ServerSession
from .target import Client, Target
from .updates import WatchedEvents, WatchedRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from .protocol import Update

CLIENTS: Final = 64
HANDSHAKE_SECONDS: Final = 5.0
CUT_OFF_SECONDS: Final = 10.0
REQUESTS_AT_ONCE: Final = 16
SHORTEST_INTERVAL: Final = 0.05
LONGEST_INTERVAL: Final = 60.0
# The process's row differs every time; nobody draws its curve ten times a second.
PROCESS_INTERVAL: Final = 1.0
SNAPSHOT_EVENTS: Final = 200
_RECEIVE_BYTES: Final = 1 << 14
# So much at a time goes to the kernel before the patience with a slow client starts anew.
_SEND_BYTES: Final = 1 << 16
_NAME_LENGTH: Final = 128

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlStatistics:
    """`clients` are connected now, `consoles` of them watch; the rest are totals.

    `vanished` are those that went while they watched: a console that leaves on purpose
    stops watching first.
    """

    clients: int
    consoles: int
    vanished: int
    accepted: int
    turned_away: int
    strangers: int
    cut_off: int
    requests: int
    not_allowed: int
    failures: int


async def serve(
    target: Target,
    *,
    path: Path,
    cap: Rights,
    task_status: trio.TaskStatus[ControlServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `target` at `path` until cancelled; reports the server when it listens."""
    await ControlServer(target, path=path, cap=cap).serve(task_status=task_status)


class _CutOff(Exception):
    """The client took nothing for too long."""


@dataclass(slots=True)
class _Shared:
    """The rows of a topic as they were made last, for all clients."""

    version: int
    made_at: float
    rows: Mapping[str, Message]


class ControlServer:
    """Serves one target to any number of clients, with at most the rights of `cap`."""

    def __init__(self, target: Target, *, path: Path, cap: Rights) -> None:
        self.target = target
        self.cap = cap
        self.requested_path = path
        self.path = path
        self._acts: Acts | None = None
        self._shared: dict[Topic, _Shared] = {}
        self._conversations: set[_Conversation] = set()
        self._vanished = 0
        self._accepted = 0
        self._turned_away = 0
        self._strangers = 0
        self._cut_off = 0
        self._failures = 0
        self.requests = 0
        self.not_allowed = 0

    def statistics(self) -> ControlStatistics:
        """Who is connected, and what came of those who were."""
        acts = self._acts
        return ControlStatistics(
            clients=len(self._conversations),
            consoles=sum(one.watches for one in self._conversations),
            vanished=self._vanished,
            accepted=self._accepted,
            turned_away=self._turned_away,
            strangers=self._strangers,
            cut_off=self._cut_off,
            requests=self.requests,
            not_allowed=self.not_allowed,
            failures=self._failures + (acts.failures if acts is not None else 0),
        )

    async def serve(
        self, *, task_status: trio.TaskStatus[ControlServer] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listen until cancelled; then the socket is gone.

        `path` is the one in use, which is another than asked for when a live runtime has
        that already or when it is too long.

        Raises:
            ControlError: the folder or the path cannot be used.
        """
        held = await claim(self.requested_path)
        self.path = held.path
        if held.path != self.requested_path.absolute():
            _log.warning("the control socket is %s: %s", held.path, held.reason)
        try:
            async with trio.open_nursery() as nursery:
                self.open(nursery)
                task_status.started(self)
                await trio.serve_listeners(
                    self._accept, [held.listener], handler_nursery=nursery
                )
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
                await held.release()

    def open(self, nursery: trio.Nursery) -> None:
        """Take up service without a socket; acts run in `nursery`."""
        self._acts = Acts(self.target, nursery)

    async def _accept(self, stream: trio.SocketStream) -> None:
        try:
            peer = peer_of(stream.socket)
        except OSError:
            peer = None  # gone already, and so is the kernel's word for it
        if peer is None or not may_connect(peer, os.geteuid()):
            self._strangers += 1
            await stream.aclose()
            return
        await self.converse(stream, peer, partial(has_room, stream.socket))

    async def converse(
        self,
        stream: trio.abc.Stream,
        peer: Peer,
        is_ready: Callable[[], bool] = lambda: False,
    ) -> None:
        """Talk to one client until it leaves; nothing but cancellation comes out.

        `is_ready` says whether a send waits for this process only, and not for the client.
        """
        conversation = _Conversation(self, stream, peer, is_ready)
        self._accepted += 1
        try:
            await places.CONTROL_ACCEPT.pass_by()
            if len(self._conversations) >= CLIENTS:
                self._turned_away += 1
                await conversation.turn_away(
                    f"{CLIENTS} clients are connected, which is the limit; close one"
                )
                return
            self._conversations.add(conversation)
            await conversation.run()
        except* _CutOff:
            self._cut_off += 1
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it left in the middle of a frame; nothing of ours is lost
        except* Exception as group:  # noqa: BLE001 - a client must not end the server
            self._failures += 1
            _log.error("a conversation failed\n%s", Fault.capture(group).format())
        finally:
            self._conversations.discard(conversation)
            self._vanished += conversation.watches
            if not any(one.watches for one in self._conversations):
                self._shared.clear()
            await trio.aclose_forcefully(stream)

    async def perform(
        self, method: str, params: Message, client: Client
    ) -> Message | Refusal:
        """Carry out a request within the rights of `client`."""
        self.requests += 1
        needed = METHODS[method].rights
        if not client.rights.allow(needed):
            self.not_allowed += 1
            self.target.refused(method, client)
            most = (
                f"; this runtime grants at most {self.cap}:"
                f" start it with --rights {needed}"
            )
            return Refusal(
                message=f"{method} needs {needed} rights, this client has {client.rights}"
                f"{'' if self.cap.allow(needed) else most}",
                kind="NotAllowed",
            )
        assert self._acts is not None  # noqa: S101 - nobody talks before `open`
        return await self._acts.perform(method, params, client)

    def rows(self, topic: Topic) -> tuple[int, Mapping[str, Message]]:
        """The topic's rows and their version, made at most once a shortest interval."""
        shared = self._shared.get(topic)
        version = self.target.version(topic)
        now = trio.current_time()
        if shared is None or (
            shared.version != version and now - shared.made_at >= SHORTEST_INTERVAL
        ):
            shared = _Shared(version, now, self.target.rows(topic))
            self._shared[topic] = shared
        return shared.version, shared.rows


@dataclass(eq=False)
class _Conversation:
    """One client, from its hello to its goodbye."""

    server: ControlServer
    stream: trio.abc.Stream
    peer: Peer
    is_ready: Callable[[], bool]
    session: ServerSession = field(default_factory=ServerSession)
    interval: float = 0.1
    _rows: dict[Topic, WatchedRows] = field(default_factory=dict)
    _events: WatchedEvents | None = None
    _unfollow: Callable[[], None] | None = None
    _sending: trio.Lock = field(default_factory=trio.Lock)
    _slots: trio.Semaphore = field(
        default_factory=lambda: trio.Semaphore(REQUESTS_AT_ONCE)
    )
    _updates: trio.CancelScope | None = None
    # Seconds for which the client kept us waiting since updates were last counted.
    _waited: float = 0.0

    @property
    def watches(self) -> bool:
        """Whether this client wants to be told anything."""
        return bool(self._rows) or self._events is not None

    async def turn_away(self, reason: str) -> None:
        """Say why not, and nothing else."""
        with trio.move_on_after(1.0):
            await self.stream.send_all(self.session.turn_away(reason))

    async def run(self) -> None:
        """Talk until the client leaves, is cut off or breaks the protocol."""
        client = None
        with trio.move_on_after(HANDSHAKE_SECONDS):
            client = await self._greet()
        if client is None:
            if not (self.session.closed or self.session.welcomed):
                await self.turn_away(f"no hello within {HANDSHAKE_SECONDS:g} s")
            return
        try:
            async with trio.open_nursery() as nursery:
                await self._listen(client, nursery)
                # Requests in flight are answered even if the client only closed its
                # sending side, as `socat` does at the end of its input.
                if self._updates is not None:
                    self._updates.cancel()
        finally:
            self._stop_following()

    # --- listening -----------------------------------------------------------------------

    async def _greet(self) -> Client | None:
        while chunk := await self.stream.receive_some(_RECEIVE_BYTES):
            for event in self.session.receive(bytes(chunk)):
                if not isinstance(event, Asked):
                    await self._send(event.reply)
                    continue
                return await self._welcome(event.id, cast(Hello, event.params))
            if self.session.closed:
                return None
        return None

    async def _welcome(self, id_: int | str, hello: Hello) -> Client:
        cap = self.server.cap
        client = Client(
            name=hello.client[:_NAME_LENGTH],
            operator=hello.operator[:_NAME_LENGTH],
            uid=self.peer.uid,
            pid=self.peer.pid,
            rights=hello.rights if cap.allow(hello.rights) else cap,
        )
        welcome = Welcome(
            protocol=min(PROTOCOL, hello.protocol),
            rights=client.rights,
            runtime=self.server.target.runtime_row(),
        )
        await self._send(self.session.welcome(id_, welcome))
        return client

    async def _listen(self, client: Client, nursery: trio.Nursery) -> None:
        chunk = b""
        while True:
            for event in self.session.receive(chunk):
                match event:
                    case Asked():
                        await self._obey(event, client, nursery)
                    case Rejected() | Broken():
                        await self._send(event.reply)
            if self.session.closed:
                return
            chunk = bytes(await self.stream.receive_some(_RECEIVE_BYTES))
            if not chunk:
                return

    async def _obey(self, asked: Asked, client: Client, nursery: trio.Nursery) -> None:
        match asked.params:
            case Watch() as watch:
                self._watch(watch)
            case Unwatch(topics=topics):
                self._unwatch(topics)
            case _:
                # When all slots are taken nothing more is read: the client waits.
                await self._slots.acquire()
                nursery.start_soon(self._answer, asked, client)
                return
        watching = Watching(topics=self._topics())
        await self._send_all(self.session.reply(asked.id, watching))
        if self._updates is None and self.watches:
            self._updates = trio.CancelScope()
            nursery.start_soon(self._tell, client, self._updates)

    async def _answer(self, asked: Asked, client: Client) -> None:
        try:
            outcome = await self.server.perform(asked.method, asked.params, client)
            if isinstance(outcome, Refusal):
                reply = self.session.refuse(
                    asked.id, outcome.message, kind=outcome.kind, code=outcome.code
                )
                await self._send(reply)
            else:
                await self._send_all(self.session.reply(asked.id, outcome))
        finally:
            self._slots.release()

    # --- watching ------------------------------------------------------------------------

    def _topics(self) -> list[Topic]:
        events = [] if self._events is None else [Topic.EVENTS]
        return [*self._rows, *events]

    def _watch(self, watch: Watch) -> None:
        self.interval = min(max(watch.interval, SHORTEST_INTERVAL), LONGEST_INTERVAL)
        for topic in watch.topics:
            if topic is not Topic.EVENTS:
                self._rows.setdefault(topic, WatchedRows(topic))
            elif self._events is None:
                self._events = WatchedEvents()
                follow = self.server.target.follow_events
                self._unfollow = follow(self._events.push)

    def _unwatch(self, topics: Sequence[Topic]) -> None:
        for topic in topics:
            self._rows.pop(topic, None)
        if Topic.EVENTS in topics:
            self._stop_following()

    def _stop_following(self) -> None:
        if self._unfollow is not None:
            self._unfollow()
        self._events = self._unfollow = None

    async def _tell(self, client: Client, scope: trio.CancelScope) -> None:
        with scope:
            while self.watches:
                await places.CONTROL_NOTICE.pass_by()
                for topic in list(self._rows):
                    await self._tell_rows(topic)
                if self._events is not None:
                    await self._tell_events(self._events, client)
                self._count_missed()
                await trio.sleep(self.interval)
        self._updates = None

    def _count_missed(self) -> None:
        """Updates that were never made because the client was not ready for them."""
        waited, self._waited = self._waited, 0.0
        for watched in self._rows.values():
            watched.missed += int(waited / self.interval)

    async def _tell_rows(self, topic: Topic) -> None:
        watched = self._rows.get(topic)
        if watched is None or not self._is_due(watched):
            return
        version, rows = self.server.rows(topic)
        if version == watched.version:
            return
        update = watched.update(version, rows)
        if update is not None:
            await self._notify(topic, update)

    def _is_due(self, watched: WatchedRows) -> bool:
        if watched.topic is not Topic.PROCESS:
            return True
        now = trio.current_time()
        if now < watched.due_at:
            return False
        watched.due_at = now + max(PROCESS_INTERVAL, self.interval)
        return True

    async def _tell_events(self, events: WatchedEvents, client: Client) -> None:
        if events.sequence == 0:
            update: Update | None = await self._history(events, client)
        else:
            update = events.update()
        if update is not None:
            await self._notify(Topic.EVENTS, update)

    async def _history(self, events: WatchedEvents, client: Client) -> Update:
        rows: list[EventRow] = []
        position = 0
        try:
            ask = GetEvents(limit=SNAPSHOT_EVENTS)
            found = await self.server.target.perform("events", ask, client)
        except TreewardenError:
            pass  # a journal that cannot be read must not hide what happens now
        else:
            past = cast(Events, found)
            rows, position = past.rows, past.position
        return events.snapshot(rows, position)

    # --- sending -------------------------------------------------------------------------

    async def _notify(self, topic: Topic, update: Update) -> None:
        await self._send_all(self.session.notice(topic, update))

    async def _send_all(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            await self._send(frame)

    async def _send(self, frame: bytes) -> None:
        async with self._sending:
            view = memoryview(frame)
            for start in range(0, len(view), _SEND_BYTES):
                ready, began = self.is_ready(), trio.current_time()
                with trio.move_on_after(CUT_OFF_SECONDS) as patience:
                    await self.stream.send_all(view[start : start + _SEND_BYTES])
                if not ready:
                    self._waited += trio.current_time() - began
                if patience.cancelled_caught:
                    raise _CutOff
