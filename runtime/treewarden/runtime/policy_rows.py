"""What resilience policies keep across runs, as rows of the store."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from treewarden.clock import wall_ns
from treewarden.errors import NotRunning, StoreError
from treewarden.store import (
    Unit,
    forget_policy_state,
    keep_policy_state,
    load_policy_states,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.store import Store

WRITE_AGAIN_SECONDS: Final = 1.0
"""After a failed commit, until what a policy wants kept is tried again."""


class PolicyRows:
    """What the policies of one kind keep, in the store that runs at the time."""

    def __init__(
        self,
        kind: str,
        *,
        is_over: Callable[[bytes, int], bool],
        store: Callable[[], Store],
        later: Callable[[float, Callable[[], None]], None],
        unreadable: Callable[[str, str], None],
    ) -> None:
        self._kind = kind
        self._is_over = is_over
        self._store = store
        self._later = later
        self._unreadable = unreadable
        self._states: dict[str, bytes] = {}
        self._loaded = False
        # Names whose row is not what it should be: a commit failed.
        self._unwritten: set[str] = set()

    async def load(self, store: Store) -> None:
        """Read what earlier runs kept, once: what this one knows since is newer.

        A damaged row is worth nothing: it is reported, and the policy begins anew. One
        that is over is dropped: of a name that nobody declares again it would stay.
        """
        if self._loaded:
            return
        question = partial(load_policy_states, kind=self._kind)
        found = await store.read(question)
        self._loaded = True
        for name, state in found.items():
            if state is None:
                self._unreadable(self._kind, name)
                self.keep(name, None)
            elif self._is_over(state, wall_ns()):
                self.keep(name, None)
            else:
                self._states[name] = state

    def kept(self, name: str) -> bytes | None:
        return self._states.get(name)

    def keep(self, name: str, state: bytes | None) -> None:
        if state is None:
            self._states.pop(name, None)
        else:
            self._states[name] = state
        self._write(name)

    def _write(self, name: str) -> None:
        state = self._states.get(name)
        unit = Unit(f"/system/{self._kind}")
        unit.writes = [
            forget_policy_state(self._kind, name)
            if state is None
            else keep_policy_state(self._kind, name, state)
        ]
        unit.release.append(partial(self._decided, name))
        try:
            self._store().hand_over(unit)
        except (NotRunning, StoreError) as error:
            self._decided(name, error)

    def _decided(self, name: str, error: Exception | None) -> None:
        if error is None:
            self._unwritten.discard(name)
            return
        if not self._unwritten:
            self._later(WRITE_AGAIN_SECONDS, self._write_again)
        self._unwritten.add(name)

    def _write_again(self) -> None:
        names, self._unwritten = self._unwritten, set()
        for name in names:
            self._write(name)
