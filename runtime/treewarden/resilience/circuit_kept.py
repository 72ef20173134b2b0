"""What is kept of a circuit that is not closed, and how much of its time is left.

Between two processes there is only the wall clock, and it may have been set meanwhile.
Put back, it never lengthens an open time beyond what it was when the circuit opened; put
forward, it shortens one, and the worst of it is an early probe.
"""

from __future__ import annotations

from typing import Final

import msgspec

from .circuit_core import CircuitState

# How often it had opened is remembered for as long as the journal is: 7 days.
_REMEMBERED_SECONDS: Final = 7 * 24 * 3600.0


class KeptCircuit(msgspec.Struct, frozen=True, kw_only=True):
    """A circuit as its process left it; the last three matter to open ones."""

    state: CircuitState
    until_ns: int = 0
    seconds: float = 0.0
    openings: int = 1

    def left(self, now_ns: int) -> float:
        """Seconds of the open time that are left by the wall clock."""
        return max(0.0, min(self.seconds, (self.until_ns - now_ns) / 1e9))


def encode(kept: KeptCircuit) -> bytes:
    """As JSON, for the store."""
    return msgspec.json.encode(kept)


def decode(text: bytes) -> KeptCircuit | None:
    """What was kept; None when no version of ours has written this."""
    try:
        return msgspec.json.decode(text, type=KeptCircuit)
    except msgspec.DecodeError:
        return None


def circuit_is_over(text: bytes, now_ns: int) -> bool:
    """Whether nothing is lost with it: it was open, and has long been over.

    What an operator ordered stands until he takes it back, whoever asks for the circuit.
    """
    kept = decode(text)
    if kept is None or kept.state is not CircuitState.OPEN:
        return False
    return now_ns - kept.until_ns > _REMEMBERED_SECONDS * 1e9
