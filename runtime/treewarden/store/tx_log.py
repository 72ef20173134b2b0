"""The log of transactions that somebody outside the store takes part in.

A row a transaction, written before the first participant is asked and deleted when the last
one has been told. Its decision is committed together with what the transaction changed in
the store, so that there is one moment in which all of it is decided. A row without one is
of a transaction that never will be: presumed abort (Mohan, Lindsay, Obermarck, 1986).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from treewarden.clock import wall_ns

from .checksums import as_stored, checksum, shown

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from .unit import Write


class Verdict(StrEnum):
    """What a transaction's participants are to be told."""

    UNDECIDED = "undecided"
    COMMIT = "commit"
    ABORT = "abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedTransaction:
    """A transaction that is not over; `participants` are names, None in a damaged row."""

    id: str
    verdict: Verdict
    participants: tuple[str, ...] | None


_KEEP: Final = (
    "INSERT OR REPLACE INTO tx_log (id, verdict, at_ns, participants, crc)"
    " VALUES (?, ?, ?, ?, ?)"
)
_FORGET: Final = "DELETE FROM tx_log WHERE id = ?"
_SELECT: Final = "SELECT id, verdict, at_ns, participants, crc FROM tx_log"


def log_transaction(id_: str, verdict: Verdict, participants: Sequence[str]) -> Write:
    """The statement that notes how far a transaction is, for a unit."""
    names, at_ns = msgspec.json.encode(participants), wall_ns()
    crc = checksum(names, id_, verdict, at_ns)
    return _KEEP, (id_, str(verdict), at_ns, names.decode(), crc)


def forget_transaction(id_: str) -> Write:
    """The statement that deletes it, when all participants have been told."""
    return _FORGET, (id_,)


def load_transactions(connection: sqlite3.Connection) -> list[LoggedTransaction]:
    """All that are not over; damaged rows are undecided, with nobody to tell."""
    found = []
    for id_, verdict, at_ns, text, crc in connection.execute(_SELECT):
        names = as_stored(text)
        if crc == checksum(names, id_, verdict, at_ns):
            logged = LoggedTransaction(
                id=id_,
                verdict=Verdict(verdict),
                participants=msgspec.json.decode(names, type=tuple[str, ...]),
            )
        else:
            logged = LoggedTransaction(
                id=shown(id_), verdict=Verdict.UNDECIDED, participants=None
            )
        found.append(logged)
    return found
