"""What is published: a topic, a payload, and where in the journal it stands."""

from __future__ import annotations

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event, the same record for every subscriber: read it, do not change it.

    `position` counts up in the journal; 0 is a signal, which is in no journal. `at_ns` is
    wall time in nanoseconds. The payload of a published event is plain JSON values
    (numbers, strings, lists, dicts), as a replay from the journal gives them too; a
    signal's is the object that was sent. `missed` is the subscriber's own: how many events
    it has lost since the one before this.
    """

    topic: str
    payload: object
    position: int = 0
    at_ns: int = 0
    source: str = ""
    trace: str = ""
    missed: int = 0


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
    """
    # msgspec raises TypeError for types, ValueError for values (text that is no UTF-8)
    # and RecursionError for cycles.
    try:
        encoded = msgspec.json.encode(payload)
        return encoded, msgspec.json.decode(encoded)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"the payload of {topic!r}, of type {type(payload).__name__},"
            f" cannot be kept as JSON: {error}"
        ) from error


def shown(event: Event) -> dict[str, object]:
    """An event as a report has it; a payload that cannot be JSON as Python shows it."""
    try:
        _, payload = to_json(event.topic, event.payload)
    except TypeError:
        payload = repr(event.payload)
    return {"topic": event.topic, "position": event.position, "payload": payload}
