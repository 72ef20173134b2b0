"""What there is a limit to: gauges that are read, and tokens for what takes from them.

A gauge is a number with a limit: memory, entries of a table, whatever can be measured. Who
is about to take more asks for a token first, and is refused while a gauge is near its
limit. A token belongs to an incarnation and is released when that ends, however it ends.

Gauges are read when a token is asked for and the last reading is older than a second, when
their source reports, and every half minute; there is no cached verdict that outlives its
readings. A gauge that cannot be read is unknown, which is neither zero nor full: it keeps
its last verdict, and says that it is unknown.
"""

from __future__ import annotations

import math
import resource
import sys
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

import trio

from treewarden.agents import Estates, name_of, owner_of_caller
from treewarden.clock import wall_ns
from treewarden.errors import NameUnknown, ResourceExhausted
from treewarden.exits import Fault

from .pressure import Pressure, next_pressure, worst

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from treewarden.registry import Owner

# Seconds for which a reading counts when a token is asked for.
_FRESH: Final = 1.0
# Gauges, and kinds with a quota; names made from data must not fill the memory.
_GAUGES: Final = 1000
# Tokens that are held at the same time.
_TOKENS: Final = 100_000


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - asked every second
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        # macOS has no /proc; the largest size so far, in bytes there, is what it tells.
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


@dataclass(frozen=True, slots=True, kw_only=True)
class GaugeStatistics:
    """A gauge at its last reading; `value` None: it is unknown, and `error` says why.

    `share` is of the limit, `age` in seconds, None when it was never read; `guards`: it
    refuses tokens when it is severe.
    """

    name: str
    value: float | None
    limit: float
    share: float | None
    pressure: Pressure
    guards: bool
    age: float | None
    failures: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcesStatistics:
    """Gauges by name and what is held; acquired = released + held, at all times.

    `ended` tokens are among the released: their owners ended with them. `held_by_kind`
    are those of `held`, and `owners` who has them.
    """

    pressure: Pressure
    gauges: tuple[GaugeStatistics, ...]
    held: int
    held_by_kind: dict[str, int]
    owners: int
    acquired: int
    released: int
    ended: int
    denied: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PressureChange:
    """A gauge got nearer to its limit, or further away; values as they were read."""

    gauge: str
    old: Pressure
    new: Pressure
    value: float
    limit: float
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GaugeUnknown:
    """A gauge cannot be read any more (`error`), or can be again (no error)."""

    gauge: str
    error: str
    at_ns: int


@dataclass(slots=True, eq=False)
class _Gauge:
    name: str
    measure: Callable[[], float] | None
    limit: float
    guards: bool
    owner: Owner | None
    value: float | None = None
    pressure: Pressure = Pressure.NORMAL
    read_at: float | None = None
    failures: int = 0
    error: str = ""


@dataclass(slots=True, eq=False)
class Token:
    """The right to something of `kind`; a context manager that gives it back."""

    id: int
    kind: str
    owner: str
    acquired_at_ns: int
    _resources: Resources = field(repr=False)
    _owner: Owner = field(repr=False)

    def release(self) -> bool:
        """Give it back; False when it was given back before, or its owner has ended."""
        return self._resources.release(self)

    def __enter__(self) -> Self:
        """It is held."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give it back."""
        self.release()


class Resources:
    """Gauges and tokens of a runtime; `runtime.resources`.

    For trio's thread. Nothing in here waits.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = trio.current_time,
        told: Callable[[PressureChange | GaugeUnknown], None] = lambda _: None,
        capacity: int = _TOKENS,
    ) -> None:
        """`told` is called at each change; it must not raise. `capacity` is of tokens."""
        self._clock = clock
        self._told = told
        self._capacity = capacity
        self._gauges: dict[str, _Gauge] = {}
        self._quotas: dict[str, int] = {}
        self._held: dict[str, int] = {}
        self._tokens: dict[int, Token] = {}
        self._token_estates: Estates[Token] = Estates(self._token_ended)
        self._gauge_estates: Estates[_Gauge] = Estates(self._gauge_ended)
        self._numbers = count(1)
        self._measured_at = -math.inf
        self._acquired = self._released = self._ended = self._denied = 0

    # --- gauges ------------------------------------------------------------------------------

    def gauge(
        self,
        name: str,
        measure: Callable[[], float] | None = None,
        *,
        limit: float,
        guards: bool = True,
        owner: Owner | None = None,
    ) -> None:
        """Watch a number; it is read at once, and one of that name is replaced.

        `measure` is plain, quick and must not block; None: its source calls `report`.
        `guards`: tokens are refused while it is severe. With an `owner` it is forgotten
        when that ends.

        Raises:
            ValueError: the limit is not a number above 0, or there are too many gauges.
            NotRunning: the owner has ended.
        """
        _check_limit(limit)
        if owner is not None:
            owner_of_caller(owner)
        if name not in self._gauges and len(self._gauges) >= _GAUGES:
            raise ValueError(
                f"there are {_GAUGES} gauges, and {name!r} is one too many"
            )
        self.forget(name)
        gauge = self._gauges[name] = _Gauge(name, measure, limit, guards, owner)
        if owner is not None:
            self._gauge_estates.add(owner, gauge)
        self._measure(gauge)

    def limit(self, name: str, limit: float) -> None:
        """Give a gauge another limit; what it read last is judged anew.

        Raises:
            NameUnknown: there is no such gauge.
            ValueError: it is not a number above 0.
        """
        _check_limit(limit)
        gauge = self._find(name)
        gauge.limit = limit
        if gauge.value is not None:
            self._judge(gauge, gauge.value)

    def report(self, name: str, value: float) -> None:
        """A source tells what its gauge is now; judged at once.

        Raises:
            NameUnknown: there is no such gauge.
        """
        self._take(self._find(name), value)

    def forget(self, name: str) -> bool:
        """Watch a gauge no more; whether there was one."""
        gauge = self._gauges.pop(name, None)
        if gauge is None:
            return False
        if gauge.owner is not None:
            self._gauge_estates.drop(gauge.owner, gauge)
        self._let_go(gauge)
        return True

    def _gauge_ended(self, gauge: _Gauge) -> None:
        del self._gauges[gauge.name]
        self._let_go(gauge)

    def _let_go(self, gauge: _Gauge) -> None:
        # Whoever was told of its trouble hears that this is over.
        self._known(gauge)
        if gauge.pressure is not Pressure.NORMAL:
            self._judge(gauge, 0.0)

    def measure(self) -> Pressure:
        """Read every gauge now; the worst pressure of those that guard."""
        for gauge in tuple(self._gauges.values()):
            self._measure(gauge)
        self._measured_at = self._clock()
        return self.pressure

    def _measure(self, gauge: _Gauge) -> None:
        if gauge.measure is None:
            return
        try:
            value = float(gauge.measure())
        except Exception as error:  # noqa: BLE001 - a gauge of somebody's, and it fails alone
            value, why = math.nan, Fault.capture(error).summary()
        else:
            why = "it read NaN" if math.isnan(value) else ""
        if self._gauges.get(gauge.name) is not gauge:
            # It was forgotten while it was read: there is nobody to tell of any more.
            return
        if why:
            self._unknown(gauge, why)
        else:
            self._take(gauge, value)

    def _take(self, gauge: _Gauge, value: float) -> None:
        if math.isnan(value):
            self._unknown(gauge, "it read NaN")
            return
        gauge.value = value
        gauge.read_at = self._clock()
        self._known(gauge)
        self._judge(gauge, value)

    def _judge(self, gauge: _Gauge, value: float) -> None:
        old = gauge.pressure
        gauge.pressure = next_pressure(old, value / gauge.limit)
        if gauge.pressure is not old:
            self._told(
                PressureChange(
                    gauge=gauge.name,
                    old=old,
                    new=gauge.pressure,
                    value=value,
                    limit=gauge.limit,
                    at_ns=wall_ns(),
                )
            )

    def _unknown(self, gauge: _Gauge, error: str) -> None:
        gauge.value = None
        gauge.failures += 1
        was_known, gauge.error = not gauge.error, error
        if was_known:
            self._told(GaugeUnknown(gauge=gauge.name, error=error, at_ns=wall_ns()))

    def _known(self, gauge: _Gauge) -> None:
        was_unknown, gauge.error = bool(gauge.error), ""
        if was_unknown:
            self._told(GaugeUnknown(gauge=gauge.name, error="", at_ns=wall_ns()))

    def _find(self, name: str) -> _Gauge:
        if name not in self._gauges:
            raise NameUnknown(name)
        return self._gauges[name]

    @property
    def pressure(self) -> Pressure:
        """The worst of the gauges that guard, as they were read last."""
        return worst([one.pressure for one in self._gauges.values() if one.guards])

    # --- tokens ------------------------------------------------------------------------------

    def quota(self, kind: str, most: int | None) -> None:
        """At most so many tokens of a kind at the same time; None: as many as there are.

        Those that are held beyond it stay.
        """
        if most is None:
            self._quotas.pop(kind, None)
            return
        if isinstance(most, bool) or not isinstance(most, int):
            raise TypeError(f"a quota must be an int, not {most!r}")
        if most < 0:
            raise ValueError(f"a quota must be >= 0, not {most}")
        if kind not in self._quotas and len(self._quotas) >= _GAUGES:
            raise ValueError(
                f"there are {_GAUGES} quotas, and {kind!r} is one too many"
            )
        self._quotas[kind] = most

    def acquire(self, kind: str, *, owner: Owner | None = None) -> Token:
        """Ask before taking something; never waits.

            with runtime.resources.acquire("render"):
                ...

        The token belongs to `owner`, or to the child that asks, and is released when that
        ends, unless it was given back before.

        Raises:
            ResourceExhausted: a gauge is severe, the kind's quota is used up, or there
                are too many tokens; nothing was taken.
            NotRunning: there is no owner, or it has ended.
        """
        holder = owner_of_caller(owner)
        if self._clock() - self._measured_at > _FRESH:
            self.measure()
        refusal = self._refusal(kind)
        if refusal is not None:
            self._denied += 1
            raise refusal
        token = Token(
            next(self._numbers), kind, name_of(holder), wall_ns(), self, holder
        )
        self._token_estates.add(holder, token)
        self._tokens[token.id] = token
        self._held[kind] = self._held.get(kind, 0) + 1
        self._acquired += 1
        return token

    def _refusal(self, kind: str) -> ResourceExhausted | None:
        for gauge in self._gauges.values():
            if gauge.guards and gauge.pressure is Pressure.SEVERE:
                return ResourceExhausted(kind, gauge.name, gauge.value, gauge.limit)
        held, most = self._held.get(kind, 0), self._quotas.get(kind, math.inf)
        if held >= most:
            return ResourceExhausted(kind, f"quota of {kind}", held, most)
        if len(self._tokens) >= self._capacity:
            return ResourceExhausted(kind, "tokens", len(self._tokens), self._capacity)
        return None

    def release(self, token: Token) -> bool:
        """Give a token back; whether it was held."""
        if self._tokens.get(token.id) is not token:
            return False
        self._token_estates.drop(token._owner, token)  # noqa: SLF001 - our own record
        self._remove(token)
        return True

    def _token_ended(self, token: Token) -> None:
        self._remove(token)
        self._ended += 1

    def _remove(self, token: Token) -> None:
        del self._tokens[token.id]
        self._held[token.kind] -= 1
        if not self._held[token.kind]:
            del self._held[token.kind]
        self._released += 1

    def statistics(self) -> ResourcesStatistics:
        """Gauges as they were read last, and what is held."""
        now = self._clock()
        return ResourcesStatistics(
            pressure=self.pressure,
            gauges=tuple(_seen(one, now) for _, one in sorted(self._gauges.items())),
            held=len(self._tokens),
            held_by_kind=dict(self._held),
            owners=len(self._token_estates),
            acquired=self._acquired,
            released=self._released,
            ended=self._ended,
            denied=self._denied,
        )


def _check_limit(limit: float) -> None:
    if not 0 < limit < math.inf:
        raise ValueError(f"a limit must be a number above 0, not {limit}")


def _seen(gauge: _Gauge, now: float) -> GaugeStatistics:
    return GaugeStatistics(
        name=gauge.name,
        value=gauge.value,
        limit=gauge.limit,
        share=gauge.value / gauge.limit if gauge.value is not None else None,
        pressure=gauge.pressure,
        guards=gauge.guards,
        age=now - gauge.read_at if gauge.read_at is not None else None,
        failures=gauge.failures,
        error=gauge.error,
    )
