"""A circuit around calls: it stops calling what keeps failing.

The function runs in its caller's task. There is no lock and no task of our own, and
nothing is awaited between looking at the state and changing it, so that trio's one thread
is all the exclusion there is: a circuit belongs to that thread, and others go through
`trio.from_thread`. `circuit_core` decides; this module reads the clock, judges how a call
ended and tells of every transition.
"""

from __future__ import annotations

import reprlib
import threading
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple, Unpack

import trio

from treewarden.clock import wall_ns
from treewarden.errors import CircuitOpen, TimedOut

from .circuit_core import REJECTED, CircuitCore, CircuitState
from .circuit_kept import KeptCircuit
from .circuit_policy import CircuitPolicy
from .circuit_window import CountWindow
from .transition import Transition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from .circuit_core import Move

T = TypeVar("T")
F = TypeVar("F")
Ts = TypeVarTuple("Ts")

_CLOSED: Final = CircuitState.CLOSED
_OPEN: Final = CircuitState.OPEN
_HALF_OPEN: Final = CircuitState.HALF_OPEN
_ERROR_TEXT_LIMIT: Final = 200

# A loop that does nothing but get rejected must not starve the run: one pass of trio's
# loop costs 3.9 us, a rejection about 1 us; at every 32nd the pass costs 0.1 us a call.
_GIVE_WAY_EVERY: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitStatistics:
    """A circuit as it stands; counters since it was made.

    calls = succeeded + failed + not_counted + in_flight, at all times; `rejected` are
    apart, `timed_out` are among the failed, `slow` among both. `since` is an instant of
    the circuit's clock, `since_ns` the same for people. `retry_after` is in seconds, None
    when only an operator can close the circuit, 0.0 when calls are let through.
    `openings` are those since it was last closed.
    """

    name: str
    state: CircuitState
    since: float
    since_ns: int
    threshold: str
    window_calls: int
    window_failures: int
    window_slow: int
    in_a_row: int
    retry_after: float | None
    probes: int
    half_open_calls: int
    probe_successes: int
    success_threshold: int
    calls: int
    succeeded: int
    failed: int
    slow: int
    timed_out: int
    not_counted: int
    in_flight: int
    rejected: int
    opened: int
    openings: int
    last_error: str
    listener_failures: int


class Circuit:
    """Stands between callers and one thing that can fail. Made by `Circuits.circuit`.

    Use `call` around one async function, `guard` around a block. A call inside of a call
    through the same circuit is one of its own, but inside of a probe it is a part of that.
    """

    __slots__ = (
        "_clock",
        "_core",
        "_keep",
        "_last_error",
        "_listener_failures",
        "_on_transition",
        "_quick",
        "_rejections",
        "_since_ns",
        "_thread",
        "_timed_out",
        "name",
    )

    def __init__(
        self,
        name: str,
        policy: CircuitPolicy | None = None,
        *,
        clock: Callable[[], float] = trio.current_time,
        on_transition: Callable[[Transition], None] | None = None,
        keep: Callable[[KeptCircuit | None], None] | None = None,
        kept: KeptCircuit | None = None,
    ) -> None:
        """A closed circuit, or what an earlier one `kept`.

        `clock` gives monotonic seconds. `on_transition` is called after each change of
        state, in the task that caused it; it must not block. What it raises is counted
        (`listener_failures`) and goes no further: a listener never fails a call. `keep`
        is called likewise with what the next circuit of this name is to be given.
        """
        self.name = name
        self._clock = clock
        self._on_transition = on_transition
        self._keep = keep
        self._core = CircuitCore(policy or CircuitPolicy(), clock())
        self._thread = threading.get_ident()
        self._since_ns = wall_ns()
        self._last_error = ""
        self._listener_failures = self._rejections = self._timed_out = 0
        # Most circuits look neither at results nor at how long a call took. A call that
        # finds nothing bad in their window only counts, and needs no clock.
        self._quick = self._quick_window()
        if kept is not None:
            self._restore(kept)

    def _quick_window(self) -> CountWindow | None:
        policy, window = self.policy, self._core.window
        asks = (
            policy.slow_call,
            policy.call_timeout,
            policy.result_is_failure,
            policy.result_is_ignored,
        )
        plain = asks == (None,) * len(asks)
        return window if plain and isinstance(window, CountWindow) else None

    def _restore(self, kept: KeptCircuit) -> None:
        self._core.restore(
            kept.state,
            self._clock(),
            left=kept.left(wall_ns()),
            openings=kept.openings,
        )
        self._tell()

    @property
    def policy(self) -> CircuitPolicy:
        """The rules, fixed for the circuit's life."""
        return self._core.policy

    @property
    def state(self) -> CircuitState:
        """The state now; looking lets time do its part."""
        self._look()
        return self._core.state

    # --- calls -----------------------------------------------------------------------------

    def guard(self) -> Guard:
        """A context manager around one call: `with circuit.guard(): ...`.

        One permit an entry. It is returned however the block ends; an exception is
        judged by the policy, and a block that its caller cancelled is not counted. A
        block has no result to judge; say `guard.judge(result)` inside it.

        Raises:
            CircuitOpen: at entry; the block did not run.
            TimedOut: at exit; the block took longer than the policy's `call_timeout`.
        """
        return Guard(self)

    async def call(self, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
        """`await fn(*args)` in this task, unless the circuit is open.

        A checkpoint if `fn` is one. A rejection checks for cancellation each time and
        gives way at least every 32nd, so that a loop of them starves nobody.

        Raises:
            CircuitOpen: the function was not called.
            TimedOut: it took longer than the policy's `call_timeout`.
        """
        core, quick = self._core, self._quick
        if core.state is _CLOSED:
            core.calls += 1
            permit = core.generation
        else:
            # As `_enter` does; two calls less are a sixth of a rejection.
            now = self._clock()
            permit = core.admit(now)
            if core.moves:
                self._tell()
            if not permit and core.state is _HALF_OPEN and self._is_within():
                permit = core.admit_within()
            # What may be a probe has to know that it is one.
            quick = None
            if not permit:
                rejection = CircuitOpen(self.name, core.state, core.retry_after(now))
                self._rejections += 1
                if self._rejections % _GIVE_WAY_EVERY:
                    await trio.lowlevel.checkpoint_if_cancelled()
                else:
                    await trio.lowlevel.checkpoint()
                raise rejection
        if quick is None:
            with Guard(self, permit) as guard:
                result = await fn(*args)
                guard.judge(result)
            return result
        try:
            result = await fn(*args)
        except BaseException as error:
            self._raised(permit, error)
            raise
        self._returned(permit)
        return result

    async def call_or(
        self,
        instead: Callable[[Exception], Awaitable[F]],
        fn: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: *Ts,
    ) -> T | F:
        """As `call`, but `await instead(error)` when this rejected the call or it failed.

        What the policy does not count as a failure comes out as it was raised, and so
        does what `instead` raises.
        """
        try:
            return await self.call(fn, *args)
        except Exception as error:
            if not self._is_trouble(error):
                raise
            return await instead(error)

    def _is_trouble(self, error: Exception) -> bool:
        if isinstance(error, CircuitOpen) and error.name == self.name:
            return True
        return self.policy.counts_as_failure(error)

    def _enter(self) -> int:
        if threading.get_ident() != self._thread:
            raise RuntimeError(
                f"circuit {self.name} belongs to trio's thread;"
                " from another one, call it through trio.from_thread"
            )
        core = self._core
        if core.state is _CLOSED:
            core.calls += 1
            return core.generation
        now = self._clock()
        permit = core.admit(now)
        if core.moves:
            self._tell()
        if not permit and core.state is _HALF_OPEN and self._is_within():
            permit = core.admit_within()
        if not permit:
            # A fresh one each time: a shared exception would gather a frame a raise.
            raise CircuitOpen(self.name, core.state, core.retry_after(now))
        return permit

    def _is_within(self) -> bool:
        """Whether this runs inside of a probe of ours, or in a task that it has started.

        Rejected, the call would fail the very probe that it is a part of, each time anew,
        and the circuit never close again.
        """
        return any(
            circuit is self and self._core.is_out(permit)
            for circuit, permit in _probing.get()
        )

    # --- how a call ended -------------------------------------------------------------------

    def _returned(self, permit: int, *, took: float = 0.0) -> None:
        core, quick = self._core, self._quick
        if quick is not None and core.state is _CLOSED and not quick.failures:
            # The way of nearly every call.
            core.succeeded += 1
            if permit == core.generation:
                quick.add_clean()
            return
        core.succeed(permit, self._clock(), slow=self._is_slow(took))
        if core.moves:
            self._tell()

    def _raised(self, permit: int, error: BaseException, *, took: float = 0.0) -> None:
        try:
            verdict = _verdict(error, self.policy)
        except BaseException:
            # A predicate that fails must not keep a probe's place.
            self._core.let_go(permit)
            raise
        if verdict is None:
            self._core.let_go(permit)
        elif verdict:
            self._returned(permit, took=took)
        else:
            self._failed(permit, _one_line(error), took=took)

    def _failed(self, permit: int, why: str, *, took: float = 0.0) -> None:
        self._last_error = why
        self._core.fail(permit, self._clock(), slow=self._is_slow(took))
        if self._core.moves:
            self._tell()

    def _late(self, permit: int, took: float) -> TimedOut:
        """What is raised in place of the cancellation by our own deadline."""
        late = TimedOut(
            f"a call through circuit {self.name}", self.policy.call_timeout or 0.0
        )
        self._timed_out += 1
        self._failed(permit, _one_line(late), took=took)
        return late

    def _is_slow(self, took: float) -> bool:
        limit = self.policy.slow_call
        return limit is not None and took >= limit

    # --- operators -------------------------------------------------------------------------

    def trip(self, by: str = "") -> None:
        """Reject every call until somebody resets it; calls under way go on."""
        self._core.trip(self._clock(), by)
        self._tell()

    def reset(self, by: str = "") -> None:
        """Close it, from any state, with an empty window."""
        self._core.reset(self._clock(), by)
        self._tell()

    def disable(self, by: str = "") -> None:
        """Let every call through and watch none, until somebody resets it."""
        self._core.disable(self._clock(), by)
        self._tell()

    def observe(self, by: str = "") -> None:
        """Let every call through and watch them all, until somebody resets it."""
        self._core.observe(self._clock(), by)
        self._tell()

    def keep_no_more(self) -> None:
        """Go on, but leave nothing to the next circuit of this name."""
        self._keep = None

    # --- news ------------------------------------------------------------------------------

    def _look(self) -> None:
        if self._core.state in (_OPEN, _HALF_OPEN):
            self._core.look(self._clock())
            self._tell()

    def _tell(self) -> None:
        core = self._core
        while core.moves:
            # Taken out first: who is told may change the state again.
            self._tell_of(core.moves.pop(0))

    def _tell_of(self, move: Move) -> None:
        self._since_ns = wall_ns() - round((self._clock() - move.at) * 1e9)
        if self._keep is not None and move.new is not _HALF_OPEN:
            # What was kept of an open circuit says by itself when it is half open.
            self._keep(self._kept())
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
            window_slow=move.window_slow,
            by=move.by,
        )
        try:
            self._on_transition(transition)
        except Exception:  # noqa: BLE001 - a listener never fails somebody's call
            self._listener_failures += 1

    def _kept(self) -> KeptCircuit | None:
        core = self._core
        if core.state is _CLOSED:
            return None
        if core.state is not _OPEN:
            return KeptCircuit(state=core.state, openings=core.openings)
        left = core.due - self._clock()
        return KeptCircuit(
            state=_OPEN,
            until_ns=wall_ns() + round(left * 1e9),
            seconds=left,
            openings=core.openings,
        )

    def statistics(self) -> CircuitStatistics:
        """What the console shows; never waits for a call under way."""
        self._look()
        core, now = self._core, self._clock()
        core.window.pass_time(now)
        return CircuitStatistics(
            name=self.name,
            state=core.state,
            since=core.since,
            since_ns=self._since_ns,
            threshold=core.policy.describe(),
            window_calls=core.window.calls,
            window_failures=core.window.failures,
            window_slow=core.window.slow,
            in_a_row=core.in_a_row,
            retry_after=core.retry_after(now),
            probes=core.probes,
            half_open_calls=core.policy.half_open_calls,
            probe_successes=core.probe_successes,
            success_threshold=core.policy.success_threshold,
            calls=core.calls,
            succeeded=core.succeeded,
            failed=core.failed,
            slow=core.slow,
            timed_out=self._timed_out,
            not_counted=core.not_counted,
            in_flight=core.in_flight,
            rejected=core.rejected,
            opened=core.opened,
            openings=core.openings,
            last_error=self._last_error,
            listener_failures=self._listener_failures,
        )

    @property
    def version(self) -> int:
        """A number that has changed when anything in `statistics` but times has."""
        self._look()
        core = self._core
        core.window.pass_time(self._clock())
        settled = core.succeeded + core.failed + core.not_counted
        so_far = core.generation + core.calls + core.rejected + settled
        return so_far + core.window.forgotten


# The probes inside of which the running task is, the outermost first.
_probing: ContextVar[tuple[tuple[Circuit, int], ...]] = ContextVar(
    "treewarden_probing", default=()
)


class Guard:
    """One entry into a circuit; see `Circuit.guard`."""

    __slots__ = (
        "_around",
        "_began",
        "_circuit",
        "_entered",
        "_judged",
        "_permit",
        "_result",
        "_scope",
    )

    def __init__(self, circuit: Circuit, permit: int = REJECTED) -> None:
        self._circuit = circuit
        self._permit = permit
        self._entered = self._judged = False
        self._began: float | None = None
        # The probes around this one, if it is one.
        self._around: tuple[tuple[Circuit, int], ...] | None = None
        self._scope: trio.CancelScope | None = None
        self._result: tuple[bool | None, str] = (None, "")

    def __enter__(self) -> Guard:
        """Take a permit, or raise `CircuitOpen`."""
        if self._entered:
            raise RuntimeError("a guard is for one entry; make another one")
        self._entered = True
        self._permit = self._permit or self._circuit._enter()  # noqa: SLF001 - the two are one mechanism
        if self._circuit._core.is_out(self._permit):  # noqa: SLF001
            self._around = _probing.get()
            _probing.set((*self._around, (self._circuit, self._permit)))
        if self._circuit._quick is None:  # noqa: SLF001
            self._begin()
        return self

    def _begin(self) -> None:
        self._began = self._circuit._clock()  # noqa: SLF001
        limit = self._circuit.policy.call_timeout
        if limit is not None:
            self._scope = trio.move_on_after(limit)
            self._scope.__enter__()

    def judge(self, result: object) -> None:
        """Let the policy judge what the call returned; what is raised later is not."""
        # Nothing is counted if a predicate raises.
        self._judged = True
        policy = self._circuit.policy
        if policy.result_is_failure is not None and policy.result_is_failure(result):
            self._result = (False, f"returned {reprlib.repr(result)}")
        elif policy.result_is_ignored is None or not policy.result_is_ignored(result):
            self._result = (True, "")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Return the permit with what became of the block."""
        if self._around is not None:
            # Not by a token, which only the same context may reset: generators wander.
            _probing.set(self._around)
        if self._scope is None:
            self._settle(error)
            return
        try:
            cancelled = self._scope.__exit__(kind, error, traceback)
        except BaseException as rest:
            # A group, without our own cancellation in it.
            self._settle(rest)
            raise
        if error is not None and cancelled:
            raise self._circuit._late(self._permit, self._took())  # noqa: SLF001
        self._settle(error)

    def _settle(self, error: BaseException | None) -> None:
        circuit, permit = self._circuit, self._permit
        if self._judged:
            self._settle_judged()
        elif error is None:
            circuit._returned(permit, took=self._took())  # noqa: SLF001
        else:
            circuit._raised(permit, error, took=self._took())  # noqa: SLF001

    def _settle_judged(self) -> None:
        circuit, permit = self._circuit, self._permit
        verdict, why = self._result
        if verdict is None:
            circuit._core.let_go(permit)  # noqa: SLF001
        elif verdict:
            circuit._returned(permit, took=self._took())  # noqa: SLF001
        else:
            circuit._failed(permit, why, took=self._took())  # noqa: SLF001

    def _took(self) -> float:
        if self._began is None:
            return 0.0
        return self._circuit._clock() - self._began  # noqa: SLF001


def _verdict(error: BaseException, policy: CircuitPolicy) -> bool | None:
    """Whether what a call raised is a sign of health; None: it is no sign.

    A cancellation is its caller's will and says nothing. In a group it is left out, and
    the rest is judged as one.
    """
    if isinstance(error, trio.Cancelled):
        return None
    if isinstance(error, BaseExceptionGroup):
        rest = error.split(trio.Cancelled)[1]
        if rest is None:
            return None
        error = rest
    if policy.counts_as_failure(error):
        return False
    return True if policy.counts_as_success(error) else None


def _one_line(error: BaseException) -> str:
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - user code, and the call has its own error to raise
        return f"{kind} (its text failed)"
    line = text.partition("\n")[0][:_ERROR_TEXT_LIMIT]
    return f"{kind}: {line}" if line else kind
