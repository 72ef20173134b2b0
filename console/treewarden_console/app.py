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
from typing import (
    TYPE_CHECKING,
    ClassVar,
    Final,
    TypeAlias,
    assert_never,
    cast,
    get_args,
)

import msgspec
from textual.app import App
from textual.binding import Binding, BindingType
from textual.widgets import Input
from textual.worker import Worker, WorkerState

from treewarden.control.plain import plain
from treewarden.control.protocol import (
    Act,
    Done,
    Events,
    Explanation,
    GetEvents,
    GetPreview,
    Inject,
    Message,
    Preview,
    Restart,
    Resume,
    Rights,
    Shutdown,
    Stop,
    Suspend,
    Why,
)

from .link import Connected, Link, LinkError, LinkNews, Lost, Source, Told
from .screens import (
    PLACES,
    AgentsScreen,
    BusScreen,
    CircuitsScreen,
    Confirm,
    CoordinationScreen,
    EventsScreen,
    Leave,
    Leaving,
    MonitorsScreen,
    Proposal,
    Reading,
    TreeScreen,
    View,
    WantAct,
    WantAnswers,
    WantDone,
    WantNode,
    WantPlace,
    WantTold,
    WantWhy,
    WorkScreen,
    find_place,
    help_page,
)
from .state import EVERYTHING, Desk, News, Owner, Standing, nodes_named
from .widgets import Ink, Spans, preview_page, why_page

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from datetime import tzinfo
    from pathlib import Path
    from typing import Any


TICK = 0.1
"""Seconds between drawings: ten a second are fluent, and 1.4 % of a core at 10,000 nodes."""
_BACKLOG = 500
_LINK = "link"

_VERBS = {act: act.value.capitalize() for act in Act}
Question: TypeAlias = tuple[str, bytes]
"""A request as it is recognised: its method, and its parameters as JSON."""

_SCREENS: Final[dict[str, type[View]]] = {
    "tree": TreeScreen,
    "circuits": CircuitsScreen,
    "events": EventsScreen,
    "agents": AgentsScreen,
    "bus": BusScreen,
    "coordination": CoordinationScreen,
    "work": WorkScreen,
    "monitors": MonitorsScreen,
}
"""All screens, in the order of their keys."""


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
        *(
            Binding(f"{key}", f"view('{name}')", show=False)
            for key, name in enumerate(_SCREENS, 1)
        ),
        Binding("p", "hold", show=False),
        Binding("question_mark", "help", show=False),
        Binding("q", "leave", show=False),
        Binding("ctrl+c", "interrupt", show=False, priority=True),
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
        self._asking: set[Question] = set()

    # --- screens ----------------------------------------------------------------------

    async def on_mount(self) -> None:
        """Show the tree, and begin to listen."""
        self._views = {
            name: screen(self.desk, self.ink) for name, screen in _SCREENS.items()
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
        if second and self.screen is self.view:
            self.view.ask()

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

    async def _why(self, path: str) -> None:
        match await self._ask("why", Why(path=path)):
            case Explanation() as told:
                self.desk.take_answer(told)
                self.view.answered()
                page = why_page(told, self.ink, self.desk.zone)
                self.push_screen(Reading(self.ink, f"why: {told.path}", page))

    async def _learn(self, question: Question, method: str, params: Message) -> None:
        """Ask what a screen wants to know."""
        try:
            if (answer := await self._look(method, params)) is not None:
                self.desk.take_answer(answer)
                self.view.answered()
        finally:
            self._asking.discard(question)

    async def _node_act(self, act: Act, path: str) -> None:
        """Show what the act would do; do it when the operator says so."""
        match await self._ask("preview", GetPreview(act=act, path=path)):
            case Preview() as preview:
                name = _name(path) if act is Act.CRASH else ""
                title = f"{act.value} {path}"
                page = preview_page(preview, self.ink)
                if await self._confirmed(title, page, _VERBS[act], name):
                    await self._do(*_request(preview))

    async def _propose(self, act: Proposal) -> None:
        if await self._confirmed(act.title, list(act.page), act.verb, act.name):
            params = cast("Any", act.params)
            await self._do(act.method, msgspec.structs.replace(params, key=_key()))
            self.view.ask()

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
        self._work(self._why(want.path))

    def on_want_answers(self, want: WantAnswers) -> None:
        """Ask what is not being asked already."""
        for method, params in want.requests:
            question = method, msgspec.json.encode(params)
            if question not in self._asking:
                self._asking.add(question)
                self._work(self._learn(question, method, params))

    def on_want_act(self, want: WantAct) -> None:
        """Ask what would happen."""
        self._question(self._node_act(want.act, want.path))

    def on_want_done(self, want: WantDone) -> None:
        """Ask whether to do it."""
        self._question(self._propose(want.proposal))

    def on_want_told(self, want: WantTold) -> None:
        """Tell it."""
        self._say(want.why, good=False)

    async def on_want_node(self, want: WantNode) -> None:
        """Go to the tree, and to the node in it."""
        if want.path not in self.desk.shown.nodes.rows:
            self._say(f"there is no node {want.path} in the tree", good=False)
            return
        await self.action_view("tree")
        tree = self._views["tree"]
        if isinstance(tree, TreeScreen):
            tree.find(want.path)

    async def on_want_place(self, want: WantPlace) -> None:
        """Go there: to a list, or to a node."""
        if (place := find_place(want.name)) is not None:
            screen, list_ = PLACES[place]
            await self.action_view(screen)
            self.view.choose(list_)
            return
        match nodes_named(self.desk.shown.nodes.rows, want.name):
            case [path]:
                await self.on_want_node(WantNode(path))
            case []:
                known = ", ".join(PLACES)
                self._say(
                    f"no node is called {want.name!r}, and the lists are {known}",
                    good=False,
                )
            case [first, second, *more]:
                others = f" and {len(more)} more" if more else ""
                self._say(f"{want.name!r} may be {first}, {second}{others}", good=False)

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

    def action_interrupt(self) -> None:
        """What Ctrl-C does: out of a question or a line, else out of the console."""
        if self.screen is self.view and not isinstance(self.focused, Input):
            self.action_leave()
        else:
            self.simulate_key("escape")

    def action_leave(self) -> None:
        """Leave; who started the runtime is asked what becomes of it."""
        if self._must_ask():
            self._question(self._leave())
        else:
            self._work(self.action_leave_at_once())

    def _must_ask(self) -> bool:
        """Whether there is a runtime of ours; one that is gone needs no decision."""
        return self.desk.owner != "attach" and self.desk.model.hearing.connected

    async def action_leave_at_once(self) -> None:
        """Leave without a question; the runtime goes on."""
        await self.link.farewell()
        self.exit()

    async def _leave(self) -> None:
        leave = Leave(self.ink, self.desk.owner)
        answer: Leaving | None = await self.push_screen_wait(leave)
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
        case Act.SUSPEND:
            return "suspend", Suspend(path=path, incarnation=seen, key=_key())
        case Act.RESUME:
            return "resume", Resume(path=path, incarnation=seen, key=_key())
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
