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

    __slots__ = ("_life", "_notify", "path")

    def __init__(self, path: str, life: Life | None, notify: Notify) -> None:
        self.path = path
        self._life = life
        self._notify: Notify | None = notify
        if life is None or life.ended:
            self._tell(Down(path=path, incarnation=0, exit=None))
        else:
            life.watchers.append(self._ended)

    def cancel(self) -> None:
        """Watch no more; no notice comes afterwards."""
        self._notify = None
        if self._life is not None and self._ended in self._life.watchers:
            self._life.watchers.remove(self._ended)

    def _ended(self, life: Life) -> None:
        self._tell(Down(path=self.path, incarnation=life.incarnation, exit=life.exit))

    def _tell(self, down: Down) -> None:
        notify, self._notify = self._notify, None
        if notify is not None:
            notify(down)


if TYPE_CHECKING:
    from collections.abc import Callable

    Notify = Callable[[Down], None]
