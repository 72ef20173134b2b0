"""All limiters of a runtime, by name: a name has one limiter, and one limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from treewarden.clock import wall_ns

from . import kept_limiter
from .limiter import Limiter

if TYPE_CHECKING:
    from .limiter import LimiterStatistics
    from .memory import PolicyMemory
    from .rate_limit import RateLimit

LIMIT: Final = 10_000
"""Limiters that are kept at most: names made from data must not fill the memory."""

# S31 of the systems' specification.
_CLEAN_UP_EVERY: Final = 300.0
_KEEP_EVERY: Final = 1.0


class Limits:
    """All limiters of a runtime, by name."""

    def __init__(self, *, memory: PolicyMemory | None = None) -> None:
        """No limiters yet; those with `persist` are kept in `memory`, if there is one."""
        self._memory = memory
        self._by_name: dict[str, Limiter] = {}
        self._kept: dict[str, int] = {}
        self._removed = 0

    def limiter(self, name: str, limit: RateLimit | None = None) -> Limiter:
        """The limiter of this name, made at the first use.

        `limit` None takes the limiter that there is.

        Raises:
            ValueError: no name, too many limiters, none of this name and no limit to make
                it of, or it exists with another limit.
        """
        known = self._by_name.get(name)
        if known is None:
            known = self._by_name[name] = self._make(name, limit)
        elif limit is not None and limit != known.limit:
            raise ValueError(
                f"limiter {name!r} exists with another limit: {known.limit}"
            )
        return known

    def _make(self, name: str, limit: RateLimit | None) -> Limiter:
        if not name:
            raise ValueError("a limiter needs a name")
        if limit is None:
            raise ValueError(
                f"there is no limiter {name!r}; it needs a limit to be made"
            )
        if len(self._by_name) >= LIMIT:
            raise ValueError(
                f"there are {LIMIT} limiters, and {name!r} is one too many"
            )
        limiter = Limiter(limit, name)
        if limit.persist and self._memory is not None:
            text = self._memory.kept(name)
            kept = kept_limiter.decode(text) if text is not None else None
            if kept is not None:
                limiter.load(kept, wall_ns())
            self._kept[name] = limiter.version
        return limiter

    def remove(self, name: str) -> bool:
        """Forget a limiter, and what is kept of it; whether there was one.

        Who holds it goes on with it; who asks for the name next makes another one.
        """
        known = self._by_name.pop(name, None)
        if known is None:
            return False
        # One more than what it takes away from the sum in `version`.
        self._removed += known.version + 2
        if self._kept.pop(name, None) is not None and self._memory is not None:
            self._memory.keep(name, None)
        return True

    def get(self, name: str) -> Limiter | None:
        """The limiter of this name, or None when nobody made it."""
        return self._by_name.get(name)

    def list(self) -> tuple[Limiter, ...]:
        """All limiters, by name."""
        return tuple(self._by_name[name] for name in sorted(self._by_name))

    def statistics(self) -> tuple[LimiterStatistics, ...]:
        """One record a limiter, by name."""
        return tuple(limiter.statistics() for limiter in self.list())

    @property
    def version(self) -> int:
        """A number that has changed when anything in `statistics` but times has."""
        counted = sum(limiter.version for limiter in self._by_name.values())
        return counted + len(self._by_name) + self._removed

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep what is to be kept, and forget keys that are not used; for ever.

        The limiters do not need it: were it gone, memory would grow to its bounds and a
        restart would know of nothing newer.
        """
        task_status.started()
        clean_up_at = trio.current_time() + _CLEAN_UP_EVERY
        try:
            while True:
                await trio.sleep(_KEEP_EVERY)
                self.keep()
                if trio.current_time() >= clean_up_at:
                    clean_up_at = trio.current_time() + _CLEAN_UP_EVERY
                    await self.clean_up()
        finally:
            self.keep()

    async def clean_up(self) -> int:
        """Forget the keys of all limiters that a fresh start would treat the same.

        How many there were. Cancelled, some of it is done.
        """
        forgotten = 0
        for limiter in self.list():
            forgotten += limiter.clean_up()
            await trio.lowlevel.checkpoint()
        return forgotten

    def keep(self) -> None:
        """Hand over what has changed since the last time."""
        if self._memory is None:
            return
        for name, version in self._kept.items():
            limiter = self._by_name[name]
            if limiter.version != version:
                self._kept[name] = limiter.version
                kept = kept_limiter.encode(limiter.dump(wall_ns()))
                self._memory.keep(name, kept)
