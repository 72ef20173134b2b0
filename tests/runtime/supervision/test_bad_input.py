"""Whatever is wrong in a description is refused where it is written, and shown."""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden import (
    Application,
    ChildSpec,
    Config,
    DynamicSupervisorSpec,
    Intensity,
    MailboxPolicy,
    SupervisorSpec,
    open_supervisor,
)
from treewarden.errors import ConfigError
from treewarden.resilience import Backoff
from treewarden.supervision import PartitionSupervisorSpec

if TYPE_CHECKING:
    from collections.abc import Callable

HUGE = 10**400  # an int to Python, and more than any float


async def work() -> None:
    await trio.sleep_forever()


ODD: list[object] = [
    *(None, True, False, math.nan, math.inf, -math.inf, -1, -0.5, 0, 1.5, HUGE, 1j),
    *("", "x", "5", "permanent ", "a/b", "a\n", b"x", object(), print, float, work),
    *([], (), {}, [3], ["x"], {"x": 3}, {3: "x"}, {"x"}, Path("x")),
]


@dataclass(frozen=True)
class Wrong:
    """One field of a description, and which odd values are none of its business."""

    made: type[Any]
    field: str
    fine: Callable[[object], bool]
    rest: dict[str, Any]


def is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    return (is_int(value) or isinstance(value, float)) and value is not HUGE


def at_least(least: float, *, most: float = math.inf) -> Callable[[object], bool]:
    return lambda value: is_number(value) and least <= float(str(value)) <= most


def one_of(*fine: object) -> Callable[[object], bool]:
    return lambda value: any(value is one for one in fine)


def empty(value: object) -> bool:
    return isinstance(value, (list, tuple)) and not value


def word(value: object) -> bool:
    return value in ("x", "5")


def path(value: object) -> bool:
    return isinstance(value, Path) or (isinstance(value, str) and value != "")


def intensity(made: type[Any], field: str = "intensity", **rest: Any) -> Wrong:
    fine = one_of(None) if made is ChildSpec or field != "intensity" else one_of()
    return Wrong(made, field, fine, rest)


CHILD: dict[str, Any] = {"id": "a", "start": work}
APPLICATION: dict[str, Any] = {"name": "a", "children": []}
FIELDS = [
    Wrong(ChildSpec, "id", word, CHILD),
    Wrong(ChildSpec, "start", one_of(work), CHILD),
    Wrong(ChildSpec, "args", lambda one: isinstance(one, (list, tuple)), CHILD),
    Wrong(ChildSpec, "kwargs", lambda one: one in ({}, {"x": 3}), CHILD),
    Wrong(ChildSpec, "restart", one_of(), CHILD),
    Wrong(ChildSpec, "shutdown", lambda one: one is None or at_least(0)(one), CHILD),
    Wrong(
        ChildSpec, "significant", one_of(True, False), CHILD | {"restart": "temporary"}
    ),
    Wrong(ChildSpec, "start_timeout", at_least(1), CHILD),
    Wrong(ChildSpec, "isolation", one_of(), CHILD),
    intensity(ChildSpec, **CHILD),
    Wrong(ChildSpec, "backoff", one_of(None), CHILD),
    Wrong(SupervisorSpec, "children", empty, {}),
    Wrong(SupervisorSpec, "strategy", one_of(), {}),
    intensity(SupervisorSpec),
    Wrong(SupervisorSpec, "auto_shutdown", one_of(), {}),
    Wrong(
        DynamicSupervisorSpec,
        "max_children",
        lambda one: one == math.inf or (is_int(one) and one != -1),
        {},
    ),
    intensity(DynamicSupervisorSpec),
    intensity(DynamicSupervisorSpec, "child_intensity"),
    Wrong(DynamicSupervisorSpec, "remember", one_of(True, False), {}),
    Wrong(PartitionSupervisorSpec, "child", one_of(work), {}),
    Wrong(PartitionSupervisorSpec, "partitions", one_of(), {"child": work}),
    Wrong(PartitionSupervisorSpec, "strategy", one_of(), {"child": work}),
    Wrong(Application, "name", word, APPLICATION),
    Wrong(Application, "children", empty, APPLICATION),
    Wrong(Application, "strategy", one_of(), APPLICATION),
    intensity(Application, **APPLICATION),
    Wrong(Intensity, "limit", lambda one: is_int(one) and one != -1, {}),
    Wrong(Intensity, "period", lambda one: one is HUGE or at_least(1, most=9)(one), {}),
    Wrong(MailboxPolicy, "capacity", one_of(HUGE), {}),
    Wrong(MailboxPolicy, "overflow", one_of(), {}),
    Wrong(MailboxPolicy, "durable", lambda one: isinstance(one, bool), {}),
    Wrong(MailboxPolicy, "max_attempts", one_of(HUGE), {}),
    Wrong(Backoff, "initial", at_least(0, most=9), {}),
    Wrong(Backoff, "maximum", at_least(1, most=9), {}),
    Wrong(Backoff, "factor", at_least(1, most=9), {}),
    Wrong(Backoff, "jitter", at_least(0, most=1), {}),
    Wrong(Backoff, "decorrelated", lambda one: isinstance(one, bool), {}),
    Wrong(Config, "name", lambda one: one is None or word(one), {}),
    Wrong(Config, "store", lambda one: one is None or path(one), {}),
    Wrong(Config, "level", one_of(), {}),
    Wrong(Config, "socket", lambda one: one_of(None, False)(one) or path(one), {}),
    Wrong(Config, "rights", one_of(), {}),
    Wrong(Config, "otlp", one_of(None), {}),
    Wrong(Config, "log_level", one_of(), {}),
    Wrong(
        Config, "journal_days", lambda one: one == "5" or at_least(1, most=9)(one), {}
    ),
    Wrong(Config, "journal_bytes", one_of(), {}),
    *(
        # What a variable says is text, so these two take numbers as text as well.
        Wrong(
            Config,
            name,
            lambda one: one in (None, "5") or at_least(0, most=9)(one),
            {},
        )
        for name in ("shutdown", "until_console_gone")
    ),
]


@pytest.mark.parametrize(
    "wrong", FIELDS, ids=[f"{one.made.__name__}.{one.field}" for one in FIELDS]
)
def test_what_does_not_fit_a_field_is_refused_and_shown(wrong: Wrong) -> None:
    """SPC-01, SPC-06, INT-12, DYN-03"""
    for value in ODD:
        fields_given = wrong.rest | {wrong.field: value}
        if wrong.fine(value):
            wrong.made(**fields_given)
            continue
        with pytest.raises((TypeError, ValueError, ConfigError)) as caught:
            wrong.made(**fields_given)
            pytest.fail(f"{wrong.field} took {value!r}")
        assert shown(value) in str(caught.value)


def shown(value: object) -> str:
    """How a message that shows a value begins to do so; of a class, the name is enough."""
    return value.__name__ if isinstance(value, type) else repr(value).strip("[]()")[:30]


def test_no_field_is_left_out() -> None:
    """SPC-01"""
    tried = {(one.made, one.field) for one in FIELDS}
    there = {
        (made, field.name)
        for made in {one.made for one in FIELDS} - {PartitionSupervisorSpec}
        for field in fields(made)
    }
    assert there - tried == set()


@pytest.mark.parametrize(
    "made",
    [
        *(ChildSpec, SupervisorSpec, DynamicSupervisorSpec, PartitionSupervisorSpec),
        *(Application, Intensity, MailboxPolicy, Backoff, Config),
    ],
)
def test_a_field_that_does_not_exist_is_refused_by_name(made: type[Any]) -> None:
    """SPC-06"""
    rest: dict[str, Any] = {ChildSpec: CHILD, Application: APPLICATION}.get(made, {})
    if made is PartitionSupervisorSpec:
        rest = {"child": work}
    with pytest.raises(TypeError, match="'restrat'"):
        made(**rest, restrat="permanent")


@pytest.mark.parametrize(
    "id_",
    [
        "",
        "/",
        "a/b",
        "a b",
        " a",
        "a\n",
        "a\x00",
        "a\x1b[0m",
        "é",
        "..",
        "-a",
        "a" * 129,
    ],
)
def test_an_id_that_is_no_word_of_a_path_is_refused_and_shown(id_: str) -> None:
    """STA-07, SPC-01"""
    shown_so = re.escape(repr(id_))
    with pytest.raises(ValueError, match=shown_so):
        ChildSpec(id_, work)
    with pytest.raises(ValueError, match=f"^an application's name .*{shown_so}"):
        Application(id_, [])


@pytest.mark.parametrize("name", ["_a", "a:b", "a@b", "a+b", "a" * 65])
def test_an_application_is_not_called_what_no_file_can_be(name: str) -> None:
    with pytest.raises(ValueError, match="application") as caught:
        Application(name, [])
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("id_", ["system", "application"])
def test_an_id_that_the_runtime_needs_is_refused_to_applications(id_: str) -> None:
    child = ChildSpec(id_, work)
    with pytest.raises(ValueError, match=f"'{id_}' is reserved"):
        Application("a", [child])
    assert SupervisorSpec([child]).children == (child,)


def test_a_loop_that_is_not_trios_is_refused_by_name() -> None:
    async def main() -> None:
        async with open_supervisor():
            pass

    with pytest.raises(RuntimeError, match="treewarden runs on trio"):
        asyncio.run(main())


def test_an_id_is_there_once_among_siblings() -> None:
    """SPC-03"""
    twins = [ChildSpec("a", work), ChildSpec("b", work), ChildSpec("a", work)]
    with pytest.raises(ValueError, match="two children have the id 'a'"):
        SupervisorSpec(twins)
    with pytest.raises(ValueError, match="two children have the id 'a'"):
        Application("app", twins)
