"""What an operator asks for with a key, as messages that climb to the app.

No screen talks to the link: the app sends the request, the reply changes the desk, and
the screen reads it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from textual.message import Message

if TYPE_CHECKING:
    from treewarden.control.protocol import Act, DeadLetterRow


class WantWhy(Message):
    """Why did this node restart? `open_page`: and show me all of it."""

    def __init__(self, path: str, *, open_page: bool = False) -> None:
        super().__init__()
        self.path = path
        self.open_page = open_page


class WantState(Message):
    """What does this agent know?"""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path


class WantAct(Message):
    """Do this to a node; the app shows first what it would do."""

    def __init__(self, act: Act, path: str) -> None:
        super().__init__()
        self.act = act
        self.path = path


class WantCircuit(Message):
    """Do this to a circuit; the app asks first."""

    def __init__(
        self, act: Literal["trip", "reset", "disable", "metrics-only"], name: str
    ) -> None:
        super().__init__()
        self.act = act
        self.name = name


class WantBus(Message):
    """Which durable subscriptions are idle, and which dead letters are there?"""


class WantLetter(Message):
    """Do this to a dead letter; the app asks first."""

    def __init__(self, act: Literal["retry", "discard"], letter: DeadLetterRow) -> None:
        super().__init__()
        self.act = act
        self.letter = letter
