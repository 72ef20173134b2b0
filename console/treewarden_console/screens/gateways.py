"""The ways out of the process: HTTP clients, and the programs that are run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treewarden.control.protocol import GatewayRow, GetGateways
from treewarden_console.widgets import Tone, gateway_page

from .listing import Listing, Shown, name, number, quiet, share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import ClassVar

    from treewarden.control.protocol import Message
    from treewarden_console.widgets import Cell, Spans


class GatewayList(Listing[GatewayRow]):
    """HTTP clients and programs."""

    ID = "gateways"
    ONE = "gateway"
    NOTHING = (
        "nothing has left the process: no HTTP client was made, no program was run"
    )
    TABLES: ClassVar[tuple[str, ...]] = ("gateways",)

    def columns(self) -> Sequence[Shown[GatewayRow]]:
        """How many are out, how many wait, how it ended."""
        return (
            Shown("GATEWAY", 0, lambda row: name(row.name)),
            Shown("KIND", 8, lambda row: quiet(row.kind)),
            Shown("ACTIVE", 9, lambda row: _part(row.active, row.limit), right=True),
            Shown("WAIT", 9, lambda row: _part(row.waiting, row.queue), right=True),
            Shown("ASKED", 5, lambda row: number(row.asked), right=True),
            Shown("FAIL", 5, lambda row: number(row.failed, Tone.BAD), right=True),
            Shown("CANCEL", 6, lambda row: number(row.cancelled), right=True, least=90),
            Shown(
                "REFUSED", 7, lambda row: number(row.refused, Tone.WORRY), right=True
            ),
        )

    def orders(self) -> Mapping[str, Callable[[GatewayRow], Any]]:
        """Where most waits, and where most went wrong."""
        return {
            "waiting": lambda row: -row.waiting,
            "failed": lambda row: -row.failed,
        }

    def words(self, row: GatewayRow) -> str:
        """Name, kind and what runs."""
        return " ".join([row.name, row.kind, *row.running])

    def asks(self) -> Iterable[tuple[str, Message]]:
        """Nobody tells of them unasked."""
        return [("gateways", GetGateways())]

    def heading(self, id_: str) -> str:
        """Its name."""
        row = self.find(id_)
        return row.name if row is not None else ""

    def page(self, row: GatewayRow) -> list[Spans]:
        """Its account, and what runs."""
        return gateway_page(row)


def _part(part: int, whole: int) -> Cell:
    return share(part, whole, full=Tone.WORRY) if part else quiet(f"0/{whole}")
