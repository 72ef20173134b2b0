"""The console's app: keys, screens, and the one loop that turns news into drawing.

News of the link changes the desk as it comes; ten times a second what changed is drawn,
and nothing is drawn when nothing did. Requests go out from here and nowhere else, and
their replies change the desk, which the screen then reads again.
"""

from __future__ import annotations

import asyncio
import getpass
import locale
import os
import signal
import sys
import time
import uuid
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, ClassVar, assert_never, cast, get_args

from textual.app import App
from textual.binding import Binding, BindingType
from textual.worker import Worker, WorkerState

from treewarden.control.plain import plain
from treewarden.control.protocol import (
    Act,
    AgentState,
    CircuitAct,
    DeadLetterAct,
    DeadLetters,
    Done,
    Events,
    Explanation,
    GetDeadLetters,
    GetEvents,
    GetPreview,
    GetState,
    GetSubscriptions,
    Inject,
    Message,
    Preview,
    Restart,
    Rights,
    Shutdown,
    Stop,
    Subscriptions,
    Why,
)

from .link import Connected, Link, LinkError, LinkNews, Lost, Source, Told
from .screens import (
    AgentsScreen,
    BusScreen,
    CircuitsScreen,
    Confirm,
    EventsScreen,
    Leave,
    Leaving,
    Reading,
    TreeScreen,
    View,
    WantAct,
    WantCircuit,
    WantLetter,
    WantState,
    WantWhy,
    help_page,
)
from .state import EVERYTHING, Desk, News, Owner, Standing
from .widgets import BLANK, Ink, Spans, Tone, letter_page, preview_page, why_page

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from datetime import tzinfo
    from pathlib import Path


TICK = 0.1
"""Seconds between drawings: ten a second are fluent, and 1.4 % of a core at 10,000 nodes."""
_BACKLOG = 500
_LETTERS = 200
_LINK = "link"

_VERBS = {Act.CRASH: "Crash", Act.RESTART: "Restart", Act.STOP: "Stop"}
_LETTER_ACTS = {
    "retry": ("Deliver again", "It goes back to whom it was for, as if it were new."),
    "discard": ("Forget", "It is gone for good."),
}
_CIRCUIT_ACTS = {
    "trip": ("Trip", "calls are rejected until somebody closes it"),
    "reset": ("Close", "calls are let through again, and its window starts empty"),
    "disable": ("Disable", "calls are let through and not counted until it is closed"),
    "metrics-only": (
        "Only watch",
        "calls are let through and counted, and it never opens",
    ),
}


class TreewardenConsole(App[None]):
    """The console over one source of news; `now` is a monotonic clock in seconds."""

    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS: list[tuple[int, str]] | None = [  # noqa: RUF012 - as in App
        (0, "-tiny"),
        (60, "-compact"),
        (100, "-normal"),
        (140, "-wide"),
    ]
    VERTICAL_BREAKPOINTS: list[tuple[int, str]] | None = [  # noqa: RUF012 - as in App
        (0, "-flat"),
        (15, "-short"),
        (30, "-tall"),
    ]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "view('tree')", show=False),
        Binding("2", "view('circuits')", show=False),
        Binding("3", "view('events')", show=False),
        Binding("4", "view('agents')", show=False),
        Binding("5", "view('bus')", show=False),
        Binding("p", "hold", show=False),
        Binding("question_mark", "help", show=False),
        Binding("q", "leave", show=False),
        Binding("ctrl+q", "leave_at_once", show=False, priority=True),
    ]

    def __init__(
        self,
        link: Source,
        *,
        owner: Owner = "attach",
        operator: str = "",
        ascii_only: bool = False,
        zone: tzinfo | None = None,
        now: Callable[[], float] = time.monotonic,
        ticking: bool = True,
    ) -> None:
        # Native colours let Textual strip them all; else NO_COLOR means greys.
        colour = "NO_COLOR" not in os.environ
        super().__init__(css_path="console.tcss", ansi_color=not colour)
        self.title = "treewarden"
        self.link = link
        self.ink = Ink(colour=colour, ascii_only=ascii_only)
        self.desk = Desk(now=now, zone=zone, operator=operator, owner=owner)
        self.last_words = ""
        self.animation_level = "none"
        self._ticking = ticking
        self._standing = Standing.CONNECTING
        self._views: dict[str, View] = {}
        self._questioning = False
        self._asking_bus = False

    # --- screens ----------------------------------------------------------------------

    async def on_mount(self) -> None:
        """Show the tree, and begin to listen."""
        self._views = {
            "tree": TreeScreen(self.desk, self.ink),
            "circuits": CircuitsScreen(self.desk, self.ink),
            "events": EventsScreen(self.desk, self.ink),
            "agents": AgentsScreen(self.desk, self.ink),
            "bus": BusScreen(self.desk, self.ink),
        }
        for name, view in self._views.items():
            self.add_mode(name, partial(_the, view))
        await self.switch_mode("tree")
        self.run_worker(
            self.link.run(self.hear), name=_LINK, exclusive=True, exit_on_error=False
        )
        if self._ticking:
            self.set_interval(TICK, self.tick)
            self._obey_signals()

    def _obey_signals(self) -> None:
        # Without a handler these would leave the terminal as we made it.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.exit)

    @property
    def view(self) -> View:
        """The full screen on show, under whatever question lies over it."""
        return self._views[self.current_mode]

    def tick(self) -> None:
        """Draw what changed since the last tick, if anything did."""
        desk = self.desk
        second = desk.model.sample(desk.now())
        news = desk.model.take(second=second)
        if desk.note is not None and desk.now() >= desk.note.until:
            desk.note = None
            news = news or News(second=True)
        standing = desk.standing()
        if standing is not self._standing:
            self._standing = standing
            self.ink.faded = standing is Standing.STALE
            self.view.fade()
            news = EVERYTHING
        if news:
            self._draw(news)

    def _draw(self, news: News) -> None:
        self.view.draw_lines()
        # A held view stands still; one under a question is read anew when it is back.
        redrawn = news is EVERYTHING
        if self.screen is self.view and (redrawn or not self.desk.held):
            self.view.take(news)

    # --- news -------------------------------------------------------------------------

    def hear(self, news: LinkNews) -> None:
        """Take one piece of news; drawing waits for the tick."""
        desk, now = self.desk, self.desk.now()
        match news:
            case Told(update=update):
                desk.model.apply(update, now)
            case Connected(welcome=welcome):
                if note := desk.model.welcome(welcome, now):
                    desk.forget_answers()
                    desk.say(note)
                self._work(self._backfill())
            case Lost(why=why, refused=refused):
                if refused and desk.model.runtime is None:
                    self._end(1, why)
                desk.model.hearing.end(why, now)
            case _:
                assert_never(news)

    async def _backfill(self) -> None:
        """Events from before we came; what a watch brings begins now."""
        match await self._look("events", GetEvents(limit=_BACKLOG)):
            case Events(rows=rows):
                self.desk.model.events.backfill(rows)

    # --- questions and answers --------------------------------------------------------

    async def _look(self, method: str, params: Message) -> Message | None:
        """The reply to what nobody asked for by hand; None when there was none."""
        with suppress(LinkError):
            return await self.link.request(method, params)
        return None

    async def _ask(self, method: str, params: Message) -> Message | None:
        """The reply; None when there was none, and the operator was told why."""
        try:
            return await self.link.request(method, params)
        except LinkError as error:
            self._say(str(error), good=False)
            return None

    def _say(self, text: str, *, good: bool) -> None:
        self.desk.say(text, good=good)
        self.view.draw_lines()

    async def _why(self, path: str, *, open_page: bool) -> None:
        ask = self._ask if open_page else self._look
        match await ask("why", Why(path=path)):
            case Explanation() as told:
                self.desk.keep_explanation(told)
                self.view.answered()
                if open_page:
                    page = why_page(told, self.ink, self.desk.zone)
                    self.push_screen(Reading(self.ink, f"why: {told.path}", page))

    async def _state(self, path: str) -> None:
        match await self._look("state", GetState(agent=path)):
            case AgentState() as state:
                self.desk.keep_state(state)
                self.view.answered()

    async def _node_act(self, act: Act, path: str) -> None:
        """Show what the act would do; do it when the operator says so."""
        match await self._ask("preview", GetPreview(act=act, path=path)):
            case Preview() as preview:
                name = _name(path) if act is Act.CRASH else ""
                title = f"{act.value} {path}"
                page = preview_page(preview, self.ink)
                if await self._confirmed(title, page, _VERBS[act], name):
                    await self._do(*_request(preview))

    async def _circuit_act(self, want: WantCircuit) -> None:
        verb, effect = _CIRCUIT_ACTS[want.act]
        page: list[Spans] = [[(want.name, Tone.STRONG), (f": {effect}", Tone.TEXT)]]
        if await self._confirmed(f"{verb.lower()} {want.name}", page, verb):
            act = CircuitAct(name=want.name, act=want.act, key=_key())
            await self._do("circuit", act)

    async def _letter_act(self, want: WantLetter) -> None:
        letter = want.letter
        verb, effect = _LETTER_ACTS[want.act]
        title = f"dead letter {letter.number}"
        page: list[Spans] = [
            [(effect, Tone.TEXT)], BLANK, *letter_page(letter, self.desk.zone),
        ]  # fmt: skip
        if await self._confirmed(title, page, verb):
            act = DeadLetterAct(act=want.act, number=letter.number, key=_key())
            await self._do("dead_letter", act)
            await self._bus()

    async def _bus(self) -> None:
        """Ask for what is only in the runtime's store."""
        model = self.desk.model
        match await self._look("subscriptions", GetSubscriptions()):
            case Subscriptions() as told:
                model.take_subscriptions(told)
        match await self._look("dead_letters", GetDeadLetters(limit=_LETTERS)):
            case DeadLetters() as letters:
                model.take_letters(letters)

    async def _ask_bus(self) -> None:
        try:
            await self._bus()
        finally:
            self._asking_bus = False

    async def _confirmed(
        self, title: str, page: list[Spans], verb: str, name: str = ""
    ) -> bool:
        confirm = Confirm(self.ink, title, page, verb, name)
        answer: bool | None = await self.push_screen_wait(confirm)
        return bool(answer)

    async def _do(self, method: str, params: Message) -> bool:
        match await self._ask(method, params):
            case Done(sentence=sentence):
                self._say(sentence, good=True)
                return True
        return False

    def on_want_why(self, want: WantWhy) -> None:
        """Ask why."""
        self._work(self._why(want.path, open_page=want.open_page))

    def on_want_state(self, want: WantState) -> None:
        """Ask for a state."""
        self._work(self._state(want.path))

    def on_want_act(self, want: WantAct) -> None:
        """Ask what would happen."""
        self._question(self._node_act(want.act, want.path))

    def on_want_circuit(self, want: WantCircuit) -> None:
        """Ask whether to do it."""
        self._question(self._circuit_act(want))

    def on_want_letter(self, want: WantLetter) -> None:
        """Ask whether to do it."""
        self._question(self._letter_act(want))

    def on_want_bus(self) -> None:
        """Ask for what the bus screen shows; one question at a time."""
        if not self._asking_bus:
            self._asking_bus = True
            self._work(self._ask_bus())

    def _question(self, question: Coroutine[None, None, None]) -> None:
        """Put one question at a time: a key pressed twice does not act twice."""
        if self._questioning:
            question.close()
            return
        self._questioning = True
        self._work(self._put(question))

    async def _put(self, question: Coroutine[None, None, None]) -> None:
        try:
            await question
        finally:
            self._questioning = False

    def _work(self, work: Coroutine[None, None, None]) -> None:
        self.run_worker(work, exit_on_error=False)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A worker that fails is a mistake of ours: it is told, the terminal is whole."""
        if event.state is not WorkerState.ERROR:
            return
        error = event.worker.error
        told = f"{type(error).__name__}: {error}"
        if event.worker.name == _LINK:
            self._end(1, f"the console's link failed: {told}")
        else:
            self._say(told, good=False)

    # --- keys -------------------------------------------------------------------------

    async def action_view(self, name: str) -> None:
        """Another screen."""
        if name != self.current_mode:
            await self.switch_mode(name)

    def action_hold(self) -> None:
        """Freeze the view, or let it go."""
        self.desk.hold()
        self._standing = self.desk.standing()
        self._draw(EVERYTHING)

    def action_help(self) -> None:
        """Every key."""
        self.push_screen(Reading(self.ink, "keys", help_page(), indent=19))

    def action_leave(self) -> None:
        """Leave; who started the runtime is asked what becomes of it."""
        self._question(self._leave())

    async def action_leave_at_once(self) -> None:
        """Leave without a question; the runtime goes on."""
        await self.link.farewell()
        self.exit()

    async def _leave(self) -> None:
        answer: Leaving | None = "leave"
        if self.desk.owner != "attach":
            answer = await self.push_screen_wait(Leave(self.ink, self.desk.owner))
        match answer:
            case "stop":
                heard = self.desk.model.hearing
                was_there = heard.connected
                stopped = await self._do("shutdown", Shutdown(key=_key()))
                # It may be gone before its answer is here.
                if stopped or (was_there and not heard.connected):
                    self.exit()
            case "leave":
                await self.action_leave_at_once()
            case None:
                pass

    def _end(self, status: int, words: str) -> None:
        self.last_words = words
        self.exit(return_code=status)


def _the(view: View) -> View:
    return view


def _request(preview: Preview) -> tuple[str, Message]:
    """The act that was previewed, on the incarnation that was seen."""
    path, seen = preview.path, preview.incarnation
    match preview.act:
        case Act.CRASH:
            crash = Inject(kind="crash", path=path, incarnation=seen, key=_key())
            return "inject", crash
        case Act.RESTART:
            return "restart", Restart(path=path, incarnation=seen, key=_key())
        case Act.STOP:
            return "stop", Stop(path=path, incarnation=seen, key=_key())
        case _:
            assert_never(preview.act)


def _name(path: str) -> str:
    """A node's id as it must be typed: plain, because only that can be read and typed."""
    return plain(path.rstrip("/").rpartition("/")[2] or path)


def _key() -> str:
    """An act's idempotency key: the runtime does a key once, however often it comes."""
    return uuid.uuid4().hex


def _operator() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return f"uid {os.getuid()}"


def draws_glyphs() -> bool:
    """Whether this terminal's encoding has the glyphs of the console."""
    return "utf" in locale.getpreferredencoding(do_setlocale=False).lower()


def run_console(
    socket: Path,
    *,
    rights: str = "ro",
    owner: str = "attach",
    ascii_only: bool | None = None,
) -> int:
    """Watch the runtime behind `socket` until the operator leaves; the exit status.

    `owner` is who started the runtime (`demo`, `run` or `attach`): what `q` asks depends
    on it. `ascii_only` None means: unless the locale's encoding has our glyphs.

    Raises:
        ValueError: `rights` or `owner` is none of the known words.
    """
    if owner not in get_args(Owner):
        raise ValueError(f"owner must be demo, run or attach, not {owner!r}")
    operator = _operator()
    app = TreewardenConsole(
        Link(socket, rights=Rights(rights), operator=operator),
        owner=cast(Owner, owner),
        operator=operator,
        ascii_only=not draws_glyphs() if ascii_only is None else ascii_only,
    )
    app.run()
    if app.last_words:
        sys.stderr.write(f"treewarden: {plain(app.last_words)}\n")
    return app.return_code or 0
