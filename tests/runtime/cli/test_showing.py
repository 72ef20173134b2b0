"""Answers of a runtime as text and as JSON."""

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from treewarden.cli import showing
from treewarden.control.protocol import (
    AgentState,
    CircuitRow,
    CollectionRow,
    EventRow,
    Explanation,
    FaultRow,
    LayerRow,
    NodeRow,
    PolicyRow,
    Raw,
)

HOSTILE = "\x1b]0;pwned\x07\u202e[@click=app.quit]x[/]\n\x9b31m"


def node(
    path: str, parent: str | None, incarnation: int = 1, restarts: int = 0
) -> NodeRow:
    return NodeRow(
        path=path,
        id=path[path.rindex("/") + 1 :] or "root",
        parent=parent,
        kind="task",
        state="running",
        incarnation=incarnation,
        restarts=restarts,
        last_exit=path,
    )


TREE = [
    node("/", None),
    node("/a", "/", incarnation=2, restarts=1),
    node("/a/b", "/a"),
    node("/c", "/"),
]


def test_a_tree_is_nested_json_with_seven_keys_a_node() -> None:
    [root] = json.loads(showing.tree_json(TREE, "durable"))["nodes"]
    assert [child["path"] for child in root["children"]] == ["/a", "/c"]
    [a, c] = root["children"]
    assert a == {
        "path": "/a",
        "id": "a",
        "kind": "task",
        "state": "running",
        "incarnation": 2,
        "restarts": 1,
        "children": a["children"],
    }
    assert [child["path"] for child in a["children"]] == ["/a/b"]
    assert c["children"] == []


def test_a_part_of_a_tree_has_its_own_top() -> None:
    [top] = json.loads(showing.tree_json(TREE[1:3], "durable"))["nodes"]
    assert top["path"] == "/a"


def test_a_tree_as_text_is_indented() -> None:
    lines = showing.tree_text(TREE).splitlines()
    assert [line.split("  task")[0].rstrip() for line in lines[1:]] == [
        "root",
        "  a",
        "    b",
        "  c",
    ]


def test_what_is_folded_is_counted_while_it_is_well_and_shown_when_it_is_not() -> None:
    def shown(rows: list[NodeRow]) -> list[str]:
        lines = showing.tree_text(rows, fold="/a").splitlines()
        return [line.split("  task")[0].strip() for line in lines[1:]]

    plain = [node("/", None), node("/a", "/"), node("/a/b", "/a"), node("/ac", "/")]
    assert shown(plain) == ["root", "a (1)", "ac"]
    assert shown([*plain, node("/a/d", "/a", restarts=1)])[1:3] == ["a", "b"]
    stopped = msgspec.structs.replace(node("/a/d", "/a"), state="stopped")
    assert shown([*plain, stopped])[1:3] == ["a", "b"]


def test_a_deep_tree_is_no_problem() -> None:
    deep = [node(f"/{depth}", f"/{depth - 1}") for depth in range(300)]
    assert showing.tree_json(deep, "durable").count('"path"') == 300


def test_json_has_every_field_also_those_at_their_defaults() -> None:
    circuit = json.loads(
        showing.as_json(CircuitRow(name="x", state="closed", since_ns=1))
    )
    assert circuit["rejected"] == 0
    assert circuit["retry_after"] is None


def test_json_inside_json_is_json() -> None:
    state = AgentState(
        path="/a", type="A", version=1, incarnation=1, state=Raw(b'{"n":[1]}')
    )
    assert json.loads(showing.as_json({"x": [state]}))["x"][0]["state"] == {"n": [1]}


def test_json_is_ascii_so_that_no_terminal_obeys_it() -> None:
    text = showing.as_json({"x": HOSTILE})
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == {"x": HOSTILE}


def test_hostile_text_is_shown_literally_everywhere() -> None:
    fault = FaultRow(type="E", message=HOSTILE, frames=[(HOSTILE, 1, HOSTILE)])
    payload = Raw(json.dumps(HOSTILE, ensure_ascii=False).encode())
    shown = [
        showing.tree_text([node(f"/{HOSTILE}", None)]),
        showing.event_text(
            EventRow(
                position=1, topic=HOSTILE, at_ns=0, source=HOSTILE, payload=payload
            )
        ),
        showing.circuits_text(
            [CircuitRow(name=HOSTILE, state="open", since_ns=0, last_error=HOSTILE)]
        ),
        showing.queues_text(
            [CollectionRow(path=HOSTILE, name=HOSTILE, kind=HOSTILE, items=1)]
        ),
        showing.state_text(
            AgentState(
                path=HOSTILE,
                type=HOSTILE,
                version=1,
                incarnation=1,
                state=payload,
                committed_at_ns=1,
            )
        ),
        showing.why_text(
            Explanation(
                path=HOSTILE,
                incarnation=1,
                cause="crash",
                sentence=HOSTILE,
                by=HOSTILE,
                took_down=[HOSTILE],
                fault=fault,
                state_before=payload,
            )
        ),
    ]
    for text in shown:
        assert "pwned" in text
        assert all(line.isprintable() for line in text.split("\n")), text


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=5))
def test_a_table_has_one_line_a_row_whatever_is_in_it(rows: list[list[str]]) -> None:
    lines = showing.table(("A", "B"), rows).split("\n")
    assert len(lines) == len(rows) + 1


def test_a_story_tells_cause_before_effect() -> None:
    cause = FaultRow(type="OSError", message="gone")
    why = Explanation(
        path="/a",
        incarnation=2,
        cause="crash",
        sentence="/a crashed",
        at_ns=0,
        fault=FaultRow(type="KeyError", message="x", cause=cause),
        state_before=Raw(b'{"n":1}'),
    )
    text = showing.why_text(why)
    places = [
        text.index(word)
        for word in ("/a crashed", "OSError: gone", "KeyError: x", "state before")
    ]
    assert places == sorted(places)


def test_a_story_shows_a_state_that_is_the_same_after_as_before_once() -> None:
    same = Explanation(
        path="/a",
        incarnation=2,
        cause="crash",
        sentence="/a crashed",
        origin="/a",
        state_before=Raw(b'{"n":3}'),
        state_after=Raw(b'{"n":3}'),
    )
    text = showing.why_text(same)
    assert "state before and after:" in text
    assert text.count('"n": 3') == 1
    assert "began at" not in text
    assert "now in" not in text
    busy = showing.why_text(msgspec.structs.replace(same, now="add (a.py:3)"))
    assert "\n    now in: add (a.py:3)\n" in busy
    other = msgspec.structs.replace(same, state_after=Raw(b'{"n":4}'))
    assert '"n": 4' in showing.why_text(other)


def test_a_story_ends_with_what_failed_before_newest_first() -> None:
    """S50"""
    faults = [
        EventRow(position=n, topic="supervision.exited", at_ns=n, payload=Raw(payload))
        for n, payload in enumerate(
            [
                b'{"exit":"crashed: KeyError: x","operation":"add","where":"a.py:3"}',
                b'{"detail":"/a did not start"}',
            ]
        )
    ]
    why = Explanation(
        path="/a",
        incarnation=1,
        cause="none",
        sentence="/a never restarted",
        faults=faults,
        faults_total=30,
    )
    *_, heading, newest, oldest = showing.why_text(why).split("\n")
    assert heading == "failed 30 times within the last day; the newest 2:"
    assert newest.endswith("/a did not start")
    assert oldest.endswith("crashed: KeyError: x at a.py:3, handling add")


def test_a_time_no_calendar_has_is_a_number() -> None:
    assert showing.when(10**30) == str(10**30)
    assert len(showing.when(0)) == len("1970-01-01 00:00:00.000")


def test_the_last_column_gives_way_to_a_narrow_terminal() -> None:
    rows = [("a", "x" * 50), ("bb", "y")]
    assert showing.table(("A", "WHY"), rows, 30).splitlines() == [
        "A   WHY",
        f"a   {'x' * 23}...",
        "bb  y",
    ]


def test_nothing_is_cut_where_that_would_not_make_it_fit() -> None:
    rows = [("a" * 25, "x" * 50)]
    assert showing.table(("A", "WHY"), rows, 30).endswith("x" * 50)


def test_a_layer_tells_people_instants_and_not_every_bit_of_a_number() -> None:
    """What is zero or empty says nothing."""
    numbers: dict[str, str | int | float | None] = {
        "since_ns": 10**18,
        "retry_after": 1.059977273005643,
        "limit": 20,
        "shares": "()",
        "waiting": 0,
    }
    row = PolicyRow(name="p", layers=[LayerRow(layer="circuit", numbers=numbers)])
    said = showing.policies_text([row]).splitlines()[-1].split(None, 1)[1]
    assert said == f"since={showing.when(10**18)}  retry_after=1.05998  limit=20"
