"""A circuit around calls: it stops calling what keeps failing.

The function runs in its caller's task. There is no lock and no task of our own, and
nothing is awaited between looking at the state and changing it, so that trio's one thread
is all the exclusion there is: a circuit belongs to that thread. `circuit_core` decides; this
module reads the clock, judges what was raised and tells a listener of every transition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple, Unpack

import trio

from treewarden.clock import wall_ns
from treewarden.errors import CircuitOpen

from .circuit_core import REJECTED, CircuitCore, CircuitPolicy, CircuitState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from .circuit_core import Move

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_CLOSED: Final = CircuitState.CLOSED
_OPEN: Final = CircuitState.OPEN
_ERROR_TEXT_LIMIT: Final = 200

# A loop that does nothing but get rejected must not starve the run: one pass of trio's
# loop costs 3.9 us, a rejection about 1 us; at every 32nd the pass costs 0.1 us a call.
_GIVE_WAY_EVERY: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A circuit changed state: why, when, on whose order, and the window then."""

    name: str
    old: CircuitState
    new: CircuitState
    at_ns: int
    reason: str
    window_calls: int
    window_failures: int
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitStatistics:
    """A circuit as it stands; counters since it was made.

    calls = succeeded + failed + not_counted + in_flight, at all times; `rejected` are
    apart. `since` is an instant of the circuit's clock, `since_ns` the same for people.
    `retry_after` is in seconds, None when only an operator can close the circuit, 0.0 when
    calls are let through.
    """

    name: str
    state: CircuitState
    since: float
    since_ns: int
    threshold: str
    window_calls: int
    window_failures: int
    retry_after: float | None
    calls: int
    succeeded: int
    failed: int
    not_counted: int
    in_flight: int
    rejected: int
    opened: int
    last_error: str
    listener_failures: int


class Circuit:
    """Stands between callers and one thing that can fail. Made by `Circuits.circuit`.

    Use `call` around one async function, `guard` around a block.
    """

    __slots__ = (
        "_clock",
        "_core",
        "_last_error",
        "_listener_failures",
        "_on_transition",
        "_rejections",
        "_since_ns",
        "name",
    )

    def __init__(
        self,
        name: str,
        policy: CircuitPolicy | None = None,
        *,
        clock: Callable[[], float] = trio.current_time,
        on_transition: Callable[[Transition], None] | None = None,
    ) -> None:
        """A closed circuit.

        `clock` gives monotonic seconds. `on_transition` is called after each change of
        state, in the task that caused it; it must not block. What it raises is counted
        (`listener_failures`) and goes no further: a listener never fails a call.
        """
        self.name = name
        self._clock = clock
        self._on_transition = on_transition
        self._core = CircuitCore(policy or CircuitPolicy(), clock())
        self._since_ns = wall_ns()
        self._last_error = ""
        self._listener_failures = 0
        self._rejections = 0

    @property
    def policy(self) -> CircuitPolicy:
        """The rules, fixed for the circuit's life."""
        return self._core.policy

    @property
    def state(self) -> CircuitState:
        """The state now; looking turns an open circuit half open when it is time."""
        self._look()
        return self._core.state

    # --- calls -----------------------------------------------------------------------------

    def guard(self) -> Guard:
        """A context manager around one call: `with circuit.guard(): ...`.

        One permit an entry. It is returned however the block ends; an exception is
        judged by the policy, and a block that its caller cancelled is not counted.

        Raises:
            CircuitOpen: at entry; the block did not run.
        """
        return Guard(self)

    async def call(self, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
        """`await fn(*args)` in this task, unless the circuit is open.

        A checkpoint if `fn` is one. A rejection checks for cancellation each time and
        gives way at least every 32nd, so that a loop of them starves nobody.

        Raises:
            CircuitOpen: the function was not called.
        """
        core = self._core
        if core.state is _CLOSED:
            core.calls += 1
            permit = core.generation
        elif not (permit := self._admit(now := self._clock())):
            rejection = self._rejection(now)
            self._rejections += 1
            if self._rejections % _GIVE_WAY_EVERY:
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                await trio.lowlevel.checkpoint()
            raise rejection
        try:
            result = await fn(*args)
        except BaseException as error:
            self._raised(permit, error)
            raise
        self._returned(permit)
        return result

    def _enter(self) -> int:
        core = self._core
        if core.state is _CLOSED:
            return core.admit(core.since)
        now = self._clock()
        permit = self._admit(now)
        if not permit:
            raise self._rejection(now)
        return permit

    def _admit(self, now: float) -> int:
        core = self._core
        if now >= core.due:
            self._tell(core.look(now))
        return core.admit(now)

    def _rejection(self, now: float) -> CircuitOpen:
        # A fresh one each time: a shared exception would gather a frame a raise.
        core = self._core
        return CircuitOpen(self.name, core.state, core.retry_after(now))

    def _returned(self, permit: int) -> None:
        core = self._core
        if core.state is _CLOSED and not core.window.failures:
            # The way of nearly every call, and the one that needs no clock.
            core.succeed(permit, 0.0)
        else:
            self._tell(core.succeed(permit, self._clock()))

    def _raised(self, permit: int, error: BaseException) -> None:
        try:
            counts = _is_counted(error, self._core.policy)
        except BaseException:
            # A predicate that fails must not keep a probe's place.
            self._core.let_go(permit)
            raise
        if not counts:
            self._core.let_go(permit)
            return
        self._last_error = _one_line(error)
        self._tell(self._core.fail(permit, self._clock()))

    # --- operators -------------------------------------------------------------------------

    def trip(self, by: str = "") -> None:
        """Reject every call until somebody resets it; calls under way go on."""
        self._tell(self._core.trip(self._clock(), by))

    def reset(self, by: str = "") -> None:
        """Close it, from any state, with an empty window."""
        self._tell(self._core.reset(self._clock(), by))

    def disable(self, by: str = "") -> None:
        """Let every call through and watch none, until somebody resets it."""
        self._tell(self._core.disable(self._clock(), by))

    def observe(self, by: str = "") -> None:
        """Let every call through and watch them all, until somebody resets it."""
        self._tell(self._core.observe(self._clock(), by))

    # --- news ------------------------------------------------------------------------------

    def _look(self) -> None:
        if self._core.state is _OPEN:
            self._tell(self._core.look(self._clock()))

    def _tell(self, move: Move | None) -> None:
        if move is None:
            return
        self._since_ns = wall_ns()
        if self._on_transition is None:
            return
        transition = Transition(
            name=self.name,
            old=move.old,
            new=move.new,
            at_ns=self._since_ns,
            reason=move.reason,
            window_calls=move.window_calls,
            window_failures=move.window_failures,
            by=move.by,
        )
        try:
            self._on_transition(transition)
        except Exception:  # noqa: BLE001 - a listener never fails somebody's call
            self._listener_failures += 1

    def statistics(self) -> CircuitStatistics:
        """What the console shows; never waits for a call under way."""
        self._look()
        core = self._core
        return CircuitStatistics(
            name=self.name,
            state=core.state,
            since=core.since,
            since_ns=self._since_ns,
            threshold=core.policy.describe(),
            window_calls=core.window.calls,
            window_failures=core.window.failures,
            retry_after=core.retry_after(self._clock()),
            calls=core.calls,
            succeeded=core.succeeded,
            failed=core.failed,
            not_counted=core.not_counted,
            in_flight=core.in_flight,
            rejected=core.rejected,
            opened=core.opened,
            last_error=self._last_error,
            listener_failures=self._listener_failures,
        )

    @property
    def version(self) -> int:
        """A number that has changed when anything in `statistics` but times has."""
        self._look()
        core = self._core
        settled = core.succeeded + core.failed + core.not_counted
        return core.generation + core.calls + core.rejected + settled


class Guard:
    """One entry into a circuit; see `Circuit.guard`."""

    __slots__ = ("_circuit", "_permit")

    def __init__(self, circuit: Circuit) -> None:
        self._circuit = circuit
        self._permit = REJECTED

    def __enter__(self) -> None:
        """Take a permit, or raise `CircuitOpen`."""
        if self._permit:
            raise RuntimeError("a guard is for one entry; make another one")
        self._permit = self._circuit._enter()  # noqa: SLF001 - the two are one mechanism

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Return the permit with what became of the block."""
        if error is None:
            self._circuit._returned(self._permit)  # noqa: SLF001
        else:
            self._circuit._raised(self._permit, error)  # noqa: SLF001


class Circuits:
    """All circuits of a runtime, by name."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = trio.current_time,
        on_transition: Callable[[Transition], None] | None = None,
    ) -> None:
        """No circuits yet; see `Circuit` for `clock` and `on_transition`."""
        self._clock = clock
        self._on_transition = on_transition
        self._by_name: dict[str, Circuit] = {}

    def circuit(self, name: str, policy: CircuitPolicy | None = None) -> Circuit:
        """The circuit of this name, made at the first use.

        `policy` None takes whatever policy it has, or the default one.

        Raises:
            ValueError: no name, or the circuit exists with another policy.
        """
        if not name:
            raise ValueError("a circuit needs a name")
        known = self._by_name.get(name)
        if known is None:
            known = self._by_name[name] = Circuit(
                name, policy, clock=self._clock, on_transition=self._on_transition
            )
        elif policy is not None and policy != known.policy:
            raise ValueError(
                f"circuit {name!r} exists with another policy: {known.policy}"
            )
        return known

    def get(self, name: str) -> Circuit | None:
        """The circuit of this name, or None when nobody made it."""
        return self._by_name.get(name)

    def list(self) -> tuple[Circuit, ...]:
        """All circuits, by name."""
        return tuple(self._by_name[name] for name in sorted(self._by_name))

    def statistics(self) -> tuple[CircuitStatistics, ...]:
        """One record a circuit, by name."""
        return tuple(circuit.statistics() for circuit in self.list())

    @property
    def version(self) -> int:
        """A number that has changed when anything in `statistics` but times has."""
        counted = sum(circuit.version for circuit in self._by_name.values())
        return counted + len(self._by_name)


def _is_counted(error: BaseException, policy: CircuitPolicy) -> bool:
    """Whether what a call raised is a failure of what was called.

    A cancellation is its caller's will and says nothing. In a group it is left out, and
    the rest is judged as one.
    """
    if isinstance(error, trio.Cancelled):
        return False
    if isinstance(error, BaseExceptionGroup):
        rest = error.split(trio.Cancelled)[1]
        if rest is None:
            return False
        error = rest
    return policy.counts_as_failure(error)


def _one_line(error: BaseException) -> str:
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - user code, and the call has its own error to raise
        return f"{kind} (its text failed)"
    line = text.partition("\n")[0][:_ERROR_TEXT_LIMIT]
    return f"{kind}: {line}" if line else kind
