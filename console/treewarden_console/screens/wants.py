"""What an operator asks for with a key, as messages that climb to the app.

No screen talks to the link: the app sends the request, the reply changes the desk, and
the screen reads it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from treewarden.control.protocol import Act, Message
    from treewarden_console.widgets import Spans


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """An act that is done once the operator has read `page` and said `verb`.

    `name` is to be typed before, where that cannot be undone. The app gives `params`
    their key.
    """

    method: str
    params: Message
    title: str
    page: Sequence[Spans]
    verb: str
    name: str = ""


class WantWhy(message.Message):
    """Why did this node restart? Show me all of it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path


class WantAnswers(message.Message):
    """Ask this, if it is not being asked; the replies are for the desk."""

    def __init__(self, *requests: tuple[str, Message]) -> None:
        super().__init__()
        self.requests = requests


class WantAct(message.Message):
    """Do this to a node; the app shows first what it would do."""

    def __init__(self, act: Act, path: str) -> None:
        super().__init__()
        self.act = act
        self.path = path


class WantDone(message.Message):
    """Do this; the app asks first."""

    def __init__(self, proposal: Proposal) -> None:
        super().__init__()
        self.proposal = proposal


class WantTold(message.Message):
    """Tell the operator why nothing is done."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why


class WantNode(message.Message):
    """Show this node in the tree."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path


class WantPlace(message.Message):
    """Go to the screen or list of this name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
