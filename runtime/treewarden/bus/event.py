"""What is published: a topic, a payload, and where in the journal it stands."""

from __future__ import annotations

import reprlib
from typing import Final

import msgspec

from treewarden.exits import writable


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event, the same record for every subscriber: read it, do not change it.

    `position` counts up in the journal; 0 is a signal, which is in no journal. `at_ns` is
    wall time in nanoseconds. The payload of a published event is plain JSON values
    (numbers, strings, lists, dicts; a NaN is None, for JSON has no name for it), as a
    replay from the journal gives them too; a signal's is the object that was sent.
    `missed` is the subscriber's own: how many events it has lost since the one before
    this.
    """

    topic: str
    payload: object
    position: int = 0
    at_ns: int = 0
    source: str = ""
    trace: str = ""
    missed: int = 0


PAYLOAD_BYTES: Final = 1 << 20
"""The largest payload of a published event: the bound of an agent's state. What is larger
belongs into a file or a map, and its place into the event."""
SHOWN_BYTES: Final = 16 << 10
"""The largest payload that a report has in it: ten thousand reports may wait."""


def by_topic(event: Event) -> str:
    """The key of whoever has no better one: events of one topic belong together."""
    return event.topic


def unordered(event: Event) -> str:
    """A key for events that have nothing to do with each other."""
    return str(event.position)


def to_json(topic: str, payload: object) -> tuple[bytes, object]:
    """A payload as the journal keeps it: the JSON, and the plain values it stands for.

    Raises:
        TypeError: it cannot be JSON; names topic and type.
        ValueError: it is larger than `PAYLOAD_BYTES`.
    """
    # msgspec raises TypeError for types, ValueError for values (text that is no UTF-8)
    # and RecursionError for cycles.
    try:
        encoded = msgspec.json.encode(payload)
        plain = msgspec.json.decode(encoded)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"the payload of {topic!r}, of type {type(payload).__name__},"
            f" cannot be kept as JSON: {error}"
        ) from error
    if len(encoded) > PAYLOAD_BYTES:
        raise ValueError(
            f"the payload of {topic!r} is {len(encoded)} bytes, more than"
            f" {PAYLOAD_BYTES}; publish where it is"
        )
    return encoded, plain


def shown(event: Event) -> dict[str, object]:
    """An event as a report has it; a payload that is large, or no JSON, in short."""
    payload: object
    try:
        encoded, payload = to_json(event.topic, event.payload)
        if len(encoded) > SHOWN_BYTES:
            payload = _as_python_shows(event.payload)
    except Exception:  # noqa: BLE001 - a signal's payload is anybody's object
        payload = _as_python_shows(event.payload)
    return {"topic": event.topic, "position": event.position, "payload": payload}


def _as_python_shows(payload: object) -> str:
    # Shortened, and an object whose own repr fails has one all the same.
    return writable(reprlib.repr(payload))
