"""A stream: one function over many items, a bounded number at a time, as they are read.

The reader drives it. Each time it asks for the next result, items are taken until `limit`
of them are taken and not delivered, so neither a slow reader nor, in order, a slow head
lets work or results pile up. It is a context manager and not a generator: there is no
nursery across a `yield`, and leaving the block, in whatever way, ends the work.
"""

from __future__ import annotations

import inspect
import warnings
from collections import deque
from collections.abc import AsyncIterable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import trio

from treewarden.errors import PoolReentered

from .work import Work, leave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    from .pool import PoolBody

R = TypeVar("R")

_FAILURES: Final = ("values", "raise")
_NOT_OPEN: Final = "read a stream inside `async with`, so that its work ends with it"


class _Flight:
    """What a stream has taken and not delivered. Work knows it, and not the stream."""

    def __init__(self) -> None:
        self.items: dict[Work[Any], object] = {}
        self.landed: deque[Work[Any]] = deque()
        self.news = trio.Event()

    def add(self, work: Work[Any], item: object) -> None:
        """An item's work was made."""
        self.items[work] = item
        work.watchers.append(self._landed)

    def _landed(self, work: Work[Any]) -> None:
        self.landed.append(work)
        self.news.set()

    async def wait_landed(self, wanted: Work[Any] | None) -> Work[Any]:
        """Until `wanted` (None: any) is over; cancelled, nothing is lost."""
        while not (wanted.finished if wanted is not None else self.landed):
            self.news = trio.Event()
            await self.news.wait()
        return wanted if wanted is not None else self.landed[0]

    def deliver(self, work: Work[Any]) -> object:
        """Take it off; returns its item."""
        self.landed.remove(work)
        return self.items.pop(work)

    def abandon(self) -> None:
        """Nobody will read it any more."""
        for work in self.items:
            work.pool.ask(work)


class Stream(Generic[R]):
    """Made by `Pool.stream`; see there."""

    def __init__(
        self,
        find: Callable[[], PoolBody],
        fn: Callable[..., object],
        items: Iterable[object],
        *,
        ordered: bool,
        limit: int | None,
        timeout: float,
        failures: str,
    ) -> None:
        if isinstance(items, AsyncIterable) or not isinstance(items, Iterable):
            raise TypeError(f"items must be a plain iterable, not {items!r}")
        if limit is not None and (
            isinstance(limit, bool) or not isinstance(limit, int)
        ):
            raise TypeError(f"limit must be None or an int, not {limit!r}")
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be >= 1, not {limit}")
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
        if not timeout > 0:
            raise ValueError(f"timeout must be > 0 seconds, not {timeout}")
        if failures not in _FAILURES:
            raise ValueError(f"failures must be values or raise, not {failures!r}")
        self._find = find
        self._fn = fn
        self._items = items
        self._ordered = ordered
        self._limit = limit
        self._timeout = timeout
        self._raises = failures == "raise"
        self._source: Iterator[object] | None = None
        self._exhausted = False
        self._reading = False
        self._flight = _Flight()
        self._token: trio.lowlevel.TrioToken | None = None

    async def __aenter__(self) -> Self:
        """Nothing is taken yet.

        Raises:
            NotRunning: there is no pool.
            RuntimeError: it was entered before; a stream is read once.
        """
        await trio.lowlevel.checkpoint()
        if self._source is not None:
            raise RuntimeError("a stream is read once; make another")
        pool = self._find()
        if self._limit is None:
            self._limit = pool.policy.size
        self._source = iter(self._items)
        self._token = trio.lowlevel.current_trio_token()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop what still runs and wait for it; then close the source."""
        self._token = None
        try:
            await leave(list(self._flight.items))
        finally:
            self._flight.items.clear()
            self._close_source()

    def __del__(self) -> None:
        """Read half and dropped: the work is stopped, late, and somebody is told."""
        token: trio.lowlevel.TrioToken | None = getattr(self, "_token", None)
        if token is None or not self._flight.items:
            return
        # Collected in whatever thread: only trio's own may touch the work. After the run
        # there is none.
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(self._flight.abandon)
        warnings.warn(
            f"a stream of {self._fn!r} was dropped with work in flight; {_NOT_OPEN}",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )

    def __aiter__(self) -> Self:
        """Itself."""
        return self

    async def __anext__(self) -> R:
        """The next result.

        Cancelled while it waits, nothing is lost: the next call gives what this one
        would have given.

        Raises:
            StopAsyncIteration: all items are done.
            What the source raises; with failures="raise", what an item raised.
            PoolFull, PoolReentered, NotRunning, ShuttingDown: an item could not be begun.
        """
        await trio.lowlevel.checkpoint()
        if self._token is None:
            raise RuntimeError(_NOT_OPEN)
        if self._reading:
            raise trio.BusyResourceError("another task reads this stream")
        self._reading = True
        try:
            return cast("R", await self._next())
        finally:
            self._reading = False

    async def _next(self) -> object:
        self._take_items()
        flight = self._flight
        if not flight.items:
            raise StopAsyncIteration
        head = next(iter(flight.items)) if self._ordered else None
        work = await flight.wait_landed(head)
        item = flight.deliver(work)
        try:
            return work.unwrap() if self._raises else work.outcome(item)
        finally:
            # No cycle between a failure and this frame.
            del work, head

    def _take_items(self) -> None:
        limit = cast("int", self._limit)
        while len(self._flight.items) < limit and not self._exhausted:
            pool = self._find()
            if pool.holds_the_caller() and not pool.free:
                if self._flight.items:
                    # Its own work will give a slot back.
                    return
                raise PoolReentered(pool.node.path, pool.policy.size)
            self._take_item(pool)

    def _take_item(self, pool: PoolBody) -> None:
        try:
            item = next(cast("Iterator[object]", self._source))
        except StopIteration:
            self._exhausted = True
            return
        work = pool.make(self._fn, (item,), owned=True, timeout=self._timeout)
        self._flight.add(work, item)

    def _close_source(self) -> None:
        if inspect.isgenerator(self._source):
            self._source.close()
