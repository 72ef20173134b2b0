"""Acts happen once: a request that is sent again gets the outcome of the first.

A console whose link broke does not know whether its restart happened. It sends the act
again with the same key, and is told what came of it. So an act with a key does not end
with the connection that asked for it, and its outcome is kept for a while.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

import trio

from treewarden.errors import TreewardenError
from treewarden.exits import Fault
from treewarden.injection import places

from .protocol import ErrorCode, Message

if TYPE_CHECKING:
    from .target import Client, Target

# Outcomes are small; a console that is away for longer has other questions.
KEPT_OUTCOMES: Final = 1000
ACTS_AT_ONCE: Final = 256
_KEY_LENGTH: Final = 128

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request was not carried out, as it is sent."""

    message: str
    kind: str = "ControlError"
    code: int = ErrorCode.REFUSED


@dataclass(slots=True)
class _Act:
    method: str
    params: Message
    done: trio.Event = field(default_factory=trio.Event)
    outcome: Message | Refusal = field(
        default_factory=lambda: Refusal(message="the runtime stopped meanwhile")
    )


class Acts:
    """Carries out requests for a target; those with a key once, in `nursery`."""

    def __init__(self, target: Target, nursery: trio.Nursery) -> None:
        self._target = target
        self._nursery = nursery
        self._running = 0
        self._acts: OrderedDict[str, _Act] = OrderedDict()
        self.failures = 0

    async def perform(
        self, method: str, params: Message, client: Client
    ) -> Message | Refusal:
        """The result of a request, or why there is none; raises only when cancelled.

        If cancelled, an act with a key goes on, and its outcome is kept.
        """
        key: str = getattr(params, "key", "")
        if not key:
            return await self._attempt(method, params, client)
        if len(key) > _KEY_LENGTH:
            return Refusal(message=f"a key has at most {_KEY_LENGTH} characters")
        act = self._acts.get(key)
        if act is None:
            if self._running >= ACTS_AT_ONCE:
                return Refusal(message=f"{ACTS_AT_ONCE} acts are under way; try later")
            act = self._acts[key] = _Act(method, params)
            self._running += 1
            self._nursery.start_soon(self._carry_out, act, client)
        elif (act.method, act.params) != (method, params):
            return Refusal(message=f"key {key!r} belongs to another act")
        await act.done.wait()
        return act.outcome

    async def _carry_out(self, act: _Act, client: Client) -> None:
        try:
            act.outcome = await self._attempt(act.method, act.params, client)
        finally:
            self._running -= 1
            act.done.set()
        self._forget_the_oldest()

    def _forget_the_oldest(self) -> None:
        surplus = len(self._acts) - KEPT_OUTCOMES
        if surplus > 0:
            finished = (key for key, act in self._acts.items() if act.done.is_set())
            for key in list(islice(finished, surplus)):
                del self._acts[key]

    async def _attempt(
        self, method: str, params: Message, client: Client
    ) -> Message | Refusal:
        try:
            await places.CONTROL_REQUEST.pass_by()
            return await self._target.perform(method, params, client)
        except TreewardenError as error:
            return Refusal(message=_words(error), kind=_kind(error))
        except Exception as error:  # noqa: BLE001 - one client's request is no reason to end
            fault = Fault.capture(error)
            self.failures += 1
            _log.error("request %s failed\n%s", method, fault.format())
            return Refusal(
                message=f"{method} failed inside the runtime: {fault.summary()}",
                code=ErrorCode.INTERNAL,
            )


def _words(error: TreewardenError) -> str:
    # An error's own text may be user code, and may fail: a fault bears that.
    return Fault.capture(error).message or type(error).__name__


def _kind(error: TreewardenError) -> str:
    """The nearest class that a client knows: users may derive their own."""
    known = (
        kind.__name__
        for kind in type(error).__mro__
        if kind.__module__ == TreewardenError.__module__
    )
    return next(known)
