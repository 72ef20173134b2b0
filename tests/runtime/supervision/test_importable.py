"""What another process can start, and what it can be given."""

from __future__ import annotations

import functools
import math
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from treewarden.supervision.importable import find, freeze, import_path, load, thaw

if TYPE_CHECKING:
    from collections.abc import Callable


class Point(msgspec.Struct, frozen=True):
    x: int


async def top(
    point: Point, *rest: Point, size: tuple[int, int] = (0, 0), **named: Point
) -> None: ...


async def untyped(value, other=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    ...


def plain() -> None: ...


class Holder:
    async def method(self) -> None: ...

    @staticmethod
    async def inner(count: int) -> None: ...


class Placed:
    def __init__(self, at: Point, size: tuple[int, int] = (0, 0)) -> None: ...


class Inherits(Placed): ...


class Unplaced: ...


def made() -> Callable[[], Any]:
    async def inside() -> None: ...

    return inside


def test_a_function_of_a_module_is_found_by_its_path() -> None:
    path = import_path("a", top)
    assert path == f"{__name__}:top"
    assert load(path) is top
    assert load(import_path("a", Holder.inner)) is Holder.inner


def test_a_path_is_taken_as_it_is() -> None:
    assert import_path("a", "package.module:name") == "package.module:name"


@pytest.mark.parametrize(
    "path", ["module", "a b:c", ":f", "m:", "m:f()", "m:1", "m.:f"]
)
def test_what_is_no_path_is_refused_with_the_text(path: str) -> None:
    with pytest.raises(ValueError, match=r"package\.module:name, not"):
        import_path("a", path)


@pytest.mark.parametrize(
    "start", [plain, Holder().method, functools.partial(top, Point(1)), Holder, 7]
)
def test_what_is_no_async_function_is_refused(start: object) -> None:
    with pytest.raises(
        TypeError, match="a: a process is started from an async function"
    ):
        import_path("a", start)


def test_a_function_that_another_process_cannot_find_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match=r"would not find .* an inner one"):
        import_path("a", made())
    shadowed = top
    monkeypatch.setattr(sys.modules[__name__], "top", untyped)
    with pytest.raises(ValueError, match="would not find"):
        import_path("a", shadowed)


def test_a_function_of_the_running_script_is_refused_with_a_hint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = type(sys)("__main__")
    monkeypatch.setitem(sys.modules, "__main__", script)
    monkeypatch.setattr(untyped, "__module__", "__main__")
    with pytest.raises(ValueError, match="put it into a module"):
        import_path("a", untyped)


def test_a_module_that_runs_is_known_by_its_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As after `python -m` with the name of this module.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules[__name__])
    monkeypatch.setattr(top, "__module__", "__main__")
    assert import_path("a", top) == f"{__name__}:top"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("no_such_module_anywhere:f", ImportError),
        (f"{__name__}:nobody", ImportError),
        (f"{__name__}:Nobody.method", ImportError),
        (f"{__name__}:plain", TypeError),
    ],
)
def test_a_path_that_leads_nowhere_is_an_error(
    path: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        load(path)


def test_arguments_arrive_as_the_function_says() -> None:
    args = (Point(1), Point(2), Point(3))
    kwargs = {"size": (4, 5), "corner": Point(6)}
    assert thaw(top, freeze("a", top, args, kwargs)) == (args, kwargs)


def test_arguments_given_by_name_arrive_by_name() -> None:
    kwargs: dict[str, object] = {"point": Point(1), "rest": Point(2), "named": Point(3)}
    assert thaw(top, freeze("a", top, (), kwargs)) == ((), kwargs)
    kwargs = {"other": 2, "value": 1}
    assert thaw(untyped, freeze("a", untyped, (), kwargs)) == ((), kwargs)
    assert thaw(untyped, freeze("a", untyped, (1,), {"other": 2})) == (
        (1,),
        {"other": 2},
    )


def test_the_arguments_of_a_class_arrive_as_its_init_says() -> None:
    frozen = freeze("a", Placed, (Point(1),), {"size": (1, 2)})
    assert thaw(Placed, frozen) == ((Point(1),), {"size": (1, 2)})
    assert thaw(Inherits, frozen) == ((Point(1),), {"size": (1, 2)})
    with pytest.raises(TypeError, match="a: the arguments do not fit"):
        freeze("a", Unplaced, (1,), {})


def test_what_runs_as_main_is_found_where_it_runs_not_imported_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As `python -m` leaves it: the module is there as __main__ alone.
    name = __name__
    monkeypatch.setitem(sys.modules, "__main__", sys.modules[name])
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(top, "__module__", "__main__")
    assert import_path("a", top) == f"{name}:top"
    assert find(f"{name}:top") is top


def test_without_annotations_builtins_arrive() -> None:
    args = (1, {"a": [None, 2.5, "x"]})
    assert thaw(untyped, freeze("a", untyped, args, {})) == (args, {})


@pytest.mark.parametrize("value", [Point(1), (1, 2), b"x", {1: 2}, math.nan])
def test_what_would_arrive_as_something_else_is_refused_with_the_value(
    value: object,
) -> None:
    with pytest.raises(ValueError, match=r"would arrive as .* annotate the parameters"):
        freeze("a", untyped, (value,), {})


@pytest.mark.parametrize("value", [object(), plain, 2**70j])
def test_what_cannot_be_encoded_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="a: the arguments cannot be encoded"):
        freeze("a", "package.module:name", (value,), {})


@pytest.mark.parametrize(
    ("args", "kwargs"), [((1, 2, 3), {}), ((), {"nobody": 1}), ((1,), {"value": 1})]
)
def test_arguments_that_the_function_does_not_take_are_refused(
    args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    with pytest.raises(TypeError, match="a: the arguments do not fit"):
        freeze("a", untyped, args, kwargs)


def test_arguments_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError, match="do not fit: Expected `object`, got `int`"):
        freeze("a", top, (3,), {})
