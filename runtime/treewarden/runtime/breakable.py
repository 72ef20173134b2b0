"""What injections do to the tree: a node crashes, or the child whose turn it is is killed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from treewarden.errors import NotRunning
from treewarden.supervision import as_supervisor, current_life

if TYPE_CHECKING:
    from treewarden.exits import Fault
    from treewarden.supervision import Node


@dataclass(frozen=True, slots=True)
class Breakable:
    """A node as whoever crashes one sees it, in the incarnation that it had then."""

    node: Node
    path: str
    incarnation: int

    def crash(self, fault: Fault) -> None:
        """Fail now."""
        life = self.node.life
        if life is None or life.ended or life.stopping:
            raise NotRunning(f"{self.path} is not running; there is nothing to crash")
        supervisor = as_supervisor(self.node)
        if supervisor is not None:
            supervisor.crash(fault)
        else:
            life.fail(fault)


def cancel_child() -> bool:
    """Kill the child in whose turn this runs; False when there is none."""
    life = current_life.get()
    if life is None or life.ended or life.killed:
        return False
    life.node.body.kill(life)
    return True
