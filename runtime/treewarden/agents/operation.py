"""What an agent can be asked: its public methods, found once per class.

An operation is looked up by name on the agent's own class, so that an override wins over
the method that a caller named. Its answer never aliases live state: scalars pass, all
else is copied by the return annotation.
"""

from __future__ import annotations

import dis
import inspect
import math
import typing
from typing import Any, Final, TypeVar

import msgspec

from treewarden.errors import BadArguments, StateNotEncodable, UnknownOperation

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from .envelope import Envelope

T = TypeVar("T")

SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes, complex})
"""Types whose values nobody can change."""


class Operation:
    """One method of an agent class."""

    __slots__ = (
        "_copies",
        "_copy",
        "_places",
        "_wire",
        "arity",
        "function",
        "is_async",
        "most",
        "name",
        "needed",
        "waits",
    )

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.function = function
        # A decorated one that hands on the coroutine is async as well.
        self.is_async = inspect.iscoroutinefunction(inspect.unwrap(function))
        self.waits = self.is_async and not never_waits(function)
        # With so many positional arguments and no others, `check` lets a call pass.
        self.needed, self.most = _positional(function)
        # How many of them it takes, if it takes no other number: what most calls give.
        self.arity = self.needed if self.needed == self.most else -1
        self._copy: Callable[[object], object] | None = None
        self._copies: dict[str, Callable[[object], object]] = {}
        self._wire: type[msgspec.Struct] | None = None
        self._places: tuple[tuple[str, ...], tuple[str, ...]] | None = None

    def copy_reply(self, value: object) -> object:
        """`value`, or a copy of it when it could be changed later.

        Raises:
            TypeError: it is not what the return annotation says, or it is mutable and
                there is no usable one.
        """
        if type(value) in SCALARS:
            return value
        if self._copy is None:
            self._copy = self._make_copy(value)
        try:
            return self._copy(value)
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise TypeError(
                f"{self.name} returned what its return annotation does not hold: {error}"
            ) from error

    def _make_copy(self, value: object) -> Callable[[object], object]:
        annotation = self._hints().get("return", Any)
        if annotation is Any or annotation is type(None):
            raise TypeError(
                f"{self.name} returned a {type(value).__qualname__}, which may be part of "
                "the agent's state; annotate its return type so that it can be copied"
            )
        return _copier(annotation)

    def parse_reply(self, payload: bytes) -> object:
        """An answer that was kept as JSON."""
        annotation = self._hints().get("return", Any)
        return msgspec.json.decode(payload, type=annotation)

    def pack(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        """The arguments as JSON, for a message that may outlive the process.

        Raises:
            BadArguments: the operation takes `*args` or `**kwargs`.
            StateNotEncodable: one cannot be encoded, or would not come back as it is.
        """
        positional, _ = self._shape()
        arguments = {**dict(zip(positional, args, strict=False)), **kwargs}
        try:
            for name, value in arguments.items():
                if type(value) not in SCALARS:
                    self._annotation(name)
            payload = msgspec.json.encode(arguments)
            self.unpack(payload)
        except (TypeError, ValueError, RecursionError) as error:
            raise StateNotEncodable(
                f"the arguments of {self.name} cannot be stored: {error}"
            ) from error
        return payload

    def unpack(self, payload: bytes) -> tuple[tuple[object, ...], dict[str, object]]:
        """What `pack` made bytes of.

        Raises:
            BadArguments: it does not fit the operation.
        """
        if self._wire is None:
            self._wire = self._make_wire()
        positional, others = self._shape()
        try:
            parsed = msgspec.json.decode(payload, type=self._wire)
        except msgspec.MsgspecError as error:
            raise BadArguments(f"{self.name}: {error}") from None
        args = tuple(getattr(parsed, name) for name in positional)
        return args, {name: getattr(parsed, name) for name in others}

    def _shape(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Parameters that are given by place, and those that are given by name."""
        if self._places is None:
            named = list(self._parameters().values())[1:]
            kinds = {one.kind for one in named}
            if kinds & {
                inspect.Parameter.VAR_POSITIONAL,
                inspect.Parameter.VAR_KEYWORD,
            }:
                raise BadArguments(
                    f"{self.name} takes any number of arguments, and a durable message "
                    "is stored by their names"
                )
            by_name = inspect.Parameter.KEYWORD_ONLY
            self._places = (
                tuple(one.name for one in named if one.kind is not by_name),
                tuple(one.name for one in named if one.kind is by_name),
            )
        return self._places

    def copy_arguments(
        self, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        """The arguments as they are now, for a message that is handled later.

        Scalars pass, all else is copied by its annotation.

        Raises:
            StateNotEncodable: one cannot be copied, or has no annotation to do it by.
        """
        if not kwargs and (not args or all(type(value) in SCALARS for value in args)):
            return args, {}
        bound = inspect.signature(self.function).bind(None, *args, **kwargs)
        parameters = bound.signature.parameters
        for name, value in list(bound.arguments.items())[1:]:
            kind = parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                copied: object = tuple(self._copy_argument(name, one) for one in value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                copied = {k: self._copy_argument(name, v) for k, v in value.items()}
            else:
                copied = self._copy_argument(name, value)
            bound.arguments[name] = copied
        return bound.args[1:], bound.kwargs

    def named(self, envelope: Envelope) -> dict[str, object]:
        """The arguments of a message, by the names of the parameters."""
        bound = inspect.signature(self.function).bind(
            None, *envelope.args, **envelope.kwargs
        )
        return dict(list(bound.arguments.items())[1:])

    def _copy_argument(self, name: str, value: object) -> object:
        if type(value) in SCALARS:
            return value
        try:
            copy = self._copies.get(name)
            if copy is None:
                self._copies[name] = copy = _copier(self._annotation(name))
            return copy(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise StateNotEncodable(
                f"{name} of {self.name} cannot be sent: {error}"
            ) from error

    def _annotation(self, name: str) -> Any:  # noqa: ANN401 - a type
        annotation = self._hints().get(name, Any)
        if annotation is Any:
            raise TypeError("annotate its type, so that it can be copied")
        return annotation

    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self.function)
        except NameError as error:
            raise TypeError(
                f"the annotations of {self.name} cannot be read: {error}; import what "
                "they name outside of TYPE_CHECKING"
            ) from error

    def parse(self, arguments: Mapping[str, msgspec.Raw]) -> dict[str, object]:
        """Arguments from the wire, checked against the annotations.

        Raises:
            BadArguments: says which argument is wrong, missing or unknown.
        """
        if self._wire is None:
            self._wire = self._make_wire()
        unknown = sorted(set(arguments) - set(self._wire.__struct_fields__))
        if unknown:
            expected = ", ".join(self._wire.__struct_fields__) or "none"
            raise BadArguments(
                f"{self.name} has no argument {unknown[0]!r}; it takes: {expected}"
            )
        try:
            parsed = msgspec.json.decode(
                msgspec.json.encode(dict(arguments)), type=self._wire
            )
        except msgspec.MsgspecError as error:
            raise BadArguments(f"{self.name}: {error}") from None
        return {name: getattr(parsed, name) for name in self._wire.__struct_fields__}

    def _make_wire(self) -> type[msgspec.Struct]:
        hints = self._hints()
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        for name, parameter in list(self._parameters().items())[1:]:
            hint = hints.get(name, Any)
            if parameter.default is parameter.empty:
                fields.append((name, hint))
            else:
                fields.append((name, hint, parameter.default))
        return msgspec.defstruct(f"{self.name}_arguments", fields, kw_only=True)

    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.function).parameters

    def check(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        """Raise BadArguments when a call with these would not even begin.

        Else the caller's mistake would crash the agent.
        """
        # The common case without a look at the signature, which costs 5 µs.
        if not kwargs and self.needed <= len(args) <= self.most:
            return
        try:
            inspect.signature(self.function).bind(None, *args, **kwargs)
        except TypeError as error:
            raise BadArguments(f"{self.name}: {error}") from None


def refuse_unawaited(name: str, value: object) -> None:
    """Refuse what an operation that is not async returned, if nobody will await it.

    Raises:
        TypeError: it is a coroutine; what it was to do would not be done.
    """
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError(
            f"{name} returned a coroutine that nobody awaits; make the method async and "
            "await it there, or decorate it with functools.wraps"
        )


def _copier(annotation: Any) -> Callable[[object], object]:  # noqa: ANN401 - a type
    encode = msgspec.msgpack.Encoder().encode
    decode = msgspec.msgpack.Decoder(annotation).decode
    return lambda value: decode(encode(value))


def _positional(function: Callable[..., Any]) -> tuple[int, float]:
    """How many positional arguments it needs beside self, and takes at most."""
    needed, most = -1, -1.0
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            most = math.inf
        elif parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is parameter.empty:
                return 0, -1.0  # let the signature decide each time
        elif parameter.kind is not parameter.VAR_KEYWORD:
            most += 1
            needed += parameter.default is parameter.empty
    return needed, most


def operations_of(cls: type, root: type) -> dict[str, Operation]:
    """The public methods that `cls` has and `root` has not, by name.

    What a base mixes in that is no agent itself is an operation like any other.

    Raises:
        TypeError: one is a generator, or is overridden by what is no method.
    """
    found: dict[str, Callable[..., Any]] = {}
    for base in reversed(cls.__mro__):
        if base in root.__mro__:
            continue
        for name, value in vars(base).items():
            if name.startswith("_") or hasattr(root, name):
                continue
            if inspect.isfunction(value):
                _refuse_generator(base, name, value)
                found[name] = value
            elif name in found:
                raise TypeError(
                    f"{base.__qualname__}.{name} overrides the operation {name} and is "
                    f"no method but a {type(value).__qualname__}"
                )
    return {name: Operation(name, function) for name, function in found.items()}


def _refuse_generator(cls: type, name: str, function: Callable[..., Any]) -> None:
    inner = inspect.unwrap(function)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise TypeError(
            f"{cls.__qualname__}.{name} is a generator, and an answer is a value; return "
            "a list, or begin its name with _ if nobody is to call it"
        )


def by_function(
    cls: type, operations: Mapping[str, Operation]
) -> dict[object, Operation]:
    """What `ref.call(Counter.add, …)` means, for every method that can be named so.

    An override wins over the method of a base class that a caller named.
    """
    found: dict[object, Operation] = {}
    for base in cls.__mro__:
        for name, value in vars(base).items():
            # One that goes by another name is looked up by that, like everything else.
            if (
                name in operations
                and inspect.isfunction(value)
                and value.__name__ == name
            ):
                found[value] = operations[name]
    return found


def operation_name(operation: object) -> str:
    """The name in `ref.call(Counter.add, …)`, or of an operation given as a str."""
    name = (
        operation if isinstance(operation, str) else getattr(operation, "__name__", "")
    )
    if not name:
        raise UnknownOperation(
            f"{operation!r} is no operation; name a method of the agent"
        )
    return name


def missing(
    cls: type, operations: Mapping[str, Operation], name: str
) -> UnknownOperation:
    """The error for a name that is no operation, with the ones that are."""
    known = ", ".join(sorted(operations)) or "none"
    return UnknownOperation(
        f"{cls.__qualname__} has no operation {name!r}; it has: {known}"
    )


def never_waits(function: Callable[..., Any]) -> bool:
    """Whether a coroutine function has no place in its code where it could wait.

    Such a one is a plain function in all but name: whoever runs it need not be a task.
    """
    code = getattr(function, "__code__", None)
    return (
        inspect.iscoroutinefunction(function)
        and code is not None
        and all(step.opname != "YIELD_VALUE" for step in dis.get_instructions(code))
    )


def run_through(coroutine: Coroutine[object, None, T]) -> T:
    """The result of a coroutine that does not wait for anything."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError(f"{coroutine!r} waits for something")
