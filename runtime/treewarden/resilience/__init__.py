"""Policies that stand between a call and its failure.

A `Circuit` stops calling what keeps failing and lets a few probes find out when it is
well again; a `Backoff` says how long to wait before the next attempt. Both decide in
pure code: time and chance are passed in.
"""

from .backoff import Backoff
from .circuit import Circuit, Circuits, CircuitStatistics, Guard, Transition
from .circuit_core import CircuitPolicy, CircuitState

__all__ = [
    "Backoff",
    "Circuit",
    "CircuitPolicy",
    "CircuitState",
    "CircuitStatistics",
    "Circuits",
    "Guard",
    "Transition",
]
