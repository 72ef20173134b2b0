"""The door of a gateway: who may leave, and who is called back when it closes.

It is open while the gateway's child runs. Whoever goes out through it does so in his own
task; when the child stops, all who are outside are cancelled and told why.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from treewarden.agents import current_body
from treewarden.errors import NotRunning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from treewarden.errors import StoreError


class Door:
    """Lets out while it is open; `name` says what of, in errors."""

    __slots__ = ("_empty", "_opened", "_outside", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._opened = trio.Event()
        self._outside: set[trio.CancelScope] = set()
        self._empty = trio.Event()

    @property
    def is_open(self) -> bool:
        """Whether anybody may leave."""
        return self._opened.is_set()

    def open(self) -> None:
        """Let out from now on."""
        self._opened.set()

    def close(self) -> None:
        """Let nobody out, and call back who is outside."""
        self._opened = trio.Event()
        for scope in self._outside:
            scope.cancel()

    async def wait_open(self) -> None:
        """Until it opens, if it is closed; a checkpoint."""
        await self._opened.wait()

    async def wait_home(self) -> None:
        """Until nobody is outside; a checkpoint if anybody is."""
        while self._outside:
            self._empty = trio.Event()
            await self._empty.wait()

    def check(self) -> None:
        """Raise NotRunning when it is closed."""
        if not self.is_open:
            raise NotRunning(f"{self.name} is not running; nothing was done")

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Be outside while a block runs: `with door.outside(): ...`.

        Raises:
            NotRunning: at entry, it is closed; at exit, it closed meanwhile and cancelled
                the block.
        """
        self.check()
        with trio.CancelScope() as scope:
            self._outside.add(scope)
            try:
                yield
            finally:
                self._outside.discard(scope)
                if not self._outside:
                    self._empty.set()
        if scope.cancelled_caught:
            raise NotRunning(f"{self.name} was stopped meanwhile")


async def sender_settled() -> None:
    """Wait until what the running handler's agent did before is committed.

    A request cannot be taken back, so what led to it must not be lost. It costs nothing
    outside of handlers, nor when all is committed; then it is no checkpoint.

    Raises:
        StoreError: it was not kept; what it led to must not happen.
    """
    sender = current_body.get()
    if sender is None:
        return
    decided = trio.Event()
    lost: list[StoreError] = []

    def tell(error: StoreError | None) -> None:
        if error is not None:
            lost.append(error)
        decided.set()

    if sender.when_settled(tell):
        await decided.wait()
    if lost:
        raise type(lost[0])(str(lost[0])) from lost[0]
