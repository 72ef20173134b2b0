"""Journeys through the app: keys go in, requests go out, replies are shown."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from textual.events import Key
from textual.widgets import Button, Input

from treewarden.control.protocol import (
    Act,
    AgentsUpdate,
    AlarmsUpdate,
    CircuitAct,
    DeadLetterAct,
    DeadLetters,
    Done,
    EventsUpdate,
    GetPreview,
    GetState,
    Inject,
    PoliciesUpdate,
    ProcessUpdate,
    Restart,
    Resume,
    Rights,
    Stop,
    Suspend,
    TreeUpdate,
    Why,
)
from treewarden_console.link import Connected, LinkLost, Lost, RequestFailed, Told
from treewarden_console.screens import Confirm, Leave, Reading, WantAct
from treewarden_console.state import Standing
from treewarden_console.widgets import Bar, Page, TableTree

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.pilot import Pilot

    from treewarden_console.app import TreewardenConsole

    Console = Callable[..., TreewardenConsole]
    Drive = Callable[..., None]


def shown(app: TreewardenConsole) -> str:
    """What the screen shows, as text."""
    _width, height = app.size
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text for strip in strips[:height])


def link(app: TreewardenConsole) -> Any:
    """The canned link, which knows what it was asked."""
    return app.link


def tree(app: TreewardenConsole) -> TableTree:
    return app.view.query_one("#tree", TableTree)


async def select(pilot: Pilot[None], app: Any, path: str) -> None:
    tree(app).select(path)
    await pilot.pause()


async def press(pilot: Pilot[None], *keys: str) -> None:
    """Press keys and let the app deal with them."""
    await pilot.press(*keys)
    await pilot.pause()


async def type_in(pilot: Pilot[None], text: str) -> None:
    await press(pilot, *(("minus" if letter == "-" else letter) for letter in text))


# --- acts ----------------------------------------------------------------------------------


def test_a_crash_needs_the_name_and_sends_one_request_with_the_seen_incarnation(
    console: Console, drive: Drive
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await select(pilot, app, "/fetchers/f-3")
        await press(pilot, "X")
        assert isinstance(app.screen, Confirm)
        assert "1 → 2 of 3 in 5 s" in shown(app)
        await type_in(pilot, "f-")
        await press(pilot, "enter")
        assert link(app).acts() == []
        assert app.screen.query_one("#go", Button).disabled
        await type_in(pilot, "3")
        await press(pilot, "enter")
        assert not isinstance(app.screen, Confirm)
        assert "f-3 crashed and runs again as incarnation 4" in shown(app)

    drive(app, journey)
    [(method, request)] = link(app).acts()
    assert method == "inject"
    assert isinstance(request, Inject)
    assert (request.path, request.incarnation) == ("/fetchers/f-3", 3)
    assert len(request.key) == 32
    previews = [one for one in link(app).asked if one[0] == "preview"]
    assert previews == [("preview", GetPreview(act=Act.CRASH, path="/fetchers/f-3"))]


@pytest.mark.parametrize("act", [Act.RESTART, Act.STOP])
def test_what_an_operator_does_spends_no_budget(
    console: Console, drive: Drive, canned: Any, act: Act
) -> None:
    told = msgspec.structs.replace(canned.preview(), act=act)
    app = console(answers={"preview": told})

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, "R" if act is Act.RESTART else "S")
        assert "1 of 3 in 5 s, as before" in shown(app)

    drive(app, journey)


@pytest.mark.parametrize(
    ("path", "kind", "act"),
    [
        ("/fetchers/f-1", Suspend, Act.SUSPEND),
        ("/fetchers/f-5", Resume, Act.RESUME),
    ],
)
def test_z_suspends_an_agent_and_resumes_one_that_is_suspended(
    console: Console,
    drive: Drive,
    canned: Any,
    path: str,
    kind: type[Suspend | Resume],
    act: Act,
) -> None:
    seen = msgspec.structs.replace(
        canned.preview(), act=act, path=path, incarnation=1, stops=[], starts=[]
    )
    app = console(answers={"preview": seen, act.value: Done(sentence="so it is")})

    async def journey(pilot: Pilot[None]) -> None:
        await select(pilot, app, path)
        await press(pilot, "Z")
        assert link(app).asked[-1] == ("preview", GetPreview(act=act, path=path))
        assert "as before" not in shown(app)
        await press(pilot, "tab", "enter")
        assert "so it is" in shown(app)

    drive(app, journey)
    [(method, request)] = link(app).acts()
    assert method == act.value
    assert isinstance(request, kind)
    assert (request.path, request.incarnation) == (path, 1)


@pytest.mark.parametrize(
    ("key", "method", "kind", "act"),
    [("R", "restart", Restart, Act.RESTART), ("S", "stop", Stop, Act.STOP)],
)
def test_restart_and_stop_need_enter_on_a_button_that_is_not_preselected(
    console: Console,
    drive: Drive,
    canned: Any,
    key: str,
    method: str,
    kind: type[Restart | Stop],
    act: Act,
) -> None:
    seen = msgspec.structs.replace(canned.preview(), act=act)
    app = console(answers={"preview": seen})

    async def journey(pilot: Pilot[None]) -> None:
        await select(pilot, app, "/fetchers/f-3")
        await press(pilot, key)
        assert app.screen.query_one("#cancel", Button).has_focus
        await press(pilot, "enter")
        assert link(app).acts() == []
        await press(pilot, key)
        await press(pilot, "right", "enter")

    drive(app, journey)
    [(sent, request)] = link(app).acts()
    assert sent == method
    assert isinstance(request, kind)
    assert request.incarnation == 3


@pytest.mark.parametrize(
    ("key", "act"),
    [("T", "trip"), ("C", "reset"), ("D", "disable"), ("M", "metrics-only")],
)
def test_circuits_are_operated_after_a_question(
    console: Console, drive: Drive, key: str, act: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, "2")
        await press(pilot, key)
        assert "site:dying" in shown(app)
        await press(pilot, "right", "enter")
        assert "site:dying is closed" in shown(app)

    drive(app, journey)
    [(_, request)] = link(app).acts()
    assert isinstance(request, CircuitAct)
    assert (request.name, request.act) == ("site:dying", act)


async def look_at_the_bus(pilot: Pilot[None], app: Any) -> None:
    """Open the screen, and let what it asks for be answered and drawn."""
    await press(pilot, "5")
    app.tick()
    await pilot.pause()


def test_the_circuit_of_a_policy_is_operated_from_the_policy(
    console: Console, drive: Drive
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, "2", "tab")
        assert "4.25" in shown(app)
        await press(pilot, "j", "T")
        assert not isinstance(app.screen, Confirm), "it has no circuit"
        await press(pilot, "k", "T")
        await press(pilot, "right", "enter")

    drive(app, journey)
    [(method, request)] = link(app).acts()
    assert method == "circuit"
    assert isinstance(request, CircuitAct)
    assert (request.name, request.act) == ("circuit", "trip")


def test_policies_show_how_many_calls_a_second_are_made_under_them(
    console: Console, drive: Drive, canned: Any, clock: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, "2")
        [_, dying] = canned.policies()
        later = msgspec.structs.replace(dying, calls=dying.calls + 6)
        link(app).send(PoliciesUpdate(sequence=2, rows=[later]))
        clock.now += 2.0
        app.tick()
        await pilot.pause()
        assert "3.0    47" in shown(app)
        link(app).send(PoliciesUpdate(sequence=3, gone=["site:dying", "site:healthy"]))
        app.tick()
        await pilot.pause()
        assert "POLICY" not in shown(app)
        assert "no policies" in shown(app)

    drive(app, journey)


def test_the_bus_shows_idle_subscriptions_and_dead_letters_that_it_asked_for(
    console: Console, drive: Drive, clock: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        asked = [method for method, _ in link(app).asked]
        assert "dead_letters" not in asked, "nobody looks at them"
        await look_at_the_bus(pilot, app)
        page = shown(app)
        assert "reports" in page
        assert "nobody" in page
        assert "/census:page.indexed" in page
        assert "2 dead letters" in page
        app.tick()
        await pilot.pause()
        assert asked_for(app, "dead_letters") == 1
        clock.now += 1.0
        app.tick()
        await pilot.pause()
        assert asked_for(app, "dead_letters") == 2

    drive(app, journey)


def asked_for(app: TreewardenConsole, method: str) -> int:
    return [one for one, _ in link(app).asked].count(method)


@pytest.mark.parametrize(("key", "act"), [("B", "retry"), ("F", "discard")])
def test_a_dead_letter_is_operated_after_a_question(
    console: Console, drive: Drive, key: str, act: str
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await look_at_the_bus(pilot, app)
        await press(pilot, key)
        assert not isinstance(app.screen, Confirm), "no letter is chosen"
        await press(pilot, "tab", "j", key)
        assert "dead letter 9" in shown(app)
        assert "abc.html" in shown(app)
        await press(pilot, "enter")
        assert link(app).acts() == []
        await press(pilot, key, "right", "enter")
        assert "is to be delivered again" in shown(app)

    drive(app, journey)
    [(method, request)] = link(app).acts()
    assert method == "dead_letter"
    assert isinstance(request, DeadLetterAct)
    assert (request.act, request.number) == (act, 9)
    assert len(request.key) == 32


def test_a_list_that_is_empty_says_so_and_takes_no_room_unless_it_is_chosen(
    console: Console, drive: Drive, clock: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await look_at_the_bus(pilot, app)
        await press(pilot, "tab", "j")
        link(app).answers["dead_letters"] = DeadLetters(rows=[])
        clock.now += 1.0
        for _ in range(2):
            app.tick()
            await pilot.pause()
        letters = app.view.query_one("#dead-letters", TableTree)
        assert letters.has_focus
        assert "nothing was given up" in shown(app)
        await press(pilot, "shift+tab")
        assert app.view.query_one("#subscriptions", TableTree).has_focus
        assert letters.size.height == 0
        assert "no dead letters" in shown(app)

    drive(app, journey)


@pytest.mark.parametrize(
    ("rights", "keys", "asked"),
    [
        (Rights.RO, "XRS", 0),
        (Rights.RW, "X", 0),
        (Rights.CHAOS, "X", 1),
    ],
)
def test_keys_above_the_granted_rights_are_not_bound(
    console: Console, drive: Drive, rights: Rights, keys: str, asked: int
) -> None:
    app = console(rights=rights)

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, *keys)
        previews = [one for one in link(app).asked if one[0] == "preview"]
        assert len(previews) == asked
        footer = shown(app).splitlines()[-1]
        assert ("X crash" in footer) is (rights is Rights.CHAOS)
        assert ("R restart" in footer) is (rights is not Rights.RO)

    drive(app, journey)


@pytest.mark.parametrize(
    "error",
    [RequestFailed("Outdated", "f-3 is incarnation 4 by now"), LinkLost("f-3 is gone")],
)
def test_an_act_that_fails_is_told_and_nothing_breaks(
    console: Console, drive: Drive, error: Exception
) -> None:
    app = console(answers={"inject": error})

    async def journey(pilot: Pilot[None]) -> None:
        await select(pilot, app, "/fetchers/f-3")
        await press(pilot, "X")
        await type_in(pilot, "f-3")
        await press(pilot, "enter")
        assert str(error) in shown(app)
        await select(pilot, app, "/frontier")

    drive(app, journey)
    assert len(link(app).acts()) == 1


def test_a_key_that_is_pressed_twice_asks_once(console: Console, drive: Drive) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        for _ in range(2):
            app.view.post_message(WantAct(Act.CRASH, "/fetchers/f-3"))
        await pilot.pause()
        await press(pilot, "escape")
        assert not app.screen.is_modal

    drive(app, journey)
    assert [method for method, _ in link(app).asked].count("preview") == 1


@pytest.mark.parametrize("opens", ["colon", "slash"])
def test_what_is_typed_right_behind_the_key_of_a_line_is_for_that_line(
    console: Console, drive: Drive, opens: str
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        sort = app.view.query_one("#tree", TableTree).border_title
        letters = (opens, ":" if opens == "colon" else "/"), ("S", "S"), ("q", "q")
        for key, letter in letters:
            # All at once, as from a paste or a slow connection.
            app.post_message(Key(key, letter))
        await pilot.pause()
        line = app.view.query_one("#place" if opens == "colon" else "#filter", Input)
        assert (line.display, line.value) == (True, "Sq")
        await press(pilot, "colon", "slash")
        assert line.value == "Sq:/"
        await press(pilot, "escape")
        assert not line.display
        assert app.view.query_one("#tree", TableTree).border_title == sort

    drive(app, journey)
    assert link(app).acts() == []


def test_escape_leaves_a_question_and_nothing_is_sent(
    console: Console, drive: Drive
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, "X")
        await press(pilot, "escape")
        assert not app.screen.is_modal

    drive(app, journey)
    assert link(app).acts() == []


# --- looking -------------------------------------------------------------------------------


def test_w_shows_why_and_the_detail_tells_it_unasked(
    console: Console, drive: Drive
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await select(pilot, app, "/fetchers/f-3")
        assert ("why", Why(path="/fetchers/f-3")) in link(app).asked
        assert "WHY IT RESTARTED" in shown(app)
        await press(pilot, "w")
        assert isinstance(app.screen, Reading)
        text = shown(app)
        assert "map_httpcore_exceptions" in text
        assert "tries" in text
        await press(pilot, "escape")
        assert not app.screen.is_modal

    drive(app, journey)


@pytest.mark.parametrize(
    ("state", "heading"),
    [
        ("failed", "WHY IT IS DOWN"),
        ("restarting", "WHY IT IS DOWN"),
        ("stuck", "WHY IT IS STUCK"),
    ],
)
def test_what_keeps_a_node_from_running_is_asked_as_soon_as_it_does_not(
    console: Console, drive: Drive, canned: Any, state: str, heading: str
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await select(pilot, app, "/fetchers/f-1")
        why = ("why", Why(path="/fetchers/f-1"))
        assert why not in link(app).asked
        ended = "" if state == "stuck" else "crashed: OSError: gone"
        row = canned.node("/fetchers/f-1", state=state, last_exit=ended)
        told = msgspec.structs.replace(canned.explanation(), path="/fetchers/f-1")
        link(app).answers["why"] = told
        link(app).send(TreeUpdate(sequence=2, rows=[row]))
        agent = canned.agent("/fetchers/f-1", doing=state)
        link(app).send(AgentsUpdate(sequence=3, rows=[agent]))
        app.tick()
        await pilot.pause()
        assert why in link(app).asked
        assert heading in shown(app)
        assert f"in {state}" not in shown(app)

    drive(app, journey)


def test_what_nobody_asked_by_hand_is_not_complained_about(
    console: Console, drive: Drive
) -> None:
    app = console(answers={"why": RequestFailed("NameUnknown", "no such node")})

    async def journey(pilot: Pilot[None]) -> None:
        await select(pilot, app, "/fetchers/f-3")
        assert "no such node" not in shown(app)
        await press(pilot, "w")
        assert "no such node" in shown(app)

    drive(app, journey)


def test_the_state_is_asked_for_once_a_version(
    console: Console, drive: Drive, canned: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, "4")
        asked = [one for one in link(app).asked if one[0] == "state"]
        assert asked == [("state", GetState(agent="/frontier"))]
        assert "handed_out" in shown(app)
        same = canned.agent("/frontier", 9, type="Frontier", incarnation=2)
        link(app).send(AgentsUpdate(sequence=2, rows=[same]))
        app.tick()
        await pilot.pause()
        newer = canned.agent(
            "/frontier", 9, type="Frontier", incarnation=2, state_version=13
        )
        link(app).send(AgentsUpdate(sequence=3, rows=[newer]))
        app.tick()
        await pilot.pause()
        asked = [one for one in link(app).asked if one[0] == "state"]
        assert len(asked) == 2

    drive(app, journey)


def test_left_and_right_step_through_the_versions_that_went_by(
    console: Console, drive: Drive, canned: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, "4")
        newer = msgspec.structs.replace(
            canned.agent_state(), version=13, state=canned.raw({"handed_out": 1190})
        )
        app.desk.take_answer(newer)
        app.view.answered()
        await pilot.pause()
        assert "1188 -> 1190" in shown(app)
        await press(pilot, "left")
        assert "1190" not in shown(app)
        await press(pilot, "right")
        assert "1188 -> 1190" in shown(app)

    drive(app, journey)


def test_the_filter_narrows_while_it_is_typed_and_escape_clears_it(
    console: Console, drive: Drive
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await pilot.press("slash")
        await type_in(pilot, "f-3")
        await press(pilot, "enter")
        assert [line.id for line in tree(app).outline.lines] == [
            "/",
            "/fetchers",
            "/fetchers/f-3",
        ]
        assert tree(app).has_focus
        await press(pilot, "escape")
        assert len(tree(app).outline.lines) == 17

    drive(app, journey)


def test_what_a_filter_found_has_the_cursor_and_keeps_it_when_it_is_cleared(
    console: Console, drive: Drive
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, "slash")
        await type_in(pilot, "f-")
        assert tree(app).cursor == "/fetchers/f-1"
        assert "6 of 20 nodes  filter: f-" in shown(app)
        await type_in(pilot, "3")
        await press(pilot, "enter", "X")
        assert link(app).asked[-1] == (
            "preview",
            GetPreview(act=Act.CRASH, path="/fetchers/f-3"),
        )
        await press(pilot, "escape", "escape")
        assert tree(app).cursor == "/fetchers/f-3"

    drive(app, journey)


def test_a_filter_by_state_finds_who_comes_into_it(
    console: Console, drive: Drive, canned: Any, clock: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, "slash")
        await type_in(pilot, "failed")
        await press(pilot, "enter")
        assert "/sites/slow" not in tree(app).outline.index
        slow = canned.node("/sites/slow", "task", "failed", order=1)
        link(app).send(TreeUpdate(sequence=2, rows=[slow]))
        clock.now += 1.5
        app.tick()
        await pilot.pause()
        assert "/sites/slow" in tree(app).outline.index

    drive(app, journey)


def test_a_key_typed_into_the_filter_is_no_command(
    console: Console, drive: Drive
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, "slash", "q", "2", "X", "p")
        assert app.view.query_one("#filter", Input).value == "q2Xp"
        assert app.current_mode == "tree"

    drive(app, journey)
    assert link(app).acts() == []


def test_the_cursor_stays_on_its_node_through_sorting_and_restarts(
    console: Console, drive: Drive, canned: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await select(pilot, app, "/fetchers/f-3")
        await press(pilot, "s")
        assert tree(app).outline.lines[0].id == "/sites/dying"
        assert tree(app).cursor == "/fetchers/f-3"
        link(app).send(TreeUpdate(sequence=2, gone=["/sites/dying"]))
        app.tick()
        await pilot.pause()
        assert tree(app).cursor == "/fetchers/f-3"

    drive(app, journey)


def test_enter_folds_a_branch_and_its_trouble_shows_through(
    console: Console, drive: Drive
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await select(pilot, app, "/fetchers")
        await press(pilot, "enter")
        row = next(line for line in shown(app).splitlines() if "fetchers (6)" in line)
        assert "degraded" in row

    drive(app, journey)


def test_a_change_below_a_fold_redraws_the_fold(
    console: Console, drive: Drive, canned: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        def system() -> str:
            return next(r for r in shown(app).splitlines() if "system (3)" in r)

        assert "● run" in system()
        broken = canned.node("/system/store", "task", "failed", order=0)
        link(app).send(TreeUpdate(sequence=2, rows=[broken]))
        app.tick()
        await pilot.pause()
        assert "degraded" in system()

    drive(app, journey)


def test_events_follow_the_newest_until_somebody_reads(
    console: Console, drive: Drive, canned: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, "3")
        table = app.view.query_one("#events", TableTree)
        assert table.cursor == "1205"
        more = [canned.event(n, 0, "supervision.started") for n in range(1206, 1300)]
        link(app).send(EventsUpdate(sequence=2, rows=more[:1]))
        app.tick()
        await pilot.pause()
        assert table.cursor == "1206"
        await press(pilot, "k", "k")
        before = table.scroll_offset.y, table.outline.row
        link(app).send(EventsUpdate(sequence=3, rows=more[1:]))
        app.tick()
        await pilot.pause()
        assert table.cursor == "1204"
        assert (table.scroll_offset.y, table.outline.row) == before
        assert "95 entries below" in shown(app)
        await press(pilot, "f")
        assert table.cursor == "1299"

    drive(app, journey)


def test_many_events_of_the_application_push_no_report_out_of_the_strip(
    console: Console, drive: Drive, canned: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        page = canned.events()[-1]
        more = [msgspec.structs.replace(page, position=n) for n in range(1206, 1300)]
        link(app).send(EventsUpdate(sequence=2, rows=more))
        app.tick()
        await pilot.pause()
        strip = app.view.query_one("#strip", TableTree)
        assert [line.id for line in strip.outline.lines] == [
            "1201", "1202", "1203", "1204", "1299"
        ]  # fmt: skip
        assert "incarnation 3, cause: crash" in shown(app)
        await press(pilot, "3")
        assert "99 events" in shown(app)

    drive(app, journey)


def test_a_frozen_view_stands_still_and_says_so(
    console: Console, drive: Drive, canned: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await pilot.press("p")
        link(app).send(TreeUpdate(sequence=2, gone=["/indexer"]))
        app.tick()
        await pilot.pause()
        assert "HELD" in shown(app)
        assert "/indexer" in tree(app).outline.index
        await press(pilot, "p")
        assert "/indexer" not in tree(app).outline.index

    drive(app, journey)


def test_a_question_over_the_screen_does_not_lose_what_happens_below(
    console: Console, drive: Drive
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, "question_mark")
        link(app).send(TreeUpdate(sequence=2, gone=["/indexer"]))
        app.tick()
        await press(pilot, "escape")
        assert "/indexer" not in tree(app).outline.index

    drive(app, journey)


def test_nothing_is_drawn_when_nothing_changed(
    console: Console, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        drawn: list[object] = []
        monkeypatch.setattr(app, "_draw", drawn.append)
        for _ in range(5):
            app.tick()
        assert drawn == []

    drive(app, journey)


# --- the link ------------------------------------------------------------------------------


def test_a_lost_link_is_stale_keeps_the_picture_and_comes_back(
    console: Console, drive: Drive, clock: Any, canned: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await select(pilot, app, "/fetchers/f-3")
        app.hear(Lost(why="the runtime closed the connection"))
        clock.now += 7
        app.tick()
        await pilot.pause()
        text = shown(app)
        assert "STALE 7s the runtime closed the connection" in text
        assert "f-3" in text
        assert app.ink.faded
        app.hear(Connected(welcome=canned.welcome("boot-2")))
        for update in canned.snapshot():
            app.hear(Told(update=update))
        app.tick()
        await pilot.pause()
        text = shown(app)
        assert "LIVE" in text
        assert "restarted, was up 18m03" in text
        assert tree(app).cursor == "/fetchers/f-3"
        assert not app.ink.faded

    drive(app, journey)


def test_before_the_first_welcome_it_says_what_it_waits_for(
    console: Console, drive: Drive
) -> None:
    app = console(news=[Lost(why="no runtime answers there")])

    async def journey(pilot: Pilot[None]) -> None:
        assert "CONNECTING no runtime answers there" in shown(app)
        await pilot.press("X", "w", "s", "2", "3", "4", "enter")

    drive(app, journey)


def test_a_console_that_is_turned_away_ends_with_the_reason(
    console: Console, drive: Drive
) -> None:
    app = console(news=[Lost(why="protocol 9 is not spoken", refused=True)])

    async def journey(pilot: Pilot[None]) -> None:
        await pilot.pause()

    drive(app, journey)
    assert app.return_code == 1
    assert app.last_words == "protocol 9 is not spoken"


def test_a_mistake_in_the_link_ends_the_console_in_one_line(
    console: Console, drive: Drive
) -> None:
    app = console(news=["not news"])

    async def journey(pilot: Pilot[None]) -> None:
        await pilot.pause()

    drive(app, journey)
    assert app.return_code == 1
    assert "the console's link failed: AssertionError" in app.last_words


def test_lost_updates_are_told_in_the_header(
    console: Console, drive: Drive, canned: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        update = ProcessUpdate(sequence=2, lost=12, rows=[canned.process()])
        link(app).send(update)
        app.tick()
        await pilot.pause()
        assert app.desk.standing() is Standing.LAGGING
        assert "LAGGING" in shown(app)
        assert "drop 12" in shown(app)

    drive(app, journey)


def test_the_header_counts_every_node(
    console: Console, drive: Drive, canned: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        stopped = canned.node("/indexer", state="stopped", order=4)
        link(app).send(TreeUpdate(sequence=2, rows=[stopped]))
        app.tick()
        await pilot.pause()
        header = shown(app).splitlines()[0]
        assert "nodes 20: ● 15  ◐ 1  ↻ 1  ✖ 1  ‖ 1  ○ 1" in header

    drive(app, journey)


def test_open_alarms_are_counted_beside_the_tabs(
    console: Console, drive: Drive, canned: Any
) -> None:
    """By severity where there is room, and nothing when nothing is wrong."""
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        assert "alarm" not in shown(app).splitlines()[1]
        for update, text in (
            (canned.alarms(), "! 3 alarms: 1 critical, 2 warning"),
            (AlarmsUpdate(sequence=2, gone=["2", "3"]), "! 1 alarm: 1 warning"),
            (AlarmsUpdate(sequence=3, gone=["1"]), "help"),
        ):
            link(app).send(update)
            app.tick()
            await pilot.pause()
            line = shown(app).splitlines()[1]
            assert text in line
        assert "alarm" not in line

    drive(app, journey)


# --- leaving -------------------------------------------------------------------------------


def test_q_on_attach_leaves_politely_and_stops_nothing(
    console: Console, drive: Drive
) -> None:
    app = console(owner="attach")

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, "q")

    drive(app, journey)
    assert app.return_code == 0
    assert [method for method, _ in link(app).asked][-1] == "farewell"
    assert link(app).acts() == []


@pytest.mark.parametrize(("owner", "stops"), [("demo", True), ("run", False)])
def test_q_asks_whether_to_stop_what_this_console_started(
    console: Console, drive: Drive, owner: str, stops: bool
) -> None:
    app = console(owner=owner)

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, "q")
        assert isinstance(app.screen, Leave)
        await press(pilot, "escape")
        assert not app.screen.is_modal
        await press(pilot, "q")
        await press(pilot, "enter")

    drive(app, journey)
    assert [method for method, _ in link(app).acts()] == ["shutdown"] * stops
    assert app.return_code == 0


def test_ctrl_c_leaves_as_q_does_and_is_a_no_to_every_question(
    console: Console, drive: Drive
) -> None:
    app = console(owner="demo")

    async def journey(pilot: Pilot[None]) -> None:
        for key in ("R", "question_mark"):
            await press(pilot, key, "ctrl+c")
            assert app.screen is app.view
        await press(pilot, "slash", "f", "ctrl+c")
        assert tree(app).has_focus
        await press(pilot, "ctrl+c")
        assert isinstance(app.screen, Leave)
        await press(pilot, "ctrl+c")
        assert not app.screen.is_modal
        app.desk.owner = "attach"
        await press(pilot, "ctrl+c")

    drive(app, journey)
    assert app.return_code == 0
    assert link(app).acts() == []


def test_a_runtime_that_is_gone_is_left_without_a_question(
    console: Console, drive: Drive
) -> None:
    app = console(owner="demo")

    async def journey(pilot: Pilot[None]) -> None:
        app.hear(Lost(why="no runtime answers there"))
        await press(pilot, "q")

    drive(app, journey)
    assert app.return_code == 0


def test_q_leaves_while_a_question_waits_for_a_runtime_that_hangs(
    console: Console, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = console()

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    async def journey(pilot: Pilot[None]) -> None:
        monkeypatch.setattr(app.link, "request", never)
        await press(pilot, "R", "q")

    drive(app, journey)
    assert app.return_code == 0


def test_ctrl_q_leaves_at_once_also_over_a_question(
    console: Console, drive: Drive
) -> None:
    app = console(owner="demo")

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, "q")
        await press(pilot, "ctrl+q")

    drive(app, journey)
    assert app.return_code == 0
    assert link(app).acts() == []


def test_below_60x15_a_notice_says_so(console: Console, drive: Drive) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        assert "60x15 cells or more" in shown(app)
        assert "crawler" in shown(app)

    drive(app, journey, size=(50, 12))


def test_a_resize_lays_everything_out_anew(console: Console, drive: Drive) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert not app.view.query_one("#strip").display
        assert app.view.query_one("#detail", Page).region.width == 80
        assert app.view.query_one("#header", Bar).region.width == 80

    drive(app, journey)
