"""What the starter of a piece of work holds: to wait for it, to ask about it, to stop it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from treewarden.errors import CallingSelf, PoolReentered, WorkStopped
from treewarden.exits import Killed

from .work import Work, WorkState, WorkStatistics, current_origin, wait_finished

if TYPE_CHECKING:
    from collections.abc import Collection

    from .outcome import Outcome

T = TypeVar("T")


class Handle(Generic[T]):
    """A started piece of work, for whoever wants to know how it goes.

    Any task may hold it, wait with it and read it, as often as it likes. Dropping it stops
    nothing; but a failure that nobody ever read, and nobody ignored, is a ResourceWarning.
    """

    __slots__ = ("_work",)

    def __init__(self, work: Work[T]) -> None:
        self._work = work

    def __repr__(self) -> str:
        """Who it is and what it does."""
        return f"<Handle {self._work.name} {self._work.state}>"

    def statistics(self) -> WorkStatistics:
        """What may be seen of the work."""
        return self._work.statistics()

    async def result(self) -> T:
        """What it returned. A cancelled wait stops waiting, not the work.

        Raises:
            What the function raised, as it is.
            WorkStopped: it was stopped, or ended itself, without a result.
            PoolReentered: it waits for a slot, and the pool is full of what waits here.
            CallingSelf: it is the work that asks.
        """
        await self._wait_finished()
        return self._work.unwrap()

    async def wait_outcome(self) -> Outcome[T]:
        """How it went, as a value; never raises what the work raised.

        Raises:
            PoolReentered, CallingSelf: as `result` does.
        """
        await self._wait_finished()
        return self._work.outcome()

    def outcome(self) -> Outcome[T] | None:
        """How it went, or None while it is not over; may be asked again."""
        return self._work.outcome() if self._work.finished else None

    async def stop(self) -> Outcome[T] | None:
        """Stop it, within its shutdown time, and wait until it is gone.

        None: it was stopped. An outcome: it had ended by itself, or did not go in time.
        """
        work = self._work
        work.pool.ask(work)
        await work.wait_finished()
        if not self._went_as_told():
            return work.outcome()
        return None

    def ignore(self) -> Outcome[T] | None:
        """Whatever comes of it, nobody will ask; what has come already is returned."""
        self._work.read = True
        return self.outcome()

    async def _wait_finished(self) -> None:
        _refuse_deadlock([self._work])
        await self._work.wait_finished()

    def _went_as_told(self) -> bool:
        error = self._work.error
        if not isinstance(error, WorkStopped) or not self._work.life.stopping:
            return False
        return self._work.shutdown == 0 or not isinstance(error.exit, Killed)

    @property
    def work(self) -> Work[T]:
        """What it is a handle of; for this package."""
        return self._work


def _refuse_deadlock(works: Collection[Work[Any]]) -> None:
    own = current_origin.get()
    for work in works:
        if work.origin is own and not work.finished:
            raise CallingSelf(f"{work.name} would wait for its own end")
        if work.state is WorkState.WAITING and work.pool.holds_the_caller():
            raise PoolReentered(work.pool.node.path, work.pool.policy.size)


async def results(handles: Collection[Handle[T]]) -> list[T]:
    """What they returned, in the order given, whatever the order of finishing.

    The first failure to happen is raised at once; the others go on. A cancelled wait stops
    none of them.

    Raises:
        What the first that failed raised.
        PoolReentered, CallingSelf: as `Handle.result` does, for one of them.
    """
    works = [handle.work for handle in handles]
    _refuse_deadlock(works)
    await wait_finished(works, or_failure=True)
    for work in works:
        if work.error is not None:
            work.unwrap()
    return [work.unwrap() for work in works]


async def wait_done(
    handles: Collection[Handle[T]], count: int | None = None
) -> list[Outcome[T] | None]:
    """Wait until `count` of them (all: None) are over; how each went, in the order given.

    None stands for one that is not over. To bound the wait, put `trio.move_on_after`
    around it and ask each handle for its `outcome()`.

    Raises:
        PoolReentered, CallingSelf: as `Handle.result` does, for one of them.
    """
    works = [handle.work for handle in handles]
    _refuse_deadlock(works)
    await wait_finished(works, count)
    return [handle.outcome() for handle in handles]
