"""Every double says what turns red for it; `make sabotage` sees that it does."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.sabotage.doubles import ALL, AREAS

_ROOT = Path(__file__).parents[2]
_TESTS = _ROOT / "tests"
_NOT_AREAS = {"__init__", "__main__", "double", "doubles"}
_PITFALLS = re.compile(r"[Pp]itfalls? (\d+(?:(?:, | and | to )\d+)*)")


def _numbers(text: str) -> set[int]:
    """Of the pitfalls that it names."""
    found = " ".join(_PITFALLS.findall(text))
    return {int(number) for number in re.findall(r"\d+", found)}


def _functions(file: str) -> set[str]:
    text = (_ROOT / file).read_text(encoding="utf-8")
    return set(re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE))


def _pitfalls() -> dict[int, str]:
    """The reason why there is no double, by number; "" where there is one."""
    lines = (_TESTS / "data" / "pitfalls.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return {int(number): reason for number, _, reason in rows}


def _docstring(test: str) -> str:
    file, _, function = test.partition("::")
    return _docstrings(file)[function]


@cache
def _docstrings(file: str) -> dict[str, str]:
    module = ast.parse((_ROOT / file).read_text(encoding="utf-8"))
    return {
        one.name: " ".join((ast.get_docstring(one) or "").split())
        for one in module.body
        if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def test_every_area_is_among_those_that_are_run() -> None:
    modules = {path.stem for path in (_TESTS / "sabotage").glob("*.py")}
    assert modules - _NOT_AREAS == set(AREAS)


def test_every_double_has_a_name_of_its_own_and_says_what_is_wrong() -> None:
    assert len(ALL) == sum(len(area.doubles) for area in AREAS.values())
    assert [name for name, double in ALL.items() if not double.says] == []


def test_every_test_that_a_double_names_exists() -> None:
    lost = []
    for name, double in ALL.items():
        for test in double.caught_by:
            file, _, function = test.partition("::")
            if function not in _functions(file):
                lost.append((name, test))
    assert lost == []


def test_what_every_double_breaks_is_there() -> None:
    """A double that breaks without `replace` would break every test that follows here."""
    lost = []
    broken: list[str] = []

    def look(owner: object, attribute: str, _: object) -> None:
        broken.append(attribute)
        if not hasattr(owner, attribute):
            lost.append(f"{owner!r} has no {attribute}")

    by_itself = []
    for name, double in ALL.items():
        before = len(broken)
        double.breaks(look)
        if len(broken) == before:
            by_itself.append(name)
    assert (lost, by_itself) == ([], [])


def test_every_pitfall_has_a_double_or_a_reason() -> None:
    """Spec section 5: the 79 mistakes of a naive implementation."""
    pitfalls = _pitfalls()
    assert list(pitfalls) == list(range(1, 80))
    without = {number for number, reason in pitfalls.items() if not reason}
    assert {number for one in ALL.values() for number in _numbers(one.says)} == without


def test_a_double_of_a_pitfall_is_caught_by_tests_that_name_it() -> None:
    silent = [
        (name, test)
        for name, double in ALL.items()
        for test in double.caught_by
        if _numbers(double.says) - _numbers(_docstring(test))
    ]
    assert silent == []


def test_every_flaw_that_a_test_is_named_for_has_a_double() -> None:
    """A test of a flaw counts once it was seen to fail."""
    caught = {test.partition("::")[2] for one in ALL.values() for test in one.caught_by}
    shown = {name.split("_")[1] for name in caught}
    flaws = {
        (name.split("_")[1], path.name)
        for path in _TESTS.rglob("test_*.py")
        for name in _functions(str(path.relative_to(_ROOT)))
        if re.match(r"test_[fh]\d\d_", name)
    }
    assert sorted((flaw, file) for flaw, file in flaws if flaw not in shown) == []
