"""What is answered instead of a failure, and for which failures."""

from __future__ import annotations

from typing import NoReturn

import pytest
import trio
import trio.testing

from treewarden.errors import CircuitOpen, RateLimited, RetriesExhausted, TimedOut
from treewarden.resilience import ErrorKind, Fallback


async def boom(error: Exception) -> NoReturn:
    raise error


async def cached(error: Exception) -> str:
    return f"instead of {type(error).__name__}"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError(),
        TimedOut("call", 1.0),
        CircuitOpen("site", "open", 1.0),
        RateLimited("site", 1.0),
        RetriesExhausted("call", 3, (), "no attempt is left"),
        ExceptionGroup("all", [ConnectionError()]),
    ],
)
async def test_it_stands_in_for_what_may_pass(error: Exception) -> None:
    fallback = Fallback(cached)
    assert await fallback.call(boom, error) == f"instead of {type(error).__name__}"
    assert fallback.statistics().stood_in == 1


@pytest.mark.parametrize(
    "error",
    [
        KeyError("a bug"),
        ValueError("asked wrongly"),
        PermissionError("no"),
        ExceptionGroup("some", [ConnectionError(), KeyError()]),
    ],
)
async def test_it_hides_no_bug_and_no_refusal(error: Exception) -> None:
    fallback = Fallback(cached)
    with pytest.raises(type(error)) as caught:
        await fallback.call(boom, error)
    assert caught.value is error
    assert fallback.statistics().passed_on == 1


async def test_kinds_and_classes_say_for_what_else() -> None:
    fallback = Fallback(cached, on=(ErrorKind.PERMANENT, KeyError))
    assert await fallback.call(boom, KeyError()) == "instead of KeyError"
    assert await fallback.call(boom, PermissionError()) == "instead of PermissionError"
    with pytest.raises(ConnectionError):
        await fallback.call(boom, ConnectionError())


async def test_the_first_of_a_chain_that_does_not_fail_answers() -> None:
    seen: list[str] = []

    async def replica(error: Exception) -> NoReturn:
        seen.append(type(error).__name__)
        raise TimeoutError("the replica, too")

    fallback = Fallback(replica, cached)
    assert await fallback.call(boom, ConnectionError()) == "instead of TimeoutError"
    assert seen == ["ConnectionError"]


async def test_when_all_fail_the_last_ones_exception_comes_out() -> None:
    async def replica(error: Exception) -> NoReturn:
        raise TimeoutError("the replica, too")

    fallback = Fallback(replica)
    with pytest.raises(TimeoutError) as caught:
        await fallback.call(boom, ConnectionError())
    assert isinstance(caught.value.__context__, ConnectionError)
    statistics = fallback.statistics()
    assert (statistics.calls, statistics.failed) == (1, 1)


async def test_a_cancellation_has_no_fallback(
    autojump_clock: trio.testing.MockClock,
) -> None:
    fallback = Fallback(cached)
    with trio.move_on_after(1) as scope:
        await fallback.call(trio.sleep_forever)
    assert scope.cancelled_caught
    assert fallback.statistics().stood_in == 0


def test_a_fallback_without_anything_to_do_is_refused() -> None:
    with pytest.raises(ValueError, match="something to do instead"):
        Fallback()


def test_what_is_no_kind_and_no_exception_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="not 'transient'"):
        Fallback(cached, on=("transient",))  # type: ignore[arg-type]
