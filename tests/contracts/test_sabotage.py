"""Every double says what turns red for it; `make sabotage` sees that it does."""

from __future__ import annotations

import re
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_SABOTAGE = _ROOT / "tests" / "sabotage"
_NOT_DOUBLES = {"__main__", "double", "doubles", "plugin"}
_NAMED = re.compile(r"\btest_[a-z0-9_]+")


def _areas() -> list[Path]:
    return sorted(p for p in _SABOTAGE.glob("*.py") if p.stem not in _NOT_DOUBLES)


def test_every_area_is_among_those_that_are_run() -> None:
    table = (_SABOTAGE / "doubles.py").read_text(encoding="utf-8")
    assert [a.stem for a in _areas() if f"{a.stem}.DOUBLES" not in table] == []


def test_every_test_that_a_double_names_exists() -> None:
    tests = "".join(
        f"def {path.stem}\n" + path.read_text(encoding="utf-8")
        for path in (_ROOT / "tests").rglob("test_*.py")
    )
    there = set(re.findall(r"\bdef (test_[a-z0-9_]+)", tests))
    named = {
        name for area in _areas() for name in _NAMED.findall(area.read_text("utf-8"))
    }
    assert named
    assert named - there == set()
