"""The outline: which rows show, and a cursor that stays on its id."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from treewarden_console.state import Line, Outline, flat_lines, tree_lines


def rows(canned: Any) -> dict[str, Any]:
    return {node.path: node for node in canned.nodes()}


def ids(lines: list[Line]) -> list[str]:
    return [line.id for line in lines]


def test_a_tree_is_shown_in_start_order_with_the_system_last(canned: Any) -> None:
    lines = tree_lines(rows(canned), set())
    assert [line.id for line in lines if line.depth == 1] == [
        "/sites",
        "/frontier",
        "/fetchers",
        "/indexer",
        "/progress",
        "/system",
    ]
    assert ids(lines)[:3] == ["/", "/sites", "/sites/healthy"]


def test_a_folded_branch_hides_what_is_below_it(canned: Any) -> None:
    lines = tree_lines(rows(canned), {"/fetchers"})
    assert Line(id="/fetchers", depth=1, children=6, folded=True) in lines
    assert not [line for line in lines if line.id.startswith("/fetchers/")]


def test_a_filter_keeps_the_way_to_what_it_keeps(canned: Any) -> None:
    lines = tree_lines(rows(canned), {"/fetchers"}, lambda path: path.endswith("/f-3"))
    assert ids(lines) == ["/", "/fetchers", "/fetchers/f-3"]


def test_a_node_without_its_parent_is_a_root(canned: Any) -> None:
    orphan = canned.node("/gone/x")
    assert tree_lines({"/gone/x": orphan}, set()) == [Line(id="/gone/x")]


def test_the_cursor_stays_on_its_id_when_rows_move() -> None:
    outline = Outline()
    outline.show(flat_lines("abcde"))
    outline.go(2)
    outline.show(flat_lines("xyaebcd"))
    assert (outline.cursor, outline.row) == ("c", 5)


def test_a_cursor_whose_row_is_gone_goes_to_the_new_tenant() -> None:
    outline = Outline()
    outline.show(flat_lines("abc"))
    outline.go(1)
    outline.show(flat_lines("ac"))
    assert outline.cursor == "c"
    outline.show(flat_lines("a"))
    assert outline.cursor == "a"
    outline.show([])
    assert outline.cursor is None


def test_folding_a_leaf_goes_to_its_parent_and_unfolding_goes_in(canned: Any) -> None:
    outline = Outline()
    outline.show(tree_lines(rows(canned), outline.folded))
    outline.go(outline.index["/fetchers/f-2"])
    assert not outline.fold()
    assert outline.cursor == "/fetchers"
    assert outline.fold()
    outline.show(tree_lines(rows(canned), outline.folded))
    assert "/fetchers/f-2" not in outline.index
    assert outline.unfold()
    outline.show(tree_lines(rows(canned), outline.folded))
    assert not outline.unfold()
    assert outline.cursor == "/fetchers/f-1"


@given(
    st.lists(
        st.one_of(
            st.lists(st.sampled_from("abcdefgh"), unique=True),
            st.integers(-3, 12),
        )
    )
)
def test_the_cursor_is_always_on_a_row_that_is_there(steps: list[Any]) -> None:
    outline = Outline()
    for step in steps:
        if isinstance(step, int):
            outline.go(step)
        else:
            before = outline.cursor
            outline.show(flat_lines(step))
            assert before not in step or outline.cursor == before
        shown = [line.id for line in outline.lines]
        assert (outline.cursor in shown) if shown else outline.cursor is None
        assert all(outline.index[id_] == at for at, id_ in enumerate(shown))
