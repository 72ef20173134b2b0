"""The second line counts what is wrong, as loud as it is news."""

from __future__ import annotations

from typing import Any

import pytest

from treewarden.control.protocol import AlarmsUpdate
from treewarden_console.state import Model
from treewarden_console.widgets import Tab, Tone, alarms, length_of, tab_line, tabs

WIDE, SMALL = 120, 80


def told(*rows: Any) -> Model:
    model = Model()
    model.apply(AlarmsUpdate(sequence=1, full=True, rows=list(rows)), 100.0)
    return model


def test_without_alarms_nothing_is_said() -> None:
    assert alarms(told(), WIDE) == []


def test_what_somebody_acknowledged_does_not_shout(canned: Any) -> None:
    known = canned.alarm(1, "critical", acknowledged_by="ada")
    spans = alarms(told(known, canned.alarm(2)), WIDE)
    assert ("1 critical", Tone.MUTED) in spans
    assert ("1 warning", Tone.WORRY) in spans
    assert "".join(text for text, _ in spans) == "! 2 alarms: 1 critical, 1 warning  "


@pytest.mark.parametrize(
    ("severities", "tone"),
    [
        ([("warning", ""), ("critical", "")], Tone.BAD),
        ([("warning", ""), ("critical", "ada")], Tone.WORRY),
        ([("warning", "ada"), ("critical", "ada")], Tone.MUTED),
    ],
)
def test_where_room_is_short_the_worst_that_is_news_gives_the_tone(
    canned: Any, severities: list[tuple[str, str]], tone: Tone
) -> None:
    rows = [
        canned.alarm(number, severity, acknowledged_by=by)
        for number, (severity, by) in enumerate(severities)
    ]
    assert alarms(told(*rows), SMALL)[0] == ("! 2 alarms", tone)


TABS = (Tab("Tree", "Tree"), Tab("Circuits", "Circ"), Tab("Monitors", "Mon"))


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (34, " 1 Tree [2 Circuits] 3 Monitors "),
        (32, " 1 Tree [2 Circuits] 3 Monitors "),
        (31, " 1Tree [2Circ] 3Mon "),
        (20, " 1Tree [2Circ] 3Mon "),
        (19, " 1 [2] 3 "),
        (3, " 1 [2] 3 "),
    ],
)
def test_screens_are_named_as_far_as_there_is_room(width: int, line: str) -> None:
    spans = tabs(TABS, 1, width)
    assert "".join(text for text, _ in spans) == line
    assert length_of(spans) == len(line)


@pytest.mark.parametrize(
    ("width", "left", "right"),
    [
        (120, " 1 Tree [2 Circuits] 3 Monitors ", "! 1 alarm: 1 warning  / filter"),
        (100, " 1 Tree [2 Circuits] 3 Monitors ", "! 1 alarm: 1 warning  / filter"),
        (80, " 1 Tree [2 Circuits] 3 Monitors ", "! 1 alarm  / : ?"),
    ],
)
def test_alarms_and_keys_are_spelt_out_where_there_is_room(
    canned: Any, width: int, left: str, right: str
) -> None:
    line = tab_line(TABS, 1, told(canned.alarm(1)), width)
    shown = ["".join(text for text, _ in spans) for spans in line]
    assert shown[0] == left
    assert shown[1].startswith(right)


def test_the_names_of_screens_matter_more_than_those_of_keys(canned: Any) -> None:
    many = tuple(Tab(f"Screen {number}", "Scr") for number in range(12))
    left, right = tab_line(many, 0, told(canned.alarm(1)), 100)
    assert "12Scr" in "".join(text for text, _ in left)
    assert "".join(text for text, _ in right) == "! 1 alarm  / : ?"
