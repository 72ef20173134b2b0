"""The screens of lists: what they ask for, how they share the room, what can be done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from textual.widgets import Button, Input

from treewarden.control.protocol import (
    Acknowledge,
    CircuitsUpdate,
    DeadLetterAct,
    GetSteps,
    Rights,
    SubscriptionAct,
    WorkflowAct,
)
from treewarden_console.link import Connected, LinkLost, RequestFailed, Told
from treewarden_console.screens import PLACES, Confirm, WantPlace
from treewarden_console.widgets import Page, TableTree

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.pilot import Pilot

    from treewarden_console.app import TreewardenConsole

    Console = Callable[..., TreewardenConsole]
    Drive = Callable[..., None]

LISTS = sorted({list_ for _, list_ in PLACES.values() if list_})
ASKS = {
    "2": {"gateways"},
    "5": {"subscriptions", "dead_letters"},
    "6": {"exchanges", "meetings"},
    "7": {"workflows", "steps", "queues"},
    "8": {"health", "gauges", "operations"},
}


def shown(app: TreewardenConsole) -> str:
    """What the screen shows, as text."""
    _width, height = app.size
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text for strip in strips[:height])


def link(app: TreewardenConsole) -> Any:
    """The canned link, which knows what it was asked."""
    return app.link


def asked(app: TreewardenConsole) -> list[str]:
    return [method for method, _ in link(app).asked]


async def press(pilot: Pilot[None], app: TreewardenConsole, *keys: str) -> None:
    """Press keys, let answers come, and draw them."""
    await pilot.press(*keys)
    app.tick()
    await pilot.pause()
    app.tick()
    await pilot.pause()


async def go(pilot: Pilot[None], app: TreewardenConsole, place: str) -> None:
    """Go to a screen or list, as if its name had been typed."""
    app.view.post_message(WantPlace(place))
    await press(pilot, app)


def table(app: TreewardenConsole, list_: str) -> TableTree:
    return app.view.query_one(f"#{list_}", TableTree)


# --- going there ---------------------------------------------------------------------------


def test_every_place_has_its_name(console: Console, drive: Drive) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        for place, (screen, list_) in PLACES.items():
            await go(pilot, app, place)
            assert app.current_mode == screen
            assert not list_ or table(app, list_).has_focus

    drive(app, journey)


def test_every_list_is_a_place(console: Console, drive: Drive) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        there = [
            listing.ID
            for view in app._views.values()
            for listing in getattr(view, "listings", ())
        ]
        assert sorted(there) == LISTS

    drive(app, journey)


def test_the_beginning_of_a_name_is_enough_and_another_is_told(
    console: Console, drive: Drive
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, app, "colon", *"lo", "enter")
        assert table(app, "locks").has_focus
        assert not app.view.query_one("#place", Input).display
        await press(pilot, app, "colon", *"pods", "enter")
        assert app.current_mode == "coordination"
        known = "no node is called 'pods', and the lists are tree, circuits"
        assert known in shown(app)
        await press(pilot, app, "colon", "t", "escape")
        assert app.current_mode == "coordination"
        assert table(app, "locks").has_focus

    drive(app, journey)


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ("f-3", "/fetchers/f-3"),
        ("/sites", "/sites"),
        ("ying", "/sites/dying"),
        ("etc", None),
    ],
)
def test_a_node_is_a_place_by_path_id_or_a_part_that_only_it_has(
    console: Console, drive: Drive, typed: str, path: str | None
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        tree = app.view.query_one("#tree", TableTree)
        await press(pilot, app, "3", "colon")
        app.view.query_one("#place", Input).value = typed
        await press(pilot, app, "enter")
        if path is not None:
            assert app.current_mode == "tree"
            assert tree.cursor == path
        else:
            assert app.current_mode == "events"
            several = "'etc' may be /fetchers, /fetchers/f-1 and 5 more"
            assert several in shown(app)

    drive(app, journey)


def test_o_shows_the_node_of_a_row_wherever_it_is_folded_away(
    console: Console, drive: Drive
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        tree = app.view.query_one("#tree", TableTree)
        tree.select("/fetchers")
        await press(pilot, app, "enter")
        assert "/fetchers/f-1" not in tree.outline.index
        await go(pilot, app, "locks")
        await press(pilot, app, "G", "o")
        assert app.current_mode == "tree"
        assert tree.cursor == "/fetchers/f-1"
        assert tree.has_focus

    drive(app, journey)


def test_o_says_so_when_the_node_is_not_there(console: Console, drive: Drive) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await go(pilot, app, "exchanges")
        await press(pilot, app, "G", "o")
        assert app.current_mode == "coordination"
        assert "there is no node /mailer in the tree" in shown(app)

    drive(app, journey)


# --- what is asked -------------------------------------------------------------------------


def test_a_screen_asks_once_a_second_while_it_is_seen(
    console: Console, drive: Drive, clock: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        for key, methods in ASKS.items():
            assert not methods & set(asked(app)), "nobody looks at it"
            await press(pilot, app, key)
            for seconds in (1, 2):
                counts = {method: asked(app).count(method) for method in methods}
                assert counts == dict.fromkeys(methods, seconds)
                clock.now += 1.0
                await press(pilot, app)
            await press(pilot, app, "3")
            before = len(asked(app))
            clock.now += 1.0
            await press(pilot, app)
            assert len(asked(app)) == before

    drive(app, journey)


def test_a_held_view_asks_for_nothing(
    console: Console, drive: Drive, clock: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, app, "7", "p")
        before = len(asked(app))
        clock.now += 3.0
        await press(pilot, app, "j")
        assert len(asked(app)) == before
        assert "survey" not in shown(app)

    drive(app, journey)


@pytest.mark.parametrize(
    "error", [RequestFailed("ControlError", "there is no method"), LinkLost("gone")]
)
def test_what_an_older_runtime_does_not_know_is_not_complained_about(
    console: Console, drive: Drive, error: Exception
) -> None:
    methods = {one for methods in ASKS.values() for one in methods}
    app = console(answers=dict.fromkeys(methods, error))

    async def journey(pilot: Pilot[None]) -> None:
        for key in ASKS:
            await press(pilot, app, key)
            assert str(error) not in shown(app)
        assert app.is_running

    drive(app, journey)


def test_the_steps_of_the_chosen_workflow_are_shown(
    console: Console, drive: Drive
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, app, "7")
        page = shown(app)
        assert "undone by close, which failed 4 times" in page
        assert "3 attempts  ConnectError" in page
        await press(pilot, app, "j")
        assert "asking for the steps" in shown(app)

    drive(app, journey)
    steps = [params for method, params in link(app).asked if method == "steps"]
    assert GetSteps(workflow="site:dying") in steps
    assert steps[-1] == GetSteps(workflow="site:slow")


# --- what every list can -------------------------------------------------------------------


def with_alarms(console: Console, canned: Any) -> TreewardenConsole:
    """A console on whose every list there is something."""
    updates = [*canned.snapshot(), canned.alarms()]
    told = [Told(update=one) for one in updates]
    return console(news=[Connected(welcome=canned.welcome()), *told])


def test_every_list_can_be_sorted_and_comes_back_to_its_own_order(
    console: Console, drive: Drive, canned: Any
) -> None:
    app = with_alarms(console, canned)

    async def sort(pilot: Pilot[None], list_: str) -> None:
        await go(pilot, app, list_)
        lines = table(app, list_).outline
        own = [line.id for line in lines.lines]
        assert own
        orders = 0
        await pilot.press("s")
        while "sort: " in str(table(app, list_).border_title):
            orders += 1
            assert sorted(line.id for line in lines.lines) == sorted(own)
            await pilot.press("s")
        assert orders >= 1
        assert [line.id for line in lines.lines] == own

    async def journey(pilot: Pilot[None]) -> None:
        for list_ in LISTS:
            await sort(pilot, list_)

    drive(app, journey)


def test_every_list_can_be_filtered(
    console: Console, drive: Drive, canned: Any
) -> None:
    app = with_alarms(console, canned)

    async def journey(pilot: Pilot[None]) -> None:
        for list_ in LISTS:
            await go(pilot, app, list_)
            app.view._set_filter("qq")
            await press(pilot, app)
            assert "nothing matches the filter" in shown(app)
            assert "filter: qq" in str(table(app, list_).border_title)
            await press(pilot, app, "escape")
            assert table(app, list_).outline.lines

    drive(app, journey)


def test_an_empty_list_says_what_there_is_none_of(
    console: Console, drive: Drive, canned: Any
) -> None:
    app = console(news=[Connected(welcome=canned.welcome())])
    for method, answer in link(app).answers.items():
        if hasattr(answer, "rows"):
            link(app).answers[method] = type(answer)(rows=[])

    async def journey(pilot: Pilot[None]) -> None:
        await go(pilot, app, "circuits")
        assert "not told yet" in shown(app)
        for one in canned.snapshot():
            empty: dict[str, Any] = {"full": True, "rows": []}
            link(app).send(msgspec.structs.replace(one, **empty))
        app.tick()
        for list_ in LISTS:
            await go(pilot, app, list_)
            [said] = [
                listing.NOTHING
                for listing in getattr(app.view, "listings", ())
                if list_ == listing.ID
            ]
            assert said in shown(app)
            assert str(table(app, list_).border_title).startswith("no ")
            await press(pilot, app, "s", "o", "enter", "escape", "j")

    drive(app, journey)


def test_where_room_is_short_only_the_chosen_list_is_open(
    console: Console, drive: Drive
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        for key in ASKS:
            await press(pilot, app, key)
            lists = list(app.view.query(TableTree))
            for chosen in lists:
                assert chosen.has_focus
                open_ = [one for one in lists if one.size.height > 0]
                assert open_ == [chosen]
                assert chosen.size.height >= 5
                await press(pilot, app, "tab")
            assert app.view.query_one("#chosen", Page).has_focus

    drive(app, journey, size=(80, 24))


def test_where_there_is_room_every_list_that_has_rows_is_open(
    console: Console, drive: Drive
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await press(pilot, app, "8", "tab")
        heights = {one.id: one.size.height for one in app.view.query(TableTree)}
        assert heights.pop("alarms") == 0, "there is none"
        assert all(height >= 2 for height in heights.values())

    drive(app, journey)


# --- what can be done ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "keys", "method", "request_"),
    [
        ("workflows", "S", "workflow", WorkflowAct(act="cancel", id="site:dying")),
        ("workflows", "R", "workflow", WorkflowAct(act="resume", id="site:dying")),
        ("alarms", "A", "acknowledge", Acknowledge(alarm=1)),
        ("dead-letters", "jF", "dead_letter", DeadLetterAct(act="discard", number=9)),
    ],
)
def test_an_act_is_done_after_a_question_whose_button_is_not_preselected(
    console: Console,
    drive: Drive,
    canned: Any,
    place: str,
    keys: str,
    method: str,
    request_: Any,
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        link(app).send(canned.alarms())
        await go(pilot, app, place)
        await press(pilot, app, *keys)
        assert app.screen.query_one("#cancel", Button).has_focus
        await press(pilot, app, "enter")
        assert link(app).acts() == []
        await press(pilot, app, keys[-1], "right", "enter")
        assert link(app).answers[method].sentence in shown(app)

    drive(app, journey)
    [(sent, request)] = link(app).acts()
    assert sent == method
    assert len(request.key) == 32
    for name in request_.__struct_fields__:
        assert name == "key" or getattr(request, name) == getattr(request_, name)


CANNOT = [
    ("workflows", "jR", "site:slow does not stand still"),
    ("workflows", "jS", "site:healthy has ended"),
    ("queues", "S", "cancel is not for queues and maps"),
    ("policies", "jT", "site:healthy has no circuit"),
    ("subscriptions", "F", "/census:page.indexed has members"),
    ("subscriptions", "jjF", "subscription-2 is not durable"),
    ("subscriptions", "B", "retry is not for subscriptions"),
    ("health", "A", "acknowledge is not for health subjects"),
]


def test_an_act_that_cannot_be_says_why(console: Console, drive: Drive) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        for place, keys, why in CANNOT:
            await go(pilot, app, place)
            await press(pilot, app, *keys)
            assert not isinstance(app.screen, Confirm)
            assert why in shown(app)

    drive(app, journey)
    assert link(app).acts() == []


def test_a_subscription_is_forgotten_once_its_name_was_typed(
    console: Console, drive: Drive
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await go(pilot, app, "subscriptions")
        await press(pilot, app, "j", "F")
        assert "332 entries of the journal will not be delivered" in shown(app)
        await press(pilot, app, *"repor", "enter")
        assert link(app).acts() == []
        await press(pilot, app, *"ts", "enter")
        assert "subscription reports is forgotten" in shown(app)

    drive(app, journey)
    [(method, request)] = link(app).acts()
    assert method == "subscription"
    assert isinstance(request, SubscriptionAct)
    assert (request.act, request.id) == ("forget", "reports")


def test_all_dead_letters_that_were_seen_are_forgotten_and_none_that_comes_later(
    console: Console, drive: Drive, canned: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await go(pilot, app, "dead-letters")
        await press(pilot, app, "P", *"all", "enter")

    drive(app, journey)
    [(method, request)] = link(app).acts()
    assert method == "dead_letter"
    assert isinstance(request, DeadLetterAct)
    assert request.act == "purge"
    assert request.before_ns == max(one.at_ns for one in canned.letters()) + 1


def test_what_was_done_is_looked_at_again_at_once(
    console: Console, drive: Drive
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await go(pilot, app, "workflows")
        await press(pilot, app, "R", "right", "enter")
        methods = asked(app)
        assert "workflows" in methods[methods.index("workflow") :]

    drive(app, journey)


def test_without_the_rights_no_key_of_a_list_does_anything(
    console: Console, drive: Drive, canned: Any
) -> None:
    app = console(rights=Rights.RO)
    keys = {"circuits": "TCDM", "bus": "FBP", "work": "SR", "monitors": "A"}

    async def journey(pilot: Pilot[None]) -> None:
        link(app).send(canned.alarms())
        for screen, acts in keys.items():
            await go(pilot, app, screen)
            await press(pilot, app, *acts)
            assert not app.screen.is_modal
            footer = shown(app).splitlines()[-1]
            assert "filter" in footer
            assert not any(f" {key} " in footer for key in acts)

    drive(app, journey)
    assert link(app).acts() == []


def test_a_filter_on_a_state_follows_the_state(
    console: Console, drive: Drive, canned: Any, clock: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        await go(pilot, app, "circuits")
        app.view._set_filter("half_open")
        lines = table(app, "circuits").outline
        assert [line.id for line in lines.lines] == ["site:slow"]
        [healthy, *_] = canned.circuits()
        now = msgspec.structs.replace(healthy, state="half_open")
        link(app).send(CircuitsUpdate(sequence=2, rows=[now]))
        clock.now += 1.0
        await press(pilot, app)
        assert [line.id for line in lines.lines] == ["site:healthy", "site:slow"]

    drive(app, journey)
