"""A control server without a socket, and a small real target behind it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from treewarden.control import Client, ControlServer, RemoteRuntime
from treewarden.control.listening import Peer
from treewarden.control.protocol import (
    Done,
    EventRow,
    Events,
    Message,
    NodeRow,
    ProcessRow,
    Rights,
    RuntimeRow,
    Topic,
    Tree,
)


def row(path: str, incarnation: int = 1) -> NodeRow:
    return NodeRow(
        path=path, id=path[1:], kind="task", state="running", incarnation=incarnation
    )


@dataclass
class Shop:
    """A target whose tree, journal and acts a test decides."""

    nodes: dict[str, NodeRow] = field(default_factory=lambda: {"/a": row("/a")})
    journal: list[EventRow] = field(default_factory=list)
    changes: int = 0
    asked: int = 0
    performed: list[tuple[str, Message, Client]] = field(default_factory=list)
    not_allowed: list[str] = field(default_factory=list)
    sinks: list[Callable[[Sequence[EventRow]], None]] = field(default_factory=list)
    act: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    def put(self, path: str, incarnation: int = 1) -> None:
        self.nodes[path] = row(path, incarnation)
        self.changes += 1

    def remove(self, path: str) -> None:
        del self.nodes[path]
        self.changes += 1

    def publish(self, *rows: EventRow) -> None:
        self.journal += [one for one in rows if one.position]
        for sink in self.sinks:
            sink(rows)

    def runtime_row(self) -> RuntimeRow:
        return RuntimeRow(
            name="shop", pid=1, boot="b", version="0", started_at_ns=0, level="volatile"
        )

    def version(self, topic: Topic) -> int:
        self.asked += 1
        return self.asked if topic is Topic.PROCESS else self.changes

    def rows(self, topic: Topic) -> Mapping[str, Message]:
        if topic is Topic.BUS:
            raise ZeroDivisionError("a bug in the target")
        if topic is Topic.PROCESS:
            process = ProcessRow(
                at_ns=self.asked,
                uptime=0,
                cpu_seconds=0,
                rss_bytes=0,
                tasks=0,
                loop_lag=0,
                nodes=0,
            )
            return {"process": process}
        return dict(self.nodes)

    def follow_events(
        self, sink: Callable[[Sequence[EventRow]], None]
    ) -> Callable[[], None]:
        self.sinks.append(sink)
        return lambda: self.sinks.remove(sink)

    async def perform(self, method: str, params: Message, client: Client) -> Message:
        self.performed.append((method, params, client))
        if method == "events":
            position = self.journal[-1].position if self.journal else 0
            return Events(rows=self.journal[-200:], position=position)
        await self.act()
        if method == "tree":
            return Tree(rows=list(self.nodes.values()))
        return Done(sentence=f"{method} done")

    def refused(self, method: str, client: Client) -> None:
        self.not_allowed.append(f"{method} by {client.operator}")


@dataclass
class Desk:
    """A server that talks over streams in memory."""

    target: Shop
    server: ControlServer
    nursery: trio.Nursery

    def connect(
        self, *, lockstep: bool = False, ready: bool = False
    ) -> trio.abc.HalfCloseableStream:
        """A stream to the server; with `lockstep` it holds no byte unread.

        `ready` is what the server is told of the room in it.
        """
        ours: trio.abc.HalfCloseableStream
        theirs: trio.abc.HalfCloseableStream
        if lockstep:
            ours, theirs = trio.testing.lockstep_stream_pair()
        else:
            ours, theirs = trio.testing.memory_stream_pair()
        peer = Peer(uid=5, pid=6)
        self.nursery.start_soon(self.server.converse, theirs, peer, lambda: ready)
        return ours

    async def dial(
        self,
        rights: Rights = Rights.RO,
        *,
        lockstep: bool = False,
        ready: bool = False,
    ) -> RemoteRuntime:
        """A client that said hello."""
        remote = RemoteRuntime(self.connect(lockstep=lockstep, ready=ready))
        await remote.greet(rights, "test", "ada")
        return remote

    def with_cap(self, cap: Rights) -> "Desk":
        """Another server for the same target, which grants at most `cap`."""
        server = ControlServer(self.target, path=self.server.path, cap=cap)
        server.open(self.nursery)
        return Desk(self.target, server, self.nursery)


@pytest.fixture
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    target = Shop()
    path = tmp_path_factory.getbasetemp() / "unused.sock"
    async with trio.open_nursery() as nursery:
        server = ControlServer(target, path=path, cap=Rights.CHAOS)
        server.open(nursery)
        yield Desk(target, server, nursery)
        nursery.cancel_scope.cancel()
