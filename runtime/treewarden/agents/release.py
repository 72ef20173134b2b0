"""What a commit sets free: answers, events and casts leave when it is decided."""

# ruff: noqa: TC004 - msgspec asks a struct for its names here, never for its types
from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import outcome

from treewarden.errors import NotRunning, StoreBroken, StoreError, TreewardenError

from .outbox import send
from .request_id import id_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.store import Store, Unit

    from .body import AgentBody
    from .envelope import Envelope
    from .staged import Staged


class Release(msgspec.Struct, eq=False):
    """What a unit's decision sets free: events and casts first, then the reply.

    `epoch` is how often the agent had fallen back when the unit was made.
    """

    body: AgentBody
    epoch: int
    unit: Unit
    staged: Staged | None
    envelope: Envelope
    reply: object

    def __call__(self, error: StoreError | None) -> None:
        """The unit is decided."""
        body, envelope, staged = self.body, self.envelope, self.staged
        if error is not None:
            body.commit_failed(error, self.epoch)
        else:
            body.memory.committed_by(self.unit)
        if staged is not None and _let_go(body, error, staged):
            return
        if error is None and envelope.is_call and not envelope.id:
            # As `_answer` does when nobody asks by id.
            envelope.reply(self.reply)
        else:
            _answer(body, error, envelope, outcome.Value(self.reply))


class Held(msgspec.Struct, eq=False):
    """An answer that tells of uncommitted state and waits for its commit."""

    body: AgentBody
    staged: Staged | None
    envelope: Envelope
    result: outcome.Outcome[object]

    def __call__(self, error: StoreError | None) -> None:
        """What it tells of is decided."""
        release(self.body, error, self.staged, self.envelope, self.result)


def release(
    body: AgentBody,
    error: StoreError | None,
    staged: Staged | None,
    envelope: Envelope,
    result: outcome.Outcome[object],
) -> None:
    """What a handler did is decided: events and casts first, then the answer."""
    if staged is None or not _let_go(body, error, staged):
        _answer(body, error, envelope, result)


def _let_go(body: AgentBody, error: StoreError | None, staged: Staged) -> bool:
    """What was staged leaves, or is lost; True: the answer itself was put off."""
    body.on_the_way -= staged.leaving
    if error is None:
        send(body, staged)
    for owed, value in staged.replies:
        owed.answer(
            outcome.Value(value)
            if error is None
            else outcome.Error(told_to(owed, error))
        )
    return staged.deferred is not None


def _answer(
    body: AgentBody,
    error: StoreError | None,
    envelope: Envelope,
    result: outcome.Outcome[object],
) -> None:
    if envelope.is_call:
        envelope.answer(
            result if error is None else outcome.Error(told_to(envelope, error))
        )
    elif error is not None and envelope.operation is not body.agent_class.on_start:
        body.dead_letter(envelope, "commit_failed")


def hand_over(store: Store | None, unit: Unit) -> None:
    """Leave a unit with the store; when it takes none any more, that is its decision."""
    try:
        if store is None:
            raise NotRunning("the store is not running")
        store.hand_over(unit)
    except TreewardenError as error:
        # The whole is being stopped: the store goes before its agents only then.
        unit.decided = True
        unit.error = StoreBroken(f"what {unit.path} changed was not kept: {error}")
        for tell in unit.release:
            tell(unit.error)


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
        copy.id = id_of(envelope.body, envelope)
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
