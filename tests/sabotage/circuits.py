"""Broken circuits, and broken policies around a call."""

from __future__ import annotations

import math
import threading
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

from treewarden.errors import CircuitOpen, StoreError
from treewarden.resilience import (
    Circuit,
    CircuitPolicy,
    Circuits,
    Fallback,
    Hedge,
    Layer,
    Policy,
    TransitionFeed,
    circuit,
    circuit_core,
    circuit_kept,
    circuit_policy,
)
from treewarden.resilience.circuit_core import CircuitCore
from treewarden.resilience.circuit_kept import KeptCircuit
from treewarden.resilience.circuit_window import TimeWindow
from treewarden.runtime import runtime
from treewarden.store import Level, open_store

from .double import Area

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from treewarden.store import Store

    from .double import Replace

DOUBLES: Final = Area("tests/runtime/resilience")

# --- calls ---------------------------------------------------------------------------------


@DOUBLES.breaks(
    caught_by="test_circuit_calls.py::test_f54_ten_calls_at_once_take_as_long_as_one_and_status_waits_for_none"
)
def one_call_at_a_time(replace: Replace) -> None:
    """F54: the circuit runs its calls behind a lock."""
    call = Circuit.call
    locks: dict[Circuit, trio.Lock] = {}

    async def locked(
        self: Circuit, fn: Callable[..., Awaitable[Any]], *args: object
    ) -> object:
        async with locks.setdefault(self, trio.Lock()):
            return await call(self, fn, *args)

    replace(Circuit, "call", locked)


@DOUBLES.breaks(
    caught_by="test_circuit_calls.py::test_f55_each_caller_gets_its_own_exception_and_no_outcome_is_lost"
)
def a_cancelled_caller_is_a_failure(replace: Replace) -> None:
    """F55: whoever loses patience holds it against the service."""
    verdict = circuit._verdict

    def unfair(error: BaseException, policy: CircuitPolicy) -> bool | None:
        return False if isinstance(error, trio.Cancelled) else verdict(error, policy)

    replace(circuit, "_verdict", unfair)


@DOUBLES.swaps(
    CircuitCore,
    "_admit_probe",
    caught_by="test_circuit_calls.py::test_f55_of_twenty_callers_one_probe_goes",
)
def everybody_probes(self: CircuitCore, now: float) -> int:
    """F55: half open, all go through at once."""
    self.calls += 1
    return self.generation


@DOUBLES.breaks(
    caught_by="test_circuits.py::test_f56_a_guard_is_refused_outside_trios_thread_and_counts_nothing"
)
def any_thread_may_enter(replace: Replace) -> None:
    """F56: what no lock protects is changed from every thread."""
    enter = Circuit._enter

    def unguarded(self: Circuit) -> int:
        self._thread = threading.get_ident()
        return enter(self)

    replace(Circuit, "_enter", unguarded)


@DOUBLES.breaks(
    caught_by="test_circuits.py::test_h16_what_a_circuit_knows_outlives_the_task_that_made_it"
)
def a_circuit_a_task(replace: Replace) -> None:
    """H16: what a circuit knows belongs to the task that made it."""
    make = Circuits.circuit

    def of_this_task(
        self: Circuits, name: str, policy: CircuitPolicy | None = None
    ) -> Circuit:
        return make(self, f"{name}-{id(trio.lowlevel.current_task())}", policy)

    replace(Circuits, "circuit", of_this_task)


@DOUBLES.breaks(
    caught_by="test_circuit_life.py::test_f57_without_the_store_that_keeps_circuits_nothing_runs_unprotected"
)
def a_store_in_memory_will_do(replace: Replace) -> None:
    """F57: when the store cannot be opened, it goes on without."""

    @asynccontextmanager
    async def opened(path: object, **options: Any) -> AsyncIterator[Store]:
        try:
            async with open_store(path, **options) as store:  # type: ignore[arg-type]
                yield store
        except StoreError:
            options["level"] = Level.VOLATILE
            async with open_store(None, **options) as store:
                yield store

    replace(runtime, "open_store", opened)


@DOUBLES.breaks(
    caught_by="test_circuit.py::test_a_million_rejections_grow_memory_by_less_than_a_mebibyte"
)
def one_exception_for_all(replace: Replace) -> None:
    """Each raise adds its frames to the same exception."""
    shared = CircuitOpen("site", "forced_open", None)

    def enter(self: Circuit) -> int:
        self._core.rejected += 1
        raise shared

    replace(Circuit, "_enter", enter)


@DOUBLES.breaks(
    caught_by="test_circuit_calls.py::test_the_circuits_own_deadline_cancels_the_call_and_is_a_failure"
)
def its_own_deadline_is_no_failure(replace: Replace) -> None:
    """A call that the circuit cancelled itself counts for nothing."""
    late = Circuit._late

    def forgiving(self: Circuit, permit: int, took: float) -> Exception:
        error = late(self, permit, took)
        self._core.failed -= 1
        self._core.not_counted += 1
        return error

    replace(Circuit, "_late", forgiving)


# --- states --------------------------------------------------------------------------------


@DOUBLES.swaps(
    CircuitCore,
    "let_go",
    caught_by="test_circuit_core.py::test_a_probe_that_was_let_go_leaves_its_place_and_decides_nothing",
)
def a_cancelled_probe_keeps_its_place(self: CircuitCore, permit: int) -> None:
    """Only what returned or raised gives its permit back."""
    self.not_counted += 1


@DOUBLES.breaks(
    caught_by="test_circuit_core.py::test_a_half_open_circuit_that_cannot_decide_opens_again"
)
def half_open_for_ever(replace: Replace) -> None:
    """Half open has no limit."""
    replace(CircuitPolicy, "time_to_decide", property(lambda _: math.inf))


@DOUBLES.breaks(
    caught_by="test_circuit_core.py::test_a_lost_probe_holds_its_place_no_longer_than_its_lease"
)
def leases_do_not_end(replace: Replace) -> None:
    """A probe that never ends keeps its place."""
    replace(CircuitCore, "_end_leases", lambda *_: None)


@DOUBLES.breaks(
    caught_by="test_circuit_core.py::test_a_late_result_of_an_earlier_state_moves_nothing"
)
def late_results_decide(replace: Replace) -> None:
    """A result from before the circuit opened closes or opens it now."""
    settle = CircuitCore._settle

    def settled(self: CircuitCore, permit: int, now: float, **how: bool) -> None:
        settle(self, max(permit, self.generation), now, **how)

    replace(CircuitCore, "_settle", settled)


@DOUBLES.breaks(
    caught_by="test_circuits.py::test_a_wall_clock_that_is_set_moves_no_transition"
)
def open_by_the_wall_clock(replace: Replace) -> None:
    """An hour that somebody puts the clock back is an hour more."""
    make = Circuits._make

    def made(self: Circuits, name: str, policy: CircuitPolicy) -> Circuit:
        self._clock = lambda: vars(circuit)["wall_ns"]() / 1e9
        return make(self, name, policy)

    replace(Circuits, "_make", made)


@DOUBLES.breaks(
    caught_by="test_circuits.py::test_an_open_circuit_stays_open_for_the_time_that_was_left"
)
def a_restart_begins_the_open_time_anew(replace: Replace) -> None:
    """What is left of the open time is not looked at."""
    replace(KeptCircuit, "left", lambda self, _: self.seconds)


@DOUBLES.breaks(
    caught_by="test_circuit_core.py::test_a_window_of_seconds_forgets_a_tenth_at_a_time"
)
def a_window_that_never_forgets(replace: Replace) -> None:
    """Failures of last week count."""
    replace(TimeWindow, "pass_time", lambda *_: None)


@DOUBLES.breaks(
    caught_by="test_circuit_core.py::test_the_open_time_grows_with_each_opening_until_it_has_closed"
)
def no_memory_of_openings(replace: Replace) -> None:
    """Each opening is the first one."""
    begin = CircuitCore._begin

    def begun(self: CircuitCore, state: circuit_core.CircuitState) -> None:
        begin(self, state)
        self.openings = 0

    replace(CircuitCore, "_begin", begun)


# --- listeners -----------------------------------------------------------------------------


@DOUBLES.breaks(
    caught_by="test_circuits.py::test_a_listener_that_does_not_listen_delays_nobody_and_keeps_the_newest"
)
def a_feed_without_end(replace: Replace) -> None:
    """A listener that does not listen fills the memory."""
    init = TransitionFeed.__init__

    def endless(self: TransitionFeed, capacity: int) -> None:
        init(self, capacity)
        self._waiting = deque()

    replace(TransitionFeed, "__init__", endless)


# --- policies around a call ----------------------------------------------------------------


@DOUBLES.breaks(
    caught_by="test_policy.py::test_each_attempt_asks_the_circuit_and_an_open_one_ends_the_row"
)
def the_circuit_around_the_retry(replace: Replace) -> None:
    """The circuit sees one failure where there were three."""
    order = (Layer.CIRCUIT, *(layer for layer in Layer if layer != Layer.CIRCUIT))

    def wrong(self: Policy) -> tuple[Layer, ...]:
        return tuple(layer for layer in order if getattr(self, layer) is not None)

    replace(Policy, "order", property(wrong))


@DOUBLES.breaks(caught_by="test_policy.py::test_our_own_limits_do_not_open_the_circuit")
def our_own_limits_are_failures(replace: Replace) -> None:
    """A full bulkhead of ours opens the circuit to the other side."""
    verdict = circuit._verdict

    def strict(error: BaseException, policy: CircuitPolicy) -> bool | None:
        ordinary = isinstance(error, Exception)
        return False if ordinary else verdict(error, policy)

    replace(circuit, "_verdict", strict)


@DOUBLES.swaps(
    Fallback,
    "_stands_in_for",
    caught_by="test_fallback.py::test_it_hides_no_bug_and_no_refusal",
)
def a_fallback_for_everything(self: Fallback, error: Exception) -> bool:
    """F67: a bug is hidden behind an answer."""
    return True


@DOUBLES.swaps(
    Hedge,
    "_may_hedge",
    caught_by="test_hedge.py::test_no_more_than_its_share_of_the_calls_is_hedged",
)
def every_slow_call_twice(self: Hedge) -> bool:
    """A service that has become slow is asked twice for everything."""
    self._hedged += 1
    return True


@DOUBLES.swaps(
    CircuitPolicy,
    "_check_window",
    caught_by="test_circuit_core.py::test_a_policy_that_could_never_open_or_close_is_refused_by_name",
)
def windows_of_any_size(self: CircuitPolicy) -> None:
    """A window of a terabyte, or of less time than a float holds."""


@DOUBLES.swaps(
    circuit_policy,
    "_is_failure",
    caught_by="test_circuit_calls.py::test_our_own_limits_in_a_group_are_no_failure_of_the_other_side",
)
def whatever_is_in_a_group_is_a_failure(error: BaseException) -> bool:
    """A nursery makes a failure of what was none."""
    return isinstance(error, Exception)


@DOUBLES.swaps(
    Circuit,
    "keep_no_more",
    caught_by="test_circuits.py::test_a_removed_circuit_that_somebody_holds_leaves_nothing_to_the_next",
)
def a_removed_circuit_is_kept(self: Circuit) -> None:
    """What nobody knows any more is what the next one begins with."""


@DOUBLES.breaks(
    caught_by=(
        "test_circuits.py::test_numbers_that_nobody_can_have_kept_make_no_harm",
        "test_circuits.py::test_a_shorter_open_time_counts_for_what_an_earlier_run_left_open",
    )
)
def whatever_was_kept_counts(replace: Replace) -> None:
    """Open for as long as a file says, whoever wrote it under which policy."""
    replace(CircuitPolicy, "longest_open", math.inf)


@DOUBLES.breaks(
    caught_by="test_policy.py::test_a_call_with_an_option_that_there_is_not_was_never_one"
)
def a_call_that_nobody_made(replace: Replace) -> None:
    """It is counted before it is looked at, and in flight for ever."""
    chosen = Policy._chosen

    def counted(self: Policy, options: Any) -> Any:
        self._calls += 1
        row = chosen(self, options)
        self._calls -= 1
        return row

    replace(Policy, "_chosen", counted)


@DOUBLES.breaks(
    caught_by="test_circuit_life.py::test_what_is_long_over_goes_though_nobody_declares_its_name_again"
)
def kept_for_ever(replace: Replace) -> None:
    """Names made from data fill the file, one row each."""
    replace(circuit_kept, "_REMEMBERED_SECONDS", math.inf)


@DOUBLES.swaps(
    Circuit,
    "_is_within",
    caught_by="test_circuit_calls.py::test_f55_a_circuit_inside_of_its_own_call_heals_all_the_same",
)
def a_probe_that_fails_itself(_: Circuit) -> bool:
    """F55: a circuit inside of its own call stays open for ever."""
    return False


@DOUBLES.swaps(
    CircuitCore,
    "is_out",
    caught_by="test_circuit_calls.py::test_what_a_probe_left_running_is_not_inside_of_the_next_one",
)
def once_a_probe_always_a_probe(self: CircuitCore, permit: int) -> bool:
    """Whatever a probe has started goes through a half-open circuit from then on."""
    return permit > 1


@DOUBLES.swaps(
    circuit_policy,
    "_check_function",
    caught_by="test_circuit_core.py::test_who_judges_is_a_function_and_no_class_of_exceptions",
)
def anything_may_judge(name: str, asked: object) -> None:
    """`counts_as_failure=ConnectionError`, and every error is one."""
