"""HTTP clients and programs against others that mean harm, or are broken."""

from __future__ import annotations

import gc
import gzip
import resource
import signal
import warnings
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio

from treewarden import (
    Application,
    ChildSpec,
    Config,
    HttpFailed,
    HttpPolicy,
    HttpRefused,
    NotRunning,
    ProgramFailed,
    ProgramPolicy,
    ProgramRefused,
    Programs,
    ProgramTimeout,
    ShuttingDown,
    open_runtime,
    open_supervisor,
)
from treewarden.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.lowlevel import Task

    from treewarden import HttpClient, Runtime

ONCE: Final = HttpPolicy(attempts=1, circuit=None, trust_env=False)
PLAIN: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED: Final = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
)
# Without the time: two processes have to name the same tests.
PACKED: Final = gzip.compress(b"hello" * 9, mtime=0)
ZIPPED: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    % len(PACKED)
) + PACKED
CONTINUED: Final = b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN


class Host:
    """Says `answer` to whatever it is asked, then hangs up, or `hangs`."""

    def __init__(self) -> None:
        self.answer = PLAIN
        self.hangs = False
        self.open = 0
        self.url = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        self.open += 1
        try:
            await stream.receive_some()
            await stream.send_all(self.answer)
            while self.hangs and await stream.receive_some():
                await stream.send_all(self.answer)
        except trio.BrokenResourceError:
            pass
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)


@pytest.fixture
async def host(nursery: trio.Nursery) -> Host:
    host = Host()
    serve = partial(trio.serve_tcp, host.serve, 0, host="127.0.0.1")
    (listener,) = await nursery.start(serve)
    host.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    return host


@asynccontextmanager
async def running() -> AsyncIterator[Runtime]:
    config = Config(level="volatile", store=None, socket=False)
    async with open_runtime(Application("app", ()), config=config) as runtime:
        yield runtime


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    async with running() as runtime:
        yield runtime


@asynccontextmanager
async def open_programs(policy: ProgramPolicy | None = None) -> AsyncIterator[Programs]:
    programs = Programs(policy)
    async with open_supervisor([ChildSpec("programs", programs.serve)]):
        yield programs


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


class CancelAt(trio.abc.Instrument):
    """Cancels a scope just before one task's `number`th step."""

    def __init__(self, task: Task, number: int, scope: trio.CancelScope) -> None:
        self.task = task
        self.left = number
        self.scope = scope

    def before_task_step(self, task: Task) -> None:
        if task is self.task:
            self.left -= 1
            if not self.left:
                self.scope.cancel()


def at_rest(client: HttpClient) -> None:
    """Nobody is under way, and every account adds up."""
    seen = client.statistics()
    assert (seen.active, seen.waiting) == (0, 0)
    assert seen.requests == seen.answered + seen.failed + seen.cancelled
    assert all(site.active == 0 for site in seen.sites)


# --- answers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "whole",
    [PLAIN, CHUNKED, ZIPPED, CONTINUED],
    ids=["plain", "chunked", "packed", "continued"],
)
async def test_an_answer_that_is_cut_off_at_any_byte_is_none(
    whole: bytes, runtime: Runtime, host: Host
) -> None:
    client = runtime.http.client("pages", ONCE, base_url=host.url)
    for length in range(len(whole)):
        host.answer = whole[:length]
        with pytest.raises(HttpFailed) as failed:
            await client.get("/")
        assert failed.value.kind == "broken"
    host.answer = whole
    assert (await client.get("/")).text.startswith("hello")
    at_rest(client)


@pytest.mark.parametrize("length", [0, 3, 17, len(PLAIN) - 1])
async def test_a_host_that_falls_silent_is_given_up_and_its_socket_closed(
    length: int, runtime: Runtime, host: Host
) -> None:
    host.answer, host.hangs = PLAIN[:length], True
    policy = HttpPolicy(attempts=1, attempt_timeout=0.05, trust_env=False)
    client = runtime.http.client("pages", policy, base_url=host.url)
    with pytest.raises(trio.TooSlowError):
        await client.get("/")
    await wait_until(lambda: host.open == 0)
    at_rest(client)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 100_000,
        b"HTTP/1.1 200 OK\r\nX-Y: " + b"z" * 500_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;" + b"x" * 500_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"\x16\x03\x01" * 100,
        b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nRetry-After: "
        b"Sun, 06 Nov 1994 08:49:37 +99999999999999\r\n\r\n",
    ],
    ids=[
        "endless headers",
        "endless header",
        "endless chunk",
        "two lengths",
        "negative length",
        "no status",
        "not http",
        "mad date",
    ],
)
async def test_noise_is_a_failure_of_the_host_and_of_nothing_else(
    answer: bytes, runtime: Runtime, host: Host
) -> None:
    host.answer = answer
    client = runtime.http.client("pages", ONCE, base_url=host.url)
    with pytest.raises(HttpFailed):
        await client.get("/")
    at_rest(client)


@pytest.mark.parametrize(
    "answer",
    [b"", PLAIN, b"\x16\x03\x03\xff\xff" + bytes(100_000)],
    ids=["silence", "another language", "endless record"],
)
async def test_who_does_not_speak_tls_was_never_reached(
    answer: bytes, runtime: Runtime, host: Host
) -> None:
    """Silence, another language, a record without an end; and the socket is closed."""
    host.answer, host.hangs = answer, True
    policy = HttpPolicy(
        attempts=1, attempt_timeout=10.0, connect_timeout=0.2, trust_env=False
    )
    client = runtime.http.client("pages", policy)
    with pytest.raises(HttpFailed) as failed:
        await client.get(host.url.replace("http:", "https:"))
    assert failed.value.kind == "connect"
    await wait_until(lambda: host.open == 0)
    at_rest(client)


async def test_a_packed_answer_is_unpacked_and_a_damaged_one_leaves_nothing_open(
    runtime: Runtime, host: Host
) -> None:
    """Half-read streams would be left to the garbage collector, which warns of them."""
    client = runtime.http.client("pages", ONCE, base_url=host.url)
    host.answer = ZIPPED
    assert (await client.get("/")).text == "hello" * 9
    host.answer = ZIPPED[:-20] + bytes(20)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(5):
            with pytest.raises(HttpFailed, match="its packing is damaged"):
                await client.get("/")
        gc.collect()
        await trio.lowlevel.checkpoint()
    assert [str(one.message) for one in warned] == []


async def test_a_packed_answer_over_the_bound_is_not_taken(
    runtime: Runtime, host: Host
) -> None:
    host.answer = ZIPPED
    policy = HttpPolicy(attempts=1, limit_bytes=20, trust_env=False)
    client = runtime.http.client("pages", policy, base_url=host.url)
    with pytest.raises(HttpRefused, match="longer than 20 bytes") as refused:
        await client.get("/")
    assert refused.value.kind == "too_large"


@pytest.mark.parametrize(
    "url",
    ["http://a..b/", "http://.", f"http://{'a' * 64}.com/", "http://xn--/", "/\ud800"],
)
async def test_a_link_that_leads_nowhere_is_refused_whoever_wrote_it(
    url: str, runtime: Runtime, host: Host
) -> None:
    """A crawler follows whatever it finds; it is no failure of any host."""
    client = runtime.http.client("pages", ONCE, base_url=host.url)
    with pytest.raises(HttpRefused) as refused:
        await client.get(url)
    assert refused.value.kind == "address"
    str(refused.value).encode()
    at_rest(client)


def _has_answered(client: HttpClient) -> bool:
    return client.statistics().answered > 3


# --- cancelled, closed ----------------------------------------------------------------------


async def test_a_request_that_is_cancelled_at_any_step_leaves_no_connection_behind(
    host: Host,
) -> None:
    """After each one both connections can be had: nothing of the pool is lost."""
    host.hangs = True
    policy = HttpPolicy(connections=2, attempts=1, circuit=None, trust_env=False)
    async with running() as runtime:
        client = runtime.http.client("pages", policy, base_url=host.url)
        cancelled, step = True, 0
        while cancelled:
            step += 1
            with trio.CancelScope() as scope:
                watch = CancelAt(trio.lowlevel.current_task(), step, scope)
                trio.lowlevel.add_instrument(watch)
                try:
                    await client.get("/", headers={"Connection": "close"})
                finally:
                    trio.lowlevel.remove_instrument(watch)
            cancelled = scope.cancelled_caught
            at_rest(client)
            with trio.fail_after(60):
                async with trio.open_nursery() as both:
                    both.start_soon(client.get, "/1")
                    both.start_soon(client.get, "/2")
        assert step > 3
        # Cancelled at the door it was never a request.
        assert 2 < client.statistics().cancelled < step
    await wait_until(lambda: host.open == 0)


async def test_a_client_that_is_closed_while_it_is_asked_leaves_no_child_behind(
    runtime: Runtime, host: Host, nursery: trio.Nursery
) -> None:
    """Whoever asks while it closes would start another child, which nobody would end."""
    for _ in range(5):
        client = runtime.http.client("pages", ONCE, base_url=host.url)
        await client.get("/")
        over = trio.Event()

        async def insist(client: HttpClient = client, over: trio.Event = over) -> None:
            while not over.is_set():
                try:
                    await client.get("/")
                except (NotRunning, ShuttingDown):
                    await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as insisting:
            for _ in range(3):
                insisting.start_soon(insist)
            await wait_until(partial(_has_answered, client))
            await runtime.http.close("pages")
            for _ in range(20):
                await trio.lowlevel.checkpoint()
            over.set()
        assert runtime.directory.find("/system/http/pages") is None


async def test_a_client_starts_though_all_of_trios_threads_are_taken(
    runtime: Runtime, host: Host
) -> None:
    """By lookups of names that hang, say, of other clients."""
    threads = trio.to_thread.current_default_thread_limiter()
    total, threads.total_tokens = threads.total_tokens, 1
    threads.acquire_on_behalf_of_nowait(host)
    try:
        client = runtime.http.client("pages", ONCE, base_url=host.url)
        with trio.fail_after(60):
            assert (await client.get("/")).ok
    finally:
        threads.release_on_behalf_of(host)
        threads.total_tokens = total


# --- programs -------------------------------------------------------------------------------


async def test_a_program_that_is_cancelled_at_any_step_leaves_nothing_behind() -> None:
    """No process, no open file, no place; and none of them counts as failed."""
    async with open_programs(ProgramPolicy(limit=1, grace=1.0)) as programs:
        await programs.run(["true"])
        files, step, cancelled = open_files(), 0, True
        while cancelled:
            step += 1
            with trio.CancelScope() as scope:
                watch = CancelAt(trio.lowlevel.current_task(), step, scope)
                trio.lowlevel.add_instrument(watch)
                try:
                    await programs.run(["cat"], stdin=b"hello" * 50_000)
                finally:
                    trio.lowlevel.remove_instrument(watch)
            cancelled = scope.cancelled_caught
            seen = programs.statistics()
            assert (seen.running, seen.left_behind) == ((), 0)
            assert open_files() == files
            assert seen.started == seen.succeeded + seen.cancelled
            assert (await programs.run(["echo", "on"])).text == "on\n"
        assert step > 3


@pytest.mark.parametrize(
    ("script", "status", "written"),
    [
        # Hangs up on everybody, and lives.
        ("exec <&- >&- 2>&-; sleep 0.2; exit 3", 3, b""),
        # Ends before it has read a word.
        ("exec <&-; echo done; exit 4", 4, b"done\n"),
        ("kill -KILL $$", -9, b""),
        ("kill -SEGV $$", -11, b""),
        # What it started holds its pipes open, and is of its group: both end.
        ("sleep 1000 & echo parent; exit 5", 5, b"parent\n"),
    ],
)
async def test_a_program_may_end_in_any_way_and_is_told_of_as_it_ended(
    script: str, status: int, written: bytes
) -> None:
    async with open_programs() as programs:
        files = open_files()
        with trio.fail_after(60):
            result = await programs.run(
                ["sh", "-c", script], stdin=b"x" * 1_000_000, check=False
            )
        assert (result.status, result.stdout) == (status, written)
        assert open_files() == files


@pytest.mark.parametrize(
    "script",
    [
        "trap '' TERM; while :; do sleep 1; done",
        "kill -STOP $$",
        "trap '' TERM; (trap '' TERM; sleep 1000) & sleep 1000",
        "while :; do echo endless; done",
    ],
)
async def test_a_program_that_will_not_end_is_made_to(script: str) -> None:
    """SIGTERM ignored, stopped, with children of its kind, or writing all the while."""
    async with open_programs(ProgramPolicy(grace=0.2)) as programs:
        files = open_files()
        with trio.fail_after(60), pytest.raises(ProgramTimeout):
            await programs.run(["sh", "-c", script], timeout=0.3, limit_bytes=100)
        assert programs.statistics().running == ()
        assert open_files() == files


async def test_a_failure_is_told_even_if_whoever_started_us_ignores_sigchld() -> None:
    """The system then keeps no status, and `false` would end with 0."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        async with open_programs() as programs:
            with pytest.raises(ProgramFailed) as failed:
                await programs.run(["sh", "-c", "exit 7"])
            assert failed.value.status == 7
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            with pytest.raises(ProgramRefused, match="SIGCHLD is ignored"):
                await programs.run(["false"])
    finally:
        signal.signal(signal.SIGCHLD, before)


async def test_without_a_file_descriptor_left_a_program_is_refused_and_nothing_leaks() -> (
    None
):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with open_programs() as programs:
        await programs.run(["true"])
        files, refused = open_files(), 0
        for room in range(12):
            resource.setrlimit(resource.RLIMIT_NOFILE, (files + room, hard))
            try:
                await programs.run(["true"])
            except ProgramRefused:
                refused += 1
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert open_files() == files
        seen = programs.statistics()
        assert (seen.not_started, seen.succeeded) == (refused, 13 - refused)
        assert refused > 1
