"""Functions that hear of every message an agent has handled, as OTP's `sys:install/2`.

A hook is for people who look for something: it is installed from outside, while the agent
runs, and hears what the ring of recent messages hears. With one installed the agent writes
into a ring that tells; without, into a plain one, so that nothing is asked of a message.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Final, TypeAlias

from .body import current_body
from .recent import KEPT, Entry, Handled, as_record, new_ring

if TYPE_CHECKING:
    from .body import AgentBody

Hook: TypeAlias = Callable[[Handled], None]

_log: Final = logging.getLogger("treewarden.agent")


class TellingRing(deque[Entry]):
    """A ring of recent messages that tells its hooks of each; the oldest hook first."""

    __slots__ = ("_body", "hooks")

    def __init__(self, body: AgentBody) -> None:
        super().__init__(body.ring, KEPT)
        self._body = body
        # Each with the context that it runs in.
        self.hooks: dict[Hook, Context] = {}

    def append(self, entry: Entry, /) -> None:
        """Keep it, and tell of it."""
        super().append(entry)
        handled = as_record(entry)
        for hook, context in tuple(self.hooks.items()):
            try:
                context.run(hook, handled)
            except Exception:  # noqa: BLE001 - it is no part of the agent
                _log.exception(
                    "%s: the hook %r failed and is uninstalled",
                    self._body.node.path,
                    hook,
                )
                uninstall(self._body, hook)


def install(body: AgentBody, hook: Hook) -> None:
    """See `AgentRef.install`."""
    ring = body.ring
    if not isinstance(ring, TellingRing):
        body.ring = ring = TellingRing(body)
    if hook not in ring.hooks:
        ring.hooks[hook] = context = copy_context()
        # Even one that an agent installs is no part of a handler.
        context.run(current_body.set, None)


def uninstall(body: AgentBody, hook: Hook) -> None:
    """See `AgentRef.uninstall`."""
    ring = body.ring
    if isinstance(ring, TellingRing) and ring.hooks.pop(hook, None) is not None:
        _fall_silent(body, ring)


def uninstall_all(body: AgentBody) -> None:
    """See `AgentRef.uninstall_all`."""
    ring = body.ring
    if isinstance(ring, TellingRing):
        ring.hooks.clear()
        _fall_silent(body, ring)


def _fall_silent(body: AgentBody, ring: TellingRing) -> None:
    if not ring.hooks:
        body.ring = new_ring(ring)
