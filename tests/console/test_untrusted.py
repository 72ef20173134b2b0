"""Whatever a runtime sends is shown as plain text: no markup, no escapes, anywhere."""

from __future__ import annotations

import ast
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import treewarden_console
from treewarden.control.protocol import (
    AgentsUpdate,
    BusUpdate,
    CircuitsUpdate,
    DeadLetters,
    Done,
    EventsUpdate,
    Exchanges,
    Gateways,
    Gauges,
    HealthOfSubjects,
    Meetings,
    Operations,
    PoliciesUpdate,
    ProcessUpdate,
    Queues,
    Subscriptions,
    TreeUpdate,
    Workflows,
)
from treewarden_console.link import Connected, Lost, RequestFailed, Told

if TYPE_CHECKING:
    from textual.pilot import Pilot

HOSTILE = "[@click=app.quit]x[/]\x1b]0;pwn\x07\u202e[bold]"
# Escape, bell and the override become visible marks; brackets stay brackets.
SHOWN = "[@click=app.quit]x[/]␛]0;pwn␇⟨202e⟩[bold]"


def poisoned(value: Any) -> Any:
    """The same message with every free text replaced by the hostile one."""
    if isinstance(value, msgspec.Struct):
        keep = {
            "kind", "state", "act", "cause", "parent", "path", "overflow", "boot",
            "rights", "topic", "level", "payload", "state_before", "state_after",
            "severity",
        }  # fmt: skip
        changes = {
            name: poisoned(getattr(value, name))
            for name in value.__struct_fields__
            if name not in keep or not isinstance(getattr(value, name), str)
        }
        return msgspec.structs.replace(value, **changes)
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, list):
        return [poisoned(one) for one in value]
    if isinstance(value, tuple):
        return tuple(poisoned(one) for one in value)
    if isinstance(value, dict):
        return {poisoned(key): poisoned(one) for key, one in value.items()}
    return value


@pytest.fixture
def hostile(console: Any, canned: Any) -> Any:
    """A console on a runtime that lies in every text it sends."""
    path = f"/{HOSTILE}"
    nodes = [
        canned.node("/", "supervisor", id=HOSTILE, parent=None, label=HOSTILE),
        canned.node(path, restarts=1, label=HOSTILE, last_exit=HOSTILE, order=1),
        canned.node("/odd", restarts=1, order=2),
    ]
    odd = msgspec.structs.replace(nodes[2], state="running", strategy=HOSTILE)
    agent = canned.agent(path, 3, type=HOSTILE, doing=HOSTILE)
    event = canned.event(
        1, 1.0, "supervision.exited", source=HOSTILE, exit=HOSTILE, trace=HOSTILE
    )
    other = canned.event(2, 1.0, HOSTILE, source=HOSTILE, **{HOSTILE: HOSTILE})
    welcome = msgspec.structs.replace(
        canned.welcome(), runtime=poisoned(canned.welcome().runtime)
    )
    explanation = poisoned(canned.explanation())
    state = canned.raw({HOSTILE: HOSTILE})
    explanation = msgspec.structs.replace(
        explanation, path=path, state_before=state, state_after=canned.raw({"a": 1})
    )
    # What an event says is JSON, whoever wrote it.
    letter = msgspec.structs.replace(
        poisoned(canned.letters()[1]), content=canned.raw({HOSTILE: HOSTILE})
    )
    answers = {
        "why": explanation,
        "preview": msgspec.structs.replace(
            poisoned(canned.preview()), path=path, stops=[HOSTILE], starts=[HOSTILE]
        ),
        "state": msgspec.structs.replace(
            poisoned(canned.agent_state()), path=path, state=state
        ),
        "restart": Done(sentence=HOSTILE),
        "subscriptions": Subscriptions(rows=[poisoned(canned.idle_subscription())]),
        "dead_letters": DeadLetters(rows=[letter]),
        "circuit": RequestFailed(HOSTILE, HOSTILE),
        "exchanges": Exchanges(rows=poisoned(canned.lines()[1:])),
        "meetings": Meetings(rows=poisoned(canned.meetings()[:1])),
        "workflows": Workflows(rows=poisoned(canned.workflows()[:1])),
        "steps": poisoned(canned.steps()),
        "queues": Queues(rows=poisoned(canned.collections()[:1])),
        "health": HealthOfSubjects(rows=poisoned(canned.health()[:1])),
        "gateways": Gateways(rows=poisoned(canned.gateways()[1:])),
        "gauges": Gauges(rows=poisoned(canned.gauges()[1:])),
        "operations": Operations(rows=poisoned(canned.operations())),
    }
    news = [
        Connected(welcome=welcome),
        Told(update=TreeUpdate(sequence=1, full=True, rows=[*nodes[:2], odd])),
        Told(update=AgentsUpdate(sequence=1, full=True, rows=[agent])),
        Told(
            update=CircuitsUpdate(
                sequence=1, full=True, rows=poisoned(canned.circuits()[3:4])
            )
        ),
        Told(
            update=PoliciesUpdate(
                sequence=1, full=True, rows=poisoned(canned.policies()[1:])
            )
        ),
        Told(
            update=BusUpdate(
                sequence=1, full=True, rows=poisoned(canned.subscriptions()[1:2])
            )
        ),
        Told(update=poisoned(canned.alarms())),
        Told(update=EventsUpdate(sequence=1, rows=[event, other])),
        Told(update=ProcessUpdate(sequence=1, rows=[poisoned(canned.process())])),
    ]
    return console(news=news, answers=answers)


@pytest.mark.parametrize(
    "keys",
    [
        "",
        "j",
        "jw",
        "jX",
        "jR",
        "2",
        "2T",
        "3",
        "3k",
        "4",
        "4w",
        "2>",
        "2>>",
        "5",
        "5>",
        "5>B",
        "5>F",
        "6",
        "6>",
        "7",
        "7S",
        "7>",
        "8",
        "8A",
        "8>",
        "8>>",
        "8>>>",
        "s",
    ],
)
def test_hostile_text_is_shown_as_it_is_written(
    hostile: Any, drive: Any, keys: str
) -> None:
    app = hostile

    async def journey(pilot: Pilot[None]) -> None:
        for key in keys:
            await pilot.press("tab" if key == ">" else key)
            await pilot.pause()
            app.tick()
        if keys[-1:] in ("R", "T"):
            assert_harmless(app)
            await pilot.press("right", "enter")
        await pilot.pause()
        assert_harmless(app)
        assert app.is_running

    drive(app, journey, size=(200, 50))
    assert app.return_code in (None, 0)


def assert_harmless(app: Any) -> None:
    """No character that a terminal obeys, no link, and the mark of the hostile text."""
    strips = app.screen._compositor.render_strips()
    text = "\n".join(strip.text for strip in strips)
    categories = {unicodedata.category(letter) for letter in text if letter != "\n"}
    assert not categories & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert SHOWN in text
    for strip in strips:
        for segment in strip:
            if segment.style is not None and "[@" in segment.text:
                assert "@click" not in segment.style.meta
                assert segment.style.link is None


def test_a_hostile_reason_for_a_lost_link_is_shown_as_it_is_written(
    console: Any, drive: Any
) -> None:
    app = console()

    async def journey(pilot: Pilot[None]) -> None:
        app.hear(Lost(why=HOSTILE))
        app.tick()
        await pilot.pause()
        assert_harmless(app)

    drive(app, journey, size=(200, 50))


SOURCES = sorted(Path(treewarden_console.__file__).parent.rglob("*.py"))
# Ways to the screen that read markup in strings, or draw without `Ink`.
FORBIDDEN = {
    "Static", "Label", "Markdown", "RichLog", "Log", "notify", "from_markup",
    "Pretty", "Text", "Placeholder", "Tooltip",
}  # fmt: skip
DRAWS = {"Segment", "Content"}


def named(tree: ast.AST) -> set[str]:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names | {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_only_ink_makes_what_is_drawn(path: Path) -> None:
    names = named(ast.parse(path.read_text()))
    assert not names & FORBIDDEN
    assert path.name == "ink.py" or not names & DRAWS


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_titles_are_made_by_ink(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                name = getattr(target, "attr", "")
                if name in ("border_title", "border_subtitle", "tooltip"):
                    made = node.value
                    assert isinstance(made, ast.Call)
                    assert getattr(made.func, "attr", "") == "title"
