"""A function by its import path, with arguments as JSON: what another process can start.

A live function and live arguments cannot leave the process without pickle, and what is
unpickled runs. So a function is named, `package.module:name`, and its arguments are
values that msgspec writes and, by the function's annotations, reads again. That they come
out as they went in is checked where the specification is written.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import types
import typing
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
    module, name = _home(id_, start), start.__qualname__
    path = f"{module}:{name}"
    if not _PATH.fullmatch(path) or _found(sys.modules.get(module), name) is not start:
        raise ValueError(
            f"{id_}: another process would not find {start!r} as {path}; a process is "
            "started from a function at the top of a module, not a lambda or an inner one"
        )
    return path


def _home(id_: str, function: Callable[..., object]) -> str:
    module = function.__module__
    if module != "__main__":
        return module
    # Run as `python -m package.module`, it has a name that others can import it by.
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:
        raise ValueError(
            f"{id_}: {function.__qualname__} is defined in the script that runs, which "
            "no other process can import; put it into a module"
        )
    return str(spec.name)


def _found(holder: object, name: str) -> object:
    return reduce(lambda one, word: getattr(one, word, None), name.split("."), holder)


def load(path: str) -> Callable[..., Any]:
    """Import the function at `path`.

    Raises:
        ImportError: there is no such module, or nothing of that name in it.
        TypeError: it is no async function.
    """
    module, _, name = path.partition(":")
    function = _found(importlib.import_module(module), name)
    if function is None:
        raise ImportError(f"{module} has no {name}")
    if not inspect.iscoroutinefunction(function):
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
    hints = _hints(function)
    for name, value in bound.arguments.items():
        if name in hints:
            hint = _collected(hints[name], signature.parameters[name])
            bound.arguments[name] = msgspec.convert(value, hint, str_keys=True)
    return bound.args, bound.kwargs


def _collected(hint: Any, parameter: inspect.Parameter) -> Any:  # noqa: ANN401 - types
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return types.GenericAlias(tuple, (hint, ...))
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        return types.GenericAlias(dict, (str, hint))
    return hint


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        # An annotation that exists for type checkers only. Then nothing is converted, and
        # what would need to be does not pass the check in `freeze`.
        return {}
