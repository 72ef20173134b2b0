"""Talking to a running runtime: which one, with what rights, and how its answer looks."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar, cast

import msgspec
import trio

from treewarden.control import (
    FoundRuntime,
    RemoteRuntime,
    connect,
    find_runtimes,
    socket_path,
)
from treewarden.control.protocol import (
    Criterion,
    EventRow,
    EventsUpdate,
    Message,
    Raw,
    Rights,
    Topic,
)
from treewarden.control.session import Noticed
from treewarden.errors import ConfigError, ControlError, NoRuntime, TreewardenError

M = TypeVar("M", bound=Message)
Conversation: TypeAlias = Callable[[RemoteRuntime], Awaitable[None]]

# A runtime answers within milliseconds, unless it is stopped or its machine is.
ANSWER_SECONDS: Final = 30.0


def ask(
    socket: Path | None,
    name: str | None,
    conversation: Conversation,
    *,
    rights: Rights = Rights.RO,
    patience: float = ANSWER_SECONDS,
) -> None:
    """Have a conversation with the runtime that was meant; it may take `patience` seconds.

    Raises:
        NoRuntime: there is none, or it is not clear which.
        TreewardenError: what it answered.
    """

    async def talk() -> None:
        await _talk(await choose(socket, name), conversation, rights, patience)

    trio.run(talk)


def find(socket: Path | None, name: str | None) -> Path:
    """The socket of the runtime that was meant, once it has answered.

    Raises:
        NoRuntime: there is none, or it is not clear which.
    """

    async def look() -> Path:
        path = await choose(socket, name)
        await _talk(path, _say_nothing, Rights.RO, ANSWER_SECONDS)
        return path

    return trio.run(look)


async def _say_nothing(_: RemoteRuntime) -> None:
    await trio.lowlevel.checkpoint()


async def _talk(
    path: Path, conversation: Conversation, rights: Rights, patience: float
) -> None:
    try:
        with trio.fail_after(ANSWER_SECONDS) as scope:
            async with connect(path, rights=rights) as remote:
                scope.deadline = trio.current_time() + patience
                await conversation(remote)
    except TreewardenError:
        # An answer, also that an agent was too slow: CallTimeout is a TooSlowError too.
        raise
    except trio.TooSlowError as error:
        raise ControlError(f"the runtime at {path} did not answer in time") from error


async def choose(
    socket: Path | None, name: str | None, environ: Mapping[str, str] = os.environ
) -> Path:
    """The socket that was meant: the one named, else that of the only runtime.

    Where neither is given, `environ` may say it, as it does to what is to be run:
    TREEWARDEN_SOCKET, or TREEWARDEN_NAME.

    Raises:
        NoRuntime: there is none, or there are several; the text lists them.
    """
    if socket is None and name is None:
        listens_at = environ.get("TREEWARDEN_SOCKET", "")
        socket = Path(listens_at) if listens_at not in ("", "false") else None
        name = environ.get("TREEWARDEN_NAME") or None
    if socket is not None:
        return socket
    if name is not None and socket_path(name).exists():
        return socket_path(name)
    found = await find_runtimes()
    matching = [one for one in found if name in (None, one.name)]
    if len(matching) == 1:
        return matching[0].path
    raise NoRuntime(_which(found, matching, name))


def _which(
    found: list[FoundRuntime], matching: list[FoundRuntime], name: str | None
) -> str:
    names = ", ".join(one.name for one in matching or found)
    if matching:
        return (
            f"several runtimes run: {names}; name one with --runtime, or use --socket"
        )
    if name is not None and found:
        return f"no runtime is called {name!r}; these run: {names}"
    who = f"no runtime is called {name!r}" if name is not None else "no runtime runs"
    return f"{who}; start one with `treewarden run module:app` or `treewarden demo`"


async def request(
    remote: RemoteRuntime, method: str, params: Message, result: type[M]
) -> M:
    """One request; the answer is of type `result`."""
    answer = await remote.request(method, params)
    assert isinstance(answer, result)  # noqa: S101 - the session decoded it so
    return answer


def request_and_print(
    method: str, params: Message, result: type[M], show: Callable[[M], str]
) -> Conversation:
    """A conversation of one request, whose answer is printed as `show` says."""

    async def conversation(remote: RemoteRuntime) -> None:
        print(show(await request(remote, method, params, result)))

    return conversation


def arguments(pairs: list[str]) -> dict[str, Raw]:
    """`key=value` words as JSON values; what is not JSON is text.

    Raises:
        ConfigError: a word is not of that form, or a key is there twice.
    """
    found: dict[str, Raw] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (equals and key):
            raise ConfigError(f"expected key=value, not {pair!r}")
        if key in found:
            raise ConfigError(f"{key} is given twice")
        found[key] = Raw(msgspec.json.encode(_value(text)))
    return found


_SIGNS: Final = {
    "!=": "neq",
    ">=": "gte",
    "<=": "lte",
    "=": "eq",
    ">": "gt",
    "<": "lt",
    "~": "like",
}
_CRITERION: Final = re.compile(r"\s*([\w.]+)\s*(!=|>=|<=|=|>|<|~)\s*(.*)", re.DOTALL)


def criteria(texts: list[str]) -> list[Criterion]:
    """`orders.open>=3` as criteria; a value that is not JSON is text.

    Raises:
        ConfigError: a text is not of that form.
    """
    found = []
    for text in texts:
        parts = _CRITERION.fullmatch(text)
        if parts is None:
            signs = " ".join(_SIGNS)
            raise ConfigError(f"expected FIELD, one of {signs}, VALUE; not {text!r}")
        name, sign, value = parts.groups()
        raw = {"field": name, "op": _SIGNS[sign], "value": _value(value)}
        try:
            found.append(msgspec.convert(raw, Criterion))
        except msgspec.ValidationError as error:
            raise ConfigError(f"{text!r}: {error}") from error
    return found


def _value(text: str) -> Any:  # noqa: ANN401 - whatever JSON can say
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return text


def follow(show: Callable[[EventRow], str], *, last: int, pattern: str) -> Conversation:
    """A conversation that prints the `last` events and then each as it comes, for ever.

    Raises:
        ConfigError: the pattern is none.
    """
    from treewarden.bus import matches

    check(pattern)

    async def conversation(remote: RemoteRuntime) -> None:
        history: list[EventRow] | None = []
        async with aclosing(remote.watch([Topic.EVENTS])) as notices:
            async for notice in notices:
                if not isinstance(notice, Noticed):
                    continue
                update = cast(EventsUpdate, notice.update)
                rows = [row for row in update.rows if matches(pattern, row.topic)]
                if history is not None:
                    history += rows
                    if update.more:
                        continue
                    rows, history = history[max(0, len(history) - last) :], None
                _print_events(rows, update.lost, show)

    return conversation


def _print_events(
    rows: Sequence[EventRow], lost: int, show: Callable[[EventRow], str]
) -> None:
    if lost:
        print(f"treewarden: {lost} events were left out: too many", file=sys.stderr)
    for row in rows:
        print(show(row))
    sys.stdout.flush()


def check(pattern: str) -> None:
    """Refuse what is no pattern of topics.

    Raises:
        ConfigError: it is none; the text says why.
    """
    from treewarden.bus import check_pattern

    try:
        check_pattern(pattern)
    except ValueError as error:
        raise ConfigError(str(error)) from error
