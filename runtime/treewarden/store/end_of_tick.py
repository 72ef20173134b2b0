"""The end of a pass of the loop, when all of its tasks have had their turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from trio.abc import Instrument

if TYPE_CHECKING:
    from collections.abc import Callable

_IDLE_PASSES: Final = 100
"""Passes in vain after which it leaves. To become an instrument and to be none again is
7 µs, to be asked in vain 0.4."""


class EndOfTick(Instrument):
    """Has the loop call `flush` before it next waits, whenever that is wanted.

    `run_sync_soon` from within the loop would wake it through a socket and cost one more
    pass of it: of the 110 µs of processor that a lone durable call took, 18. But an
    instrument is asked in every pass, which is a tenth of a call to an agent that writes
    nothing; so it is one only while there is something to write.
    """

    def __init__(
        self,
        flush: Callable[[], None],
        meanwhile: Callable[[float], bool] = lambda _: False,
    ) -> None:
        """Call `flush` when wanted, in all other passes `meanwhile`.

        That is told how long trio is about to wait (seconds), and is asked again, however
        often, as long as it says so.
        """
        self._flush = flush
        self._meanwhile = meanwhile
        self._token = trio.lowlevel.current_trio_token()
        self._is_wanted = self._is_installed = False
        self._idle_passes = 0

    def want(self) -> None:
        """Flush before the loop next waits."""
        self._is_wanted = True
        self.stay()

    def stay(self) -> None:
        """Be asked by the loop, in the next passes at least."""
        self._idle_passes = 0
        if not self._is_installed:
            self._is_installed = True
            trio.lowlevel.add_instrument(self)

    def leave(self) -> None:
        """Be asked by the loop no more, until it is wanted again."""
        self._idle_passes = 0
        if self._is_installed:
            self._is_installed = False
            trio.lowlevel.remove_instrument(self)

    def before_io_wait(self, timeout: float) -> None:
        try:
            if self._is_wanted:
                self._is_wanted, self._idle_passes = False, 0
                self._flush()
            elif self._meanwhile(timeout):
                self._idle_passes = 0
            else:
                self._idle_passes += 1
                if self._idle_passes >= _IDLE_PASSES:
                    self.leave()
        except BaseException as error:  # noqa: BLE001 - raised where trio does not only log it
            self._token.run_sync_soon(_raise, error)


def _raise(error: BaseException) -> None:
    raise error
