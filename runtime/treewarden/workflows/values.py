"""Arguments and results as JSON, and as what they are annotated as when they come back.

What a step returns is given to the workflow as it was read back, also the first time: a
workflow that is run again from its record sees the same values, of the same types.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from treewarden.supervision import hints_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NAME_LIMIT: Final = 255
"""Characters of a name: what fits one line for people."""
MAX_BYTES: Final = 1 << 20
"""The largest result, and the largest arguments: they are written, and read, whole."""


def encode(value: object, what: str) -> bytes:
    """`value` as JSON.

    Raises:
        TypeError, ValueError: it cannot be written, or is too large.
    """
    try:
        encoded = msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{what} cannot be recorded: {error}") from error
    if len(encoded) > MAX_BYTES:
        raise ValueError(
            f"{what} is {len(encoded)} bytes, more than {MAX_BYTES}; record where it is"
        )
    return encoded


def decode_result(function: Callable[..., Any], encoded: bytes) -> Any:  # noqa: ANN401 - by its annotation
    """What `function` returned, as its return annotation says.

    Raises:
        TypeError, ValueError: it is not that; ValueError is msgspec's.
    """
    hint = hints_of(plain(function)).get("return", Any)
    return msgspec.json.decode(encoded, type=hint)


def decode_arguments(function: Callable[..., Any], encoded: bytes) -> list[Any]:
    """The arguments behind the flow, each as its parameter is annotated.

    Raises:
        TypeError: the function does not take them.
        ValueError: one of them is not what its annotation says (msgspec's error).
    """
    values = msgspec.json.decode(encoded, type=list[Any])
    signature = inspect.signature(function)
    signature.bind(None, *values)
    hints = hints_of(plain(function))
    names = _places(tuple(signature.parameters.values())[1:], len(values))
    return [
        msgspec.convert(value, hints.get(name, Any), str_keys=True)
        for value, name in zip(values, names, strict=False)
    ]


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that a partial was made of."""
    while isinstance(function, partial):
        function = function.func
    return function


def name_of(function: Callable[..., Any]) -> str:
    """What a function is recorded as, when nobody gives it a name.

    Raises:
        ValueError: it has none, such as a lambda.
    """
    name = getattr(plain(function), "__name__", "<nameless>")
    if name.startswith("<"):
        raise ValueError(f"{function!r} has no name to be recorded by: give it one")
    return str(name)


def checked_name(what: str, name: str) -> str:
    """A name, if one can be recorded, and read by people.

    Raises:
        TypeError, ValueError: with the name.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of {what} must be a str, not {name!r}")
    if not 1 <= len(name) <= NAME_LIMIT or not name.isprintable():
        raise ValueError(
            f"the name of {what} must be 1 to {NAME_LIMIT} printable characters, not"
            f" {name[:40]!r} ({len(name)})"
        )
    return name


def _places(parameters: Sequence[inspect.Parameter], count: int) -> Iterator[str]:
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            yield from [parameter.name] * count
            return
        yield parameter.name
