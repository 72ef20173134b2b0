"""The ring of events: bounded, in the journal's order, each entry once."""

from __future__ import annotations

from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st

from treewarden.control.protocol import EventRow, Raw
from treewarden_console.state import EventLog, tell


def row(position: int, topic: str = "x") -> EventRow:
    return EventRow(position=position, topic=topic, at_ns=0)


def positions(log: EventLog) -> list[int]:
    return [entry.row.position for entry in log.entries]


def test_the_ring_is_bounded_and_forgets_the_oldest() -> None:
    log = EventLog(capacity=3)
    log.extend(row(n) for n in range(1, 6))
    assert positions(log) == [3, 4, 5]
    assert "2" not in log
    assert log.get("4") is not None


def test_an_entry_that_comes_twice_is_kept_once() -> None:
    log = EventLog()
    log.extend([row(1), row(2)])
    log.extend([row(2), row(3)])
    log.backfill([row(1), row(3)])
    assert positions(log) == [1, 2, 3]


def test_older_entries_go_before_those_that_came_first() -> None:
    log = EventLog()
    log.extend([row(8), row(0, "signal"), row(9)])
    before = log.epoch
    log.backfill([row(6), row(7), row(8), row(9), row(10)])
    assert positions(log) == [6, 7, 8, 0, 9, 10]
    assert log.epoch > before


def test_signals_have_keys_of_their_own() -> None:
    log = EventLog()
    log.extend([row(0), row(0)])
    assert len({entry.key for entry in log.entries}) == 2


@given(st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=8))
def test_whatever_is_merged_the_journal_s_order_holds(batches: list[list[int]]) -> None:
    log = EventLog(capacity=12)
    for batch in batches:
        log.backfill([row(n) for n in sorted(set(batch))])
        kept = [n for n in positions(log) if n]
        assert kept == sorted(set(kept))
        assert all(log.get(entry.key) is entry for entry in log.entries)
        assert len(log.entries) <= 12


def test_a_copy_stands_still() -> None:
    log = EventLog()
    log.extend([row(1)])
    still = log.copy()
    log.extend([row(2)])
    assert positions(still) == [1]


def test_reports_are_told_in_words(canned: Any) -> None:
    told = [tell(one) for one in canned.events()]
    assert [str(one) for one in told] == [
        "page.indexed /indexer url email.policy.html  words 2140",
        "circuit site:dying closed to open  reason 5 of 5 calls failed  calls 5"
        "  failures 5",
        "crashed /fetchers/f-3 ReadTimeout: no answer within 2 s",
        "restarted /fetchers/f-3 incarnation 3, cause: crash",
        "page.fetched /fetchers/f-1 url asyncio.html  bytes 18201  status 200",
    ]


def test_what_is_rolled_back_is_told_as_that_and_not_as_a_crash(canned: Any) -> None:
    ended = "rolled back: treewarden.errors.StoreBroken: the disk is full"
    report = canned.event(7, 0, "supervision.exited", source="/x", exit=ended)
    assert str(tell(report)) == "rollback /x StoreBroken: the disk is full"


def test_a_child_that_stays_down_is_told_with_its_budget(canned: Any) -> None:
    budget = {"spent": 4, "limit": 3, "period": 5.0}
    report = canned.event(7, 0, "supervision.failed", source="/x", budget=budget)
    told = "failed /x stays down: its 3 restarts in 5 s are spent"
    assert str(tell(report)) == told
    report = canned.event(7, 0, "supervision.failed", source="/x", exit="crashed: E")
    assert str(tell(report)) == "failed /x crashed: E"


def test_a_loop_that_was_blocked_is_told_with_the_line(canned: Any) -> None:
    blocked = {
        "seconds": 2.93653845,
        "where": "/srv/station.py:31",
        "function": "block",
    }
    report = EventRow(
        position=7,
        topic="runtime.blocked",
        at_ns=0,
        kind="report",
        source="/system/watchdog",
        payload=canned.raw(blocked),
    )
    told = "blocked /system/watchdog the loop, for 2.9 s: block at station.py:31"
    assert str(tell(report)) == told


def test_an_unknown_report_is_told_as_it_is(canned: Any) -> None:
    report = canned.event(7, 0, "quota.low", source="/x", left=3)
    assert str(tell(report)) == "quota /x low  left 3"


@given(
    st.binary(max_size=60),
    st.sampled_from(("supervision.exited", "circuit.open", "plain")),
    st.booleans(),
)
def test_no_payload_breaks_the_telling(noise: bytes, topic: str, report: bool) -> None:
    kind: Literal["event", "report"] = "report" if report else "event"
    tell(EventRow(position=1, topic=topic, at_ns=0, kind=kind, payload=Raw(noise)))
