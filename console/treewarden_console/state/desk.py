"""Everything that one operator has before him: the picture, the answers, the notes.

Screens read it and nothing else. The app alone writes to it: it takes the link's news
and the replies to what the operator asked.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, TypeAlias, TypeVar

from treewarden.control.protocol import AgentState, Explanation, Steps

from .agents import StateHistory
from .model import Model

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo

    from treewarden.control.protocol import Message, Rights

    from .hearing import Standing

Owner: TypeAlias = Literal["demo", "run", "attach"]
"""Who started the runtime: what `q` asks depends on it."""

NOTE_SECONDS = 8.0
"""How long the outcome of an act stays in the bottom line."""
_ANSWERS = 128

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """The outcome of an act, or news of the link, in a sentence."""

    text: str
    good: bool
    until: float


class Recent(Generic[_Value]):
    """The answers that were asked for last, by what they are about; bounded."""

    def __init__(self, limit: int = _ANSWERS) -> None:
        self._limit = limit
        self._values: OrderedDict[object, _Value] = OrderedDict()

    def get(self, about: object) -> _Value | None:
        """The answer, if it is still kept."""
        return self._values.get(about)

    def put(self, about: object, value: _Value) -> None:
        """Keep an answer; the oldest leaves."""
        self._values[about] = value
        self._values.move_to_end(about)
        if len(self._values) > self._limit:
            self._values.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        self._values.clear()


@dataclass(slots=True, kw_only=True)
class Desk:
    """What the screens read; `now` is the console's monotonic clock, in seconds."""

    now: Callable[[], float]
    zone: tzinfo | None = None
    operator: str = ""
    owner: Owner = "attach"
    model: Model = field(default_factory=Model)
    explanations: Recent[Explanation] = field(default_factory=Recent)
    histories: Recent[StateHistory] = field(default_factory=Recent)
    steps: Recent[Steps] = field(default_factory=Recent)
    note: Note | None = None
    _held: Model | None = None

    @property
    def shown(self) -> Model:
        """The picture to draw: the live one, or the one that is held."""
        return self._held or self.model

    @property
    def held(self) -> bool:
        """Whether the view is frozen."""
        return self._held is not None

    def hold(self) -> None:
        """Freeze the view, or let it go; the runtime and other consoles do not notice."""
        self._held = None if self.held else self.model.still(self.now())

    def release(self) -> None:
        """Let the view go."""
        self._held = None

    def standing(self) -> Standing:
        """How true the picture is."""
        return self.model.hearing.standing(self.now(), held=self.held)

    def allows(self, needed: Rights) -> bool:
        """Whether the runtime granted these rights to this console."""
        return self.model.rights.allow(needed)

    def say(self, text: str, *, good: bool = True) -> None:
        """Put a sentence into the bottom line for a while."""
        self.note = Note(text=text, good=good, until=self.now() + NOTE_SECONDS)

    def take_answer(self, answer: Message) -> None:
        """Keep a reply to what was asked: why, what an agent knows, steps, or rows."""
        match answer:
            case Explanation(path=path):
                self.explanations.put(path, answer)
            case AgentState(path=path):
                history = self.histories.get(path) or StateHistory()
                history.add(answer)
                self.histories.put(path, history)
            case Steps(workflow=workflow):
                self.steps.put(workflow, answer)
            case _:
                self.model.take_answer(answer)

    def forget_answers(self) -> None:
        """The runtime is another one: answers about the old one are void."""
        self.explanations.clear()
        self.histories.clear()
        self.steps.clear()
        self.release()
