"""Our side of a process child: its specification, the words, the conversation."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from treewarden.exits import Crash, Exit, Fault, Killed, Normal, Shutdown
from treewarden.supervision import ChildSpec, SupervisorSpec, open_supervisor
from treewarden.supervision.process import Conversation, Ended, Ready, Word

if TYPE_CHECKING:
    from collections.abc import Iterator


async def work(count: int = 0) -> None:
    await trio.sleep_forever()


# --- the specification ----------------------------------------------------------------------


def test_a_child_is_a_task_unless_told() -> None:
    assert ChildSpec("a", work).isolation == "task"


def test_a_process_is_a_function_or_its_path() -> None:
    assert ChildSpec("a", work, isolation="process", args=(3,)).isolation == "process"
    assert ChildSpec("a", "package.module:name", isolation="process").id == "a"


@pytest.mark.parametrize("isolation", ["thread", None, 1, "Process"])
def test_an_unknown_isolation_is_refused_with_the_value(isolation: Any) -> None:
    with pytest.raises(ValueError, match=f"task, process, not {isolation!r}"):
        ChildSpec("a", work, isolation=isolation)


@pytest.mark.parametrize("start", [SupervisorSpec(), open_supervisor, lambda: work()])
def test_what_is_no_function_cannot_be_a_process(start: object) -> None:
    with pytest.raises(
        TypeError, match="a: a process is started from an async function"
    ):
        ChildSpec("a", start, isolation="process")


def test_a_path_is_for_processes_only() -> None:
    with pytest.raises(TypeError, match=r"not 'package\.module:name'"):
        ChildSpec("a", "package.module:name")


def test_arguments_that_cannot_leave_the_process_are_refused() -> None:
    with pytest.raises(TypeError, match="a: the arguments cannot be encoded"):
        ChildSpec("a", work, args=(object(),), isolation="process")
    with pytest.raises(TypeError, match="a: the arguments do not fit"):
        ChildSpec("a", work, kwargs={"count": "many"}, isolation="process")


# --- words ----------------------------------------------------------------------------------

FAULT = Fault(
    type="ValueError",
    message="no such page",
    frames=(("/a.py", 3, "load"),),
    path="/a",
    incarnation=2,
    at_ns=5,
    cause=Fault(type="KeyError", message="'x'"),
)


@pytest.mark.parametrize(
    "exit_",
    [Normal(), Shutdown(), Shutdown("enough"), Killed(), Crash(FAULT)],
)
def test_an_exit_is_the_same_on_both_sides(exit_: Exit) -> None:
    line = msgspec.json.encode(Ended.of(exit_))
    assert msgspec.json.decode(line, type=Ended).meant() == exit_


@pytest.fixture
def pair() -> Iterator[tuple[Conversation, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Conversation(ours), theirs


def test_words_are_read_whole_however_they_arrive(
    pair: tuple[Conversation, socket.socket],
) -> None:
    conversation, theirs = pair
    words: list[Word] = []
    lines = msgspec.json.Encoder().encode_lines([Ready(value=1), Ended(exit="Normal")])
    for byte in lines:
        theirs.sendall(bytes([byte]))
        words += conversation.read()
    assert words == [Ready(value=1), Ended(exit="Normal")]
    assert conversation.over


def test_after_the_end_of_the_socket_nothing_more_is_read(
    pair: tuple[Conversation, socket.socket],
) -> None:
    conversation, theirs = pair
    assert list(conversation.read()) == []
    assert not conversation.over
    theirs.sendall(b'{"type":"ready"')
    theirs.close()
    assert list(conversation.read()) == []
    assert conversation.over


def test_what_is_no_word_does_not_swallow_those_before_it(
    pair: tuple[Conversation, socket.socket],
) -> None:
    conversation, theirs = pair
    theirs.sendall(msgspec.json.encode(Ready(value=1)) + b"\n{]\n")
    words = conversation.read()
    assert next(words) == Ready(value=1)
    with pytest.raises(msgspec.MsgspecError):
        next(words)


@pytest.mark.parametrize("line", [b"{]\n", b'{"type":"begin"}\n', b"7\n", b"\n"])
def test_what_is_no_word_ends_the_conversation(
    pair: tuple[Conversation, socket.socket], line: bytes
) -> None:
    conversation, theirs = pair
    theirs.sendall(line)
    with pytest.raises(msgspec.MsgspecError):
        list(conversation.read())
    assert conversation.over
    assert list(conversation.read()) == []
