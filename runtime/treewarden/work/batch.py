"""A batch: many calls to many agents as one, a bounded number at a time.

Every call has its outcome, also those that were never made: nothing is left out, nothing
is made twice, and nothing is undone. Who needs all or nothing uses a transaction.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    ParamSpec,
    TypeAlias,
    TypeVar,
    cast,
)

from treewarden.agents import Agent, AgentRef, current_body
from treewarden.errors import CallingSelf

from .outcome import Done, Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .ref import Pool

A = TypeVar("A", bound=Agent[Any])
P = ParamSpec("P")

_ON_FAILURE: Final = ("continue", "stop")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCall:
    """One call of a batch."""

    ref: AgentRef[Any]
    operation: Callable[..., object]
    args: tuple[object, ...] = ()
    kwargs: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotMade:
    """The call was not made: the batch had stopped, or was cancelled, before its turn."""

    item: BatchCall


BatchOutcome: TypeAlias = "Done[Any] | Failed | NotMade"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCounts:
    """How many calls there are, and how they went."""

    calls: int
    done: int
    failed: int
    not_made: int


class Batch:
    """Calls to many agents, made in a pool.

    Add calls, then `run` once. `on_failure`: "continue" makes every call, whatever the
    others do; "stop" begins none once it has seen a failure (and waits for those under way).
    """

    def __init__(
        self,
        pool: Pool,
        *,
        on_failure: str = "continue",
        limit: int | None = None,
        timeout: float = 30.0,
    ) -> None:
        """`limit` calls at a time (None: the pool's size), each within `timeout` seconds."""
        if on_failure not in _ON_FAILURE:
            raise ValueError(f"on_failure must be continue or stop, not {on_failure!r}")
        self._pool = pool
        self._stops = on_failure == "stop"
        self._limit = limit
        self._timeout = timeout
        self._outcomes: list[BatchOutcome] = []
        self._ran = False
        self._stopped = False

    def __len__(self) -> int:
        """How many calls there are."""
        return len(self._outcomes)

    def call(
        self,
        ref: AgentRef[A],
        operation: Callable[Concatenate[A, P], object],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Add a call; it is made when the batch runs.

        Raises:
            CallingSelf: it would call the agent that makes the batch.
            RuntimeError: the batch has run.
        """
        if self._ran:
            raise RuntimeError("a batch runs once; make another")
        body = current_body.get()
        if body is not None and body.node.path == ref.path:
            raise CallingSelf(f"{ref.path} would wait for itself, through a batch")
        self._outcomes.append(
            NotMade(
                item=BatchCall(ref=ref, operation=operation, args=args, kwargs=kwargs)
            )
        )

    async def run(self) -> tuple[BatchOutcome, ...]:
        """Make the calls; an outcome for each, in the order in which they were added.

        Cancelled, it stops what is under way; `outcomes` has what was known until then. A
        call that was stopped may have happened.

        Raises:
            PoolFull, PoolReentered, NotRunning, ShuttingDown: the pool took no more;
                `outcomes` says which calls were made.
            RuntimeError: it has run.
        """
        if self._ran:
            raise RuntimeError("a batch runs once; make another")
        self._ran = True
        async with self._pool.stream(
            _make,
            self._turns(),
            ordered=False,
            limit=self._limit,
            timeout=self._timeout,
        ) as outcomes:
            async for one in outcomes:
                self._keep(one)
        return self.outcomes

    @property
    def outcomes(self) -> tuple[BatchOutcome, ...]:
        """How each call went, as far as is known."""
        return tuple(self._outcomes)

    def counts(self) -> BatchCounts:
        """How many went how."""
        kinds = Counter(type(one) for one in self._outcomes)
        return BatchCounts(
            calls=len(self._outcomes),
            done=kinds[Done],
            failed=kinds[Failed],
            not_made=kinds[NotMade],
        )

    def _turns(self) -> Iterator[_Turn]:
        for index, one in enumerate(tuple(self._outcomes)):
            if self._stopped:
                return
            if isinstance(one, NotMade):
                yield _Turn(index, one.item)

    def _keep(self, one: Done[object] | Failed) -> None:
        turn = cast("_Turn", one.item)
        if isinstance(one, Failed):
            self._stopped = self._stops
            kept: BatchOutcome = Failed(error=one.error, item=turn.call)
        else:
            kept = Done(value=one.value, item=turn.call)
        self._outcomes[turn.index] = kept


@dataclass(frozen=True, slots=True)
class _Turn:
    index: int
    call: BatchCall


async def _make(turn: _Turn) -> object:
    call = turn.call
    return await call.ref.call(call.operation, *call.args, **call.kwargs)
