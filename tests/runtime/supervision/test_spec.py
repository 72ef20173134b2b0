from __future__ import annotations

import abc
import functools
import itertools
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from treewarden.resilience import Backoff
from treewarden.supervision import (
    Application,
    ChildSpec,
    DynamicSupervisorSpec,
    Intensity,
    SupervisorSpec,
    check_id,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


async def work() -> None:
    await trio.sleep_forever()


async def work_for(seconds: float, *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await trio.sleep(seconds)


@asynccontextmanager
async def resource() -> AsyncIterator[str]:
    yield "it"


async def generator() -> AsyncIterator[int]:
    yield 1


def plain() -> None: ...


class Door:
    async def __aenter__(self) -> Door:
        return self

    async def __aexit__(self, *_: object) -> None: ...


class Callee:
    async def __call__(self) -> None: ...

    async def method(self) -> None: ...


def test_a_child_is_permanent_and_has_five_seconds_to_stop_unless_told() -> None:
    """SPC-04, RST-15 as overruled by design 3: functions too."""
    spec = ChildSpec("a", work)
    assert (spec.restart, spec.shutdown_seconds()) == ("permanent", 5.0)
    assert (spec.args, dict(spec.kwargs), spec.start_timeout) == ((), {}, 30.0)
    assert (spec.intensity, spec.backoff) == (None, None)


@pytest.mark.parametrize("start", [SupervisorSpec(), DynamicSupervisorSpec()])
def test_a_supervisor_has_for_ever_to_stop_unless_told(start: object) -> None:
    """SPC-04, SHD-01"""
    assert ChildSpec("s", start).shutdown_seconds() == math.inf
    assert ChildSpec("s", start, shutdown=2).shutdown_seconds() == 2


@pytest.mark.parametrize("start", [SupervisorSpec(), DynamicSupervisorSpec()])
def test_a_supervisor_has_for_ever_to_start_unless_told(start: object) -> None:
    """SPC-04, STA-08"""
    assert ChildSpec("s", start).start_timeout == math.inf
    assert ChildSpec("s", start, start_timeout=30.0).start_timeout == 30.0


def test_every_combination_of_valid_values_is_a_child() -> None:
    """SPC-02: and is taken by every supervisor that heeds its significance."""
    starts = [work, resource, Door, SupervisorSpec(), DynamicSupervisorSpec()]
    restarts = ["permanent", "transient", "temporary"]
    shutdowns = [None, 0, 0.5, 7, math.inf]
    backoffs = [None, Backoff()]
    modes = ["never", "any_significant", "all_significant"]
    for start, restart, shutdown, backoff, significant in itertools.product(
        starts, restarts, shutdowns, backoffs, (False, True)
    ):
        make = functools.partial(
            ChildSpec,
            *("a", start),
            restart=restart,
            shutdown=shutdown,
            backoff=backoff,
            significant=significant,
        )
        if significant and restart == "permanent":
            with pytest.raises(ValueError, match="must be transient or temporary"):
                make()
            continue
        spec = make()
        assert (spec.restart, spec.shutdown) == (restart, shutdown)
        assert (spec.start, spec.significant) == (start, significant)
        for mode in modes:
            if significant and mode == "never":
                with pytest.raises(ValueError, match="a significant child needs"):
                    SupervisorSpec([spec], auto_shutdown=mode)
            else:
                supervisor = SupervisorSpec([spec], auto_shutdown=mode)
                assert supervisor.children == (spec,)


@pytest.mark.parametrize(
    "start",
    [
        work,
        functools.partial(work_for, 1.0),
        resource,
        functools.partial(resource),
        Door,
        Callee(),
        Callee().method,
        SupervisorSpec(),
        DynamicSupervisorSpec(),
    ],
)
def test_what_can_be_awaited_entered_or_supervised_can_be_a_child(
    start: object,
) -> None:
    """SPC-08"""
    assert ChildSpec("a", start).start is start


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: work(), "coroutine; give the function itself"),
        (lambda: plain, "must be async"),
        (lambda: lambda: work(), "must be async"),
        (lambda: generator, "asynccontextmanager"),
        (generator, "<async_generator object generator"),
        (lambda: int, "int is no Agent subclass"),
        (lambda: "work", "'work'"),
        (lambda: "no.such.module:work", "'no.such.module:work'"),
        (lambda: (Door, ()), "Door"),
        (lambda: functools.partial(int), "functools.partial(<class 'int'>)"),
        (lambda: None, "None"),
    ],
)
def test_what_cannot_be_a_child_is_refused_with_a_hint(
    make: Callable[[], object], hint: str
) -> None:
    """SPC-09, SPC-11"""
    with pytest.raises(TypeError, match=r"^a: ") as caught:
        ChildSpec("a", make())
    assert hint in str(caught.value)
    # Either it says what is taken, or what to do to this one.
    assert "an Agent subclass, an async function, " in str(caught.value) or (
        "give the function itself" in hint or "asynccontextmanager" in hint
    )


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"restart": "always"}, ValueError, "'always'"),
        ({"restart": 1}, ValueError, "1"),
        ({"shutdown": -1}, ValueError, "-1"),
        ({"shutdown": math.nan}, ValueError, "nan"),
        ({"shutdown": "5"}, TypeError, "'5'"),
        ({"shutdown": True}, TypeError, "True"),
        ({"shutdown": "brutal_kill"}, TypeError, "'brutal_kill'"),
        ({"start_timeout": 0}, ValueError, "0"),
        ({"start_timeout": math.nan}, ValueError, "nan"),
        ({"start_timeout": None}, TypeError, "None"),
        ({"args": "abc"}, TypeError, "'abc'"),
        ({"args": 3}, TypeError, "3"),
        ({"kwargs": [1]}, TypeError, "[1]"),
        ({"intensity": 3}, TypeError, "3"),
        ({"backoff": 0.5}, TypeError, "0.5"),
    ],
)
def test_a_wrong_field_is_refused_by_name_and_value(
    fields: dict[str, Any], error: type[Exception], words: str
) -> None:
    """SPC-01"""
    with pytest.raises(error) as caught:
        ChildSpec("a", work, **fields)
    assert words in str(caught.value)
    assert next(iter(fields)) in str(caught.value)


def test_an_unknown_field_is_refused() -> None:
    """SPC-06: OTP ignores it; a typo is better found."""
    wrong: dict[str, Any] = {"shut_down": 1}
    with pytest.raises(TypeError, match="shut_down"):
        ChildSpec("a", work, **wrong)


def test_a_child_needs_an_id_and_a_start() -> None:
    """SPC-01"""
    make: Any = ChildSpec
    with pytest.raises(TypeError, match="start"):
        make("a")
    with pytest.raises(TypeError, match="id"):
        make(start=work)


@pytest.mark.parametrize("id_", ["a", "f-3", "_x", "A.b:c@d+e", "0", "x" * 128])
def test_an_id_is_a_word_of_a_path(id_: str) -> None:
    check_id(id_)


@pytest.mark.parametrize("id_", ["", "a/b", " a", "-a", ".", "é", "x" * 129, "a\n"])
def test_what_would_not_fit_into_a_path_is_refused_as_an_id(id_: str) -> None:
    """SPC-01, STA-07"""
    with pytest.raises(ValueError, match="id"):
        ChildSpec(id_, work)


def test_an_id_that_is_no_text_is_refused() -> None:
    """SPC-01"""
    wrong: Any = 7
    with pytest.raises(TypeError, match="7"):
        ChildSpec(wrong, work)


def test_two_children_of_one_id_are_refused() -> None:
    """SPC-03"""
    with pytest.raises(ValueError, match="'a'"):
        SupervisorSpec([ChildSpec("a", work), ChildSpec("a", work)])


@pytest.mark.parametrize(
    ("children", "words"),
    [
        ("abc", "'abc'"),
        ({"a": 1}, "a"),
        ([work], "ChildSpec"),
        (3, "3"),
        (None, "None"),
    ],
)
def test_children_that_are_no_list_of_specs_are_refused(
    children: object, words: str
) -> None:
    """SPC-01, SPC-06"""
    with pytest.raises(TypeError, match=words):
        SupervisorSpec(cast("list[ChildSpec]", children))


@pytest.mark.parametrize("strategy", ["one_for_two", "simple_one_for_one", "", 3, None])
def test_an_unknown_strategy_is_refused(strategy: object) -> None:
    """INT-12"""
    with pytest.raises(ValueError, match="strategy must be one of") as caught:
        SupervisorSpec((), strategy=cast("str", strategy))
    assert repr(strategy) in str(caught.value)


def test_a_budget_that_is_none_is_refused_by_every_supervisor() -> None:
    """INT-12"""
    wrong: Any = (3, 5)
    with pytest.raises(TypeError, match="intensity"):
        SupervisorSpec((), intensity=wrong)
    with pytest.raises(TypeError, match="intensity"):
        DynamicSupervisorSpec(intensity=wrong)
    with pytest.raises(TypeError, match="child_intensity"):
        DynamicSupervisorSpec(child_intensity=wrong)


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_a_budget_of_a_childs_own_needs_one_for_one(strategy: str) -> None:
    child = ChildSpec("a", work, intensity=Intensity())
    assert SupervisorSpec([child]).children == (child,)
    with pytest.raises(ValueError, match=f"a: .*one_for_one, not {strategy}"):
        SupervisorSpec([child], strategy=strategy)


@pytest.mark.parametrize("limit", [-1, 2.5, True, "10", math.nan])
def test_a_number_of_children_that_is_none_is_refused(limit: object) -> None:
    with pytest.raises(ValueError, match="max_children"):
        DynamicSupervisorSpec(max_children=cast("float", limit))


def test_a_supervisor_takes_no_arguments() -> None:
    with pytest.raises(ValueError, match="args"):
        ChildSpec("s", SupervisorSpec(), args=(1,))


def test_a_specification_cannot_be_changed_by_changing_what_it_was_made_from() -> None:
    children, args = [ChildSpec("a", work)], [1.0]
    spec, child = SupervisorSpec(children), ChildSpec("b", work_for, args=args)
    children.append(child)
    args.append(2.0)
    assert (len(spec.children), child.args) == (1, (1.0,))


def test_an_application_is_a_named_supervisor_without_the_runtimes_own_ids() -> None:
    child = ChildSpec("a", work)
    application = Application("shop", [child], strategy="rest_for_one")
    assert application.supervisor() == SupervisorSpec([child], strategy="rest_for_one")
    with pytest.raises(ValueError, match="'system' is reserved"):
        Application("shop", [ChildSpec("system", work)])
    with pytest.raises(ValueError, match="'my shop'"):
        Application("my shop", [child])


# --- significant children (SIG) --------------------------------------------------------------


def test_significant_must_be_a_bool() -> None:
    """SPC-01, SIG-11"""
    with pytest.raises(TypeError, match="a: significant must be a bool, not 1"):
        ChildSpec("a", work, restart="transient", significant=cast("bool", 1))


def test_a_permanent_child_cannot_be_significant() -> None:
    """SIG-11"""
    with pytest.raises(ValueError, match="must be transient or temporary"):
        ChildSpec("a", work, significant=True)


def test_a_significant_child_needs_a_supervisor_that_heeds_it() -> None:
    """SIG-11, SPC-02"""
    child = ChildSpec("a", work, restart="transient", significant=True)
    for mode in ("any_significant", "all_significant"):
        assert SupervisorSpec([child], auto_shutdown=mode).auto_shutdown == mode
    for refused in (SupervisorSpec, functools.partial(Application, "app")):
        with pytest.raises(ValueError, match="a: a significant child needs"):
            refused([child])


def test_an_unknown_auto_shutdown_is_refused_with_those_there_are() -> None:
    """SIG-05, SPC-01"""
    with pytest.raises(ValueError, match="any_significant, all_significant, not 'any'"):
        SupervisorSpec(auto_shutdown="any")


def test_a_dynamic_supervisor_has_no_auto_shutdown() -> None:
    """SIG-05"""
    options: dict[str, Any] = {"auto_shutdown": "any_significant"}
    with pytest.raises(TypeError, match="auto_shutdown"):
        DynamicSupervisorSpec(**options)


def test_what_is_done_to_the_arguments_later_does_not_change_a_specification() -> None:
    """SPC-10: they were looked at when it was made."""
    args: list[object] = [1.0]
    kwargs: dict[str, object] = {"seconds": 1.0}
    by_place = ChildSpec("a", work_for, args=args)
    by_name = ChildSpec("b", work_for, kwargs=kwargs)
    args.append(2.0)
    kwargs["minutes"] = 3.0
    assert by_place.args == (1.0,)
    assert by_name.kwargs == {"seconds": 1.0}


def test_a_class_that_lacks_something_is_refused() -> None:
    """SPC-09"""

    class Unfinished(Door, abc.ABC):
        @abc.abstractmethod
        def knock(self) -> None: ...

    with pytest.raises(TypeError, match="Unfinished is abstract; it lacks knock"):
        ChildSpec("a", Unfinished)
