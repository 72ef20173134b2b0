"""All policies around one call, in the one order in which they make sense together.

    total timeout > fallback > cache > retry > hedge > circuit > rate limit > bulkhead
    > attempt timeout > the call

Why this order: nothing outlasts the total timeout. A fallback stands in for whatever is
left of a failure, and is not cached. What the cache knows costs no attempt. Each attempt
asks the circuit anew, so that an open circuit ends a row of retries, and a call that was
rejected costs no permit. Waiting for a permit or a place is no part of an attempt's own
time. What limiter and bulkhead refuse was never called, and no circuit counts it.

Each policy's `call(fn, *args)` awaits `fn(*args)` in its caller's task, so that a row of
them is made by giving each the next one as its function: no layer costs more than itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    TypeAlias,
    TypedDict,
    TypeVar,
    TypeVarTuple,
    Unpack,
)

from .bulkhead import Bulkhead
from .limiter import Limiter
from .rate_limit import RateLimit
from .timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from .bulkhead import BulkheadStatistics
    from .cache import Cache, CacheStatistics
    from .circuit import Circuit, CircuitStatistics
    from .fallback import Fallback, FallbackStatistics
    from .hedge import Hedge, HedgeStatistics
    from .limiter import LimiterStatistics
    from .retry import Retry, RetryStatistics
    from .timeout import TimeoutStatistics

    LayerStatistics: TypeAlias = (
        TimeoutStatistics
        | FallbackStatistics
        | CacheStatistics
        | RetryStatistics
        | HedgeStatistics
        | CircuitStatistics
        | LimiterStatistics
        | BulkheadStatistics
    )

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Layer(StrEnum):
    """What a policy may consist of, the outermost first."""

    TIMEOUT = "timeout"
    FALLBACK = "fallback"
    CACHE = "cache"
    RETRY = "retry"
    HEDGE = "hedge"
    CIRCUIT = "circuit"
    RATE = "rate"
    BULKHEAD = "bulkhead"
    ATTEMPT_TIMEOUT = "attempt_timeout"


class CallOptions(TypedDict, total=False):
    """What is different about one call.

    One that is not `idempotent` is neither hedged nor, without a `key` that the other
    side knows it by, tried again. `cache_key` is what its answer is cached under; without
    one it is not. `rate_key` is the limiter's; `priority` and `group`, whose share of the
    places it takes, are the bulkhead's; both count the `weight`.
    """

    idempotent: bool
    key: str
    cache_key: Hashable
    rate_key: str
    weight: int
    priority: int
    group: str


_OPTIONS: Final = CallOptions.__optional_keys__


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStatistics:
    """A policy as it stands, and each of its layers, the outermost first.

    calls = succeeded + failed + cancelled + in_flight, at all times.
    """

    name: str
    calls: int
    succeeded: int
    failed: int
    cancelled: int
    in_flight: int
    layers: tuple[tuple[Layer, LayerStatistics], ...]


class Policy:
    """Calls functions under a fixed row of policies; see the module for the order.

    Layers that are None are left out. A layer may be shared with other policies (a circuit
    nearly always is: ask `runtime.circuits` for it). For short, a number of seconds is a
    `Timeout`, a `RateLimit` a `Limiter` and a number a `Bulkhead` of this policy's own.
    """

    def __init__(
        self,
        *,
        name: str = "policy",
        timeout: Timeout | float | None = None,
        fallback: Fallback | None = None,
        cache: Cache[Any, Any] | None = None,
        retry: Retry | None = None,
        hedge: Hedge | None = None,
        circuit: Circuit | None = None,
        rate: Limiter | RateLimit | None = None,
        bulkhead: Bulkhead | int | None = None,
        attempt_timeout: Timeout | float | None = None,
    ) -> None:
        """A policy that nobody used.

        Raises:
            TypeError, ValueError: a setting of a layer makes no sense.
        """
        self.name = name
        self.timeout = _timeout(timeout, name)
        self.fallback = fallback
        self.cache = cache
        self.retry = retry
        self.hedge = hedge
        self.circuit = circuit
        self.rate = Limiter(rate, name) if isinstance(rate, RateLimit) else rate
        self.bulkhead = (
            Bulkhead(bulkhead, name=name) if isinstance(bulkhead, int) else bulkhead
        )
        self.attempt_timeout = _timeout(attempt_timeout, f"an attempt of {name}")
        # Without a key for it, nothing is looked up.
        self._row = tuple(
            getattr(self, layer).call for layer in self.order if layer != Layer.CACHE
        )
        self._calls = self._succeeded = self._failed = self._cancelled = 0

    @property
    def order(self) -> tuple[Layer, ...]:
        """The layers that there are, the outermost first."""
        return tuple(layer for layer in Layer if getattr(self, layer) is not None)

    async def call(
        self,
        fn: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: *Ts,
        **options: Unpack[CallOptions],
    ) -> T:
        """`await fn(*args)` under all layers.

        In the caller's task, unless it is hedged. A checkpoint if `fn` is one.

        Raises:
            What `fn` raises, or what a layer does: TimedOut, RetriesExhausted,
            CircuitOpen, RateLimited, BulkheadFull.
            TypeError: there is no such option; nothing was called.
        """
        row: tuple[Callable[..., Awaitable[T]], ...] = (
            self._chosen(options) if options else self._row
        )
        # Not sooner: a call with an option that there is not was never one.
        self._calls += 1
        try:
            if row:
                result = await row[0](*row[1:], fn, *args)
            else:
                result = await fn(*args)
        except Exception:
            self._failed += 1
            raise
        except BaseException:
            self._cancelled += 1
            raise
        self._succeeded += 1
        return result

    def _chosen(
        self, options: CallOptions
    ) -> tuple[Callable[..., Awaitable[Any]], ...]:
        """The row of one call that is unlike others."""
        unknown = options.keys() - _OPTIONS
        if unknown:
            raise TypeError(
                f"a call has no {', '.join(sorted(unknown))};"
                f" its options are {', '.join(sorted(_OPTIONS))}"
            )
        chosen = (self._of_layer(layer, options) for layer in self.order)
        return tuple(call for call in chosen if call is not None)

    def _of_layer(
        self, layer: Layer, options: CallOptions
    ) -> Callable[..., Awaitable[Any]] | None:
        idempotent = options.get("idempotent", True)
        weight = options.get("weight", 1)
        if layer is Layer.CACHE and self.cache is not None:
            key = options.get("cache_key")
            return None if key is None else partial(self.cache.get_or_load, key)
        if layer is Layer.RETRY and self.retry is not None:
            return partial(
                self.retry.call, idempotent=idempotent, key=options.get("key")
            )
        if layer is Layer.HEDGE and not idempotent:
            return None
        if layer is Layer.RATE and self.rate is not None:
            key = options.get("rate_key", "")
            return partial(self.rate.call, key=key, weight=weight)
        if layer is Layer.BULKHEAD and self.bulkhead is not None:
            return partial(
                self.bulkhead.call,
                weight=weight,
                priority=options.get("priority", 0),
                group=options.get("group", ""),
            )
        call: Callable[..., Awaitable[Any]] = getattr(self, layer).call
        return call

    def statistics(self) -> PolicyStatistics:
        """The policy and its layers, as they stand."""
        ended = self._succeeded + self._failed + self._cancelled
        return PolicyStatistics(
            name=self.name,
            calls=self._calls,
            succeeded=self._succeeded,
            failed=self._failed,
            cancelled=self._cancelled,
            in_flight=self._calls - ended,
            layers=tuple(
                (layer, getattr(self, layer).statistics()) for layer in self.order
            ),
        )

    @property
    def version(self) -> int:
        """A number that has changed when a call has begun or ended."""
        return self._calls + self._succeeded + self._failed + self._cancelled

    def __repr__(self) -> str:
        """The order, for people."""
        return f"<Policy {self.name}: {' > '.join(self.order) or 'nothing'}>"


def _timeout(timeout: Timeout | float | None, name: str) -> Timeout | None:
    if timeout is None or isinstance(timeout, Timeout):
        return timeout
    return Timeout(timeout, name=name)
