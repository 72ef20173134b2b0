"""The two ends of the protocol joined by a fake wire, and each fed with nonsense."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from treewarden.control.protocol import (
    MAX_FRAME_BYTES,
    METHODS,
    PROTOCOL,
    AgentRow,
    Agents,
    AgentState,
    AgentsUpdate,
    Done,
    ErrorCode,
    EventRow,
    Events,
    EventsUpdate,
    GetAgents,
    GetState,
    GetTree,
    Hello,
    Message,
    NodeRow,
    Restart,
    Rights,
    RuntimeRow,
    Topic,
    Tree,
    TreeUpdate,
    Update,
    Watch,
    Welcome,
)
from treewarden.control.session import (
    Asked,
    Broken,
    ClientEvent,
    ClientSession,
    Failed,
    IllegalMessage,
    Noticed,
    Rejected,
    Replied,
    ServerEvent,
    ServerSession,
    UnknownNotice,
    Welcomed,
    split_rows,
)

RUNTIME = RuntimeRow(
    name="shop", pid=7, boot="b", version="0", started_at_ns=1, level="durable"
)
WELCOME = Welcome(protocol=PROTOCOL, rights=Rights.RW, runtime=RUNTIME)
HELLO = b'{"jsonrpc":"2.0","id":1,"method":"hello","params":{"protocol":1}}\n'


def row(path: str, label: str = "") -> NodeRow:
    return NodeRow(path=path, id=path, kind="task", state="running", label=label)


def body(line: bytes) -> dict[str, object]:
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    frame: dict[str, object] = msgspec.json.decode(line)
    return frame


@dataclass
class Pair:
    """Both ends after the welcome."""

    client: ClientSession = field(default_factory=ClientSession)
    server: ServerSession = field(default_factory=ServerSession)

    def __post_init__(self) -> None:
        [asked] = self.server.receive(self.client.hello(rights=Rights.RW))
        assert isinstance(asked, Asked)
        [welcomed] = self.client.receive(self.server.welcome(asked.id, WELCOME))
        assert welcomed == Welcomed(welcome=WELCOME)

    def ask(self, method: str, params: Message) -> Asked:
        [asked] = self.server.receive(self.client.request(method, params)[1])
        assert isinstance(asked, Asked)
        return asked

    def tell(self, frames: Iterator[bytes]) -> list[ClientEvent]:
        return [event for one in frames for event in self.client.receive(one)]


def raw_request(id_: object, method: str, params: object = None) -> bytes:
    frame = {"jsonrpc": "2.0", "id": id_, "method": method, "params": params or {}}
    return msgspec.json.encode(frame) + b"\n"


def reject(pair: Pair, line: bytes) -> dict[str, object]:
    [event] = pair.server.receive(line)
    assert isinstance(event, Rejected)
    assert not pair.server.closed
    return body(event.reply)


# --- the way it should go ------------------------------------------------------------------


def test_a_request_arrives_typed_and_its_reply_too() -> None:
    pair = Pair()
    asked = pair.ask("tree", GetTree(root="/shop"))
    assert (asked.method, asked.params) == ("tree", GetTree(root="/shop"))
    tree = Tree(rows=[row("/shop")])
    assert pair.tell(pair.server.reply(asked.id, tree)) == [Replied(id=2, result=tree)]


def test_every_method_travels_with_its_own_shapes() -> None:
    pair = Pair()
    for name in METHODS.keys() - {"hello"}:
        with pytest.raises(IllegalMessage, match=f"{name} takes"):
            pair.client.request(name, Done(sentence="x"))


def test_replies_may_come_in_any_order() -> None:
    pair = Pair()
    first = pair.ask("agents", GetAgents())
    second = pair.ask("tree", GetTree())
    events = pair.tell(pair.server.reply(second.id, Tree(rows=[])))
    events += pair.tell(pair.server.reply(first.id, Agents(rows=[])))
    assert [event.id for event in events if isinstance(event, Replied)] == [3, 2]


def test_an_error_arrives_with_its_kind() -> None:
    pair = Pair()
    asked = pair.ask("restart", Restart(path="/x"))
    reply = pair.server.refuse(asked.id, "no child 'x'", kind="UnknownChild")
    assert list(pair.client.receive(reply)) == [
        Failed(
            id=2, kind="UnknownChild", message="no child 'x'", code=ErrorCode.REFUSED
        )
    ]


def test_an_error_with_half_a_character_still_arrives() -> None:
    pair = Pair()
    asked = pair.ask("tree", GetTree())
    [failed] = pair.client.receive(pair.server.refuse(asked.id, "\ud800" * 9999))
    assert isinstance(failed, Failed)
    assert failed.message == "?" * 4000


def test_a_notice_arrives_typed() -> None:
    pair = Pair()
    update = TreeUpdate(sequence=1, full=True, rows=[row("/a")])
    events = pair.tell(pair.server.notice(Topic.TREE, update))
    assert events == [Noticed(method="tree.update", update=update)]


def test_a_forgotten_request_is_answered_into_the_void() -> None:
    pair = Pair()
    asked = pair.ask("tree", GetTree())
    pair.client.forget(2)
    assert pair.tell(pair.server.reply(asked.id, Tree(rows=[]))) == []
    assert not pair.client.closed


def test_white_space_in_raw_json_does_not_cut_a_frame() -> None:
    pair = Pair()
    asked = pair.ask("state", GetState(agent="a"))
    state = AgentState(
        path="/a", type="T", version=1, incarnation=1, state=msgspec.Raw(b'{\n"n":\n1}')
    )
    [replied] = pair.tell(pair.server.reply(asked.id, state))
    assert isinstance(replied, Replied)
    assert isinstance(replied.result, AgentState)
    assert msgspec.json.decode(replied.result.state) == {"n": 1}


def test_empty_lines_mean_nothing() -> None:
    assert list(Pair().server.receive(b"\n\r\n  \n")) == []


# --- versions and order --------------------------------------------------------------------


def test_a_client_that_is_too_old_is_told_so_and_the_connection_ends() -> None:
    server = ServerSession()
    [event] = server.receive(raw_request(1, "hello", {"protocol": 0}))
    assert isinstance(event, Broken)
    assert "speaks protocol 1 to 1, the client 0" in event.reason
    client = ClientSession()
    client.hello()
    assert [type(one) for one in client.receive(event.reply)] == [Broken]


def test_a_newer_client_with_words_we_do_not_know_is_welcome() -> None:
    params = {"protocol": 99, "capabilities": ["x"]}
    [asked] = ServerSession().receive(raw_request(1, "hello", params))
    assert isinstance(asked, Asked)
    assert asked.params == Hello(protocol=99)


def test_a_runtime_that_is_too_old_is_left_with_a_sentence() -> None:
    client, server = ClientSession(), ServerSession()
    list(server.receive(client.hello()))
    old = Welcome(protocol=0, rights=Rights.RO, runtime=RUNTIME)
    [event] = client.receive(server.welcome(1, old))
    assert isinstance(event, Broken)
    assert "attach with the treewarden that it runs" in event.reason


@pytest.mark.parametrize("line", [raw_request(1, "tree"), b'{"id":1}\n', b"nonsense\n"])
def test_nothing_may_come_before_hello(line: bytes) -> None:
    server = ServerSession()
    [event, *more] = server.receive(line)
    assert isinstance(event, Broken | Rejected)
    assert more == []
    assert "error" in body(event.reply)
    assert server.welcomed is False


def test_a_request_before_the_welcome_is_refused() -> None:
    server = ServerSession()
    list(server.receive(HELLO))
    [event] = server.receive(raw_request(2, "tree"))
    assert isinstance(event, Rejected)


def test_hello_is_said_once() -> None:
    pair = Pair()
    reply = reject(pair, raw_request(5, "hello", {"protocol": 1, "rights": "chaos"}))
    assert reply["id"] == 5
    with pytest.raises(IllegalMessage, match="already"):
        pair.client.hello()
    with pytest.raises(IllegalMessage, match="already"):
        pair.client.request("hello", Hello(protocol=1))


def test_a_client_cannot_ask_before_the_welcome() -> None:
    client = ClientSession()
    with pytest.raises(IllegalMessage, match="without a welcome"):
        client.request("tree", GetTree())


def test_a_server_cannot_tell_before_the_welcome() -> None:
    with pytest.raises(IllegalMessage, match="before the welcome"):
        ServerSession().notice(Topic.TREE, TreeUpdate(sequence=1))


def test_a_server_answers_only_what_was_asked_and_once() -> None:
    pair = Pair()
    asked = pair.ask("tree", GetTree())
    list(pair.server.reply(asked.id, Tree(rows=[])))
    with pytest.raises(IllegalMessage, match="no request 2"):
        pair.server.reply(asked.id, Tree(rows=[]))


def test_turning_away_ends_the_connection_before_it_began() -> None:
    client, server = ClientSession(), ServerSession()
    client.hello()
    [event] = client.receive(server.turn_away("too many clients"))
    assert isinstance(event, Broken)
    assert (event.reason, event.kind) == ("too many clients", "ControlError")
    assert list(server.receive(HELLO)) == []


# --- requests that cannot be served --------------------------------------------------------


def code(reply: dict[str, object]) -> object:
    error = reply["error"]
    assert isinstance(error, dict)
    return error["code"]


def test_an_unknown_method_is_answered_and_forgiven() -> None:
    reply = reject(Pair(), raw_request(9, "frobnicate"))
    assert (reply["id"], code(reply)) == (9, ErrorCode.METHOD_NOT_FOUND)


@pytest.mark.parametrize(
    "params",
    [{}, {"path": 3}, {"path": "/x", "incarnation": "1"}, {"path": "/x", "force": 1}],
)
def test_wrong_parameters_are_answered_and_forgiven(params: object) -> None:
    reply = reject(Pair(), raw_request("a", "restart", params))
    assert (reply["id"], code(reply)) == ("a", ErrorCode.INVALID_PARAMS)


@pytest.mark.parametrize(
    "line",
    [
        b"[]\n",
        b"{}\n",
        b'{"jsonrpc":"1.0","id":1,"method":"tree"}\n',
        b'{"jsonrpc":"2.0","id":null,"method":"tree"}\n',
        b'{"jsonrpc":"2.0","id":1.5,"method":"tree"}\n',
        b'{"jsonrpc":"2.0","method":"tree"}\n',
        raw_request("i" * 200, "tree"),
    ],
)
def test_what_is_not_a_request_is_answered_without_an_id(line: bytes) -> None:
    reply = reject(Pair(), line)
    assert (reply["id"], code(reply)) == (None, ErrorCode.INVALID_REQUEST)


def test_an_id_in_flight_is_not_taken_twice() -> None:
    pair = Pair()
    list(pair.server.receive(raw_request("a", "tree")))
    assert reject(pair, raw_request("a", "agents"))["id"] is None
    list(pair.server.reply("a", Tree(rows=[])))
    [again] = pair.server.receive(raw_request("a", "agents"))
    assert isinstance(again, Asked)


@pytest.mark.parametrize(
    "line",
    [
        b"\x00\xff\n",
        b"{" * 10 + b"\n",
        b'{"jsonrpc":"2.0","id":1,"method":"\xff"}\n',
        b'{"jsonrpc":"2.0","id":1,"method":"tree","params":' + b"[" * 100_000 + b"\n",
    ],
)
def test_what_cannot_be_read_ends_the_connection_politely(line: bytes) -> None:
    pair = Pair()
    [event] = pair.server.receive(line + raw_request(5, "tree"))
    assert isinstance(event, Broken)
    assert code(body(event.reply)) == ErrorCode.PARSE
    assert pair.server.closed
    assert list(pair.server.receive(raw_request(6, "tree"))) == []


def test_deep_nesting_in_parameters_is_refused() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    line = b'{"jsonrpc":"2.0","id":1,"method":"tree","params":' + deep + b"}\n"
    [event] = Pair().server.receive(line)
    assert isinstance(event, Broken | Rejected)


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_frame_over_the_limit_ends_the_connection_even_unfinished(end: bytes) -> None:
    for session in (Pair().server, Pair().client):
        events = list(session.receive(b"x" * MAX_FRAME_BYTES + end))
        assert [type(event) for event in events] == [Broken]
        assert session.closed


def test_a_frame_at_the_limit_is_read() -> None:
    pair = Pair()
    line = raw_request(2, "tree")
    padded = line[:-1] + b" " * (MAX_FRAME_BYTES - len(line)) + b"\n"
    assert len(padded) == MAX_FRAME_BYTES
    assert [type(event) for event in pair.server.receive(padded)] == [Asked]


def test_frames_that_are_not_taken_stay_bytes() -> None:
    pair = Pair()
    lines = b"".join(raw_request(id_, "tree") for id_ in range(10, 20))
    events = pair.server.receive(lines)
    first = next(events)
    assert isinstance(first, Asked)
    assert first.id == 10
    rest = [event.id for event in pair.server.receive(b"") if isinstance(event, Asked)]
    assert rest == list(range(11, 20))
    assert list(events) == []


# --- what a client bears -------------------------------------------------------------------


def test_unknown_news_are_handed_on_raw() -> None:
    line = b'{"jsonrpc":"2.0","method":"weather.update","params":{"rain":1}}\n'
    [event] = Pair().client.receive(line)
    assert event == UnknownNotice(method="weather.update", params=b'{"rain":1}')


def test_news_of_a_newer_shape_are_handed_on_raw() -> None:
    line = b'{"jsonrpc":"2.0","method":"tree.update","params":{"sequence":"x"}}\n'
    pair = Pair()
    [event] = pair.client.receive(line)
    assert isinstance(event, UnknownNotice)
    assert not pair.client.closed


def test_fields_of_a_newer_runtime_are_passed_over() -> None:
    pair = Pair()
    pair.ask("tree", GetTree())
    line = b'{"jsonrpc":"2.0","id":2,"result":{"rows":[],"novel":1},"novel":2}\n'
    assert list(pair.client.receive(line)) == [Replied(id=2, result=Tree(rows=[]))]


def test_a_result_that_cannot_be_read_fails_its_request_only() -> None:
    pair = Pair()
    pair.ask("tree", GetTree())
    line = b'{"jsonrpc":"2.0","id":2,"result":{"rows":7}}\n'
    [event] = pair.client.receive(line)
    assert isinstance(event, Failed)
    assert (event.id, event.kind) == (2, "RemoteProtocolError")
    assert not pair.client.closed


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc":"2.0","id":99,"result":{}}\n',
        b'{"jsonrpc":"2.0","id":"a","result":{}}\n',
        b'{"jsonrpc":"2.0","id":null,"result":{}}\n',
        b'{"jsonrpc":"2.0"}\n',
        b'{"jsonrpc":"2.0","id":2}\n',
        b"HTTP/1.1 400 Bad Request\r\n",
    ],
)
def test_a_peer_that_speaks_another_language_is_left(line: bytes) -> None:
    pair = Pair()
    pair.ask("tree", GetTree())
    [event] = pair.client.receive(line)
    assert isinstance(event, Broken)
    assert pair.client.closed


def test_news_before_the_welcome_break_the_connection() -> None:
    client = ClientSession()
    client.hello()
    line = b'{"jsonrpc":"2.0","method":"tree.update","params":{"sequence":1}}\n'
    assert [type(event) for event in client.receive(line)] == [Broken]


def test_a_request_that_cannot_be_sent_is_refused_here() -> None:
    client = Pair().client
    with pytest.raises(IllegalMessage, match="over the limit"):
        client.request("tree", GetTree(root="x" * MAX_FRAME_BYTES))
    with pytest.raises(IllegalMessage, match="no method"):
        client.request("frobnicate", GetTree())
    with pytest.raises(IllegalMessage, match="encoded"):
        client.request("tree", GetTree(root="\ud800"))
    assert client.request("tree", GetTree())[0] == 2


# --- long lists ----------------------------------------------------------------------------

LONG = [row(f"/pool/worker-{number:05}", "y" * 100) for number in range(10_000)]


def test_a_long_reply_travels_in_frames_under_the_limit_and_arrives_whole() -> None:
    pair = Pair()
    asked = pair.ask("tree", GetTree())
    frames = list(pair.server.reply(asked.id, Tree(rows=LONG)))
    assert len(frames) > 1
    assert all(len(frame) <= MAX_FRAME_BYTES for frame in frames)
    assert pair.tell(iter(frames)) == [Replied(id=2, result=Tree(rows=LONG))]


def test_a_long_update_says_where_it_begins_and_ends() -> None:
    pair = Pair()
    gone = [f"/gone/{number:0>200}" for number in range(10_000)]
    update = TreeUpdate(sequence=4, full=True, lost=2, rows=LONG, gone=gone)
    frames = list(pair.server.notice(Topic.TREE, update))
    assert all(len(frame) <= MAX_FRAME_BYTES for frame in frames)
    parts = [e.update for e in pair.tell(iter(frames)) if isinstance(e, Noticed)]
    assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
    assert [part.full for part in parts] == [True] + [False] * (len(parts) - 1)
    assert [part.lost for part in parts] == [2] + [0] * (len(parts) - 1)
    assert {part.sequence for part in parts} == {4}
    assert [path for part in parts for path in part.gone] == gone
    rows = [r for part in parts if isinstance(part, TreeUpdate) for r in part.rows]
    assert rows == LONG


def test_an_event_too_large_for_a_frame_leaves_its_payload_behind() -> None:
    payload = msgspec.Raw(b'"' + b"p" * MAX_FRAME_BYTES + b'"')
    big = EventRow(position=2, topic="big", at_ns=1, payload=payload)
    small = EventRow(position=1, topic="small", at_ns=1)
    [part] = split_rows(EventsUpdate(sequence=1, rows=[small, big]))
    assert part.rows[0] == small
    assert msgspec.json.decode(part.rows[1].payload) == {"left_out_bytes": len(payload)}
    assert part.lost == 0


def test_a_row_too_large_for_a_frame_is_counted_as_lost() -> None:
    big = AgentRow(
        path="/a", incarnation=1, mailbox=0, capacity=1, doing="d" * MAX_FRAME_BYTES
    )
    [part] = split_rows(AgentsUpdate(sequence=1, full=True, rows=[big]))
    assert part == AgentsUpdate(sequence=1, full=True, lost=1)


def test_an_answer_too_large_for_a_frame_becomes_an_error() -> None:
    pair = Pair()
    asked = pair.ask("state", GetState(agent="a"))
    big = msgspec.Raw(b'"' + b"s" * MAX_FRAME_BYTES + b'"')
    state = AgentState(path="/a", type="T", version=1, incarnation=1, state=big)
    [failed] = pair.tell(pair.server.reply(asked.id, state))
    assert isinstance(failed, Failed)
    assert "over the limit" in failed.message


def test_an_answer_that_cannot_be_encoded_becomes_an_error() -> None:
    pair = Pair()
    asked = pair.ask("restart", Restart(path="/x"))
    [failed] = pair.tell(pair.server.reply(asked.id, Done(sentence="\ud800")))
    assert isinstance(failed, Failed)
    assert failed.code == ErrorCode.INTERNAL


def test_a_reply_without_an_end_breaks_the_connection() -> None:
    pair = Pair()
    pair.ask("tree", GetTree())
    line = b'{"jsonrpc":"2.0","id":2,"result":{"rows":[],"more":true}}\n'
    events = list(pair.client.receive(line * 2000))
    assert [type(event) for event in events] == [Broken]


# --- arbitrary splits and arbitrary bytes --------------------------------------------------


def chunks(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(places):
        yield data[start:end]


@given(cuts=st.lists(st.integers(min_value=0), max_size=30))
def test_where_the_wire_cuts_changes_nothing(cuts: list[int]) -> None:
    pair = Pair()
    requests = [
        pair.client.request("tree", GetTree(root=f"/é{number}"))[1]
        for number in range(5)
    ] + [pair.client.request("watch", Watch(topics=list(Topic)))[1]]
    wire = b"".join(requests)
    asked = [e for chunk in chunks(wire, cuts) for e in pair.server.receive(chunk)]
    assert [type(event) for event in asked] == [Asked] * 6
    answers = b"".join(
        b"".join(pair.server.reply(event.id, Tree(rows=[row("/ü")])))
        for event in asked[:5]
        if isinstance(event, Asked)
    ) + b"".join(pair.server.notice(Topic.TREE, TreeUpdate(sequence=1)))
    heard = [e for chunk in chunks(answers, cuts) for e in pair.client.receive(chunk)]
    assert [type(event) for event in heard] == [Replied] * 5 + [Noticed]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
frames = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | values,
        "id": st.integers(min_value=-1, max_value=4) | values,
        "method": st.sampled_from([*METHODS, "tree.update"]) | st.text(),
        "params": st.dictionaries(
            st.sampled_from(["path", "agent", "topics", "protocol", "sequence"]), values
        ),
        "result": values,
        "error": values,
    },
)
streams = st.lists(
    st.binary(max_size=200)
    | frames.map(lambda frame: msgspec.json.encode(frame) + b"\n")
    | st.just(HELLO),
    max_size=12,
).map(b"".join)


@settings(max_examples=300)
@given(data=streams, cuts=st.lists(st.integers(min_value=0), max_size=5))
@example(data=HELLO * 2, cuts=[1])
def test_a_server_survives_any_bytes(data: bytes, cuts: list[int]) -> None:
    server = ServerSession()
    events: list[ServerEvent] = []
    for chunk in chunks(data, cuts):
        for event in server.receive(chunk):
            events.append(event)
            if isinstance(event, Asked) and event.method == "hello":
                server.welcome(event.id, WELCOME)
    assert server.closed == any(isinstance(event, Broken) for event in events)
    for event in events:
        if not isinstance(event, Asked):
            assert body(event.reply)["jsonrpc"] == "2.0"
        else:
            assert type(event.params) is METHODS[event.method].params


@settings(max_examples=300)
@given(data=streams, cuts=st.lists(st.integers(min_value=0), max_size=5))
def test_a_client_survives_any_bytes(data: bytes, cuts: list[int]) -> None:
    pair = Pair()
    pair.ask("tree", GetTree())
    pair.ask("watch", Watch(topics=[Topic.TREE]))
    known = (Replied, Failed, Noticed, UnknownNotice, Broken)
    for chunk in chunks(data, cuts):
        for event in pair.client.receive(chunk):
            assert isinstance(event, known)


@given(
    rows=st.lists(st.integers(min_value=0, max_value=400_000), max_size=12),
    gone=st.lists(st.integers(min_value=0, max_value=400_000), max_size=6),
)
@settings(max_examples=30)
def test_however_it_is_split_nothing_is_missing(
    rows: list[int], gone: list[int]
) -> None:
    update: Update = TreeUpdate(
        sequence=1,
        rows=[row(str(number), "z" * size) for number, size in enumerate(rows)],
        gone=[f"{number}{'z' * size}" for number, size in enumerate(gone)],
    )
    parts = list(split_rows(update))
    assert all(len(msgspec.json.encode(part)) <= MAX_FRAME_BYTES for part in parts)
    joined = TreeUpdate(
        sequence=1,
        rows=[
            one for part in parts if isinstance(part, TreeUpdate) for one in part.rows
        ],
        gone=[path for part in parts for path in part.gone],
    )
    assert joined == update


def test_events_keep_their_end_in_every_part() -> None:
    rows = [
        EventRow(position=n, topic="t" * 1000, at_ns=0, payload=msgspec.Raw(b"1"))
        for n in range(3000)
    ]
    parts = list(split_rows(Events(rows=rows, position=3000)))
    assert {part.position for part in parts} == {3000}


def test_the_wire_contract_loads_without_trio_or_sockets() -> None:
    program = (
        "import sys, treewarden.control, treewarden.control.session,"
        " treewarden.control.plain; from treewarden.control import ClientSession;"
        " heavy = {'trio', 'asyncio', 'socket', 'textual', 'sqlite3', 'httpx'};"
        " print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
