"""Every case of OTP that applies to us is held by a test that names it."""

from __future__ import annotations

import runpy
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def cases(root: Path) -> dict[str, Any]:
    """What `tests/cases.py` defines."""
    return runpy.run_path(str(root / "tests" / "cases.py"))


def test_every_case_has_a_test_or_a_reason_why_not(cases: dict[str, Any]) -> None:
    assert cases["problems"]() == []


def test_the_table_of_cases_is_that_of_today(cases: dict[str, Any]) -> None:
    written = cases["TABLE"].read_text(encoding="utf-8")
    assert written == cases["table"](), "write it again: python -m tests.cases"


@pytest.mark.parametrize(
    ("docstring", "ids"),
    [
        ("RST-04", ["RST-04"]),
        ("RST-04, INT-10: and words about STA-01", ["RST-04", "INT-10"]),
        ("REG-09 to REG-11 and REG-13", ["REG-09", "REG-10", "REG-11", "REG-13"]),
        ("F43, S04, REG-13", ["REG-13"]),
        ("TA-13, RST-10, pitfall 72: nor what its frames held.", ["RST-10"]),
        ("G7b, GX2 and G10", ["G7b", "GX2", "G10"]),
        ("Words about RST-04.", []),
        ("", []),
    ],
)
def test_a_docstring_names_its_cases_at_its_head(
    cases: dict[str, Any], docstring: str, ids: list[str]
) -> None:
    areas = {"RST", "INT", "STA", "REG", "G", "GX"}
    assert [*cases["_named"](docstring, areas)] == ids


def test_a_case_without_a_test_is_a_problem(
    cases: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is read as it stands, with one claim after the other taken away."""
    claimed = cases["claims"]()
    functions = cases["problems"].__globals__
    needed = [
        case for case in cases["cases"]() if case.tag in {"1", "2"} and not case.excused
    ]
    for case in needed[::20]:
        rest = {id_: tests for id_, tests in claimed.items() if id_ != case.id}
        monkeypatch.setitem(functions, "claims", lambda rest=rest: rest)
        assert any(case.id in problem for problem in functions["problems"]())
    claims = claimed | {"RST-99": ["test_it"]}
    monkeypatch.setitem(functions, "claims", lambda: claims)
    assert functions["problems"]()[-1] == "test_it names RST-99, which nobody knows"
