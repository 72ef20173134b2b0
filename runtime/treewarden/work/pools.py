"""The runtime's pools by name: made when they are asked for, kept until they are closed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, cast

from treewarden.errors import AlreadyStarted, NameUnknown, UnknownChild
from treewarden.supervision import ChildSpec, Kind, NodeState, SupervisorRef

from .policy import PoolPolicy, PoolStatistics
from .ref import Pool

if TYPE_CHECKING:
    from treewarden.supervision import Directory

    from .pool import PoolBody


class Pools:
    """The pools below one dynamic supervisor; `runtime.pools` is those of the runtime."""

    def __init__(self, directory: Directory, path: str) -> None:
        self.path = path
        self._directory = directory
        self._supervisor = SupervisorRef(directory, path)

    async def pool(
        self,
        name: str,
        *,
        size: int | None = None,
        kind: str | None = None,
        queue: int | None = None,
    ) -> Pool:
        """The pool of this name; made if there is none.

        None stands for what an existing pool has, and for a new one for 10 slots, kind
        "task" and a line of 1000. Ask again after `NotRunning`: when the supervisor of the
        pools was restarted, or a pool spent its budget, there is none until somebody does.

        Raises:
            ValueError: there is one, and it is not as asked; or an option is wrong.
            NotRunning, ShuttingDown: the pools' supervisor does not run.
        """
        given = {"size": size, "kind": kind, "queue": queue}
        asked = {key: value for key, value in given.items() if value is not None}
        policy = PoolPolicy(**asked)  # type: ignore[arg-type]
        pool = self._address(name)
        if self._is_missing(pool):
            # Started already: somebody else was quicker, and theirs must do.
            with suppress(AlreadyStarted):
                await self._supervisor.start_child(
                    ChildSpec(name, Pool, args=(policy,))
                )
        has = pool.body().policy
        for key, value in asked.items():
            if getattr(has, key) != value:
                raise ValueError(
                    f"pool {name} has {key} {getattr(has, key)!r}, not {value!r}"
                )
        return pool

    def __getitem__(self, name: str) -> Pool:
        """The pool of this name.

        Raises:
            NameUnknown: there is none.
        """
        pool = self._address(name)
        if self._is_missing(pool):
            raise NameUnknown(pool.path)
        return pool

    async def close(self, name: str) -> None:
        """Stop a pool and its work, and forget it; returns when it is gone.

        Raises:
            NameUnknown: there is none.
            NotRunning, ShuttingDown, CallingSelf: as for any child.
        """
        try:
            await self._supervisor.terminate_child(name)
        except UnknownChild:
            raise NameUnknown(self._address(name).path) from None

    def statistics(self) -> tuple[PoolStatistics, ...]:
        """All pools of the tree, wherever they stand, in the tree's order."""
        return tuple(
            cast("PoolBody", node.body).statistics()
            for node in self._directory.nodes()
            if node.body.kind is Kind.POOL
        )

    def _address(self, name: str) -> Pool:
        return Pool(self._directory, f"{self.path}/{name}")

    def _is_missing(self, pool: Pool) -> bool:
        node = self._directory.find(pool.path)
        return node is None or node.state is NodeState.FAILED
