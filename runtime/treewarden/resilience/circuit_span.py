"""Calls through a circuit as spans, rejected ones too; only while somebody takes spans.

What the call itself records (a request, a message) becomes part of its circuit's span.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack

import trio

import treewarden.telemetry as tracing
from treewarden.clock import wall_ns
from treewarden.exits import Fault

from .circuit import Circuit, Guard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from contextvars import Token
    from types import TracebackType

    from treewarden.telemetry import SpanContext, Spans

    from .circuit_kept import KeptCircuit
    from .circuit_policy import CircuitPolicy
    from .transition import Transition

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class TracedCircuit(Circuit):
    """A circuit whose calls and guards are spans while `spans` are enabled."""

    __slots__ = ("_spans",)

    def __init__(
        self,
        name: str,
        policy: CircuitPolicy | None = None,
        *,
        spans: Spans,
        clock: Callable[[], float] = trio.current_time,
        on_transition: Callable[[Transition], None] | None = None,
        keep: Callable[[KeptCircuit | None], None] | None = None,
        kept: KeptCircuit | None = None,
    ) -> None:
        """See `Circuit`."""
        super().__init__(
            name, policy, clock=clock, on_transition=on_transition, keep=keep, kept=kept
        )
        self._spans = spans

    # A plain function: without spans a call has no frame more than that of a Circuit.
    def call(
        self, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts
    ) -> Coroutine[Any, Any, T]:
        """As `Circuit.call`."""
        if self._spans.enabled:
            return self._call_traced(fn, *args)
        return Circuit.call(self, fn, *args)

    async def _call_traced(
        self, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts
    ) -> T:
        with CircuitSpan(self, self._spans):
            return await Circuit.call(self, fn, *args)

    def guard(self) -> Guard:
        """As `Circuit.guard`."""
        return TracedGuard(self, self._spans) if self._spans.enabled else Guard(self)


class TracedGuard(Guard):
    """A guard whose block is a span."""

    __slots__ = ("_span",)

    def __init__(self, circuit: Circuit, spans: Spans) -> None:
        super().__init__(circuit)
        self._span = CircuitSpan(circuit, spans)

    def __enter__(self) -> Guard:
        """Take a permit, or raise `CircuitOpen`."""
        self._span.begin()
        try:
            return super().__enter__()
        except BaseException as error:
            self._span.end(error)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Return the permit with what became of the block."""
        try:
            super().__exit__(kind, error, traceback)
        except BaseException as late:
            self._span.end(late)
            raise
        self._span.end(error)


class CircuitSpan:
    """The span of one call: the running task's own while it lasts."""

    __slots__ = ("_before", "_began_ns", "_circuit", "_context", "_spans", "_state")

    def __init__(self, circuit: Circuit, spans: Spans) -> None:
        self._circuit = circuit
        self._spans = spans
        self._before: Token[SpanContext | None]
        self._context: SpanContext

    def begin(self) -> None:
        """From now on what this task records is part of it."""
        self._context = tracing.new_context(tracing.current.get())
        self._before = tracing.current.set(self._context)
        self._state = self._circuit.state.value
        self._began_ns = wall_ns()

    def end(self, error: BaseException | None) -> None:
        """Record it, and what was raised."""
        tracing.current.reset(self._before)
        parent = tracing.current.get()
        attributes = {
            "treewarden.circuit": self._circuit.name,
            "treewarden.circuit.state": self._state,
        }
        self._spans.record(
            "circuit", self._context, parent, self._began_ns, wall_ns(),
            attributes=attributes, error=_said(error),
        )  # fmt: skip

    def __enter__(self) -> None:
        """Begin."""
        self.begin()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""
        self.end(error)


def _said(error: BaseException | None) -> str | None:
    if error is None:
        return None
    if isinstance(error, trio.Cancelled):
        return "cancelled"
    return Fault.capture(error).summary()
