"""The one widget for rows: draws only what it must, and stays where one reads."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from textual.app import App, ComposeResult

from treewarden_console.state import Changes, Line, flat_lines
from treewarden_console.widgets import Cell, Column, Ink, TableTree, Tone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from textual.pilot import Pilot
    from textual.strip import Strip

COLUMNS = (
    Column("NAME", 0),
    Column("VALUE", 6, right=True),
    Column("EXTRA", 8, least=60),
)


class Counting(TableTree):
    """Writes down which lines were drawn."""

    drawn: list[int]

    def render_line(self, y: int) -> Strip:
        self.drawn.append(y)
        return super().render_line(y)


class Rows(App[None]):
    """A table over a dict of values."""

    def __init__(self, values: dict[str, int], lines: Sequence[Line]) -> None:
        super().__init__()
        self.values = values
        self.table = Counting(
            Ink(), COLUMNS, self.cells, id="rows", foldable=lines[0].children > 0
        )
        self.table.drawn = []
        self.lines = lines
        self.told: list[str] = []

    def compose(self) -> ComposeResult:
        yield self.table

    def on_mount(self) -> None:
        self.table.show(self.lines)

    def cells(self, line: Line) -> tuple[Cell, ...]:
        value = self.values[line.id]
        return (Cell(line.id), Cell(f"{value}", Tone.MUTED), Cell("more"))

    def on_table_tree_moved(self) -> None:
        self.told.append(f"moved {self.table.cursor}")

    def on_table_tree_folded(self) -> None:
        self.told.append("folded")


def drive(
    app: Rows,
    journey: Callable[[Pilot[None]], Awaitable[None]],
    size: tuple[int, int] = (80, 12),
) -> None:
    async def main() -> None:
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await journey(pilot)

    asyncio.run(main())


def listed(number: int) -> Rows:
    values = {f"row-{n:05}": n for n in range(number)}
    return Rows(values, flat_lines(values))


def text(app: Rows) -> list[str]:
    height = app.table.size.height
    return [app.table.render_line(y).text.rstrip() for y in range(height)]


def test_titles_stay_while_rows_scroll() -> None:
    app = listed(50)

    async def journey(pilot: Pilot[None]) -> None:
        assert text(app)[1].startswith(">row-00000")
        await pilot.press("G")
        await pilot.pause()
        shown = text(app)
        assert shown[0].startswith(" NAME")
        assert shown[-1].startswith(">row-00049")
        await pilot.press("g")
        await pilot.pause()
        assert text(app)[1].startswith(">row-00000")

    drive(app, journey)


def test_a_column_without_room_is_left_out() -> None:
    app = listed(3)

    async def journey(pilot: Pilot[None]) -> None:
        assert "EXTRA" in text(app)[0]
        await pilot.resize_terminal(50, 12)
        await pilot.pause()
        assert "EXTRA" not in text(app)[0]
        assert len({len(line) for line in text(app)[:3]}) == 1

    drive(app, journey)


def test_only_changed_rows_in_view_are_drawn() -> None:
    app = listed(1000)

    async def journey(pilot: Pilot[None]) -> None:
        app.table.drawn.clear()
        app.values["row-00003"] = 77
        app.values["row-00900"] = 77
        app.table.update(Changes(ids=frozenset(("row-00003", "row-00900"))))
        await pilot.pause()
        assert app.table.drawn == [4]
        assert text(app)[4].split() == ["row-00003", "77", "more"]

    drive(app, journey)


def test_new_rows_above_do_not_move_what_is_read() -> None:
    app = listed(100)

    async def journey(pilot: Pilot[None]) -> None:
        await pilot.press("pagedown", "pagedown", "pagedown", "k", "k")
        await pilot.pause()
        before = text(app)
        more = {f"new-{n}": n for n in range(7)}
        app.values.update(more)
        app.table.show(flat_lines([*more, *(line.id for line in app.lines)]))
        await pilot.pause()
        assert text(app) == before
        app.table.show(app.lines)
        await pilot.pause()
        assert text(app) == before

    drive(app, journey)


def test_the_last_rows_are_followed_from_the_first_moment() -> None:
    app = listed(3)

    async def journey(pilot: Pilot[None]) -> None:
        more = listed(40)
        app.values = more.values
        app.table.show(more.lines, follow=True)
        await pilot.pause()
        assert text(app)[-1].startswith(">row-00039")

    drive(app, journey)


def test_when_rows_go_no_room_is_left_empty() -> None:
    app = listed(100)

    async def journey(pilot: Pilot[None]) -> None:
        await pilot.press("G")
        await pilot.pause()
        app.table.show(app.lines[:20])
        await pilot.pause()
        shown = text(app)
        assert shown[1].startswith(" row-00009")
        assert shown[-1].startswith(">row-00019")

    drive(app, journey)


def test_the_cursor_is_always_in_view() -> None:
    app = listed(100)

    async def journey(pilot: Pilot[None]) -> None:
        table = app.table
        for act, by, times in (
            (table.action_page, 1, 4),
            (table.action_page, -1, 2),
            (table.action_move, 1, 12),
            (table.action_move, -1, 30),
        ):
            for _ in range(times):
                act(by)
            await pilot.pause()
            assert any(line.startswith(">") for line in text(app))

    drive(app, journey)


def test_moving_tells_of_each_row_once() -> None:
    app = listed(5)

    async def journey(pilot: Pilot[None]) -> None:
        app.told.clear()
        await pilot.press("up", "down", "down")
        await pilot.pause()
        assert app.told == ["moved row-00001", "moved row-00002"]

    drive(app, journey)


def test_a_click_chooses_a_row_and_a_click_on_its_mark_folds_it() -> None:
    lines = [Line(id="a", children=1), Line(id="b", depth=1)]
    app = Rows({"a": 1, "b": 2}, lines)

    async def journey(pilot: Pilot[None]) -> None:
        app.told.clear()
        await pilot.click("#rows", offset=(20, 2))
        await pilot.pause()
        assert app.table.cursor == "b"
        await pilot.click("#rows", offset=(1, 1))
        await pilot.pause()
        assert app.told == ["moved b", "moved a", "folded"]
        await pilot.click("#rows", offset=(5, 9))
        await pilot.pause()
        assert app.table.cursor == "a"

    drive(app, journey)


def test_names_show_depth_and_folds() -> None:
    lines = [
        Line(id="top", children=2),
        Line(id="shut", depth=1, children=3, folded=True),
        Line(id="leaf", depth=1),
        Line(id="deep", depth=500),
    ]
    app = Rows({line.id: 0 for line in lines}, lines)

    async def journey(pilot: Pilot[None]) -> None:
        names = [line[1:40].rstrip() for line in text(app)[1:5]]
        assert names == ["▾ top", "  ▸ shut", "    leaf", " " * 26 + "deep"]

    drive(app, journey)


def cost(app: Rows, rounds: int) -> float:
    """CPU seconds for drawing 200 changed rows, `rounds` times."""
    spent = 0.0
    ids = list(app.values)

    async def journey(pilot: Pilot[Any]) -> None:
        nonlocal spent
        for turn in range(rounds):
            step = max(1, len(ids) // 200)
            changed = frozenset(ids[turn % step :: step][:200])
            for id_ in changed:
                app.values[id_] += 1
            before = time.process_time()
            app.table.update(Changes(ids=changed))
            app.screen._on_timer_update()
            spent += time.process_time() - before

    drive(app, journey, size=(120, 36))
    return spent


def test_the_cost_of_a_tick_does_not_grow_with_the_rows() -> None:
    # 200 changes in 10,000 rows against 200 in 500: a widget that costs by what it holds
    # would be some twenty times dearer; measured here, the larger one is cheaper, because
    # fewer of its changes are in view.
    small = min(cost(listed(500), 20) for _ in range(3))
    large = min(cost(listed(10_000), 20) for _ in range(3))
    assert large < 4 * small + 0.01
