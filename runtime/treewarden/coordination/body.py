"""The node of an exchange: a dynamic supervisor, and what its workers deliver."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from treewarden.supervision import DynamicSupervisorSpec, Supervisor

from .delivery import Deliveries

if TYPE_CHECKING:
    from treewarden.exits import Exit
    from treewarden.supervision import Directory, Life, Node

    from .policy import ExchangePolicy


class ExchangeBody(Supervisor):
    """What is to be delivered belongs to the node; its workers, to an incarnation."""

    def __init__(
        self, node: Node, directory: Directory, policy: ExchangePolicy
    ) -> None:
        super().__init__(node, DynamicSupervisorSpec(), directory)
        self.deliveries = Deliveries(self, policy)

    async def run(self, life: Life) -> Exit | None:
        """One incarnation; what the last one left is delivered by this one."""
        # Not before it serves: it begins with an empty list of wishes.
        self.directory.timers.at(trio.current_time(), self.deliveries.resume)
        return await super().run(life)

    def at_rest(self, exit_: Exit, *, gone: bool) -> None:
        """No incarnation will deliver anything."""
        super().at_rest(exit_, gone=gone)
        self.deliveries.close()
