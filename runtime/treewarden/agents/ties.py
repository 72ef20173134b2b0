"""What ties an agent to others, beside the messages in its mailbox.

Most agents have none of it, and an idle agent is to be small: a body makes its ties when
the first is knotted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from treewarden.bus import Subscription
    from treewarden.supervision import Timer

    from .envelope import Envelope
    from .monitor import Monitor

# From this many entries on, those that nobody wants any more are looked for.
_TRIM_FROM = 16


class Ties:
    """Subscriptions belong to the node; all else belongs to one incarnation."""

    __slots__ = (
        "_bound_limit",
        "_owed_limit",
        "_timers_limit",
        "bound",
        "idle_since",
        "idle_timer",
        "monitors",
        "owed",
        "renewed",
        "subscriptions",
        "timers",
    )

    def __init__(self) -> None:
        # By pattern; they outlive a crash, so that no event is missed meanwhile.
        self.subscriptions: dict[str, Subscription] = {}
        self.renewed: set[str] = set()
        self.monitors: set[Monitor] = set()
        # Messages whose answer was put off, in order.
        self.owed: dict[Envelope, None] = {}
        self._owed_limit = _TRIM_FROM
        # Messages that nobody but this incarnation is to handle.
        self.bound: list[Envelope] = []
        self._bound_limit = _TRIM_FROM
        self.timers: list[Timer] = []
        self._timers_limit = _TRIM_FROM
        # The one that any message calls off, and how many were taken when it was set.
        self.idle_timer: Timer | None = None
        self.idle_since = 0

    def owe(self, envelope: Envelope) -> None:
        """Its answer is put off."""
        if len(self.owed) >= self._owed_limit:
            self.owed = {one: None for one in self.owed if one.is_wanted}
            self._owed_limit = max(_TRIM_FROM, 2 * len(self.owed))
        self.owed[envelope] = None

    def bind(self, envelope: Envelope) -> None:
        """Have it go with this incarnation: the next one sets its own timers."""
        if len(self.bound) >= self._bound_limit:
            self.bound = [one for one in self.bound if not one.begun]
            self._bound_limit = max(_TRIM_FROM, 2 * len(self.bound))
        self.bound.append(envelope)

    def keep_timer(self, timer: Timer) -> None:
        """Have it called off with this incarnation."""
        if len(self.timers) >= self._timers_limit:
            self.timers = [one for one in self.timers if one.callback is not None]
            self._timers_limit = max(_TRIM_FROM, 2 * len(self.timers))
        self.timers.append(timer)

    def drop_subscriptions(self, keep: Collection[str]) -> None:
        """Close those of other patterns."""
        for pattern in [one for one in self.subscriptions if one not in keep]:
            self.subscriptions.pop(pattern).close()
