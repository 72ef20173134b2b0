"""From the cases of OTP to the tests that hold them: one table, kept true by a test.

    python -m tests.cases            write tests/cases.md again

`tests/data/cases.tsv` lists what the test suites of Erlang/OTP and Elixir demand, in our
words. Tag 1: core; 2: should have; 3: later or optional; N/A: nothing to do here; G: a
golden result, measured on a real OTP. A note says why a case does not apply, or, after
"ours:", how we differ on purpose. A test covers a case by naming it at the head of its
docstring: "RST-04, RST-05", "REG-01 to REG-05", "F43, TSV-01: and then words".
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS: Final = Path(__file__).parent
TABLE: Final = TESTS / "cases.md"
_LIST: Final = TESTS / "data" / "cases.tsv"
_NEEDED: Final = {"1", "2", "G"}
_OURS: Final = "ours:"

_ONE: Final = r"(?:pitfall )?[A-Z]*-?\d+[a-z]?(?: to [A-Z]+-?\d+)?"
_HEAD: Final = re.compile(rf"{_ONE}(?:(?:, and |, | and ){_ONE})*")
_IDS: Final = re.compile(r"(?P<area>[A-Z]+)(?P<dash>-?)(?P<first>\d+)(?P<rest>[a-z]?)"
                         r"(?: to [A-Z]+-?(?P<last>\d+))?")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a case demands; without a tag it is the heading of those that follow."""

    id: str
    tag: str
    what: str
    note: str

    @property
    def differs(self) -> bool:
        """Whether we hold to it in our own way, and a test shows which."""
        return self.note.startswith(_OURS)

    @property
    def excused(self) -> bool:
        """Whether the note says why no test can hold it."""
        return bool(self.note) and not self.differs


def cases() -> list[Case]:
    """The list, in the order of the specification, with the headings of its areas."""
    _, *lines = _LIST.read_text(encoding="utf-8").splitlines()
    fields = (line.split("\t") for line in lines)
    return [
        Case(id=id_, tag=tag, what=what, note="".join(note))
        for id_, tag, what, *note in fields
    ]


def claims() -> dict[str, list[str]]:
    """The names of the tests that name each case, in the order of their files."""
    areas = {case.id for case in cases() if not case.tag} | {"GX"}
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for name, docstring in _tests(path):
            for case in _named(docstring, areas):
                found[case].append(name)
    return dict(found)


def problems() -> list[str]:
    """What is wrong with the coverage: nothing, when every case is held or excused."""
    listed, claimed = {case.id: case for case in cases() if case.tag}, claims()
    missing = [
        f"{case.id} [{case.tag}] has no test: {case.what}"
        for case in listed.values()
        if case.id not in claimed
        and ((case.tag in _NEEDED and not case.excused) or case.differs)
    ]
    contradictions = [
        f"{case.id} does not apply ({case.note}), yet {claimed[case.id][0]} names it"
        for case in listed.values()
        if case.excused and case.id in claimed
    ]
    unknown = [
        f"{tests[0]} names {case}, which nobody knows"
        for case, tests in claimed.items()
        if case not in listed
    ]
    return [*missing, *contradictions, *unknown]


def table() -> str:
    """The whole table, to be read by people."""
    return "\n".join([*_preface(), *_rows(claims()), ""])


def _tests(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(
            node, (ast.FunctionDef, ast.AsyncFunctionDef)
        ) and node.name.startswith("test_"):
            yield node.name, " ".join((ast.get_docstring(node) or "").split())


def _named(docstring: str, areas: set[str]) -> Iterator[str]:
    head = _HEAD.match(docstring)
    for ids in _IDS.finditer(head[0] if head else ""):
        if ids["area"] in areas:
            first, last = int(ids["first"]), int(ids["last"] or ids["first"])
            width = len(ids["first"])
            for number in range(first, last + 1):
                yield f"{ids['area']}{ids['dash']}{number:0{width}}{ids['rest']}"


def _preface() -> list[str]:
    held = claims().keys()
    listed = [case for case in cases() if case.tag]
    needed = [case for case in listed if case.tag in _NEEDED and not case.excused]
    return [
        "# Which test holds which case",
        "",
        "Made by `python -m tests.cases` from `data/cases.tsv` and the docstrings of the",
        "tests; do not edit. Tags: 1 core, 2 should have, 3 later or optional, G a golden",
        "result measured on a real OTP. P, T and X are permanent, transient and temporary",
        "children; 2/2/0/2 counts specifications, active ones, supervisors, workers.",
        "",
        f"{len(listed)} cases; {sum(case.id in held for case in needed)} of {len(needed)}"
        " that apply and are tagged 1, 2 or G are held by tests.",
    ]


def _rows(claimed: dict[str, list[str]]) -> Iterator[str]:
    for case in cases():
        if case.tag:
            yield f"| {case.id} | {case.tag} | {_cell(case, claimed)} |"
        else:
            yield f"\n## {case.id}: {case.what}\n"
            yield "| case | tag | what it demands; which tests hold it |\n|---|---|---|"


def _cell(case: Case, claimed: dict[str, list[str]]) -> str:
    what = case.what.replace("|", "\\|")
    note = f"<br>**{case.note}**" if case.note else ""
    tests = "".join(f"<br>`{name}`" for name in claimed.get(case.id, []))
    return f"{what}{note}{tests}" if note or tests else f"{what}<br>*later*"


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
