"""What a control server serves, as a protocol: the runtime above implements it.

The server knows sockets, clients, rights and how fast to tell; what there is to tell, and
how an act is carried out, it asks of a `Target`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .protocol import EventRow, Message, Rights, RuntimeRow, Topic


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who asks: as it introduced itself, and as the kernel knows it.

    `name` and `operator` are the client's own words; `uid` and `pid` are the peer's, pid 0
    where the system does not tell. `rights` are those granted.
    """

    name: str
    operator: str
    uid: int
    pid: int
    rights: Rights


class Target(Protocol):
    """What there is to see and to do."""

    def runtime_row(self) -> RuntimeRow:
        """Who answers."""

    def version(self, topic: Topic) -> int:
        """A number that changes when the topic's rows did; cheap, asked often."""

    def rows(self, topic: Topic) -> Mapping[str, Message]:
        """All rows of a topic by key, in their order; never changed once returned.

        Asked for every topic but the events. A row that is the same object as before is
        taken to be unchanged.
        """

    def follow_events(
        self, sink: Callable[[Sequence[EventRow]], None]
    ) -> Callable[[], None]:
        """Give every new entry to `sink`, which never waits, until the result is called."""

    async def perform(self, method: str, params: Message, client: Client) -> Message:
        """Carry out a request: all methods but hello, watch and unwatch.

        Raises:
            TreewardenError: it was not done; sent to the client under its class's name.
        """

    def refused(self, method: str, client: Client) -> None:
        """A client asked for what is above its rights."""
