"""One control connection as a pure state machine: bytes in, events out, and back.

The idea is h11's: the order of things is decided here, without a socket, a task or a
clock, and whoever owns the connection only carries bytes. The trio server, the trio
client and the console's asyncio link are each a short loop around one of these.

Theory of operation. A frame is one line of JSON, at most `MAX_FRAME_BYTES` long. The
client's first frame is `hello`; anything else, or a version that is too old, ends the
connection. After the welcome it may ask (each id once at a time, answered in any order)
and the server may send notices. A line that is JSON but not a request, an unknown method
or wrong parameters are answered and forgiven; what cannot be read at all ends the
connection, because nothing tells where the next good frame begins. Frames are parsed one
at a time, as the events are taken, so that a flood waits as bytes and never as objects.

Lists that do not fit into a frame are sent in several: replies of the same id, or notices
of the same sequence, with `more` in all but the last. `ClientSession` puts replies
together; notices are handed on as they come.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import msgspec

from .protocol import (
    MAX_FRAME_BYTES,
    METHODS,
    NOTICES,
    OLDEST,
    PROTOCOL,
    ErrorBody,
    ErrorCode,
    EventRow,
    Hello,
    Message,
    NoticeFrame,
    Raw,
    ReplyFrame,
    RequestFrame,
    Rights,
    Topic,
    Update,
    Welcome,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RequestId: TypeAlias = int | str
M = TypeVar("M", bound=Message)

# What the envelope around a full pack of rows may take.
_ENVELOPE_BYTES: Final = 4096
_PACK_BYTES: Final = MAX_FRAME_BYTES - _ENVELOPE_BYTES
# An id is kept while its request is in flight; nobody needs a long one.
_ID_LENGTH: Final = 128
# A reply of more rows than fit here is not a reply but an attack, or a mistake.
_REPLY_FRAMES: Final = 1024
_TOO_LONG: Final = f"a frame is longer than {MAX_FRAME_BYTES} bytes"
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class IllegalMessage(ValueError):
    """What we were about to say breaks the protocol; yours to mend, nothing was sent.

    Not in the error tree, which needs trio: this module must load without it.
    """


# --- events --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A well-formed request; it must be answered with `reply` or `refuse`."""

    id: RequestId
    method: str
    params: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A request that cannot be served; send `reply` and go on."""

    reply: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """The connection is over: send `reply` (if any), then close.

    `kind` is the name of the error of `treewarden.errors` that fits best.
    """

    reason: str
    kind: str = "RemoteProtocolError"
    reply: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcomed:
    """The runtime took us in; `welcome.rights` is what it granted."""

    welcome: Welcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied:
    """The answer to the request `id`, of the method's result type."""

    id: int
    result: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The request `id` (None: the peer could not tell which) was answered with an error.

    `kind` is the name of an error of `treewarden.errors`.
    """

    id: int | None
    kind: str
    message: str
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticed:
    """Unasked news; `update.more` says that the next notice continues it."""

    method: str
    update: Update


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownNotice:
    """News that this version cannot read, as they came: from a newer runtime."""

    method: str
    params: bytes


ServerEvent: TypeAlias = Asked | Rejected | Broken
ClientEvent: TypeAlias = Welcomed | Replied | Failed | Noticed | UnknownNotice | Broken


# --- frames --------------------------------------------------------------------------------

_encoder: Final = msgspec.json.Encoder()


@cache
def _decoder(kind: type[Message]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


class _Frame(msgspec.Struct):
    """Whatever a server sends: the fields tell a reply from a notice."""

    id: int | str | msgspec.UnsetType | None = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: Raw = Raw(b"{}")
    result: Raw | msgspec.UnsetType = msgspec.UNSET
    error: ErrorBody | msgspec.UnsetType = msgspec.UNSET


_request_decoder: Final = msgspec.json.Decoder(RequestFrame)
_frame_decoder: Final = msgspec.json.Decoder(_Frame)
_keys_decoder: Final = msgspec.json.Decoder(dict[str, Raw])


def _line(frame: msgspec.Struct) -> bytes:
    # A line end inside a frame can only be white space of somebody's raw JSON: within a
    # string it would be escaped.
    return _encoder.encode(frame).replace(b"\n", b" ") + b"\n"


class _TooLong(Exception):
    pass


@dataclass(slots=True)
class _Lines:
    """Cuts the stream into lines, one at a time; keeps at most a frame and a chunk."""

    _buffer: bytearray = field(default_factory=bytearray)
    _start: int = 0
    _scanned: int = 0

    def feed(self, data: bytes) -> None:
        # What was taken is let go of once a chunk, not once a line: a chunk of short
        # lines would otherwise be moved as often as it has lines.
        del self._buffer[: self._start]
        self._scanned -= self._start
        self._start = 0
        self._buffer += data

    def take(self) -> bytes | None:
        """The next line, None if it is not complete yet.

        Raises:
            _TooLong: it is, or will be, longer than a frame.
        """
        end = self._buffer.find(b"\n", self._scanned)
        length = (end if end >= 0 else len(self._buffer)) - self._start
        if length >= MAX_FRAME_BYTES:
            raise _TooLong
        if end < 0:
            self._scanned = len(self._buffer)
            return None
        line = bytes(self._buffer[self._start : end])
        self._start = self._scanned = end + 1
        return line

    def clear(self) -> None:
        self._buffer.clear()
        self._start = self._scanned = 0


def _packs(items: Sequence[Any]) -> Iterator[list[Any]]:
    pack: list[Any] = []
    size = 0
    for item in items:
        length = len(_encoder.encode(item)) + 1
        if pack and size + length > _PACK_BYTES:
            yield pack
            pack, size = [], 0
        pack.append(item)
        size += length
    if pack:
        yield pack


def _shrunk(row: Message) -> Message | None:
    """`row` if a frame can hold it; an event without its payload; else None."""
    length = len(_encoder.encode(row))
    if length <= _PACK_BYTES:
        return row
    if isinstance(row, EventRow):
        note = _encoder.encode({"left_out_bytes": len(row.payload)})
        row = msgspec.structs.replace(row, payload=Raw(note))
        return _shrunk(row) if len(row.payload) < length else None
    return None


def split_rows(message: M) -> Iterator[M]:
    """`message` in parts that each fit into a frame, `more` set in all but the last.

    `message` has `rows` and `more` (an `Update` also `gone`). A payload too large for a
    frame is replaced by a note of its size; another row too large for one is left out
    and, in an update, counted in `lost`.
    """
    whole: Any = message
    if len(_encoder.encode(message)) <= _PACK_BYTES:
        yield message
        return
    rows = [row for one in whole.rows if (row := _shrunk(one)) is not None]
    parts: list[dict[str, Any]] = [{"rows": pack} for pack in _packs(rows)]
    rest: dict[str, Any] = {"rows": []}
    if isinstance(message, Update):
        parts = [{"rows": [], "gone": p} for p in _packs(message.gone)] + [
            part | {"gone": []} for part in parts
        ]
        rest["gone"] = []
    parts = parts or [rest]
    for number, part in enumerate(parts):
        if isinstance(message, Update):
            part["full"] = message.full and number == 0
            missing = message.lost + len(whole.rows) - len(rows)
            part["lost"] = missing if number == 0 else 0
        yield msgspec.structs.replace(message, **part, more=number < len(parts) - 1)


# --- the runtime's end ---------------------------------------------------------------------


class ServerSession:
    """The runtime's end of one connection.

    Give `receive` what came and send what the methods return. `welcome` or `turn_away`
    answers the hello; every other `Asked` is answered once, by `reply` or `refuse`.
    """

    def __init__(self) -> None:
        self._lines = _Lines()
        self._greeted = False
        self._welcomed = False
        self._closed = False
        self._in_flight: set[RequestId] = set()

    @property
    def closed(self) -> bool:
        """Whether the connection is over; nothing that comes is looked at any more."""
        return self._closed

    @property
    def welcomed(self) -> bool:
        """Whether the hello was answered."""
        return self._welcomed

    def receive(self, data: bytes) -> Iterator[ServerEvent]:
        """The events in `data`, and in what was left unread before it.

        Frames are read as the iterator is advanced; what is not taken waits.
        """
        if not self._closed:
            self._lines.feed(data)
        return self._events()

    def _events(self) -> Iterator[ServerEvent]:
        while not self._closed:
            try:
                line = self._lines.take()
            except _TooLong:
                yield self._break(None, ErrorCode.INVALID_REQUEST, _TOO_LONG)
                break
            if line is None:
                return
            if line.strip():
                yield self._event(line)
        self._lines.clear()

    def _event(self, line: bytes) -> ServerEvent:
        try:
            frame = _request_decoder.decode(line)
        except msgspec.ValidationError as error:
            return self._reject(
                None, ErrorCode.INVALID_REQUEST, f"not a request: {error}"
            )
        except _UNREADABLE as error:
            return self._break(None, ErrorCode.PARSE, f"not JSON: {error}")
        if isinstance(frame.id, str) and len(frame.id) > _ID_LENGTH:
            reason = f"an id has at most {_ID_LENGTH} characters"
            return self._reject(None, ErrorCode.INVALID_REQUEST, reason)
        if frame.id in self._in_flight:
            # Answered without the id: a reply with it would be taken for the other's.
            reason = f"id {frame.id!r} is in flight already"
            return self._reject(None, ErrorCode.INVALID_REQUEST, reason)
        if not self._greeted:
            return self._greeting(frame)
        if not self._welcomed:
            reason = "wait for the welcome"
            return self._reject(frame.id, ErrorCode.INVALID_REQUEST, reason)
        return self._request(frame)

    def _greeting(self, frame: RequestFrame) -> ServerEvent:
        if frame.method != "hello":
            reason = f"say hello first, not {frame.method[:_ID_LENGTH]!r}"
            return self._break(frame.id, ErrorCode.INVALID_REQUEST, reason)
        event = self._request(frame)
        if not isinstance(event, Asked):
            self._closed = True
            return Broken(reason=event.reason, reply=event.reply)
        if isinstance(event.params, Hello) and event.params.protocol < OLDEST:
            self._in_flight.discard(frame.id)
            reason = (
                f"this runtime speaks protocol {OLDEST} to {PROTOCOL}, the client"
                f" {event.params.protocol}: use a newer treewarden to attach"
            )
            return self._break(frame.id, ErrorCode.REFUSED, reason)
        self._greeted = True
        return event

    def _request(self, frame: RequestFrame) -> Asked | Rejected:
        method = METHODS.get(frame.method)
        if method is None:
            reason = f"there is no method {frame.method[:_ID_LENGTH]!r}"
            return self._reject(frame.id, ErrorCode.METHOD_NOT_FOUND, reason)
        if frame.method == "hello" and self._greeted:
            # Another one cannot change the rights that were granted.
            reason = "hello was said already"
            return self._reject(frame.id, ErrorCode.INVALID_REQUEST, reason)
        try:
            params = _params(method.params, frame.params)
        except _UNREADABLE as error:
            reason = f"{frame.method}: {error}"
            return self._reject(frame.id, ErrorCode.INVALID_PARAMS, reason)
        self._in_flight.add(frame.id)
        return Asked(id=frame.id, method=frame.method, params=params)

    def _reject(self, id_: RequestId | None, code: int, reason: str) -> Rejected:
        return Rejected(reply=_error(id_, code, reason, _OUR_PEER), reason=reason)

    def _break(self, id_: RequestId | None, code: int, reason: str) -> Broken:
        self._closed = True
        return Broken(reason=reason, reply=_error(id_, code, reason, _OUR_PEER))

    def welcome(self, id_: RequestId, welcome: Welcome) -> bytes:
        """Answer the hello and open the connection for requests and notices."""
        self._welcomed = True
        return b"".join(self.reply(id_, welcome))

    def turn_away(
        self, reason: str, *, id_: RequestId | None = None, kind: str = "ControlError"
    ) -> bytes:
        """A refusal with a reason a person can read; the connection is over."""
        self._closed = True
        return _error(id_, ErrorCode.REFUSED, reason, kind)

    def reply(self, id_: RequestId, result: Message) -> Iterator[bytes]:
        """The frames that answer request `id_`: several when `result` is a long list.

        A result that cannot be sent in frames of `MAX_FRAME_BYTES` becomes an error.
        """
        self._settle(id_)
        return _reply_frames(id_, result)

    def refuse(
        self,
        id_: RequestId,
        message: str,
        *,
        kind: str = "ControlError",
        code: int = ErrorCode.REFUSED,
    ) -> bytes:
        """Answer request `id_` with an error; `kind` names one of `treewarden.errors`."""
        self._settle(id_)
        return _error(id_, code, message, kind)

    def notice(self, topic: Topic, update: Update) -> Iterator[bytes]:
        """The frames that tell of `update`: several when it is long.

        Raises:
            IllegalMessage: the hello was not answered yet.
        """
        if not self._welcomed:
            raise IllegalMessage("no notices before the welcome")
        return _notice_frames(topic, update)

    def _settle(self, id_: RequestId) -> None:
        if id_ not in self._in_flight:
            raise IllegalMessage(f"no request {id_!r} is in flight")
        self._in_flight.discard(id_)


# What a peer did wrong is, seen from there, a mistake of its own.
_OUR_PEER: Final = "LocalProtocolError"
_MESSAGE_LENGTH: Final = 4000


def _params(kind: type[M], raw: Raw) -> M:
    params: M = _decoder(kind).decode(raw)
    if kind is Hello:
        return params
    # An option that is not obeyed must not be passed over: an act would do less, or
    # more, than its sender believes. The hello alone may come from a newer client.
    known = kind.__struct_encode_fields__
    for key in _keys_decoder.decode(raw):
        if key not in known:
            names = ", ".join(known) or "none"
            raise ValueError(f"unknown parameter {key[:_ID_LENGTH]!r}; known: {names}")
    return params


def _error(id_: RequestId | None, code: int, message: str, kind: str) -> bytes:
    # Surrogates and endless texts come from user code; an error must always leave.
    text = message[:_MESSAGE_LENGTH].encode("utf-8", "replace").decode()
    body = ErrorBody(code=code, message=text, data={"kind": kind})
    return _line(ReplyFrame(id=id_, error=body))


def _reply_frames(id_: RequestId, result: Message) -> Iterator[bytes]:
    parts = split_rows(result) if hasattr(result, "more") else iter((result,))
    for part in parts:
        try:
            line = _line(ReplyFrame(id=id_, result=Raw(_encoder.encode(part))))
        except _UNREADABLE as error:
            yield _error(
                id_, ErrorCode.INTERNAL, f"cannot encode: {error}", "ControlError"
            )
            return
        if len(line) > MAX_FRAME_BYTES:
            reason = (
                f"the answer is {len(line)} bytes, over the limit of {MAX_FRAME_BYTES}"
            )
            yield _error(id_, ErrorCode.REFUSED, reason, "ControlError")
            return
        yield line


def _notice_frames(topic: Topic, update: Update) -> Iterator[bytes]:
    for part in split_rows(update):
        params = Raw(_encoder.encode(part))
        yield _line(NoticeFrame(method=f"{topic}.update", params=params))


# --- the other end -------------------------------------------------------------------------


@dataclass(slots=True)
class _Pending:
    method: str
    parts: list[Any] = field(default_factory=list)


class ClientSession:
    """The end of those who ask: `hello` first, then `request`, ids chosen here."""

    def __init__(self) -> None:
        self._lines = _Lines()
        self._next_id = 1
        self._pending: dict[int, _Pending] = {}
        self._welcomed = False
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the connection is over."""
        return self._closed

    @property
    def welcomed(self) -> bool:
        """Whether requests may be sent."""
        return self._welcomed and not self._closed

    def hello(
        self, *, client: str = "", operator: str = "", rights: Rights = Rights.RO
    ) -> bytes:
        """The first frame; ask for `rights`, the runtime may grant less.

        Raises:
            IllegalMessage: it was said already.
        """
        if self._next_id != 1:
            raise IllegalMessage("hello was said already")
        params = Hello(
            protocol=PROTOCOL, client=client, operator=operator, rights=rights
        )
        return self._ask("hello", params)[1]

    def request(self, method: str, params: Message) -> tuple[int, bytes]:
        """The request's id, and the frame that asks it.

        Raises:
            IllegalMessage: there was no welcome, the method is unknown, the parameters
                are another method's, or the frame would be too long.
        """
        if not self.welcomed:
            raise IllegalMessage(f"no {method} without a welcome")
        if method == "hello":
            raise IllegalMessage("hello was said already")
        return self._ask(method, params)

    def _ask(self, method: str, params: Message) -> tuple[int, bytes]:
        known = METHODS.get(method)
        if known is None:
            raise IllegalMessage(f"there is no method {method!r}")
        if type(params) is not known.params:
            expected, got = known.params.__name__, type(params).__name__
            raise IllegalMessage(f"{method} takes {expected}, not {got}")
        id_ = self._next_id
        try:
            line = _line(
                RequestFrame(id=id_, method=method, params=Raw(_encoder.encode(params)))
            )
        except _UNREADABLE as error:
            raise IllegalMessage(f"{method} cannot be encoded: {error}") from error
        if len(line) > MAX_FRAME_BYTES:
            raise IllegalMessage(
                f"{method} would be {len(line)} bytes, over the limit of"
                f" {MAX_FRAME_BYTES}"
            )
        self._next_id += 1
        self._pending[id_] = _Pending(method)
        return id_, line

    def forget(self, id_: int) -> None:
        """Nobody waits for this answer any more; it is dropped when it comes."""
        self._pending.pop(id_, None)

    def receive(self, data: bytes) -> Iterator[ClientEvent]:
        """The events in `data`, and in what was left unread before it.

        Frames are read as the iterator is advanced; what is not taken waits.
        """
        if not self._closed:
            self._lines.feed(data)
        return self._events()

    def _events(self) -> Iterator[ClientEvent]:
        while not self._closed:
            try:
                line = self._lines.take()
            except _TooLong:
                yield self._break(_TOO_LONG)
                break
            if line is None:
                return
            event = self._event(line) if line.strip() else None
            if event is not None:
                yield event
        self._lines.clear()

    def _event(self, line: bytes) -> ClientEvent | None:
        try:
            frame = _frame_decoder.decode(line)
        except _UNREADABLE as error:
            return self._break(f"not a frame of this protocol: {error}")
        if frame.method is not msgspec.UNSET:
            return self._notice(frame.method, frame.params)
        if frame.id is msgspec.UNSET:
            return self._break("neither a reply nor a notice")
        return self._reply(frame)

    def _notice(self, method: str, params: Raw) -> ClientEvent:
        kind = NOTICES.get(method)
        if not self._welcomed:
            return self._break("a notice before the welcome")
        if kind is None:
            return UnknownNotice(method=method, params=bytes(params))
        try:
            return Noticed(method=method, update=_decoder(kind).decode(params))
        except _UNREADABLE:
            return UnknownNotice(method=method, params=bytes(params))

    def _reply(self, frame: _Frame) -> ClientEvent | None:
        if frame.id is None:
            return self._complaint(frame)
        if not isinstance(frame.id, int) or not 0 < frame.id < self._next_id:
            return self._break(f"a reply to {frame.id!r}, which was never asked")
        pending = self._pending.get(frame.id)
        if pending is None:
            return None  # forgotten
        if frame.error is not msgspec.UNSET:
            return self._failed(frame.id, frame.error)
        if frame.result is msgspec.UNSET:
            return self._break(f"reply {frame.id} has neither result nor error")
        return self._result(frame.id, pending, frame.result)

    def _complaint(self, frame: _Frame) -> ClientEvent:
        if frame.error is msgspec.UNSET:
            return self._break("a reply without an id")
        return self._failed(None, frame.error)

    def _failed(self, id_: int | None, error: ErrorBody) -> ClientEvent:
        kind = error.data.get("kind", "ControlError")
        if not self._welcomed:
            return self._break(error.message, kind)
        if id_ is not None:
            del self._pending[id_]
        return Failed(id=id_, kind=kind, message=error.message, code=error.code)

    def _result(self, id_: int, pending: _Pending, raw: Raw) -> ClientEvent | None:
        try:
            result: Any = _decoder(METHODS[pending.method].result).decode(raw)
        except _UNREADABLE as error:
            return self._unreadable(id_, pending.method, error)
        if isinstance(result, Welcome):
            return self._welcome(id_, result)
        if getattr(result, "more", False):
            pending.parts.append(result)
            if len(pending.parts) >= _REPLY_FRAMES:
                return self._break(f"reply {id_} has no end")
            return None
        del self._pending[id_]
        if pending.parts:
            rows = [row for part in [*pending.parts, result] for row in part.rows]
            result = msgspec.structs.replace(result, rows=rows)
        return Replied(id=id_, result=result)

    def _unreadable(self, id_: int, method: str, error: Exception) -> ClientEvent:
        reason = f"the answer to {method} cannot be read: {error}"
        if not self._welcomed:
            return self._break(reason)
        del self._pending[id_]
        return Failed(
            id=id_,
            kind="RemoteProtocolError",
            message=reason,
            code=ErrorCode.INTERNAL,
        )

    def _welcome(self, id_: int, welcome: Welcome) -> ClientEvent:
        del self._pending[id_]
        if welcome.protocol < OLDEST:
            return self._break(
                f"the runtime speaks protocol {welcome.protocol}, older than {OLDEST}:"
                " attach with the treewarden that it runs"
            )
        self._welcomed = True
        return Welcomed(welcome=welcome)

    def _break(self, reason: str, kind: str = "RemoteProtocolError") -> Broken:
        self._closed = True
        return Broken(reason=reason, kind=kind)
