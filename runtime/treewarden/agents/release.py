"""What a commit sets free: answers, events and casts leave when it is decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

import outcome

from treewarden.errors import StoreBroken, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.store import Store, Unit

    from .body import AgentBody
    from .envelope import Envelope
    from .staged import Staged


class Release:
    """What a unit's decision sets free: events and casts first, then the reply."""

    __slots__ = ("_body", "_envelope", "_epoch", "_reply", "_staged", "_unit")

    def __init__(
        self,
        body: AgentBody,
        unit: Unit,
        staged: Staged | None,
        envelope: Envelope,
        reply: object,
    ) -> None:
        self._body = body
        self._epoch = body.epoch
        self._unit = unit
        self._staged = staged
        self._envelope = envelope
        self._reply = reply

    def __call__(self, error: StoreError | None) -> None:
        if error is None:
            self._body.committed(self._unit)
        else:
            self._body.commit_failed(error, self._epoch)
        result = outcome.Value(self._reply)
        self._body.release(error, self._staged, self._envelope, result)


class Held:
    """An answer that tells of uncommitted state and waits for its commit."""

    __slots__ = ("_body", "_envelope", "_result", "_staged")

    def __init__(
        self,
        body: AgentBody,
        staged: Staged | None,
        envelope: Envelope,
        result: outcome.Outcome[object],
    ) -> None:
        self._body = body
        self._staged = staged
        self._envelope = envelope
        self._result = result

    def __call__(self, error: StoreError | None) -> None:
        self._body.release(error, self._staged, self._envelope, self._result)


def after(units: tuple[Unit, ...], tell: Callable[[StoreError | None], None]) -> None:
    """Call `tell` once all of `units` are decided, with the error of one that failed."""
    for unit in units:
        if not unit.decided:
            unit.release.append(lambda _: after(units, tell))
            return
    tell(next((unit.error for unit in units if unit.error is not None), None))


def own_copy(error: StoreError) -> StoreError:
    """The same for somebody else: a shared one would gather everybody's traceback."""
    return type(error)(str(error))


def told_to(envelope: Envelope, error: StoreError) -> StoreError:
    """The same for who sent `envelope`, with the id to ask by."""
    copy = own_copy(error)
    if isinstance(copy, StoreBroken) and envelope.body is not None:
        copy.id = envelope.body.id_of(envelope)
    return copy


def undecided(*units: Unit | None) -> tuple[Unit, ...]:
    # A failed one counts too: what builds on it must fail with it. A generator would cost
    # twice as much, and every message that changes something comes here.
    found: tuple[Unit, ...] = ()
    for unit in units:
        if unit is not None and (not unit.decided or unit.error is not None):
            found += (unit,)
    return found


async def decided(store: Store, unit: Unit) -> None:
    try:
        await store.wait(unit)
    except StoreError:
        # Its callers were told; here it only matters that it is over.
        return


async def settle(store: Store) -> None:
    """Wait until all that was handed over before now is decided, one way or the other."""
    try:
        await store.settled()
    except StoreError:
        # Those who wait for it are told; here it only matters that it is over.
        return
