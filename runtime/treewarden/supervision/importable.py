"""A function by its import path, with arguments as JSON: what another process can start.

A live function and live arguments cannot leave the process without pickle, and what is
unpickled runs. So a function (or class) is named, `package.module:name`, and its arguments
are values that msgspec writes and, by the function's annotations, reads again. That they
come out as they went in is checked where the specification is written.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import types
import typing
from contextlib import suppress
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_PATH: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def import_path(id_: str, start: object) -> str:
    """The path by which another process finds `start`; a path is returned as it is.

    Raises:
        TypeError, ValueError: it would not find it, or find something else.
    """
    if isinstance(start, str):
        if not _PATH.fullmatch(start):
            raise ValueError(
                f"{id_}: an import path is package.module:name, not {start!r}"
            )
        return start
    if not inspect.isfunction(start) or not inspect.iscoroutinefunction(start):
        raise TypeError(
            f"{id_}: a process is started from an async function of a module, or its "
            f"import path, not {start!r}"
        )
    path = path_of(id_, start)
    if path is None:
        raise ValueError(
            f"{id_}: another process would not find {start!r} as {_spelled(start)}; a "
            "process is started from a function at the top of a module, not a lambda or "
            "an inner one"
        )
    return path


def path_of(id_: str, start: object) -> str | None:
    """The path that `find` finds `start` by; None when it would find something else.

    Raises:
        ValueError: it is defined in the script that runs.
    """
    module = getattr(start, "__module__", None)
    name = getattr(start, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    if module == "__main__":
        module = _own_name(id_, name)
    path = f"{module}:{name}"
    if not _PATH.fullmatch(path) or _found(_imported(module), name) is not start:
        return None
    return path


def _spelled(function: Callable[..., object]) -> str:
    return f"{function.__module__}:{function.__qualname__}"


def _own_name(id_: str, name: str) -> str:
    # Run as `python -m package.module`, it has a name that others can import it by.
    own = _name_of_main()
    if own is None:
        raise ValueError(
            f"{id_}: {name} is defined in the script that runs, which no other process "
            "can import; put it into a module"
        )
    return own


def _name_of_main() -> str | None:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return None if spec is None else str(spec.name)


def _imported(module: str) -> types.ModuleType | None:
    # What runs as __main__ must not be imported a second time under its own name.
    if module == _name_of_main():
        return sys.modules["__main__"]
    return sys.modules.get(module)


def _found(holder: object, name: str) -> object:
    return reduce(lambda one, word: getattr(one, word, None), name.split("."), holder)


def find(path: str) -> object:
    """Import what is at `path`.

    Raises:
        ImportError: there is no such module, or nothing of that name in it.
    """
    module, _, name = path.partition(":")
    found = _found(_imported(module) or importlib.import_module(module), name)
    if found is None:
        raise ImportError(f"{module} has no {name}")
    return found


def load(path: str) -> Callable[..., Any]:
    """Import the function at `path`.

    Raises:
        ImportError: there is no such module, or nothing of that name in it.
        TypeError: it is no async function.
    """
    function = find(path)
    if not callable(function) or not inspect.iscoroutinefunction(function):
        raise TypeError(f"{path} is no async function, but {function!r}")
    return function


def freeze(
    id_: str, start: object, args: Sequence[object], kwargs: Mapping[str, object]
) -> bytes:
    """The arguments as JSON; for a function, checked to come out as they went in.

    Raises:
        TypeError, ValueError: they cannot be written, or would be read as something else.
    """
    try:
        frozen = msgspec.json.encode((tuple(args), dict(kwargs)))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{id_}: the arguments cannot be encoded: {error}") from error
    if callable(start):
        try:
            thawed = thaw(start, frozen)
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(f"{id_}: the arguments do not fit: {error}") from error
        if thawed != (tuple(args), dict(kwargs)):
            raise ValueError(
                f"{id_}: the arguments {(*args, *kwargs.values())!r} would arrive as "
                f"{(*thawed[0], *thawed[1].values())!r}; annotate the parameters"
            )
    return frozen


def thaw(
    function: Callable[..., Any], frozen: bytes
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments again, each as its parameter is annotated.

    Raises:
        TypeError: the function does not take them.
        ValueError: one of them is not what its annotation says (msgspec's error).
    """
    args, kwargs = msgspec.json.decode(
        frozen, type=tuple[tuple[Any, ...], dict[str, Any]]
    )
    signature = inspect.signature(function)
    bound = signature.bind_partial(*args, **kwargs)
    hints = hints_of(function)
    for name, value in bound.arguments.items():
        if name in hints:
            hint = _collected(hints[name], signature.parameters[name])
            bound.arguments[name] = msgspec.convert(value, hint, str_keys=True)
    # Given by name they stay so, also where the function takes them by place.
    given = {**bound.arguments, **bound.kwargs}
    return bound.args[: len(args)], {name: given[name] for name in kwargs}


def _collected(hint: Any, parameter: inspect.Parameter) -> Any:  # noqa: ANN401 - types
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return types.GenericAlias(tuple, (hint, ...))
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        return types.GenericAlias(dict, (str, hint))
    return hint


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function or class as types, "return" among them.

    Those that exist for type checkers only are left out.
    """
    # Of a class, what it is called with is annotated at its __init__.
    annotated: Any = function
    if isinstance(function, type):
        annotated = inspect.getattr_static(function, "__init__")
    annotated = inspect.unwrap(annotated)
    scope = getattr(annotated, "__globals__", {})
    hints: dict[str, Any] = {}
    for name, text in getattr(annotated, "__annotations__", {}).items():
        one = types.SimpleNamespace(__annotations__={name: text})
        # One by one, for some exist for type checkers only. Then nothing is converted, and
        # what would need to be does not pass the check in `freeze`.
        with suppress(NameError, TypeError):
            hints |= typing.get_type_hints(one, scope, include_extras=True)
    return hints
