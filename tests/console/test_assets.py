"""The picture in the README is what the console draws now.

`make snapshots` (pytest --snapshot-update) draws it anew.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from treewarden.control.protocol import AgentsUpdate, ProcessUpdate
from treewarden_console.widgets import TableTree

if TYPE_CHECKING:
    import pytest
    from textual.pilot import Pilot

PICTURE = Path(__file__).parents[2] / "assets" / "console.svg"


def self_contained(svg: str) -> str:
    """The picture without anything from elsewhere: who shows it has a fixed-width font."""
    svg = re.sub(r"@font-face \{.*?\}\s*|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def test_the_picture_in_the_readme_is_what_the_console_draws(
    console: Any,
    drive: Any,
    canned: Any,
    clock: Any,
    request: pytest.FixtureRequest,
) -> None:
    app = console()
    drawn = ""

    async def journey(pilot: Pilot[None]) -> None:
        nonlocal drawn
        moved = [
            msgspec.structs.replace(agent, handled=agent.handled + 3 * at + 4)
            for at, agent in enumerate(canned.agents())
            if agent.path not in ("/fetchers/f-4", "/fetchers/f-5", "/fetchers/f-6")
        ]
        later = msgspec.structs.replace(
            canned.process(), published=2252, commits=931, units=4190
        )
        app.tick()
        app.link.send(AgentsUpdate(sequence=2, rows=moved))
        app.link.send(ProcessUpdate(sequence=2, rows=[later]))
        clock.now += 1.0
        app.tick()
        app.view.query_one("#tree", TableTree).select("/fetchers/f-3")
        await pilot.pause()
        app.tick()
        await pilot.pause()
        drawn = self_contained(app.export_screenshot(title="treewarden"))

    drive(app, journey)
    if request.config.getoption("update_snapshots"):
        PICTURE.write_text(drawn)
    assert "://" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", drawn)
    assert drawn == PICTURE.read_text()
