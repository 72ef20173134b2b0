"""The control server on real Unix sockets: who gets in, under which name, and when."""

import fcntl
import itertools
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from treewarden.control import (
    Client,
    ControlServer,
    connect,
    find_runtimes,
    serve,
    short_path,
    socket_folder,
    socket_path,
)
from treewarden.control.listening import Peer, may_connect
from treewarden.control.protocol import (
    EventRow,
    GetTree,
    Message,
    NodeRow,
    Rights,
    RuntimeRow,
    Topic,
    Tree,
    TreeUpdate,
)
from treewarden.control.session import Noticed
from treewarden.errors import ControlError, NoRuntime

# How long anything here may take on a busy machine before it counts as stuck.
BOUND = 120


class Forest:
    """A target of any number of nodes."""

    def __init__(self, size: int = 1) -> None:
        self.changes = 0
        self.tree: dict[str, NodeRow] = {
            f"/{number}": NodeRow(
                path=f"/{number}", id=str(number), kind="task", state="running"
            )
            for number in range(size)
        }

    def runtime_row(self) -> RuntimeRow:
        return RuntimeRow(
            name="forest",
            pid=os.getpid(),
            boot="b",
            version="0",
            started_at_ns=0,
            level="volatile",
        )

    def version(self, topic: Topic) -> int:
        return self.changes

    def rows(self, topic: Topic) -> Mapping[str, Message]:
        return dict(self.tree)

    def follow_events(
        self, sink: Callable[[Sequence[EventRow]], None]
    ) -> Callable[[], None]:
        return lambda: None

    async def perform(self, method: str, params: Message, client: Client) -> Message:
        await trio.lowlevel.checkpoint()
        return Tree(rows=list(self.tree.values()))

    def refused(self, method: str, client: Client) -> None:
        raise AssertionError(method)


@pytest.fixture
def tmp_path(short_folder: Path) -> Path:
    """As everywhere, but wherever that is a socket's name fits."""
    return short_folder


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks for runtimes waits for an answer, however busy the machine is."""
    monkeypatch.setattr("treewarden.control.client._PROBE_SECONDS", BOUND)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, short_folder: Path) -> Path:
    """A user's runtime folder with nothing in it."""
    folder = short_folder / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


@asynccontextmanager
async def serving(
    path: Path, target: Forest | None = None
) -> AsyncIterator[ControlServer]:
    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:

            async def run(*, task_status: trio.TaskStatus[ControlServer]) -> None:
                await serve(
                    target or Forest(),
                    path=path,
                    cap=Rights.RW,
                    task_status=task_status,
                )

            server = await nursery.start(run)
            yield server
            nursery.cancel_scope.cancel()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_runtime_is_found_by_its_name_and_gone_when_it_ends(home: Path) -> None:
    async with serving(socket_path("forest")) as server:
        [found] = await find_runtimes()
        assert (found.name, found.path) == ("forest", server.path)
        assert found.runtime is not None
        assert found.runtime.pid == os.getpid()
        async with connect(server.path) as remote:
            assert isinstance(await remote.request("tree", GetTree()), Tree)
    assert await find_runtimes() == []
    assert not server.path.exists()


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
async def test_folder_and_socket_are_their_owners_only_whatever_the_umask(
    home: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        async with serving(socket_path("forest")) as server:
            assert mode(server.path) == 0o600
            assert mode(server.path.parent) == 0o700
    finally:
        os.umask(before)


async def test_a_folder_that_is_open_to_others_is_closed(home: Path) -> None:
    socket_folder().mkdir(mode=0o755)
    async with serving(socket_path("forest")):
        assert mode(socket_folder()) == 0o700


async def test_a_folder_that_is_a_link_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    socket_folder().symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ControlError, match="is not a folder"):
        await serve(Forest(), path=socket_path("forest"), cap=Rights.RW)


async def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ControlError, match="others can write to"):
        await serve(Forest(), path=folder / "x.sock", cap=Rights.RW)


async def test_what_is_not_a_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    path.write_text("precious")
    with pytest.raises(ControlError, match="is not a socket"):
        await serve(Forest(), path=path, cap=Rights.RW)
    assert path.read_text() == "precious"


async def test_the_socket_of_a_dead_runtime_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(path) as server, connect(path):
        assert server.path == path


async def test_a_live_runtime_keeps_its_name_and_the_next_one_gets_a_number(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = socket_path("forest")
    async with serving(path) as first, serving(path) as second, serving(path) as third:
        paths = [one.path.name for one in (first, second, third)]
        assert paths == ["forest.sock", "forest-2.sock", "forest-3.sock"]
        found = [one.name for one in await find_runtimes()]
        assert found == ["forest", "forest-2", "forest-3"]
    assert f"forest-2.sock: a live runtime has {path}" in caplog.text


async def test_of_many_that_start_at_once_each_gets_a_name_of_its_own(
    home: Path,
) -> None:
    names: list[str] = []

    async def start() -> None:
        async with serving(socket_path("forest")) as server:
            names.append(server.path.name)
            with trio.fail_after(BOUND):
                while len(names) < 8:
                    await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(start)
    assert len(set(names)) == 8


async def test_a_folder_that_stays_locked_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treewarden.control.listening._LOCK_SECONDS", 0.05)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(ControlError, match="locked"):
            await serve(Forest(), path=tmp_path / "x.sock", cap=Rights.RW)
    finally:
        os.close(descriptor)


async def test_a_path_too_long_for_the_kernel_works_at_both_ends(
    home: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Where nobody else's runtimes are.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = tmp_path / ("long" * 40 + ".sock")
    async with serving(path) as server:
        assert server.path == short_path(path)
        assert server.path.is_relative_to(tempfile.gettempdir())
        assert mode(server.path.parent) == 0o700
        async with connect(path) as remote:
            assert remote.welcome.runtime.name == "forest"
        assert "forest" in [one.name for one in await find_runtimes()]
    assert f"{path} is over 100 bytes" in caplog.text


async def test_a_socket_that_somebody_else_made_since_is_left_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.sock"
    async with serving(path):
        path.unlink()
        path.write_text("mine now")
    assert path.read_text() == "mine now"


async def test_without_a_runtime_the_error_says_what_to_do(home: Path) -> None:
    with pytest.raises(NoRuntime, match="treewarden ps"):
        async with connect(socket_path("nobody")):
            pass


# --- other users -----------------------------------------------------------------------------

STRANGER = """
import os, socket, sys
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
peer = socket.socket(socket.AF_UNIX)
peer.connect("x.sock")
try:
    peer.sendall(b'{"jsonrpc":"2.0","id":1,"method":"hello","params":{"protocol":1}}\\n')
    print(peer.recv(100))
except (BrokenPipeError, ConnectionResetError):
    print(b"")
"""


@pytest.fixture
def another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a child process a stranger: by its own uid, or, if it keeps ours, by ours."""
    if os.geteuid() != 0:
        monkeypatch.setattr("treewarden.control.server.os.geteuid", lambda: 4242)


@pytest.mark.usefixtures("another_user")
async def test_another_user_is_shown_out_before_a_word_is_read(tmp_path: Path) -> None:
    # In a folder that lets strangers pass, so that only the peer's uid is in the way.
    path = tmp_path / "x.sock"
    path.parent.chmod(0o755)
    async with serving(path) as server:
        path.chmod(0o666)
        # From inside: what the folder is in may keep strangers out.
        done = await trio.run_process(
            [sys.executable, "-c", STRANGER], cwd=tmp_path, capture_stdout=True
        )
        assert done.stdout == b"b''\n"
        assert server.statistics().strangers == 1
        assert server.statistics().accepted == 0


def test_only_the_owner_and_root_may_connect() -> None:
    assert may_connect(Peer(uid=1000, pid=1), 1000)
    assert may_connect(Peer(uid=0, pid=1), 1000)
    assert not may_connect(Peer(uid=1001, pid=1), 1000)
    assert not may_connect(Peer(uid=1000, pid=1), 0)


# --- crowds and bad manners ------------------------------------------------------------------


async def test_of_eighty_connections_sixteen_are_refused_and_a_console_works_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.sock"
    async with serving(path) as server, connect(path) as console:
        streams = [await trio.open_unix_socket(str(path)) for _ in range(79)]
        refused = 0
        while refused + server.statistics().clients < 80:
            refused = server.statistics().turned_away
            await trio.lowlevel.checkpoint()
        assert (refused, server.statistics().clients) == (16, 64)
        reply = await streams[-1].receive_some()
        assert b"64 clients are connected" in reply
        assert isinstance(await console.request("tree", GetTree()), Tree)
        for stream in streams:
            await stream.aclose()


async def test_a_client_that_stops_reading_holds_up_nobody(tmp_path: Path) -> None:
    forest = Forest(5_000)
    async with (
        serving(tmp_path / "x.sock", forest) as server,
        connect(server.path) as stuck,
        connect(server.path) as console,
    ):
        notices = stuck.watch([Topic.TREE])
        await anext(notices)
        other = console.watch([Topic.TREE], interval=0.05)
        for round_ in range(2, 12):
            for path, row in forest.tree.items():
                forest.tree[path] = NodeRow(
                    path=row.path,
                    id=row.id,
                    kind="task",
                    state="running",
                    incarnation=round_,
                )
            forest.changes += 1
            seen = 0
            while seen < round_:
                notice = await anext(other)
                assert isinstance(notice, Noticed)
                assert isinstance(notice.update, TreeUpdate)
                seen = notice.update.rows[-1].incarnation
        assert server.statistics().clients == 2
        await notices.aclose()
        await other.aclose()


async def test_a_flood_of_requests_leaves_room_for_a_console(tmp_path: Path) -> None:
    async def flood(path: Path) -> None:
        async def drain() -> None:
            async for _ in stream:
                pass

        async with (
            await trio.open_unix_socket(str(path)) as stream,
            trio.open_nursery() as both,
        ):
            await stream.send_all(
                b'{"jsonrpc":"2.0","id":"h","method":"hello","params":{"protocol":1}}\n'
            )
            both.start_soon(drain)
            for id_ in itertools.count():
                await stream.send_all(
                    b'{"jsonrpc":"2.0","id":%d,"method":"tree"}\n' % id_
                )

    async with (
        serving(tmp_path / "x.sock") as server,
        trio.open_nursery() as nursery,
        connect(server.path) as console,
    ):
        nursery.start_soon(flood, server.path)
        for _ in range(50):
            assert isinstance(await console.request("tree", GetTree()), Tree)
        assert server.statistics().requests > 50
        nursery.cancel_scope.cancel()


def test_the_shell_is_enough_to_talk_to_it(tmp_path: Path) -> None:
    """One line in, one line out: a client without any of our code."""

    async def main() -> bytes:
        async with serving(tmp_path / "x.sock") as server:
            program = (
                "import socket, sys; s = socket.socket(socket.AF_UNIX);"
                "s.connect(sys.argv[1]); s.sendall(sys.stdin.buffer.read());"
                "s.shutdown(socket.SHUT_WR);"
                "print(b''.join(iter(lambda: s.recv(999), b'')).decode(), end='')"
            )
            lines = (
                b'{"jsonrpc":"2.0","id":1,"method":"hello","params":{"protocol":1}}\n'
                b'{"jsonrpc":"2.0","id":2,"method":"tree"}\n'
            )
            done = await trio.run_process(
                [sys.executable, "-c", program, str(server.path)],
                stdin=lines,
                capture_stdout=True,
            )
            return done.stdout

    output = trio.run(main)
    assert output.count(b"\n") == 2
    assert b'"path":"/0"' in output


def test_the_face_of_control_finds_a_path_without_trio() -> None:
    program = (
        "import sys; from treewarden.control import socket_path; socket_path('x');"
        " print('trio' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
