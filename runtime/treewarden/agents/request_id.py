"""By which id a request is known, and what became of it.

An id is remembered with the effect of the request, in the same commit: so whoever asks
by it, also after a restart, is told what is on disk. `store.expect` says that one of that
id is on its way, `store.known` that it is decided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from treewarden.clock import wall_ns
from treewarden.errors import NotRunning
from treewarden.ids import new_id
from treewarden.store import call_id, insert_applied

if TYPE_CHECKING:
    from treewarden.store import Applied, Unit

    from .body import AgentBody
    from .envelope import Envelope

KEPT_ANSWER_BYTES: Final = 64 << 10
"""A longer answer is not kept with the id of its request."""

_ENCODE: Final = msgspec.json.Encoder().encode


def expect(body: AgentBody, envelope: Envelope, id_: str) -> None:
    """Have what becomes of a message remembered by `id_`."""
    store = body.surroundings.store
    if store is not None:
        envelope.id, envelope.body = id_, body
        store.expect(id_)


def settle(body: AgentBody, envelope: Envelope) -> None:
    """What became of a message with an id is decided."""
    store = body.surroundings.store
    if store is not None:
        store.known(envelope.id)


def note_applied(
    body: AgentBody, unit: Unit, envelope: Envelope, reply: object
) -> None:
    """Have the message's id, and what it is answered, kept with its effect."""
    try:
        answer: bytes | None = _ENCODE(reply)
    except Exception:  # noqa: BLE001 - an answer that cannot be kept is not kept
        answer = None
    if answer is not None and len(answer) > KEPT_ANSWER_BYTES:
        answer = None
    if unit.writes is None:
        unit.writes = []
    unit.writes.append(insert_applied(body.node.path, envelope.id, wall_ns(), answer))


async def applied(body: AgentBody, id_: str) -> Applied | None:
    """What is kept of a request of this id; None: it is neither done nor under way.

    Raises:
        NotRunning: nothing is kept without a store.
    """
    store = body.surroundings.store
    if store is None:
        raise NotRunning(f"{body.node.path} remembers no ids without a store")
    while True:
        found = await store.applied(body.node.path, id_)
        if found is not None or not store.is_expected(id_):
            return found


def id_of(body: AgentBody, envelope: Envelope) -> str:
    """By what the store knows a message; "" when it does not."""
    store, unit = body.surroundings.store, envelope.unit
    if envelope.id or unit is None or store is None:
        return envelope.id
    return call_id(store.boot, unit.number)


def id_to_ask_by(body: AgentBody, envelope: Envelope) -> str:
    """The id of a call whose caller stops waiting, if it goes on without."""
    if envelope.begun and envelope.unit is None and not envelope.id:
        # Not sealed yet: from now on its unit keeps it.
        expect(body, envelope, new_id())
    has_store = body.surroundings.store is not None
    return id_of(body, envelope) or (new_id() if has_store else "")
