from __future__ import annotations

import pytest

from treewarden.demo.frontier import Account
from treewarden.demo.headless import CircuitCount, judge

SERVED = frozenset("abcd")


COUNTED = 4


def account(*, found: int, pending: int, skipped: int = 0) -> Account:
    return Account(
        found=found, pending=pending, held=0, skipped=skipped, announced=COUNTED
    )


def test_a_complete_crawl_has_everything_that_is_served() -> None:
    verdict = judge(account(found=4, pending=0), SERVED, 0, SERVED, COUNTED)
    assert verdict.complete
    assert verdict.lost == 0
    assert verdict.status(cut_short=False) == 0


@pytest.mark.parametrize(
    ("state", "urls", "lost"),
    [
        (account(found=4, pending=0), "abc", 1),
        (account(found=2, pending=0), "ab", 2),
        (account(found=4, pending=1), "ab", 1),
        (account(found=4, pending=2), "ab", 0),
        (account(found=4, pending=2), "abc", 0),
    ],
    ids=["missing", "never found", "in neither", "to go", "not yet settled"],
)
def test_a_page_in_neither_list_is_lost(state: Account, urls: str, lost: int) -> None:
    verdict = judge(state, frozenset(urls), 0, SERVED, COUNTED)
    assert verdict.lost == lost
    assert verdict.status(cut_short=True) == (1 if lost else 0)


def test_a_skipped_address_is_not_lost() -> None:
    verdict = judge(
        account(found=3, pending=0, skipped=1), frozenset("ab"), 0, frozenset(), COUNTED
    )
    assert verdict.lost == 0


def test_an_incomplete_crawl_fails_unless_it_was_cut_short() -> None:
    verdict = judge(account(found=4, pending=2), frozenset("ab"), 0, SERVED, COUNTED)
    assert verdict.status(cut_short=False) == 1
    assert verdict.status(cut_short=True) == 0


def test_a_page_that_was_indexed_twice_fails_the_run() -> None:
    verdict = judge(account(found=4, pending=0), SERVED, 1, SERVED, COUNTED)
    assert verdict.status(cut_short=False) == 1


@pytest.mark.parametrize("counted", [3, 5], ids=["lost", "twice"])
def test_a_page_that_was_not_counted_once_fails_a_complete_run(counted: int) -> None:
    verdict = judge(account(found=4, pending=0), SERVED, 0, SERVED, counted)
    assert verdict.miscounted == 1
    assert verdict.status(cut_short=True) == 1
    on_its_way = judge(account(found=5, pending=1), SERVED, 0, SERVED, counted)
    assert on_its_way.miscounted == 0


def test_circuits_are_counted_at_each_opening_and_each_closing() -> None:
    count = CircuitCount()
    assert count.look({"dying": "closed", "slow": "closed"}) == []
    assert count.look({"dying": "open", "slow": "closed"}) == ["circuit dying opened"]
    assert count.look({"dying": "half_open", "slow": "closed"}) == []
    assert count.look({"dying": "open", "slow": "open"}) == ["circuit slow opened"]
    count.look({"dying": "closed", "slow": "open"})
    count.look({"dying": "open", "slow": "open"})
    assert (count.opened, count.closed) == (3, 1)
