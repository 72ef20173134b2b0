"""The model believes updates, and forgets another run."""

from __future__ import annotations

from typing import Any

import msgspec

from treewarden.control.protocol import (
    AgentsUpdate,
    AlarmsUpdate,
    BusUpdate,
    DeadLetters,
    EventsUpdate,
    Subscriptions,
    TreeUpdate,
)
from treewarden_console.state import Model


def live(canned: Any, now: float = 100.0) -> Model:
    model = Model()
    model.welcome(canned.welcome(), now)
    for update in canned.snapshot():
        model.apply(update, now)
    return model


def test_a_snapshot_fills_every_table(canned: Any) -> None:
    model = live(canned)
    assert len(model.nodes.rows) == 20
    assert len(model.agents.rows) == 9
    assert len(model.circuits.rows) == 5
    assert len(model.events.entries) == 5
    assert model.states()["running"] == 16


def test_trouble_is_seen_in_all_that_it_is_below(canned: Any) -> None:
    model = live(canned)
    assert model.troubled() == {
        "/sites/dying",
        "/fetchers/f-4",
        "/fetchers/f-5",
        "/sites",
        "/fetchers",
        "/",
    }
    above = canned.node("/app", "supervisor", parent=None)
    below = canned.node("/deep/x", state="stuck", parent="/app")
    model.apply(TreeUpdate(sequence=2, full=True, rows=[above, below]), 101.0)
    assert model.troubled() == {"/app", "/deep/x"}


def test_counts_follow_changes(canned: Any) -> None:
    model = live(canned)
    healed = canned.node("/sites/dying", "task", order=3, restarts=5)
    model.apply(TreeUpdate(sequence=2, rows=[healed]), 101.0)
    assert model.states()["failed"] == 0
    model.apply(TreeUpdate(sequence=3, gone=["/sites/dying"]), 102.0)
    assert model.states().total() == 19


def test_another_boot_forgets_everything_and_says_so(canned: Any) -> None:
    model = live(canned)
    assert model.welcome(canned.welcome(), 101.0) == ""
    assert model.nodes.rows
    assert model.welcome(canned.welcome("boot-2"), 102.0) == "restarted, was up 18m03"
    assert not model.nodes.rows
    assert not model.events.entries
    assert model.nodes.take().reshaped


def test_ages_are_told_by_the_runtime_s_clock(canned: Any) -> None:
    model = live(canned, now=100.0)
    assert model.seconds_since(canned.ago(4), 103.0) == 7.0
    assert model.uptime(100.0) == 1083.0
    assert Model().seconds_since(1, 5.0) is None


def test_ages_stand_still_while_the_link_is_down(canned: Any) -> None:
    model = live(canned, now=100.0)
    model.hearing.end("gone", 110.0)
    assert model.seconds_since(canned.ago(0), 500.0) == 10.0


def test_rates_are_sampled_once_a_second(canned: Any) -> None:
    model = live(canned, now=100.0)
    assert not model.sample(100.0)
    moved = canned.agent("/frontier", type="Frontier", incarnation=2, handled=1224)
    model.apply(AgentsUpdate(sequence=2, rows=[moved]), 100.5)
    assert not model.sample(100.5)
    model.take()
    assert model.sample(102.0)
    assert model.rates.get("/frontier") == 10.0
    assert "/frontier" in model.take().of("agents").ids


def test_a_snapshot_of_events_is_merged_with_what_is_read(canned: Any) -> None:
    model = live(canned)
    old, *_, last = canned.events()
    model.apply(EventsUpdate(sequence=2, full=True, rows=[last]), 101.0)
    assert model.events.entries[0].row == old


def test_news_is_told_once(canned: Any) -> None:
    model = live(canned)
    assert model.take()
    assert not model.take()
    assert model.take(second=True)


def test_a_held_picture_stands_still(canned: Any) -> None:
    model = live(canned, now=100.0)
    still = model.still(105.0)
    model.apply(TreeUpdate(sequence=2, gone=["/indexer"]), 106.0)
    assert "/indexer" in still.nodes.rows
    assert still.seconds_since(canned.ago(0), 300.0) == 5.0


def test_a_durable_subscription_is_idle_until_somebody_takes_its_events(
    canned: Any,
) -> None:
    model = live(canned)
    idle = canned.idle_subscription()
    model.take_answer(Subscriptions(rows=[*canned.subscriptions(), idle]))
    assert len(model.all_subscriptions()) == 4
    taken = msgspec.structs.replace(idle, members=1, published=3, delivered=3)
    model.apply(BusUpdate(sequence=2, rows=[taken]), 101.0)
    assert model.subscription("reports") == taken


def test_how_far_behind_a_subscription_is_in_bytes_is_as_old_as_the_last_answer(
    canned: Any,
) -> None:
    model = live(canned)
    (census, *_) = canned.subscriptions()
    asked = msgspec.structs.replace(census, lag_bytes=1 << 20, pending=1)
    assert model.subscription(census.id) == census
    model.take_answer(Subscriptions(rows=[asked]))
    shown = model.subscription(census.id)
    assert shown == msgspec.structs.replace(census, lag_bytes=1 << 20)
    assert model.all_subscriptions()[census.id] == shown


def test_a_held_picture_keeps_its_policies_subscriptions_and_letters(
    canned: Any,
) -> None:
    model = live(canned)
    model.take_answer(DeadLetters(rows=canned.letters(), more=True))
    still = model.still(101.0)
    model.take_answer(DeadLetters(rows=[]))
    model.apply(BusUpdate(sequence=2, gone=["subscription-2"]), 102.0)
    assert list(still.letters.rows) == ["7", "9"]
    assert "letters" in still.cut
    assert len(still.all_subscriptions()) == 3
    assert set(still.policies.rows) == {"site:healthy", "site:dying"}
    assert "letters" not in model.cut
    assert not model.letters.rows


def test_alarms_come_and_go_and_are_forgotten_with_their_run(canned: Any) -> None:
    model = live(canned)
    model.take()
    model.apply(canned.alarms(), 101.0)
    assert list(model.alarms.rows) == ["1", "2", "3"]
    assert model.take().of("alarms")
    assert not model.take()
    still = model.still(101.0)
    model.apply(AlarmsUpdate(sequence=2, gone=["2"]), 102.0)
    assert (list(model.alarms.rows), len(still.alarms.rows)) == (["1", "3"], 3)
    other = msgspec.structs.replace(canned.welcome().runtime, boot="other")
    model.welcome(msgspec.structs.replace(canned.welcome(), runtime=other), 103.0)
    assert not model.alarms.rows
