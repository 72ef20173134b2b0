"""Being told when somebody ends: one notice a monitor, whatever happens.

An agent hears of it through `on_down`; a plain task waits for it, inside a block that ends
the watch. An answer that was given before the end comes before the notice: where it waits
for its commit, the notice to a plain task waits for the same one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from types import TracebackType

    from treewarden.errors import StoreError
    from treewarden.exits import Exit
    from treewarden.supervision import Life


@dataclass(frozen=True, slots=True, kw_only=True)
class Down:
    """An incarnation ended; `exit` None: there was nobody to begin with."""

    path: str
    incarnation: int
    exit: Exit | None


class Monitor:
    """A watch over one incarnation of one node, also as a block that it ends with."""

    __slots__ = (
        "_life",
        "_over",
        "_settle",
        "_tell",
        "_untell",
        "_watching",
        "down",
        "path",
    )

    def __init__(
        self,
        path: str,
        life: Life | None,
        tell: Tell,
        watching: set[Monitor],
        settle: Settle | None = None,
    ) -> None:
        """It is in `watching` for as long as a notice may come.

        `settle`: has the notice wait for the answers that were given before.
        """
        self.path = path
        self.down: Down | None = None
        self._tell = tell
        self._settle = settle
        self._untell: Callable[[], None] | None = None
        self._over: trio.Event | None = None
        self._watching = watching
        self._life = life
        if life is None or life.ended:
            self._notify(Down(path=path, incarnation=0, exit=None))
        else:
            watching.add(self)
            life.watchers.append(self._ended)

    def __enter__(self) -> Monitor:
        """It watches already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Watch no more."""
        self.cancel()

    def cancel(self) -> None:
        """Watch no more; a notice that an agent has not come to yet is taken back."""
        if self in self._watching and self._life is not None:
            self._watching.remove(self)
            self._life.watchers.remove(self._ended)
        if self._untell is not None:
            self._untell()
        if self.down is None and self._over is not None:
            self._over.set()

    async def wait_down(self) -> Down:
        """Wait for the end; at once when it was before.

        Raises:
            RuntimeError: the watch was called off.
        """
        if self._over is None:
            self._over = trio.Event()
        if self.down is not None or self not in self._watching:
            self._over.set()
        await self._over.wait()
        if self.down is None:
            raise RuntimeError(f"the monitor of {self.path} was called off")
        return self.down

    def _ended(self, life: Life) -> None:
        down = Down(path=self.path, incarnation=life.incarnation, exit=life.exit)
        # A commit that fails is told to those who wait for an answer; it is over as well.
        if self._settle is None or not self._settle(lambda _: self._leave(down)):
            self._leave(down)

    def _leave(self, down: Down) -> None:
        # Whoever was told before, or came meanwhile, may have called this one off.
        if self in self._watching:
            self._watching.remove(self)
            self._notify(down)

    def _notify(self, down: Down) -> None:
        self.down = down
        self._untell = self._tell(down)
        if self._over is not None:
            self._over.set()


def tell_nobody(_: Down) -> None:
    """For a monitor that is waited for."""


if TYPE_CHECKING:
    from collections.abc import Callable

    Tell = Callable[[Down], Callable[[], None] | None]
    """Hears of the end; returns what takes that back, if it can be."""

    Settle = Callable[[Callable[[StoreError | None], None]], bool]
    """Calls it once all that the agent did is decided; False: it is, and nothing is called."""
