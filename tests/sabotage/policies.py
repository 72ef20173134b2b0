"""Retries, limits, bulkheads, timeouts, kinds and caches that break their word."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import trio

from treewarden.errors import NotRunning
from treewarden.resilience import (
    adaptive,
    bulkhead,
    cache,
    kept_limiter,
    kinds,
    rate_limit,
    retriable,
    retry_budget,
)
from treewarden.resilience.backoff import Backoff
from treewarden.resilience.bulkhead import Bulkhead
from treewarden.resilience.cache import Cache, _Flight
from treewarden.resilience.entries import Entries, Hit, Miss
from treewarden.resilience.kinds import ErrorKind, ErrorKinds, Recovery
from treewarden.resilience.lane import Lane, Ticket
from treewarden.resilience.limiter import Limiter, _Place
from treewarden.resilience.limits import Limits
from treewarden.resilience.places import Claim, Places
from treewarden.resilience.rate_limit import SlidingWindow, TokenBucket
from treewarden.resilience.retriable import Worth
from treewarden.resilience.retry import Retry, RetryEnd, _Patience
from treewarden.resilience.retry_budget import RetryBudget
from treewarden.resilience.timeout import Timeout

from .double import Area

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from treewarden.resilience.kept_limiter import KeptLimiter
    from treewarden.resilience.retry import _Row

    from .double import Replace

DOUBLES: Final = Area("tests/runtime/resilience")

# --- kinds -------------------------------------------------------------------------------


@DOUBLES.swaps(
    kinds,
    "_kind",
    caught_by="test_kinds.py::test_f67_an_unknown_kind_is_refused_when_the_table_is_made",
)
def any_word_for_a_kind(_: type[BaseException], kind: object) -> object:
    """F67: kinds are whatever somebody wrote."""
    return kind


@DOUBLES.breaks(caught_by="test_kinds.py::test_f67_every_kind_has_a_recovery")
def a_kind_without_a_recovery(replace: Replace) -> None:
    """F67: for one kind nobody knows what to do."""
    known = {kind: kind.recovery for kind in ErrorKind if kind is not ErrorKind.SYSTEM}
    replace(ErrorKind, "recovery", property(lambda kind: known[kind]))


@DOUBLES.breaks(caught_by="test_kinds.py::test_f67_an_unknown_recovery_is_refused")
def any_word_for_a_recovery(replace: Replace) -> None:
    """F67: recoveries are whatever somebody wrote."""
    replace(Recovery, "_missing_", classmethod(lambda _, word: Recovery.RETRY))


@DOUBLES.swaps(
    ErrorKinds,
    "_look_up",
    caught_by="test_kinds.py::test_an_exception_is_of_the_kind_of_its_nearest_base",
)
def only_the_very_class(self: ErrorKinds, cls: type[BaseException]) -> ErrorKind:
    """A subclass is of no kind."""
    return self._table.get(cls, ErrorKind.SYSTEM)


# --- retry -------------------------------------------------------------------------------


@DOUBLES.swaps(
    retriable,
    "_retriable_kind",
    caught_by="test_retry.py::test_f67_a_retry_that_makes_no_sense_is_refused_when_it_is_made",
)
def any_word_for_what_is_retried(kind: str) -> str:
    """F67: a kind that does not exist is never retried, and nobody is told."""
    return kind


@DOUBLES.swaps(
    Worth,
    "__call__",
    caught_by="test_retry.py::test_h15_three_retries_of_what_raises_are_four_attempts",
)
def no_exception_is_retried(self: Worth, error: Exception) -> bool:
    """H15: every exception is taken for one that is not tried again."""
    return False


@DOUBLES.swaps(
    Worth,
    "_one",
    caught_by="test_retry.py::test_some_things_are_never_tried_again_whatever_was_asked_for",
)
def everything_is_retried(self: Worth, error: Exception) -> bool:
    """Also what is out of memory, or will never make sense."""
    return True


@DOUBLES.swaps(
    Retry,
    "_is_retriable",
    caught_by=(
        "test_retry.py::test_what_may_not_be_done_twice_is_done_once",
        "test_retry.py::test_some_things_are_never_tried_again_whatever_was_asked_for",
    ),
)
def done_twice(self: Retry, row: _Row, error: Exception) -> bool:
    """What is not idempotent is done again, and an open circuit is hammered."""
    return self._on(error)


@DOUBLES.swaps(
    RetryBudget,
    "take",
    caught_by="test_retry.py::test_what_is_down_gets_at_most_a_tenth_more_calls_by_retries",
)
def a_budget_without_a_bottom(self: RetryBudget, now: float) -> bool:
    """Three attempts of everybody are three times the load."""
    return True


@DOUBLES.breaks(
    caught_by="test_retry_budget.py::test_who_is_seldom_called_has_the_minimum_and_not_both"
)
def a_budget_of_both(replace: Replace) -> None:
    """The minimum comes on top of the share."""
    replace(
        RetryBudget,
        "_allowed",
        property(lambda self: self.minimum + self.ratio * self._firsts),
    )


@DOUBLES.swaps(
    RetryBudget,
    "_turn",
    caught_by="test_retry_budget.py::test_what_was_not_used_in_its_period_is_gone",
)
def a_budget_that_saves_up(self: RetryBudget, now: float) -> None:
    """An hour of health pays for a storm."""


@DOUBLES.swaps(
    Backoff,
    "delay",
    caught_by="test_retry.py::test_a_thousand_clients_released_together_come_back_apart",
)
def everybody_comes_back_together(
    self: Backoff,
    attempt: int,
    random: Callable[[], float],
    previous: float | None = None,
) -> float:
    """The wait is not left to chance."""
    return self._whole(attempt - 1)


@DOUBLES.swaps(
    Retry,
    "_judge",
    caught_by="test_retry.py::test_it_never_outlasts_its_time_by_more_than_one_attempts_own",
)
def a_retry_that_forgets_the_time(
    self: Retry, row: _Row, now: float, told: float
) -> float | None:
    """It counts attempts only; of those there may be no end."""
    if row.failed < min(self.attempts, 50):
        return told + self.backoff.delay(row.failed, self._random)
    row.ended_by = RetryEnd.TIME
    return None


@DOUBLES.swaps(
    Retry,
    "_told",
    caught_by="test_retry.py::test_the_other_side_may_ask_for_a_longer_wait",
)
def deaf_to_retry_after(self: Retry, error: Exception) -> float:
    """What the other side asks for is not heeded."""
    return 0.0


# --- limiter -----------------------------------------------------------------------------


def _aligned(self: SlidingWindow, now: float) -> None:
    begun = math.floor(now / self._period) * self._period
    while self._taken and self._taken[0][0] < begun:
        self._used -= self._taken.popleft()[1]


@DOUBLES.swaps(
    SlidingWindow,
    "_forget",
    caught_by="test_rate_limit.py::test_two_windows_side_by_side_do_not_let_twice_as_much_through",
)
def windows_that_do_not_slide(self: SlidingWindow, now: float) -> None:
    """S31: fixed windows, of which two together let twice as much through."""
    _aligned(self, now)


_ready = TokenBucket.ready


@DOUBLES.swaps(
    TokenBucket,
    "ready",
    caught_by="test_rate_limit.py::test_over_any_time_no_more_goes_through_than_is_allowed",
)
def one_too_many(self: TokenBucket, now: float, weight: int) -> float:
    """The last of a burst is not counted."""
    return _ready(self, now, weight - 1)


@DOUBLES.swaps(
    Lane,
    "try_take",
    caught_by="test_limiter.py::test_who_only_tries_does_not_overtake_who_waits",
)
def who_tries_overtakes(self: Lane, now: float, weight: int) -> bool:
    """The line is for those who are polite."""
    if now < self._penalty or self._rule.ready(now, weight) > now:
        return False
    self._take(now, weight)
    return True


@DOUBLES.swaps(
    Lane,
    "settle",
    caught_by="test_limiter.py::test_who_is_heavy_is_not_starved_by_who_is_light",
)
def the_light_ones_first(self: Lane, now: float) -> list[Ticket]:
    """Whoever fits goes; who is heavy waits for ever."""
    granted = []
    for ticket in list(self._line):
        if self._ready(now, ticket.weight) <= now:
            self._take(now, ticket.weight)
            self.leave(ticket)
            ticket.granted = True
            granted.append(ticket)
    return granted


@DOUBLES.swaps(
    Lane,
    "penalise",
    caught_by="test_limiter.py::test_a_penalty_holds_everybody_back_and_is_only_ever_extended",
)
def the_last_penalty_counts(self: Lane, until: float) -> None:
    """A later, milder word shortens what was told before."""
    self._penalty = until


@DOUBLES.swaps(
    Limiter,
    "_leave",
    caught_by=(
        "test_limiter.py::test_thousands_of_random_cancellations_leave_nothing_behind",
        "test_limiter.py::test_when_a_heavy_one_leaves_who_stood_behind_it_goes_at_once",
    ),
)
def who_leaves_keeps_his_place(self: Limiter, place: _Place) -> None:
    """The cancelled stand in line, and get permits that nobody uses."""
    place.attended = False
    self._settle(place.lane, trio.current_time())


@DOUBLES.swaps(
    Limiter,
    "clean_up",
    caught_by=(
        "test_limiter.py::test_h09_three_clean_ups_after_traffic_leave_the_limits_as_they_were",
        "test_limits.py::test_h09_the_clean_up_of_all_leaves_what_is_used",
    ),
)
def a_clean_up_that_forgets_everything(self: Limiter) -> int:
    """H09: after the first clean-up the limits are gone."""
    forgotten = len(self._lanes)
    self._lanes.clear()
    return forgotten


@DOUBLES.swaps(
    Lane,
    "is_quiet",
    caught_by="test_limiter.py::test_h09_a_clean_up_does_not_shorten_a_penalty",
)
def quiet_under_a_penalty(self: Lane, now: float) -> bool:
    """H09: a clean-up forgets who is to be left alone."""
    return not self._line and self._rule.used(now) == 0


@DOUBLES.swaps(
    Limits,
    "clean_up",
    caught_by="test_limits.py::test_h09_the_clean_up_of_all_leaves_what_is_used",
)
async def a_clean_up_that_never_happens(self: Limits) -> int:
    """H09: it cannot fail, for it does nothing."""
    await trio.lowlevel.checkpoint()
    return 0


@DOUBLES.swaps(
    Limiter,
    "load",
    caught_by="test_limits.py::test_what_is_used_outlives_a_restart",
)
def a_restart_gives_everything_again(
    self: Limiter, kept: KeptLimiter, now_ns: int
) -> None:
    """What was kept is not taken up."""


# --- bulkhead ----------------------------------------------------------------------------

_end = Bulkhead._end


@DOUBLES.swaps(
    Bulkhead,
    "_end",
    caught_by="test_bulkhead.py::test_after_10_000_random_cancellations_no_place_is_held",
)
def the_cancelled_keep_their_place(
    self: Bulkhead, weight: int, group: str, began: float, error: BaseException | None
) -> None:
    """A place is given back by those who return or raise."""
    if not isinstance(error, trio.Cancelled):
        _end(self, weight, group, began, error)


@DOUBLES.swaps(
    Places,
    "withdraw",
    caught_by="test_bulkhead.py::test_after_10_000_random_cancellations_no_place_is_held",
)
def the_cancelled_stay_in_line(self: Places, claim: Claim) -> list[Claim]:
    """And when their turn comes, a place is lost for good."""
    return self.admit()


@DOUBLES.swaps(
    Places,
    "try_take",
    caught_by="test_bulkhead.py::test_who_only_tries_does_not_overtake_who_waits",
)
def who_fits_gets_in(self: Places, weight: int, priority: int, group: str = "") -> bool:
    """The line is for those who are polite."""
    if not self._has_room(weight, group):
        return False
    self._take(weight, group)
    return True


@DOUBLES.swaps(
    Places,
    "_left_of",
    caught_by="test_bulkhead.py::test_a_crowd_cannot_take_what_is_set_apart_for_others",
)
def shares_in_name_only(self: Places, group: str) -> int:
    """Nothing is kept free for anybody."""
    return 0


@DOUBLES.swaps(
    Bulkhead,
    "_is_about_load",
    caught_by="test_bulkhead.py::test_only_exceptions_about_load_move_the_limit",
)
def every_failure_is_load(self: Bulkhead, error: BaseException) -> bool:
    """A bug shuts the door."""
    return True


@DOUBLES.swaps(
    adaptive.Aimd,
    "sample",
    caught_by="test_adaptive.py::test_it_stays_between_its_bounds",
)
def a_limit_without_bounds(
    self: adaptive.Aimd, seconds: float, in_flight: int, *, dropped: bool
) -> None:
    """It grows for ever, and shrinks to nothing."""
    self._limit += -1 if dropped or seconds > self.latency else 1


# --- timeout -----------------------------------------------------------------------------


@DOUBLES.swaps(
    Timeout,
    "call",
    caught_by="test_timeout.py::test_a_cancellation_from_outside_stays_one",
)
async def every_cancellation_is_a_timeout(
    self: Timeout, fn: Callable[..., Awaitable[Any]], *args: Any
) -> Any:
    """Who was told to go is told that it was too slow."""
    try:
        with trio.fail_after(self.seconds):
            return await fn(*args)
    except (trio.Cancelled, trio.TooSlowError):
        self._timed_out += 1
        raise TimeoutError from None


@DOUBLES.swaps(
    Timeout,
    "_look_back",
    caught_by="test_timeout.py::test_code_that_does_not_obey_is_seen_while_it_runs_and_reported_after",
)
def nobody_looks_back(self: Timeout, late: float) -> None:
    """Code that ignores its cancellation is not reported."""


# --- cache -------------------------------------------------------------------------------


@DOUBLES.swaps(
    Entries,
    "delete",
    caught_by="test_entries.py::test_f66_a_fresh_value_is_never_removed_whatever_the_order_of_three_tasks",
)
def two_steps_without_a_version(
    self: Entries[Any, Any], key: object, version: int | None = None
) -> bool:
    """F66: what somebody wrote between looking and removing is removed."""
    return self._entries.pop(key, None) is not None


@DOUBLES.swaps(
    Cache,
    "sweep",
    caught_by="test_cache.py::test_f66_a_sweep_does_not_remove_what_was_written_meanwhile",
)
async def a_sweep_by_an_old_list(self: Cache[Any, Any]) -> int:
    """F66: what was over when the sweep began goes, whoever wrote it since."""
    await trio.lowlevel.checkpoint()
    now = trio.current_time()
    over = [key for key, one in self._entries._entries.items() if one.expires_at <= now]
    for place, key in enumerate(over, start=1):
        self._swept += self._entries.delete(key)
        if place % 500 == 0:
            await trio.lowlevel.checkpoint()
    return len(over)


_look = Entries.look


@DOUBLES.swaps(
    Entries,
    "look",
    caught_by=(
        "test_entries.py::test_f66_a_value_that_is_over_is_missed_as_such_once",
        "test_cache.py::test_f66_a_miss_says_why_and_over_is_said_once",
    ),
)
def over_is_said_for_ever(
    self: Entries[Any, Any], key: object, now: float
) -> Hit[Any] | Miss:
    """F66: who finds a value that is over leaves it there."""
    entry = self._entries.get(key)
    found = _look(self, key, now)
    if entry is not None:
        self._entries.setdefault(key, entry)
    return found


_lookup = Cache.lookup


@DOUBLES.swaps(
    Cache,
    "lookup",
    caught_by="test_cache.py::test_f66_hits_and_misses_are_all_gets",
)
def a_get_that_nobody_counted(self: Cache[Any, Any], key: object) -> Hit[Any] | Miss:
    """F66: a value that is over is neither a hit nor a miss."""
    before = dict(self._misses)
    found = _lookup(self, key)
    if isinstance(found, Miss) and found.reason == "expired":
        self._misses = before
    return found


_put = Entries.put


@DOUBLES.swaps(
    Entries,
    "put",
    caught_by="test_cache.py::test_h17_writing_a_key_anew_at_capacity_evicts_nobody",
)
def an_overwrite_that_evicts(
    self: Entries[Any, Any], key: object, value: object, expires_at: float = math.inf
) -> int:
    """H17: room is made before it is seen that none is needed."""
    evicted = len(self._entries) >= self.size
    if evicted:
        self._entries.popitem(last=False)
    return int(evicted) + _put(self, key, value, expires_at)


@DOUBLES.swaps(
    Cache,
    "_is_open",
    caught_by="test_cache.py::test_h17_a_closed_cache_answers_with_the_default_and_says_so_once",
)
def a_closed_cache_fails_its_callers(self: Cache[Any, Any], operation: str) -> bool:
    """H17: whoever reads a stopped cache goes down with it."""
    if not self._open:
        raise NotRunning(f"cache {self.name} is not running")
    return True


@DOUBLES.swaps(
    Cache,
    "get_or_load",
    caught_by="test_cache.py::test_a_hundred_who_miss_it_together_ask_once",
)
async def everybody_asks(
    self: Cache[Any, Any],
    key: object,
    load: Callable[..., Awaitable[Any]],
    *args: object,
) -> Any:
    """Whoever misses it loads it."""
    await trio.lowlevel.checkpoint()
    found = self.lookup(key)
    return found.value if isinstance(found, Hit) else await self._load(key, load, *args)


@DOUBLES.breaks(
    caught_by="test_cache.py::test_when_the_one_who_loads_is_cancelled_the_next_one_loads"
)
def who_waited_gets_nothing(replace: Replace) -> None:
    """The cancellation of the one who loads is an answer for all."""
    never = property(lambda _: False, lambda _, value: None)
    replace(_Flight, "abandoned", never)


@DOUBLES.swaps(
    Cache,
    "put",
    caught_by="test_cache.py::test_f66_what_was_written_during_a_load_is_newer_and_stays",
)
def a_load_overwrites_what_is_newer(
    self: Cache[Any, Any], key: object, value: object, ttl: float | None = None
) -> None:
    """F66: what was read before a write is kept after it."""
    if self._is_open("put"):
        self._keep(key, value, self.ttl if ttl is None else ttl)


@DOUBLES.swaps(
    _Flight,
    "needs",
    caught_by=(
        "test_cache.py::test_a_task_that_the_loader_started_is_refused_its_key_too",
        "test_cache.py::test_loaders_that_wait_for_each_other_in_a_ring_are_told_so",
    ),
)
def loaders_that_wait_for_themselves(_: _Flight[Any], other: object) -> bool:
    """Who loads a key and needs it waits until somebody cancels."""
    return False


# --- numbers that make no sense, and what they were once let through for -----------------


@DOUBLES.swaps(
    (bulkhead, cache, retry_budget, adaptive),
    "check_count",
    caught_by=(
        "test_bulkhead.py::test_a_line_without_an_end_is_refused",
        "test_cache.py::test_a_size_that_is_no_bound_is_refused",
        "test_retry_budget.py::test_a_minimum_that_is_no_number_of_retries_is_refused",
        "test_adaptive.py::test_what_would_make_the_limit_no_number_is_refused",
    ),
)
def any_number_for_a_bound(name: str, value: float, least: int) -> None:
    """A bound of NaN is never reached."""
    if value < least:
        raise ValueError(f"{name} must be >= {least}, not {value}")


@DOUBLES.breaks(
    caught_by="test_rate_limit.py::test_a_limit_that_no_clock_can_tell_from_none_is_refused"
)
def any_rate_is_a_limit(replace: Replace) -> None:
    """A permit a picosecond is let through as one."""
    replace(rate_limit, "_SHORTEST", 0.0)


@DOUBLES.swaps(
    TokenBucket,
    "take",
    caught_by="test_rate_limit.py::test_a_bucket_that_is_never_full_keeps_its_rate_however_many_it_gives",
)
def a_sum_of_floats(self: TokenBucket, now: float, weight: int) -> None:
    """Each permit is rounded to the same side as the last one."""
    self._begun, self._taken = max(self._full_at, now) + weight * self._every, 0


@DOUBLES.swaps(
    Limiter,
    "penalise",
    caught_by="test_limiter.py::test_a_penalty_that_never_ends_is_refused",
)
def a_penalty_for_ever(self: Limiter, until: float, key: str = "") -> None:
    """A key is closed, and nobody can open it."""
    self._lane(key, trio.current_time()).penalise(until)
    self._penalised += 1


@DOUBLES.swaps(
    Bulkhead,
    "_end",
    caught_by="test_bulkhead.py::test_a_rule_that_fails_is_heard_and_holds_no_place",
)
def a_rule_that_fails_keeps_the_place(
    self: Bulkhead, weight: int, group: str, began: float, error: BaseException | None
) -> None:
    """Learning comes first, and a place is only given back if that goes well."""
    self._ended += 1
    if self._adaptive is not None:
        self._learn(self._adaptive, trio.current_time() - began, error)
    self._tell(self._places.release(weight, group))


@DOUBLES.swaps(
    Places,
    "set_apart",
    caught_by="test_bulkhead.py::test_a_share_is_all_that_it_says_though_floats_are_a_hair_less",
)
def a_share_that_is_cut_off(self: Places, group: str) -> int:
    """0.29 of 100 places are 28."""
    return int(self.limit * self._shares.get(group, 0.0))


@DOUBLES.swaps(
    _Patience,
    "renew",
    caught_by="test_retry.py::test_what_gets_on_inside_gets_on_outside_as_well",
)
def patience_of_the_innermost_only(self: _Patience) -> None:
    """A retry around a retry gives up while its call gets on."""
    self.scope.deadline = trio.current_time() + self.seconds


@DOUBLES.breaks(caught_by="test_retry.py::test_who_asks_to_be_left_alone_for_ever_is")
def for_ever_is_waited_for(replace: Replace) -> None:
    """A site says "in for ever", and its caller waits for that."""
    judge = Retry._judge

    def patient(self: Retry, row: _Row, now: float, told: float) -> float | None:
        return told if told == math.inf else judge(self, row, now, told)

    replace(Retry, "_judge", patient)


@DOUBLES.breaks(
    caught_by="test_limits.py::test_what_is_kept_of_a_limiter_is_over_once_time_has_given_it_all_back"
)
def debts_that_are_forgotten(replace: Replace) -> None:
    """A row goes as soon as its period is over, whatever is owed or was promised."""

    def over(kept: KeptLimiter) -> float:
        return kept.period

    replace(kept_limiter, "_time_to_recover", over)
