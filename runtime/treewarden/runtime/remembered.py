"""What dynamic supervisors remember of their children, as rows of the store."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from treewarden.errors import NotRunning, StoreError
from treewarden.store import Unit, forget_child, load_children, remember_child

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.store import Store


class RememberedChildren:
    """What dynamic supervisors remember, kept by the store that runs at the time."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store

    async def recall(self, supervisor: str) -> list[tuple[str, bytes | None]]:
        store = self._store()
        # What the supervisor's last incarnation handed over is in the answer.
        with suppress(StoreError):
            await store.settled()
        return await store.read(partial(load_children, supervisor=supervisor))

    def write(
        self,
        supervisor: str,
        id_: str,
        spec: bytes | None,
        decided: Callable[[Exception | None], None],
    ) -> None:
        unit = Unit(supervisor)
        unit.writes = [
            forget_child(supervisor, id_)
            if spec is None
            else remember_child(supervisor, id_, spec)
        ]
        unit.release.append(decided)
        try:
            self._store().hand_over(unit)
        except (NotRunning, StoreError) as error:
            decided(error)
