"""The agent: private state, one mailbox, handlers that are transactions.

A handler runs alone on the agent's state. When it returns, what changed and what it
staged become one unit of work; when it raises, nothing of it happened and the agent
starts again from the state before (Erlang's "let it crash", with SQLite under it).
"""

from __future__ import annotations

import inspect
import logging
import sys
import types
import typing
from dataclasses import dataclass
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Final,
    Generic,
    Literal,
    ParamSpec,
    TypeVar,
    overload,
)

from treewarden.bus import DurablePolicy, Start, by_topic
from treewarden.errors import (
    AgentError,
    BusError,
    GatewayError,
    NotRunning,
    ResilienceError,
    RestoreError,
    TreewardenError,
)
from treewarden.exits import Exit, Normal, as_exit, writable
from treewarden.store import Declaration, declared, may_declare

from .body import AgentBody
from .codec import StateCodec, refuse_any
from .durable import DurableBody
from .links import join, part
from .mailbox import MailboxPolicy
from .operation import Operation, by_function, never_waits, operations_of
from .redaction import HOOKS, Redaction
from .ref import AgentRef

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from treewarden.bus import Event, Subscriber, Subscription
    from treewarden.registry import Registry
    from treewarden.runtime import Runtime
    from treewarden.supervision import (
        ChildInfo,
        Directory,
        Ignore,
        Life,
        Node,
        SupervisorRef,
        Timer,
    )

    from .monitor import Down, Monitor
    from .reply import Reply

State = TypeVar("State")
A = TypeVar("A", bound="Agent[Any]")
P = ParamSpec("P")
R = TypeVar("R")

_POLICY: Final = DurablePolicy()
_FROM_NOW: Final = Start()
_HOOKS = frozenset(
    {"on_start", "on_stop", "on_down", "on_event", "initial_state", *HOOKS}
)
# What each hook is given, beside the agent.
_TOLD: Final[dict[str, tuple[str, ...]]] = {
    "on_start": (),
    "on_stop": ("exit",),
    "on_down": ("down",),
    "on_event": ("event",),
}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_exceptions(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(one, type) and issubclass(one, Exception) for one in value
    )


# What each option may be, and how to say so.
_RIGHT: dict[str, tuple[Callable[[Any], bool], str]] = {
    "state_version": (
        lambda value: (
            isinstance(value, int) and not isinstance(value, bool) and value > 0
        ),
        "an int >= 1",
    ),
    "store_as": (lambda value: isinstance(value, str), "a str"),
    "persistence": (
        lambda value: value in ("write_through", "none"),
        "write_through or none",
    ),
    "mailbox": (lambda value: isinstance(value, MailboxPolicy), "a MailboxPolicy"),
    "call_timeout": (
        lambda value: _is_number(value) and value >= 0,
        "a number of seconds >= 0",
    ),
    "refuses": (_are_exceptions, "a tuple of exception classes"),
    "trap_exits": (lambda value: isinstance(value, bool), "a bool"),
}
_OPTIONS = frozenset({*_RIGHT, "migrate"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentClass:
    """What is worked out once for each Agent subclass; `on_start` None: not overridden.

    `starts_at_once`: nothing in its start waits, unless for its state. `keeps`: a cast is
    a row of the store before it is a message. `awaits_senders`: a message waits until what
    its sender did before is committed.
    """

    name: str
    operations: dict[str, Operation]
    by_function: dict[object, Operation]
    codec: StateCodec | None
    on_start: Operation | None
    starts_at_once: bool
    has_on_stop: bool
    on_event: Operation
    on_down: Operation
    redaction: Redaction
    collections: tuple[Declaration, ...]
    keeps: bool
    awaits_senders: bool


class Agent(Generic[State]):
    """Subclass it, say what its state is, and write its operations as methods.

    `Agent[CounterState]` names the state's type: a msgspec.Struct or a dataclass, without
    `Any`. Public methods are operations, async or plain, those of mixed in classes too.
    Attributes other than `state` are not stored and not rolled back.

    Class attributes: `state_version` and `migrate` (state written by older code),
    `store_as` (the type's name in the store), `persistence` ("write_through" or "none"),
    `mailbox`, `call_timeout` (seconds a caller waits by default), `refuses` (exceptions
    that are an answer to the caller and no crash), `trap_exits` (True: `on_down` is told
    of the end of a linked agent, which otherwise ends this one).
    """

    state_version: ClassVar[int] = 1
    store_as: ClassVar[str] = ""
    persistence: ClassVar[str] = "write_through"
    mailbox: ClassVar[MailboxPolicy] = MailboxPolicy()
    call_timeout: ClassVar[float] = 5.0
    refuses: ClassVar[tuple[type[Exception], ...]] = (
        AgentError,
        BusError,
        GatewayError,
        ResilienceError,
    )
    trap_exits: ClassVar[bool] = False

    state: State
    treewarden_class: ClassVar[AgentClass]
    treewarden_body: AgentBody

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        """Check the class where it is written.

        Raises:
            TypeError: a name clashes with one of Agent's own, or the state cannot be
                stored.
            ValueError: an option cannot be what it is.
        """
        super().__init_subclass__(**kwargs)
        _refuse_clashes(cls)
        _check_options(cls)
        operations = operations_of(cls, Agent)
        cls.treewarden_class = AgentClass(
            name=vars(cls).get("store_as") or cls.__name__,
            operations=operations,
            by_function=by_function(cls, operations),
            codec=_codec(cls),
            on_start=Operation("on_start", cls.on_start)
            if cls.on_start is not Agent.on_start
            else None,
            starts_at_once=never_waits(cls.on_start) and not cls.mailbox.durable,
            has_on_stop=cls.on_stop is not Agent.on_stop,
            on_event=Operation("on_event", cls.on_event),
            on_down=Operation("on_down", cls.on_down),
            redaction=Redaction(cls, Agent),
            collections=_collections(cls),
            keeps=cls.mailbox.durable,
            # Memory that no commit holds cannot go back when that one fails.
            awaits_senders=cls.persistence == "none",
        )

    @classmethod
    def make_body(
        cls,
        node: Node,
        directory: Directory,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> AgentBody:
        """What a supervisor keeps of this agent; not for users."""
        if cls is Agent:
            raise TypeError(f"{node.path}: Agent itself does nothing; start a subclass")
        body = DurableBody if cls.mailbox.durable else AgentBody
        return body(cls, node, directory, args, kwargs)

    # --- to override -----------------------------------------------------------------------

    def initial_state(self) -> State:
        """The state when the store has none; the default is `State()`."""
        codec = type(self).treewarden_class.codec
        if codec is None:
            return typing.cast("State", None)
        try:
            return typing.cast("State", codec.type())
        except TypeError as error:
            raise TypeError(
                f"{type(self).__qualname__} needs an initial_state(): its state cannot "
                f"be made without arguments ({error})"
            ) from error

    @classmethod
    def migrate(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        """State written as `version`, as plain data, brought to `state_version`."""
        raise RestoreError(
            f"the store has state of version {version} for {cls.__qualname__}, which "
            "has no migrate() for it"
        )

    @classmethod
    def redact(cls, state: State) -> object:
        """What people may see of the state: in the console, and kept of a crash.

        `state` is a copy. When this fails nothing is shown, and the agent lives on. What
        the store keeps to restore from is not redacted.
        """
        return state

    @classmethod
    def redact_message(cls, operation: str, arguments: dict[str, object]) -> object:
        """What is kept of the arguments of a message whose handler crashed."""
        return arguments

    @classmethod
    def redact_error(cls, text: str) -> str:
        """What is told, kept and sent of the text of an error that a handler crashed with.

        Of the errors that led to it as well. An error out of `on_start` comes to whoever
        starts the agent, and is not redacted.
        """
        return text

    async def on_start(self) -> Ignore | None:
        """Runs before the first message of each incarnation; a handler like others.

        One without an `await` runs in its supervisor's turn, as a plain handler may in
        its caller's: in the agent's context, but `trio.lowlevel.current_task` is another.
        """
        return None

    async def on_stop(self, exit: Exit) -> None:  # noqa: A002 - design.md names it so
        """Runs when asked to stop, within the shutdown time; stages nothing."""

    async def on_down(self, down: Down) -> None:
        """Something that this agent monitors, or is linked with, has ended."""
        self.log.warning(
            "%s heard that %s is down and has no on_down", self.path, down.path
        )

    async def on_event(self, event: Event) -> None:
        """An event that this agent subscribed to."""
        self.log.warning("%s heard of %s and has no on_event", self.path, event.topic)

    # --- what an agent knows of itself -----------------------------------------------------

    @property
    def path(self) -> str:
        """Where it stands in the tree."""
        return self.treewarden_body.node.path

    @property
    def incarnation(self) -> int:
        """Which life this is, from 1 in each run."""
        return self.treewarden_body.node.incarnation

    @property
    def ref(self: A) -> AgentRef[A]:
        """Its own address, to give to others."""
        body = self.treewarden_body
        return AgentRef(body.directory, body.node.path)

    @property
    def runtime(self) -> Runtime:
        """The runtime that it lives in.

        Raises:
            NotRunning: it lives in a bare `open_supervisor`.
        """
        runtime = self.treewarden_body.surroundings.runtime
        if runtime is None:
            raise NotRunning(f"{self.path} runs without a runtime; use open_runtime")
        return typing.cast("Runtime", runtime)

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry path and incarnation."""
        return logging.LoggerAdapter(
            logging.getLogger("treewarden.agent"),
            {"path": self.path, "incarnation": self.incarnation},
        )

    @property
    def label(self) -> str:
        """A word for people, shown in the tree."""
        return self.treewarden_body.node.label

    @label.setter
    def label(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a label is a str, not {text!r}")
        body = self.treewarden_body
        body.node.label = writable(text[:80])[:80]
        body.directory.touch()

    # --- what a handler may stage ----------------------------------------------------------

    def publish(self, topic: str, payload: object = None) -> None:
        """Stage an event: journaled with this handler's commit, then delivered.

        Raises:
            NotRunning: there is no store.
            TypeError, ValueError: the payload cannot be encoded, the topic is none.
            PublisherPaused: the journal is beyond its limits for a durable subscription
                that pauses publishers, and not one of its own. A handler cannot wait.

        For a `wait` subscription without room the event waits in this agent's outbox,
        and the agent takes no next message until it has left.
        """
        self.treewarden_body.stage().publish(topic, payload)

    def cast(
        self,
        ref: AgentRef[A],
        operation: Callable[Concatenate[A, P], object],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Stage a message: it leaves with this handler's commit, at most once.

        Its arguments are copied now. For a mailbox without room it waits in this agent's
        outbox (as many as the own mailbox takes), and the agent takes no next message
        until it has left.

        Raises:
            UnknownOperation, BadArguments, NameUnknown, StateNotEncodable.
        """
        self.treewarden_body.stage().cast(ref, operation, args, kwargs)

    @overload
    def subscribe(
        self,
        pattern: str,
        *,
        durable: Literal[False] = False,
        capacity: int = 1000,
        overflow: str = "wait",
        key: Callable[[Event], str] = by_topic,
    ) -> Subscription: ...

    @overload
    def subscribe(
        self,
        pattern: str,
        *,
        durable: Literal[True],
        name: str = "",
        group: str = "",
        policy: DurablePolicy = ...,
        start: Start = ...,
    ) -> Subscriber: ...

    def subscribe(
        self,
        pattern: str,
        *,
        durable: bool = False,
        capacity: int = 1000,
        overflow: str = "wait",
        key: Callable[[Event], str] = by_topic,
        name: str = "",
        group: str = "",
        policy: DurablePolicy = _POLICY,
        start: Start = _FROM_NOW,
    ) -> Subscription | Subscriber:
        """In `on_start`: have matching events handled by `on_event`, in order.

        They wait in a bounded line of their own and become messages when the mailbox has
        room. The subscription outlives a crash, and ends when a later incarnation's
        `on_start` does not ask for it again, or when the agent is stopped. With
        `overflow="latest"`, `key` says which events supersede each other.

        A `durable` one outlives the process: a cursor in the store, under `name` (else
        the pattern). Every journaled event since `start` is handled at least once, those
        of one key of `policy` in their order, and changes the state exactly once: that it
        was handled commits with its handler. After a crash the event waits and is tried
        again, at last it is a dead letter. All who name one `group` share its events.
        A `policy.lease` is for tasks; an agent has its events until it ends.
        """
        tied = self.treewarden_body.tied
        if not durable:
            return tied.subscribe(pattern, capacity, overflow, key)
        return tied.subscribe_durable(
            pattern, name=name, group=group, policy=policy, start=start
        )

    def send_after(
        self: A,
        seconds: float,
        operation: Callable[Concatenate[A, P], object],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Timer:
        """Send itself a message in `seconds`; called off when this incarnation ends.

        It is called off too when the handler fails that asked for it. Its arguments are
        copied now. `timer.remaining` says how long it still is, `timer.cancel()` calls it
        off; for an absolute time subtract `trio.current_time()`.
        """
        return self.treewarden_body.tied.send_after(seconds, operation, args, kwargs)

    def when_idle(
        self: A,
        seconds: float,
        operation: Callable[Concatenate[A, P], object],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Timer:
        """As `send_after`, but any message that comes before calls it off.

        So does asking again: an agent has one. What operators do with it is no message.
        For "at once, before all that waits" there is `continue_with`.
        """
        return self.treewarden_body.tied.when_idle(seconds, operation, args, kwargs)

    def continue_with(
        self: A,
        operation: Callable[Concatenate[A, P], object],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Handle this next, before any other message; several go in order.

        Once this handler's changes are handed to the store; when they are not kept, it
        never happens. In `on_start` it runs before the first message and delays nobody
        who waits for the start. Its arguments are copied now.
        """
        self.treewarden_body.stage().continue_with(operation, args, kwargs)

    def defer(self) -> Reply:
        """Put off the answer to the message in hand; `reply.send(value)` gives it later.

        What this handler returns is ignored then; its changes are committed as ever. The
        caller's deadline goes on. For a message that wants no answer it changes nothing.

        Raises:
            TreewardenError: in `on_start`, which nobody called.
        """
        return self.treewarden_body.stage().defer()

    @typing.overload
    async def once(
        self,
        function: Callable[P, Awaitable[R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...

    @typing.overload
    async def once(
        self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...

    async def once(
        self,
        function: Callable[..., Any],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """In the handler of a durable cast: call something outside, and keep its result.

        When the message is delivered again, after a crash or a kill, the kept result is
        returned and nothing is called: the calls of a handler are told apart by their
        order. A kill between the call and the keeping of its result makes it happen
        again. The result is what JSON makes of it (a list for a tuple, a dict for a
        struct). Waits first until what the agent did before is committed.

        Raises:
            TreewardenError: the message in hand is no durable cast.
            StoreBroken: the result was not kept.
            RestoreError: what was kept is damaged.
        """
        body = self.treewarden_body
        if not isinstance(body, DurableBody):
            raise TreewardenError(
                f"{self.path}: once() needs mailbox = MailboxPolicy(durable=True)"
            )
        return await body.once(partial(function, *args, **kwargs))

    def monitor(self, ref: AgentRef[Any] | SupervisorRef | ChildInfo) -> Monitor:
        """Be told once, through `on_down`, when that incarnation ends.

        Called off when this incarnation ends. A function, a process and a pool are named
        by the `ChildInfo` that `start_child` gave.
        """
        return self.treewarden_body.tied.monitor(ref)

    def link(self, ref: AgentRef[Any]) -> None:
        """End together with that incarnation; at once, not with the commit.

        When one of the two crashes or is killed the other crashes too, its fault naming
        the first. When one is shut down the other ends with the same exit. `Normal`
        leaves it alone. With `trap_exits` this agent hears of any of them through
        `on_down` instead, as it does when there is nobody. Twice is once.

        Children of one supervisor need none: they have its strategy.

        Raises:
            AgentDown, NameUnknown: there is nobody. In `on_start`: link to what starts
                before.
            NotRunning: this incarnation is over.
        """
        join(self.treewarden_body, self._own_life(), ref)

    def unlink(self, ref: AgentRef[Any]) -> None:
        """Undo a link, whichever of the two made it; nothing when there is none."""
        part(self._own_life(), ref)

    def register(
        self,
        key: object,
        value: object = None,
        /,
        *,
        registry: Registry[AgentRef[Any]] | None = None,
        **attributes: object,
    ) -> None:
        """Be found under `key` until this incarnation ends; at once, not with the commit.

        In the runtime's registry, whose keys are unique, unless another one is given. Do
        it in `on_start`: the next incarnation registers again.

        Raises:
            KeyTaken, RegistryFull: it cannot have it.
            NotRunning: this incarnation is over, or there is no runtime.
            TypeError, ValueError: the key or an attribute cannot be used.
        """
        into = registry if registry is not None else self.runtime.registry
        into.register(
            key, self.ref, owner=self._own_life(), value=value, attributes=attributes
        )

    def unregister(
        self, key: object, /, *, registry: Registry[AgentRef[Any]] | None = None
    ) -> int:
        """Take out what this incarnation has under `key`; how many entries that was."""
        into = registry if registry is not None else self.runtime.registry
        return into.unregister(key, owner=self._own_life())

    def _own_life(self) -> Life:
        life = self.treewarden_body.node.life
        if life is None:
            raise NotRunning(f"{self.path} has ended; it can hold nothing")
        return life

    def stop(self, exit: Exit | None = None) -> None:  # noqa: A002 - design.md
        """End after this handler, whose answer and changes still count.

        Raises:
            TypeError: it is no exit.
        """
        body = self.treewarden_body
        body.exit_after = Normal() if exit is None else as_exit(exit)
        body.called_away = True


def _refuse_clashes(cls: type) -> None:
    own = {**vars(cls), **inspect.get_annotations(cls)}
    _refuse_hiding(cls, own)
    for base in cls.__mro__[: cls.__mro__.index(Agent)]:
        # What is mixed in before Agent hides as well as what is written here.
        if not issubclass(base, Agent):
            _refuse_hiding(base, vars(base))


def _refuse_hiding(cls: type, names: Iterable[str]) -> None:
    for name in names:
        if name.startswith("__") or name in _HOOKS or name in _OPTIONS:
            continue
        if name in {"state", "treewarden_class"} or not hasattr(Agent, name):
            continue
        raise TypeError(
            f"{cls.__qualname__}.{name} would hide Agent.{name}; choose another name"
        )


def _check_options(cls: type[Agent[Any]]) -> None:
    for name, (is_right, what) in _RIGHT.items():
        value = getattr(cls, name)
        if not is_right(value):
            raise ValueError(f"{cls.__qualname__}.{name} must be {what}, not {value!r}")
    for name in ("on_start", "on_stop"):
        if not inspect.iscoroutinefunction(inspect.unwrap(getattr(cls, name))):
            raise TypeError(f"{cls.__qualname__}.{name} must be async")
    if inspect.iscoroutinefunction(inspect.unwrap(cls.__init__)):
        raise TypeError(
            f"{cls.__qualname__}.__init__ must not be async; on_start is, and runs next"
        )
    for name, given in _TOLD.items():
        _check_told(cls, name, given)


def _check_told(cls: type[Agent[Any]], name: str, given: tuple[str, ...]) -> None:
    """Refuse a hook that could not be called, which else shows when it is, at the end."""
    hook = getattr(cls, name)
    if hook is getattr(Agent, name):
        return
    try:
        inspect.signature(hook).bind("self", *given)
    except TypeError as error:
        takes = ", ".join(("self", *given))
        raise TypeError(
            f"{cls.__qualname__}.{name} is called as {name}({takes}): {error}"
        ) from None


def _codec(cls: type[Agent[Any]]) -> StateCodec | None:
    state_type = _state_type(cls)
    if state_type is None or _parameters(state_type):
        # No state; or the class is generic in it, and a subclass will say.
        return None
    if isinstance(state_type, (str, typing.ForwardRef)):
        raise TypeError(
            f"{cls.__qualname__}: define the state's type above the agent and name it "
            f"without quotes, not {state_type!r}"
        )
    _refuse_what_is_not_stored(state_type, cls.__qualname__)
    return StateCodec(state_type)


def _refuse_what_is_not_stored(stored: object, where: str) -> None:
    try:
        refuse_any(stored, where)
    except NameError as error:
        raise TypeError(
            f"{where}: the annotations of what it stores cannot be read: {error}"
        ) from error


def _state_type(cls: type) -> Any:  # noqa: ANN401 - a type, perhaps with variables
    """What stands for `State` in `cls`, through all generic classes between."""
    for base in vars(cls).get("__orig_bases__", cls.__bases__):
        origin = typing.get_origin(base) or base
        arguments = typing.get_args(base)
        if origin is Agent:
            return _no_none(arguments[0]) if arguments else None
        if isinstance(origin, type) and issubclass(origin, Agent):
            return _filled_in(_state_type(origin), origin, arguments)
    return None


def _no_none(argument: Any) -> Any:  # noqa: ANN401 - a type
    return None if argument is type(None) else argument


def _filled_in(state_type: Any, origin: Any, arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401 - types
    variables = _parameters(state_type)
    if not (variables and arguments):
        return state_type
    values = dict(zip(_parameters(origin), arguments, strict=False))
    if isinstance(state_type, TypeVar):
        return _no_none(values.get(state_type, state_type))
    return state_type[tuple(values.get(one, one) for one in variables)]


def _parameters(some_type: Any) -> tuple[Any, ...]:  # noqa: ANN401 - a type
    if isinstance(some_type, TypeVar):
        return (some_type,)
    if isinstance(some_type, type) and not issubclass(some_type, Agent):
        return ()  # a generic struct without arguments: msgspec says what it thinks
    return getattr(some_type, "__parameters__", ())


def _collections(cls: type[Agent[Any]]) -> tuple[Declaration, ...]:
    """The durable collections that a class declares, its bases' included.

    Raises:
        TypeError: one is declared without its item type, or with what cannot be stored.
    """
    found: dict[str, Declaration] = {}
    for base in reversed(cls.__mro__):
        for name, hint in inspect.get_annotations(base).items():
            where = base.__qualname__
            declaration = declared(name, _resolved(base, name, hint), where)
            if declaration is not None:
                _refuse_what_is_not_stored(declaration.item_type, f"{where}.{name}")
                found[name] = declaration
    return tuple(found.values())


def _resolved(cls: type, name: str, hint: object) -> object:
    """What an annotation means; None when it cannot be told and need not be."""
    spelled = types.SimpleNamespace(__annotations__={name: hint})
    module = sys.modules.get(cls.__module__)
    try:
        hints = typing.get_type_hints(
            spelled, globalns=vars(module) if module else {}, localns=dict(vars(cls))
        )
    except Exception as error:
        if not may_declare(hint):
            return None
        raise TypeError(
            f"{cls.__qualname__}.{name}: {hint} cannot be read; define what it names "
            f"above the agent, in its module ({error})"
        ) from error
    return hints[name]
