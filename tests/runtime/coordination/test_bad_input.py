"""What is no bound, no time and no vote is refused where it is given, with its value."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from treewarden import (
    Agent,
    AgentRef,
    Barriers,
    Elections,
    ExchangePolicy,
    Locks,
    OwnerScope,
    Quorums,
    Registry,
    TaskDistributor,
)
from treewarden.coordination.quorum import Tally

if TYPE_CHECKING:
    from collections.abc import Callable


def distributor(**options: Any) -> TaskDistributor:
    return TaskDistributor(Registry[AgentRef[Any]](), **options)


@pytest.mark.parametrize("bad", [-1, True, math.nan, math.inf, 1.5, "3", None])
@pytest.mark.parametrize(
    ("make", "field"),
    [
        (Locks, "line"),
        (Locks, "capacity"),
        (Barriers, "capacity"),
        (Elections, "candidates"),
        (Elections, "capacity"),
        (Quorums, "capacity"),
        (distributor, "limit"),
        (distributor, "queue"),
        (distributor, "retries"),
        (ExchangePolicy, "capacity"),
        (ExchangePolicy, "total"),
        (ExchangePolicy, "max_attempts"),
    ],
)
def test_a_bound_is_a_count(make: Callable[..., object], field: str, bad: Any) -> None:
    with pytest.raises(
        (TypeError, ValueError), match=f"{field} must be .* not {bad!r}"
    ):
        make(**{field: bad})


@pytest.mark.parametrize("bad", [0, -1.0, True, math.nan, "3"])
@pytest.mark.parametrize(
    ("make", "field"),
    [
        (Elections, "lease"),
        (distributor, "timeout"),
        (ExchangePolicy, "delivery_timeout"),
        (ExchangePolicy, "idle"),
    ],
)
def test_a_time_is_a_number_of_seconds(
    make: Callable[..., object], field: str, bad: Any
) -> None:
    with pytest.raises(
        (TypeError, ValueError), match=f"{field} must be .* not {bad!r}"
    ):
        make(**{field: bad})


@pytest.mark.parametrize("bad", [0, -1, True, math.nan, 1.5, "3"])
async def test_parties_are_counted(bad: Any) -> None:
    barriers = Barriers()
    with (
        OwnerScope() as me,
        pytest.raises((TypeError, ValueError), match="parties must be"),
    ):
        await barriers.meet("start", bad, owner=me)
    assert (barriers.statistics().owners, barriers.statistics().barriers) == (0, ())


@pytest.mark.parametrize("bad", [True, math.nan, 1.5])
def test_votes_are_counted(bad: Any) -> None:
    with pytest.raises(TypeError, match="need must be majority, all or an int"):
        Tally("abc", bad)


class Worker(Agent[None]):
    async def work(self) -> None:
        pass


async def test_capabilities_are_several() -> None:
    """One text would be a collection of letters, and nobody could do that."""
    with distributor() as tasks:
        with pytest.raises(TypeError, match="a collection of them, not 'gpu'"):
            await tasks.submit("gpu", Worker.work)
        seen = tasks.statistics()
    assert (seen.submitted, seen.failed) == (0, 0)
