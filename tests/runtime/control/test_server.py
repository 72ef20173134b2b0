"""The control server over streams in memory, in virtual time."""

import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from treewarden.control import RemoteRuntime
from treewarden.control.listening import Peer, has_room
from treewarden.control.protocol import (
    EventRow,
    Events,
    EventsUpdate,
    GetCircuits,
    GetTree,
    Inject,
    NodeRow,
    Raw,
    Restart,
    Rights,
    Topic,
    Tree,
    TreeUpdate,
    Unwatch,
    Update,
)
from treewarden.control.session import Noticed, UnknownNotice
from treewarden.errors import (
    ControlError,
    IntensityExceeded,
    NoRuntime,
    NotAllowed,
    RemoteProtocolError,
    TreewardenError,
    UnknownChild,
)

if TYPE_CHECKING:
    from .conftest import Desk

Notices = AsyncGenerator[Noticed | UnknownNotice, None]
HELLO = b'{"jsonrpc":"2.0","id":"h","method":"hello","params":{"protocol":1}}\n'
TREE = b'{"jsonrpc":"2.0","id":"t","method":"tree"}\n'


async def next_update(notices: Notices) -> Update:
    notice = await anext(notices)
    assert isinstance(notice, Noticed)
    return notice.update


async def next_tree(notices: Notices) -> TreeUpdate:
    update = await next_update(notices)
    assert isinstance(update, TreeUpdate)
    return update


async def next_events(notices: Notices) -> EventsUpdate:
    update = await next_update(notices)
    assert isinstance(update, EventsUpdate)
    return update


async def is_quiet(notices: Notices, seconds: float = 30) -> bool:
    with trio.move_on_after(seconds) as scope:
        await anext(notices)
    return scope.cancelled_caught


async def read_all(stream: trio.abc.ReceiveStream) -> list[dict[str, object]]:
    data = b"".join([bytes(chunk) async for chunk in stream])
    return [msgspec.json.decode(line) for line in data.splitlines()]


def event(position: int, payload: bytes = b"1") -> EventRow:
    return EventRow(position=position, topic="t", at_ns=0, payload=Raw(payload))


# --- coming in -----------------------------------------------------------------------------


@pytest.mark.parametrize("asked", list(Rights))
@pytest.mark.parametrize("cap", list(Rights))
async def test_nobody_gets_more_rights_than_asked_or_than_the_cap(
    autojump_clock: MockClock, desk: "Desk", asked: Rights, cap: Rights
) -> None:
    remote = await desk.with_cap(cap).dial(asked)
    assert remote.welcome.rights == min(asked, cap, key=list(Rights).index)
    assert remote.welcome.runtime == desk.target.runtime_row()


async def test_the_target_learns_who_asks(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    remote = await desk.dial()
    await remote.request("tree", GetTree())
    [(_, _, client)] = desk.target.performed
    assert (client.name, client.operator, client.uid, client.pid) == (
        "test",
        "ada",
        5,
        6,
    )


async def test_who_says_nothing_is_turned_away_after_five_seconds(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    [reply] = await read_all(desk.connect())
    assert trio.current_time() == pytest.approx(5)
    assert "no hello within 5 s" in str(reply["error"])


async def test_a_hello_a_byte_at_a_time_is_too_slow(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    stream = desk.connect()
    with pytest.raises(trio.BrokenResourceError):
        for byte in HELLO:
            await stream.send_all(bytes([byte]))
            await trio.sleep(1)
    assert desk.server.statistics().clients == 0


async def test_who_says_anything_else_first_is_told_so(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    stream = desk.connect()
    await stream.send_all(TREE)
    [reply] = await read_all(stream)
    assert "say hello first" in str(reply["error"])
    assert desk.target.performed == []


async def test_the_sixty_fifth_client_is_refused_politely(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    clients = [await desk.dial() for _ in range(64)]
    with pytest.raises(ControlError, match="64 clients are connected"):
        await desk.dial()
    await clients[0].request("tree", GetTree())
    assert desk.server.statistics().turned_away == 1


async def test_a_client_that_left_makes_room_for_another(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    streams = [desk.connect() for _ in range(64)]
    await trio.testing.wait_all_tasks_blocked()
    await streams[0].aclose()
    await trio.testing.wait_all_tasks_blocked()
    await desk.dial()


# --- asking --------------------------------------------------------------------------------


async def test_a_request_is_answered(autojump_clock: MockClock, desk: "Desk") -> None:
    remote = await desk.dial()
    tree = await remote.request("tree", GetTree())
    assert tree == Tree(rows=list(desk.target.nodes.values()))


async def test_requests_in_the_same_breath_as_hello_are_answered_before_the_end(
    autojump_clock: MockClock,
    desk: "Desk",
) -> None:
    stream = desk.connect()
    await stream.send_all(HELLO + TREE)
    await stream.send_eof()
    replies = await read_all(stream)
    assert [reply["id"] for reply in replies] == ["h", "t"]


async def test_a_refusal_arrives_as_the_error_that_was_raised(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    async def fail() -> None:
        raise UnknownChild("/shop", "b")

    desk.target.act = fail
    remote = await desk.dial(Rights.RW)
    with pytest.raises(UnknownChild, match="/shop has no child 'b'"):
        await remote.request("restart", Restart(path="/shop/b"))


async def test_an_error_whose_fields_cannot_travel_keeps_class_and_words(
    autojump_clock: MockClock,
    desk: "Desk",
) -> None:
    async def fail() -> None:
        raise IntensityExceeded("/shop", ("a",), None)

    desk.target.act = fail
    remote = await desk.dial()
    with pytest.raises(IntensityExceeded, match="too many restarts of a"):
        await remote.request("tree", GetTree())


async def test_an_error_of_the_applications_own_arrives_as_the_nearest_known(
    autojump_clock: MockClock,
    desk: "Desk",
) -> None:
    class OutOfStock(UnknownChild):
        def __str__(self) -> str:
            raise ValueError("even this fails")

    async def fail() -> None:
        raise OutOfStock("/shop", "b")

    desk.target.act = fail
    remote = await desk.dial()
    with pytest.raises(UnknownChild, match="__str__ failed"):
        await remote.request("tree", GetTree())


async def test_a_bug_in_one_request_is_answered_and_costs_nobody_else(
    autojump_clock: MockClock, desk: "Desk", caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise ZeroDivisionError("oops")

    desk.target.act = fail
    remote, other = await desk.dial(), await desk.dial()
    with pytest.raises(ControlError, match="ZeroDivisionError: oops"):
        await remote.request("tree", GetTree())
    desk.target.act = trio.lowlevel.checkpoint
    for one in (remote, other):
        assert isinstance(await one.request("tree", GetTree()), Tree)
    assert desk.server.statistics().failures == 1
    assert "test_server.py" in caplog.text


async def test_a_bug_behind_one_topic_ends_its_client_and_nobody_else(
    autojump_clock: MockClock, desk: "Desk", caplog: pytest.LogCaptureFixture
) -> None:
    remote, other = await desk.dial(), await desk.dial()
    with pytest.raises(NoRuntime):
        await anext(remote.watch([Topic.BUS]))
    assert isinstance(await other.request("tree", GetTree()), Tree)
    assert desk.server.statistics().failures == 1
    assert "a bug in the target" in caplog.text


async def test_no_more_than_sixteen_requests_of_a_client_are_in_flight(
    autojump_clock: MockClock,
    desk: "Desk",
) -> None:
    gate = trio.Event()
    desk.target.act = gate.wait
    stream = desk.connect()
    other = await desk.dial()
    asks = [TREE.replace(b'"t"', str(id_).encode()) for id_ in range(40)]
    await stream.send_all(HELLO + b"".join(asks))
    await stream.send_eof()
    await trio.testing.wait_all_tasks_blocked()
    assert len(desk.target.performed) == 16
    desk.target.act = trio.lowlevel.checkpoint
    await other.request("tree", GetTree())
    gate.set()
    assert len(await read_all(stream)) == 41


async def test_garbage_ends_one_connection_only(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    remote = await desk.dial()
    stream = desk.connect()
    await stream.send_all(HELLO + b"\x00\x01\x02\n" + TREE)
    replies = await read_all(stream)
    assert ["error" in reply for reply in replies] == [False, True]
    assert isinstance(await remote.request("tree", GetTree()), Tree)


# --- rights --------------------------------------------------------------------------------


async def test_an_act_above_the_rights_is_refused_and_recorded(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    remote = await desk.dial(Rights.RW)
    with pytest.raises(
        NotAllowed, match="inject needs chaos rights, this client has rw"
    ):
        await remote.request("inject", Inject(kind="crash", path="/a"))
    assert desk.target.not_allowed == ["inject by ada"]
    assert desk.target.performed == []


async def test_a_refusal_says_when_the_runtime_grants_it_to_nobody(
    autojump_clock: MockClock,
    desk: "Desk",
) -> None:
    remote = await desk.with_cap(Rights.RO).dial(Rights.CHAOS)
    with pytest.raises(NotAllowed, match="this runtime grants at most ro"):
        await remote.request("restart", Restart(path="/a"))


# --- acts ----------------------------------------------------------------------------------


async def test_an_act_sent_twice_with_one_key_happens_once(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    first, second = await desk.dial(Rights.RW), await desk.dial(Rights.RW)
    act = Restart(path="/a", key="k1")
    outcomes = [await one.request("restart", act) for one in (first, second, first)]
    assert len(desk.target.performed) == 1
    assert outcomes[0] == outcomes[1] == outcomes[2]


async def test_a_failed_act_is_not_tried_again_under_its_key(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    async def fail() -> None:
        raise UnknownChild("/", "a")

    desk.target.act = fail
    remote = await desk.dial(Rights.RW)
    for _ in range(2):
        with pytest.raises(UnknownChild):
            await remote.request("restart", Restart(path="/a", key="k1"))
    assert len(desk.target.performed) == 1


async def test_an_act_outlives_the_connection_that_asked_for_it(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    gate = trio.Event()
    desk.target.act = gate.wait
    act = Restart(path="/a", key="k1")
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as connection:
        connection.start_soon(desk.server.converse, theirs, Peer(uid=5, pid=6))
        hasty = RemoteRuntime(ours)
        await hasty.greet(Rights.RW, "test", "ada")
        connection.start_soon(hasty.request, "restart", act)
        await trio.testing.wait_all_tasks_blocked()
        connection.cancel_scope.cancel()
    gate.set()
    patient = await desk.dial(Rights.RW)
    await patient.request("restart", act)
    assert len(desk.target.performed) == 1


async def test_a_key_belongs_to_one_act(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    remote = await desk.dial(Rights.RW)
    await remote.request("restart", Restart(path="/a", key="k1"))
    with pytest.raises(ControlError, match="belongs to another act"):
        await remote.request("restart", Restart(path="/b", key="k1"))
    with pytest.raises(ControlError, match="at most 128 characters"):
        await remote.request("restart", Restart(path="/b", key="k" * 129))


async def test_the_memory_of_acts_is_bounded(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    remote = await desk.dial(Rights.RW)
    for number in range(1002):
        await remote.request("restart", Restart(path="/a", key=str(number)))
    await remote.request("restart", Restart(path="/a", key="1001"))
    assert len(desk.target.performed) == 1002
    await remote.request("restart", Restart(path="/a", key="0"))
    assert len(desk.target.performed) == 1003


async def test_acts_without_a_key_are_what_they_look_like(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    remote = await desk.dial(Rights.RW)
    for _ in range(2):
        await remote.request("restart", Restart(path="/a"))
    assert len(desk.target.performed) == 2


# --- watching ------------------------------------------------------------------------------


async def test_a_watched_topic_is_told_whole_and_then_by_its_changes(
    autojump_clock: MockClock,
    desk: "Desk",
) -> None:
    desk.target.put("/b")
    async with aclosing((await desk.dial()).watch([Topic.TREE])) as notices:
        full = await next_tree(notices)
        assert full.full
        assert [row.path for row in full.rows] == ["/a", "/b"]
        desk.target.put("/b", incarnation=2)
        desk.target.remove("/a")
        change = await next_tree(notices)
        assert not change.full
        assert [(row.path, row.incarnation) for row in change.rows] == [("/b", 2)]
        assert change.gone == ["/a"]
        assert [full.sequence, change.sequence] == [1, 2]


async def test_a_change_that_changes_nothing_is_not_told(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    async with aclosing((await desk.dial()).watch([Topic.TREE])) as notices:
        await next_tree(notices)
        desk.target.put("/a")
        assert await is_quiet(notices)


async def test_changes_are_told_at_most_ten_times_a_second(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    async def restless() -> None:
        for incarnation in range(1, 1001):
            desk.target.put("/a", incarnation)
            await trio.sleep(0.01)

    desk.nursery.start_soon(restless)
    told: list[NodeRow] = []
    async with aclosing((await desk.dial()).watch([Topic.TREE])) as notices:
        with trio.move_on_after(10.5):
            while True:
                told += (await next_tree(notices)).rows
    assert 90 <= len(told) <= 102
    assert told[-1].incarnation == 1000


async def test_nobody_is_told_more_often_than_twenty_times_a_second(
    autojump_clock: MockClock,
    desk: "Desk",
) -> None:
    async def restless() -> None:
        for incarnation in range(1, 1001):
            desk.target.put("/a", incarnation)
            await trio.sleep(0.001)

    desk.nursery.start_soon(restless)
    count = 0
    remote = await desk.dial()
    async with aclosing(remote.watch([Topic.TREE], interval=-1)) as notices:
        with trio.move_on_after(1):
            while True:
                await next_tree(notices)
                count += 1
    assert count <= 21
    assert desk.target.asked <= 2 * 21


async def test_the_process_is_told_once_a_second(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    times: list[float] = []
    async with aclosing((await desk.dial()).watch([Topic.PROCESS])) as notices:
        for _ in range(4):
            await next_update(notices)
            times.append(trio.current_time())
    assert times[-1] - times[0] == pytest.approx(3, abs=0.35)


async def test_without_a_watcher_nothing_wakes_up(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    remote = await desk.dial()
    await trio.sleep(3600)
    assert desk.target.asked == 0
    async with aclosing(remote.watch([Topic.TREE, Topic.EVENTS])) as notices:
        await next_tree(notices)
    await remote.request("unwatch", Unwatch(topics=[Topic.TREE, Topic.EVENTS]))
    await trio.sleep(1)
    asked = desk.target.asked
    await trio.sleep(3600)
    assert desk.target.asked == asked
    assert desk.target.sinks == []


async def test_what_is_watched_again_is_told_whole_again(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    remote = await desk.dial()
    for _ in range(2):
        async with aclosing(remote.watch([Topic.TREE])) as notices:
            assert (await next_tree(notices)).full
        await remote.request("unwatch", Unwatch(topics=[Topic.TREE]))


async def test_two_clients_see_the_same_and_the_rows_are_made_once(
    autojump_clock: MockClock,
    desk: "Desk",
) -> None:
    remotes = [await desk.dial(), await desk.dial()]
    async with (
        aclosing(remotes[0].watch([Topic.TREE])) as first,
        aclosing(remotes[1].watch([Topic.TREE])) as second,
    ):
        shown = [await next_tree(first), await next_tree(second)]
        assert shown[0] == shown[1]
        desk.target.put("/c")
        shown = [await next_tree(first), await next_tree(second)]
        assert shown[0] == shown[1]
        assert [row.path for row in shown[0].rows] == ["/c"]
    assert desk.server.statistics().consoles == 2


async def test_a_client_that_leaves_stops_following(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    remote = await desk.dial()
    async with aclosing(remote.watch([Topic.EVENTS])) as notices:
        await next_events(notices)
    await remote._stream.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert desk.target.sinks == []


# --- events --------------------------------------------------------------------------------


async def test_events_begin_with_the_end_of_the_journal_and_none_comes_twice(
    autojump_clock: MockClock,
    desk: "Desk",
) -> None:
    desk.target.publish(*(event(position) for position in range(1, 301)))
    async with aclosing((await desk.dial()).watch([Topic.EVENTS])) as notices:
        history = await next_events(notices)
        assert history.full
        assert [row.position for row in history.rows] == list(range(101, 301))
        desk.target.publish(event(301), event(0))
        live = await next_events(notices)
        assert [row.position for row in live.rows] == [301, 0]
        assert not live.full


async def test_events_while_the_journal_is_read_are_neither_lost_nor_doubled(
    autojump_clock: MockClock, desk: "Desk", monkeypatch: pytest.MonkeyPatch
) -> None:
    read = desk.target.perform

    async def slow_read(*args: object) -> object:
        desk.target.publish(event(1))
        found = await read(*args)  # type: ignore[arg-type]
        desk.target.publish(event(2), event(0))
        return found

    monkeypatch.setattr(desk.target, "perform", slow_read)
    async with aclosing((await desk.dial()).watch([Topic.EVENTS])) as notices:
        rows = (await next_events(notices)).rows
    assert [row.position for row in rows] == [1, 2, 0]


async def test_a_journal_that_cannot_be_read_does_not_hide_what_happens(
    autojump_clock: MockClock, desk: "Desk", monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> Events:
        await trio.lowlevel.checkpoint()
        raise TreewardenError("disk")

    monkeypatch.setattr(desk.target, "perform", broken)
    async with aclosing((await desk.dial()).watch([Topic.EVENTS])) as notices:
        assert (await next_events(notices)).rows == []
        desk.target.publish(event(7))
        assert [row.position for row in (await next_events(notices)).rows] == [7]


async def test_the_oldest_events_make_room_and_are_counted(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    async with aclosing((await desk.dial()).watch([Topic.EVENTS])) as notices:
        await next_events(notices)
        desk.target.publish(*(event(position) for position in range(1, 10_001)))
        received: list[int] = []
        lost = 0
        while not received or received[-1] != 10_000:
            update = await next_events(notices)
            received += [row.position for row in update.rows]
            lost += update.lost
        assert lost + len(received) == 10_000
        assert received == list(range(lost + 1, 10_001))


async def test_large_events_are_bounded_by_their_bytes(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    big = b'"' + b"x" * 300_000 + b'"'
    async with aclosing((await desk.dial()).watch([Topic.EVENTS])) as notices:
        await next_events(notices)
        desk.target.publish(*(event(position, big) for position in range(1, 11)))
        update = await next_events(notices)
        assert (len(update.rows), update.lost) == (3, 7)


# --- a client that does not read -----------------------------------------------------------


async def test_a_client_that_does_not_read_misses_updates_and_is_told_how_many(
    autojump_clock: MockClock,
    desk: "Desk",
) -> None:
    remote = await desk.dial(lockstep=True)
    async with aclosing(remote.watch([Topic.TREE])) as notices:
        await next_tree(notices)
        for incarnation in range(2, 50):
            desk.target.put("/a", incarnation)
            await trio.sleep(0.1)
        shown = [await next_tree(notices)]
        while shown[-1].rows[0].incarnation != 49:
            shown.append(await next_tree(notices))
        assert len(shown) <= 3
        assert 40 <= sum(update.lost for update in shown) <= 48


async def test_a_runtime_that_is_slow_itself_does_not_say_that_its_client_is(
    autojump_clock: MockClock,
    desk: "Desk",
) -> None:
    # The stream takes its time, as it does where the loop comes round late.
    remote = await desk.dial(lockstep=True, ready=True)
    async with aclosing(remote.watch([Topic.TREE])) as notices:
        await next_tree(notices)
        desk.target.put("/a", 2)
        await trio.sleep(5)
        desk.target.put("/a", 3)
        shown = [await next_tree(notices), await next_tree(notices)]
    assert [update.rows[0].incarnation for update in shown] == [2, 3]
    assert [update.lost for update in shown] == [0, 0]


def test_a_socket_has_room_until_its_reader_is_behind() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        assert has_room(ours)
        sent = 0
        with suppress(BlockingIOError):
            while True:
                sent += ours.send(b"x" * 4096)
        assert not has_room(ours)
        while sent:
            sent -= len(theirs.recv(sent))
        assert has_room(ours)
    assert not has_room(ours), "it is closed"


async def test_a_client_that_reads_nothing_for_ten_seconds_is_cut_off(
    autojump_clock: MockClock,
    desk: "Desk",
) -> None:
    stuck = await desk.dial(lockstep=True)
    other = await desk.dial()
    notices = stuck.watch([Topic.TREE, Topic.EVENTS])
    assert (await next_tree(notices)).full
    began = trio.current_time()
    while desk.server.statistics().clients == 2:
        desk.target.put("/a", int(trio.current_time() * 100))
        desk.target.publish(event(0, b'"' + b"x" * 10_000 + b'"'))
        await trio.sleep(0.5)
    assert trio.current_time() - began == pytest.approx(10, abs=1)
    assert desk.server.statistics().cut_off == 1
    assert desk.target.sinks == []
    await other.request("tree", GetTree())
    await notices.aclose()


async def test_a_long_frame_is_no_reason_to_lose_patience(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    for number in range(2000):
        desk.target.put(f"/{number:0>400}")
    stream = desk.connect(lockstep=True)
    await stream.send_all(HELLO + TREE)
    data = b""
    with trio.move_on_after(600):
        # 64 KiB in 9 seconds: slow, but not stuck; the frame takes over a minute.
        while data.count(b"\n") < 2:
            await trio.sleep(9)
            chunk = b""
            while len(chunk) < 1 << 16 and not data.endswith(b"\n"):
                chunk += await stream.receive_some(1 << 16)
                data += chunk
    assert desk.server.statistics().cut_off == 0


async def test_a_client_that_vanishes_is_no_failure(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    remote = await desk.dial()
    notices = remote.watch([Topic.TREE, Topic.CIRCUITS])
    await next_tree(notices)
    await remote._stream.aclose()
    desk.target.put("/z")
    await trio.sleep(60)
    statistics = desk.server.statistics()
    assert (statistics.clients, statistics.failures) == (0, 0)
    await notices.aclose()


# --- the client ----------------------------------------------------------------------------


async def test_a_request_given_up_does_not_confuse_the_next(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    gate = trio.Event()
    desk.target.act = gate.wait
    remote = await desk.dial(Rights.RW)
    with trio.move_on_after(1):
        await remote.request("restart", Restart(path="/a"))
    gate.set()
    assert isinstance(await remote.request("tree", GetTree()), Tree)


async def test_a_runtime_that_goes_away_is_named_so(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    remote = await desk.dial()
    client, server = trio.testing.memory_stream_pair()
    await server.aclose()
    remote._stream = client
    with pytest.raises(NoRuntime, match=r"closed the connection|went away"):
        await remote.request("circuits", GetCircuits())


async def test_a_peer_that_speaks_http_is_named_so(
    autojump_clock: MockClock, desk: "Desk"
) -> None:
    remote = await desk.dial()
    client, server = trio.testing.memory_stream_pair()
    await server.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    remote._stream = client
    with pytest.raises(RemoteProtocolError, match="not a frame"):
        await remote.request("circuits", GetCircuits())
