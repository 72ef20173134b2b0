"""Policies that stand between a call and its failure.

A `Circuit` stops calling what keeps failing and lets a few probes find out when it is
well again. A `Retry` tries again, by a `Backoff` and within a `RetryBudget`; a `Limiter`
lets through no more than a `RateLimit` allows; a `Bulkhead` so many at once; a `Timeout`
gives each call its time; a `Cache` remembers answers. `ErrorKinds` says what sort of failure
an exception is. All decide in pure code: time and chance are passed in. A `Policy` puts
them around a call in one fixed order, with a `Fallback` and, for who may be asked twice, a
`Hedge`.
"""

from .adaptive import AdaptiveLimit, Aimd, Gradient2
from .backoff import Backoff
from .bounds import check_count, check_number, check_seconds, check_wait
from .bulkhead import Bulkhead, BulkheadShare, BulkheadStatistics
from .cache import Cache, CacheStatistics
from .circuit import Circuit, CircuitStatistics, Guard
from .circuit_core import CircuitState
from .circuit_kept import circuit_is_over
from .circuit_policy import CircuitPolicy
from .circuits import Circuits
from .entries import Hit, Miss, MissReason
from .fallback import Fallback, FallbackStatistics
from .hedge import Hedge, HedgeStatistics
from .kept_limiter import limiter_is_over
from .kinds import DEFAULT_KINDS, ErrorKind, ErrorKinds, Recovery
from .limiter import LaneStatistics, Limiter, LimiterStatistics, Reservation
from .limits import Limits
from .memory import PolicyMemory
from .policies import Policies
from .policy import CallOptions, Layer, Policy, PolicyStatistics
from .rate_limit import RateLimit
from .retriable import Retriable
from .retry import Retry, RetryEnd, RetryStatistics, made_progress
from .retry_budget import RetryBudget, RetryBudgetStatistics
from .timeout import Overrun, Timeout, TimeoutStatistics
from .transition import Transition, TransitionFeed, TransitionFeedStatistics

__all__ = [
    "DEFAULT_KINDS",
    "AdaptiveLimit",
    "Aimd",
    "Backoff",
    "Bulkhead",
    "BulkheadShare",
    "BulkheadStatistics",
    "Cache",
    "CacheStatistics",
    "CallOptions",
    "Circuit",
    "CircuitPolicy",
    "CircuitState",
    "CircuitStatistics",
    "Circuits",
    "ErrorKind",
    "ErrorKinds",
    "Fallback",
    "FallbackStatistics",
    "Gradient2",
    "Guard",
    "Hedge",
    "HedgeStatistics",
    "Hit",
    "LaneStatistics",
    "Layer",
    "Limiter",
    "LimiterStatistics",
    "Limits",
    "Miss",
    "MissReason",
    "Overrun",
    "Policies",
    "Policy",
    "PolicyMemory",
    "PolicyStatistics",
    "RateLimit",
    "Recovery",
    "Reservation",
    "Retriable",
    "Retry",
    "RetryBudget",
    "RetryBudgetStatistics",
    "RetryEnd",
    "RetryStatistics",
    "Timeout",
    "TimeoutStatistics",
    "Transition",
    "TransitionFeed",
    "TransitionFeedStatistics",
    "check_count",
    "check_number",
    "check_seconds",
    "check_wait",
    "circuit_is_over",
    "limiter_is_over",
    "made_progress",
]
