"""The address of a pool: what others hold, and the work that they give to it."""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    TypeVar,
    TypeVarTuple,
    Unpack,
    cast,
    overload,
)

import trio

from treewarden.errors import NotRunning
from treewarden.supervision import Kind

from .handle import Handle
from .policy import PoolPolicy, PoolStatistics
from .pool import PoolBody
from .stream import Stream
from .work import WorkStatistics, leave

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from treewarden.supervision import Directory, Node

    from .outcome import Outcome

T = TypeVar("T")
X = TypeVar("X")
Ts = TypeVarTuple("Ts")


class Pool:
    """A pool's address; it stays valid across the pool's restarts.

    As the `start` of a child it makes one: `ChildSpec("renderers", Pool,
    args=(PoolPolicy(size=4, kind="thread"),))`. For pools that come and go there is
    `runtime.pools`.

    A handler's work for others begins once what its agent did before is committed.
    """

    __slots__ = ("_directory", "path")

    def __init__(self, directory: Directory, path: str) -> None:
        self._directory = directory
        self.path = path

    def __repr__(self) -> str:
        """The path says which."""
        return f"Pool({self.path!r})"

    @classmethod
    def make_body(
        cls,
        node: Node,
        directory: Directory,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> PoolBody:
        """What a supervisor runs for it."""
        match args:
            case () if not kwargs:
                return PoolBody(node, directory, PoolPolicy())
            case (PoolPolicy() as policy,) if not kwargs:
                return PoolBody(node, directory, policy)
        raise TypeError(f"{node.path}: a pool takes one PoolPolicy, not {args!r}")

    @overload
    async def run(self, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T: ...

    @overload
    async def run(self, fn: Callable[[Unpack[Ts]], T], *args: *Ts) -> T: ...

    async def run(self, fn: Callable[..., object], *args: object) -> object:
        """Run `fn(*args)` in the pool and wait for what it returns.

        Cancelled, it stops the work and leaves when that is gone, or a second after its
        shutdown time; what the work did until then stays done.

        Raises:
            What the function raised, as it is.
            WorkStopped: it ended without a result; `begun` says whether it ran.
            PoolFull, PoolReentered, NotRunning, ShuttingDown: nothing was run.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        work = self.body().make(fn, args, owned=True)
        try:
            await work.wait_finished()
        finally:
            await leave([work])
        try:
            return work.unwrap()
        finally:
            # No cycle between a failure and this frame.
            del work

    @overload
    def start(
        self,
        fn: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: *Ts,
        name: str | None = None,
        shutdown: float | None = None,
    ) -> Handle[T]: ...

    @overload
    def start(
        self,
        fn: Callable[[Unpack[Ts]], T],
        *args: *Ts,
        name: str | None = None,
        shutdown: float | None = None,
    ) -> Handle[T]: ...

    def start(
        self,
        fn: Callable[..., object],
        *args: object,
        name: str | None = None,
        shutdown: float | None = None,
    ) -> Handle[Any]:
        """Have `fn(*args)` run in the pool and go on.

        The work belongs to the pool: whoever started it may end, or drop the handle. A
        crash is reported as `work.crashed`; if nobody reads it either, it warns. `name`
        stands in lists and reports. `shutdown` is how many seconds it has to clean up
        when it is stopped (0: none; None: the pool's).

        Raises:
            PoolFull, NotRunning, ShuttingDown: nothing was run.
        """
        if shutdown is not None and not shutdown >= 0:
            raise ValueError(f"shutdown must be >= 0 seconds, not {shutdown!r}")
        work = self.body().make(fn, args, owned=False, name=name, shutdown=shutdown)
        return Handle(work)

    def completed(self, value: T) -> Handle[T]:
        """A handle of work that is done already; it takes no slot."""
        return Handle(self.body().finished(value))

    @overload
    def stream(
        self,
        fn: Callable[[X], Awaitable[T]],
        items: Iterable[X],
        *,
        ordered: bool = True,
        limit: int | None = None,
        timeout: float = 30.0,
        failures: Literal["values"] = "values",
    ) -> Stream[Outcome[T]]: ...

    @overload
    def stream(
        self,
        fn: Callable[[X], Awaitable[T]],
        items: Iterable[X],
        *,
        ordered: bool = True,
        limit: int | None = None,
        timeout: float = 30.0,
        failures: Literal["raise"],
    ) -> Stream[T]: ...

    @overload
    def stream(
        self,
        fn: Callable[[X], T],
        items: Iterable[X],
        *,
        ordered: bool = True,
        limit: int | None = None,
        timeout: float = 30.0,
        failures: Literal["values"] = "values",
    ) -> Stream[Outcome[T]]: ...

    @overload
    def stream(
        self,
        fn: Callable[[X], T],
        items: Iterable[X],
        *,
        ordered: bool = True,
        limit: int | None = None,
        timeout: float = 30.0,
        failures: Literal["raise"],
    ) -> Stream[T]: ...

    def stream(
        self,
        fn: Callable[..., object],
        items: Iterable[object],
        *,
        ordered: bool = True,
        limit: int | None = None,
        timeout: float = 30.0,
        failures: str = "values",
    ) -> Stream[Any]:
        """`fn(item)` for every item, in the pool, at most `limit` ahead of the reader.

        An async context manager and iterator: `async with pool.stream(fn, items) as
        outcomes: async for outcome in outcomes: ...`. Nothing runs before the block is
        entered; however it is left, what still runs is stopped and waited for.

        Args:
            fn: called with one item.
            items: read lazily; a generator is closed at the end.
            ordered: in the order of the items; else in the order of finishing.
            limit: how many items may be taken and not yet delivered; None: the pool's size.
            timeout: a policy: how long one item may run, in seconds; may be `math.inf`.
            failures: "values": yield a `Done` or `Failed` for each item, with the item;
                "raise": yield what was returned, and raise the first failure.

        Raises:
            TypeError, ValueError: an option is wrong.
        """
        return Stream(
            self.body,
            fn,
            items,
            ordered=ordered,
            limit=limit,
            timeout=timeout,
            failures=failures,
        )

    def works(self) -> list[WorkStatistics]:
        """What runs and what waits in line, in order of being asked for."""
        return self.body().works()

    def statistics(self) -> PoolStatistics:
        """Gauges and counters.

        Raises:
            NotRunning: there is no such pool.
        """
        return self.body().statistics()

    def body(self) -> PoolBody:
        """The pool itself; for this package.

        Raises:
            NotRunning: there is none.
        """
        node = self._directory.find(self.path)
        if node is None or node.body.kind is not Kind.POOL:
            raise NotRunning(f"there is no pool at {self.path}; nothing was run")
        return cast("PoolBody", node.body)
