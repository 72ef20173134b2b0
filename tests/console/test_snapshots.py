"""What the screens look like, from canned frames at a frozen time.

`make snapshots` draws them anew (pytest --snapshot-update); look at what changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from treewarden_console.link import Lost
from treewarden_console.widgets import TableTree

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.pilot import Pilot

SIZES = {"80x24": (80, 24), "120x36": (120, 36)}
F3 = "/fetchers/f-3"


@pytest.fixture
def picture(console: Any, snap_compare: Any) -> Callable[..., bool]:
    """Compare a console with its picture, after some keys."""

    def compare(
        *keys: str,
        size: tuple[int, int] = (120, 36),
        at: str = "/",
        then: Callable[[Any], None] | None = None,
        **options: Any,
    ) -> bool:
        app = console(**options)

        async def before(pilot: Pilot[None]) -> None:
            await pilot.pause()
            app.tick()
            app.view.query_one("#tree", TableTree).select(at)
            await pilot.pause()
            for key in keys:
                await pilot.press(key)
                await pilot.pause()
                app.tick()
            if then is not None:
                then(app)
                app.tick()
            await pilot.pause()

        same: bool = snap_compare(app, terminal_size=size, run_before=before)
        return same

    return compare


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_tree(picture: Any, size: tuple[int, int]) -> None:
    assert picture(at=F3, size=size)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_circuits(picture: Any, size: tuple[int, int]) -> None:
    assert picture("2", "down", "down", "down", size=size)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_policy(picture: Any, size: tuple[int, int]) -> None:
    assert picture("2", "tab", size=size)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_gateway(picture: Any, size: tuple[int, int]) -> None:
    assert picture("2", "tab", "tab", "j", size=size)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_bus(picture: Any, size: tuple[int, int]) -> None:
    assert picture("5", size=size)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_dead_letter(picture: Any, size: tuple[int, int]) -> None:
    assert picture("5", "tab", "j", size=size)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_coordination(picture: Any, size: tuple[int, int]) -> None:
    assert picture("6", "j", size=size)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_work(picture: Any, size: tuple[int, int]) -> None:
    assert picture("7", size=size)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_monitors(picture: Any, canned: Any, size: tuple[int, int]) -> None:
    def tell(app: Any) -> None:
        app.link.send(canned.alarms())

    assert picture("8", size=size, then=tell)


def test_lists_without_rows(picture: Any) -> None:
    assert picture("8", "tab", size=(80, 24), news=[])


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_events(picture: Any, size: tuple[int, int]) -> None:
    assert picture("3", "k", "k", size=size)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_agents_and_a_state(picture: Any, size: tuple[int, int]) -> None:
    assert picture("4", size=size)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_why_it_restarted(picture: Any, size: tuple[int, int]) -> None:
    assert picture("w", at=F3, size=size)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_preview_of_a_crash(picture: Any, size: tuple[int, int]) -> None:
    assert picture("X", "f", "minus", "3", at=F3, size=size)


def test_the_root_shows_the_runtime(picture: Any) -> None:
    assert picture()


def test_the_question_at_the_end(picture: Any) -> None:
    assert picture("q", size=(80, 24), owner="demo")


def test_the_keys(picture: Any) -> None:
    assert picture("question_mark")


def test_a_stale_picture(picture: Any, clock: Any) -> None:
    def lose(app: Any) -> None:
        app.hear(Lost(why="the runtime closed the connection"))
        clock.now += 12

    assert picture(at=F3, then=lose)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_open_alarms(picture: Any, canned: Any, size: tuple[int, int]) -> None:
    def tell(app: Any) -> None:
        app.link.send(canned.alarms())

    assert picture(at=F3, size=size, then=tell)


def test_without_colour(picture: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert picture(at=F3)


def test_in_ascii(picture: Any) -> None:
    assert picture(at=F3, ascii_only=True)


def test_without_a_runtime(picture: Any) -> None:
    assert picture(size=(80, 24), news=[Lost(why="no runtime answers there")])


def test_a_wide_terminal(picture: Any) -> None:
    assert picture(at=F3, size=(200, 60))


def test_a_tiny_terminal(picture: Any) -> None:
    assert picture(size=(50, 12))
