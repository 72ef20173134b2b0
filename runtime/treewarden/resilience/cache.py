"""Remembering answers for a while, and asking only once for what nobody has.

`entries` decides what is kept; this module reads the clock, counts, and lets one of many
who miss the same key load it for all (Go's `singleflight`). The loader runs in the task of
the one who came first, so it ends with it: cancelled, it leaves the flight to the next one
who waits, who begins anew. What was written or removed while a value was being loaded
counts; the loaded one, which may be older, is then not kept. A loader that needs what
waits for it would wait for ever: it is told so (`CallingSelf`).

A cache belongs to trio's thread, and needs no lock.
"""

from __future__ import annotations

import math
from contextvars import ContextVar
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    TypeVar,
    TypeVarTuple,
    Unpack,
    cast,
    overload,
)

import trio

from treewarden.errors import CallingSelf

from .bounds import check_count, check_number
from .entries import Entries, Hit, K, Miss, MissReason, V

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

D = TypeVar("D")
Ts = TypeVarTuple("Ts")

# S35 and appendix A of the systems' specification.
_SIZE: Final = 100_000
_SWEEP_EVERY: Final = 60.0
# Looking at an entry costs about a microsecond: a slice stays under a millisecond.
_SLICE: Final = 500

_CLOSED: Final = Miss(MissReason.CLOSED)
_NOTHING: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatistics:
    """A cache as it stands; counters since it was made.

    gets = hits + not_found + expired + closed, at all times. `swept` were over and had not
    been asked for. `loads` were begun, `load_failures` of them raised, `shared` callers
    got what somebody else loaded. `unavailable` operations found the cache closed.
    """

    name: str
    size: int
    entries: int
    gets: int
    hits: int
    not_found: int
    expired: int
    closed: int
    puts: int
    deletes: int
    evicted: int
    swept: int
    loading: int
    loads: int
    load_failures: int
    shared: int
    unavailable: int
    listener_failures: int

    @property
    def hit_rate(self) -> float:
        """The share of gets that found something; 0.0 before the first."""
        return self.hits / self.gets if self.gets else 0.0


class Cache(Generic[K, V]):
    """At most `size` values, each for `ttl` seconds; in memory, gone with the process.

    `get` and `put` never wait. `get_or_load` asks for what is missing, once for all who
    miss it at the same time. None is no key: it is nearly always a mistake.
    """

    def __init__(
        self,
        ttl: float = math.inf,
        size: int = _SIZE,
        *,
        name: str = "cache",
        on_unavailable: Callable[[str], None] | None = None,
    ) -> None:
        """An empty cache, open.

        `on_unavailable` is told the operation that was the first to find the cache closed;
        what it raises is counted and goes no further.

        Raises:
            ValueError: a number makes no sense; the message shows it.
        """
        _check_ttl(ttl)
        check_count("size", size, 1)
        self.name = name
        self.ttl = ttl
        self._on_unavailable = on_unavailable
        self._entries: Entries[K, V] = Entries(size)
        self._flights: dict[K, _Flight[V]] = {}
        self._open = True
        self._told = False
        self._misses = dict.fromkeys(MissReason, 0)
        self._hits = self._puts = self._deletes = self._evicted = self._swept = 0
        self._loads = self._load_failures = self._shared = 0
        self._unavailable = self._listener_failures = 0

    # --- entries ---------------------------------------------------------------------------

    @overload
    def get(self, key: K) -> V | None: ...

    @overload
    def get(self, key: K, default: D) -> V | D: ...

    def get(self, key: K, default: object = None) -> object:
        """The value of a key, or `default` when there is none, or the cache is closed."""
        found = self.lookup(key)
        return found.value if isinstance(found, Hit) else default

    def lookup(self, key: K) -> Hit[V] | Miss:
        """The value with its version, or why there is none.

        A value that is over is missed with `expired` once, then with `not_found`.
        """
        _check_key(key)
        found = (
            self._entries.look(key, trio.current_time())
            if self._is_open("get")
            else _CLOSED
        )
        if isinstance(found, Hit):
            self._hits += 1
        else:
            self._misses[found.reason] += 1
        return found

    def put(self, key: K, value: V, ttl: float | None = None) -> None:
        """Keep a value for `ttl` seconds (None: the cache's own); a closed cache does not.

        When there is no room, the value that was written longest ago goes.

        Raises:
            ValueError: the key is None, or the time makes no sense.
        """
        _check_key(key)
        if ttl is not None:
            _check_ttl(ttl)
        if not self._is_open("put"):
            return
        self._flights.pop(key, None)
        self._keep(key, value, self.ttl if ttl is None else ttl)

    def _keep(self, key: K, value: V, ttl: float) -> None:
        self._puts += 1
        self._evicted += self._entries.put(key, value, trio.current_time() + ttl)

    def delete(self, key: K, version: int | None = None) -> bool:
        """Remove a value, if it is of that version; whether there was such a one.

        With the version of a `Hit` nothing is removed that somebody put there since.
        """
        _check_key(key)
        if not self._is_open("delete"):
            return False
        if version is None:
            # Whoever loads it may have read what is now wrong.
            self._flights.pop(key, None)
        deleted = self._entries.delete(key, version)
        self._deletes += deleted
        return deleted

    def clear(self) -> int:
        """Remove everything; how many values it were."""
        if not self._is_open("clear"):
            return 0
        self._flights.clear()
        removed = self._entries.clear()
        self._deletes += removed
        return removed

    # --- loading ---------------------------------------------------------------------------

    async def get_or_load(
        self,
        key: K,
        load: Callable[[Unpack[Ts]], Awaitable[V]],
        *args: *Ts,
    ) -> V:
        """The value of a key; when there is none, `await load(*args)`, once for all.

        Who comes while it is being loaded waits for that. What the loader raises, all who
        wait for it get. Cancelled, one who waits just leaves; when the one whose task
        loads is cancelled, the next one loads anew. A checkpoint in any case. A closed
        cache loads, too, and keeps nothing.

        Raises:
            CallingSelf: the loader, or a task that it has started, asks for the key that
                it is loading, or for one whose loader waits for this.
            What the loader raises.
        """
        await trio.lowlevel.checkpoint()
        found = self.lookup(key)
        if isinstance(found, Hit):
            return found.value
        while (flight := self._flights.get(key)) is not None:
            if flight.needs(_loading.get()):
                raise CallingSelf(
                    f"the loader of {key!r} in cache {self.name} needs it"
                )
            await flight.wait()
            if not flight.abandoned:
                self._shared += 1
                return flight.result()
            # Its leader was cancelled; somebody else may have written it meanwhile.
            found = self._entries.look(key, trio.current_time())
            if isinstance(found, Hit):
                self._shared += 1
                return found.value
        return await self._load(key, load, *args)

    async def _load(
        self,
        key: K,
        load: Callable[[Unpack[Ts]], Awaitable[V]],
        *args: *Ts,
    ) -> V:
        flight = self._flights[key] = _Flight[V](_loading.get())
        self._loads += 1
        token = _loading.set(flight)
        try:
            value = await load(*args)
        except Exception as error:
            self._load_failures += 1
            flight.fail(error)
            raise
        else:
            flight.land(value)
            # Not if somebody has written or removed it since this began.
            if self._flights.get(key) is flight and self._open:
                self._keep(key, value, self.ttl)
            return value
        finally:
            _loading.reset(token)
            if self._flights.get(key) is flight:
                del self._flights[key]
            flight.ended.set()

    # --- life ------------------------------------------------------------------------------

    def _is_open(self, operation: str) -> bool:
        if self._open:
            return True
        self._unavailable += 1
        if not self._told:
            self._told = True
            self._tell(operation)
        return False

    def _tell(self, operation: str) -> None:
        if self._on_unavailable is None:
            return
        try:
            self._on_unavailable(operation)
        except Exception:  # noqa: BLE001 - a listener never fails somebody's read
            self._listener_failures += 1

    def close(self) -> None:
        """Forget everything, and from now on find and keep nothing; nobody fails by it."""
        self._entries.clear()
        self._flights.clear()
        self._open = False

    def open(self) -> None:
        """Keep values again."""
        self._open = True
        self._told = False

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Be open, and remove what is over every minute; closed when this ends."""
        self.open()
        task_status.started()
        try:
            while True:
                await trio.sleep(_SWEEP_EVERY)
                await self.sweep()
        finally:
            self.close()

    async def sweep(self) -> int:
        """Remove the values that are over, in slices; how many they were.

        Nothing depends on it but memory. Cancelled, some of it is done.
        """
        await trio.lowlevel.checkpoint()
        before = self._swept
        for place, key in enumerate(self._entries.keys(), start=1):
            # Looked at now: somebody may have written it since the keys were listed.
            self._swept += self._entries.end(key, trio.current_time())
            if place % _SLICE == 0:
                await trio.lowlevel.checkpoint()
        return self._swept - before

    def statistics(self) -> CacheStatistics:
        """The cache as it stands."""
        misses = self._misses
        return CacheStatistics(
            name=self.name,
            size=self._entries.size,
            entries=len(self._entries),
            gets=self._hits + sum(misses.values()),
            hits=self._hits,
            not_found=misses[MissReason.NOT_FOUND],
            expired=misses[MissReason.EXPIRED],
            closed=misses[MissReason.CLOSED],
            puts=self._puts,
            deletes=self._deletes,
            evicted=self._evicted,
            swept=self._swept,
            loading=len(self._flights),
            loads=self._loads,
            load_failures=self._load_failures,
            shared=self._shared,
            unavailable=self._unavailable,
            listener_failures=self._listener_failures,
        )


class _Flight(Generic[V]):
    """One load under way: inside of which other one, and which ones it waits for."""

    __slots__ = ("_error", "_traceback", "_value", "abandoned", "around", "ended",
                 "waits_for")  # fmt: skip

    def __init__(self, around: _Flight[Any] | None) -> None:
        self.around = around
        self.waits_for: list[_Flight[Any]] = []
        self.ended = trio.Event()
        # True until it has landed or failed: its leader may be cancelled at any time.
        self.abandoned = True
        self._value: object = _NOTHING
        self._error: Exception | None = None
        self._traceback: TracebackType | None = None

    def needs(self, other: _Flight[Any] | None) -> bool:
        """Whether it cannot end before the load `other`, or one around that, has."""
        theirs = set(_and_around(other))
        seen: set[_Flight[Any]] = set()
        ahead: list[_Flight[Any]] = [self] if theirs else []
        while ahead:
            flight = ahead.pop()
            if flight in theirs:
                return True
            if flight not in seen:
                seen.add(flight)
                ahead += flight.waits_for
        return False

    async def wait(self) -> None:
        """Until it has ended; whatever load this is inside of waits for it meanwhile."""
        waiting = _and_around(_loading.get())
        for one in waiting:
            one.waits_for.append(self)
        try:
            await self.ended.wait()
        finally:
            for one in waiting:
                one.waits_for.remove(self)

    def land(self, value: V) -> None:
        self.abandoned = False
        self._value = value

    def fail(self, error: Exception) -> None:
        self.abandoned = False
        self._error = error
        self._traceback = error.__traceback__

    def result(self) -> V:
        if self._error is not None:
            # From the loader's own traceback on: else each raise would add to the last.
            raise self._error.with_traceback(self._traceback)
        return cast("V", self._value)


def _and_around(flight: _Flight[Any] | None) -> list[_Flight[Any]]:
    """A load, and those inside of which it is, the outermost last."""
    found = []
    while flight is not None:
        found.append(flight)
        flight = flight.around
    return found


# What the running task is loading; what it starts meanwhile does so for that load.
_loading: ContextVar[_Flight[Any] | None] = ContextVar(
    "treewarden_loading", default=None
)


def _check_key(key: object) -> None:
    if key is None:
        raise ValueError("None is no key")


def _check_ttl(ttl: float) -> None:
    check_number("ttl", ttl)
    if not ttl > 0:
        raise ValueError(f"ttl must be > 0 seconds, not {ttl}")
