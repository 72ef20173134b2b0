"""Being told when somebody ends: one notice a monitor, whatever happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treewarden.exits import Exit
    from treewarden.supervision import Life


@dataclass(frozen=True, slots=True, kw_only=True)
class Down:
    """An incarnation ended; `exit` None: there was nobody to begin with."""

    path: str
    incarnation: int
    exit: Exit | None


class Monitor:
    """A watch over one incarnation of one node."""

    __slots__ = ("_life", "_notify", "_watching", "path")

    def __init__(
        self, path: str, life: Life | None, notify: Notify, watching: set[Monitor]
    ) -> None:
        """It is in `watching` for as long as a notice may come."""
        self.path = path
        self._notify = notify
        self._watching = watching
        self._life = life
        if life is None or life.ended:
            notify(Down(path=path, incarnation=0, exit=None))
        else:
            watching.add(self)
            life.watchers.append(self._ended)

    def cancel(self) -> None:
        """Watch no more; no notice comes afterwards."""
        if self in self._watching and self._life is not None:
            self._watching.remove(self)
            self._life.watchers.remove(self._ended)

    def _ended(self, life: Life) -> None:
        # Whoever is told before may have called this one off.
        if self in self._watching:
            self._watching.remove(self)
            self._notify(
                Down(path=self.path, incarnation=life.incarnation, exit=life.exit)
            )


if TYPE_CHECKING:
    from collections.abc import Callable

    Notify = Callable[[Down], None]
