"""Addresses of supervisors, and the root that a whole tree hangs from."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import msgspec
import trio

from treewarden.errors import (
    CallingSelf,
    NotRunning,
    ShuttingDown,
    StoreError,
    SupervisionError,
    UnknownChild,
)
from treewarden.exits import Exit

from .intensity import Intensity
from .node import Kind, Life, Node, NodeState, current_life, interrupt_in, live
from .partition import PartitionSupervisorSpec
from .remembered import refuse_forgetful
from .spec import ChildSpec, DynamicSupervisorSpec, SupervisorSpec
from .supervisor import Supervisor
from .tree import Directory, as_supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from .timers import Timer


class ChildInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A child as its supervisor sees it; `started_at` is on trio's clock, in seconds.

    `value` is what it is ready with, as long as it runs: what it gave to
    `task_status.started`, as `nursery.start` returns it, or what entering a context
    manager gave.
    """

    # A struct: one is made for every start, in a quarter of a dataclass's time.
    id: str
    path: str
    kind: Kind
    state: NodeState
    incarnation: int
    restart: str
    restarts: int
    last_exit: Exit | None
    started_at: float | None
    value: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildCounts:
    """How many specifications, running children, supervisors and workers there are."""

    specs: int
    active: int
    supervisors: int
    workers: int


# A suspended agent is there; it only takes no messages.
_ACTIVE = frozenset({NodeState.RUNNING, NodeState.SUSPENDED})


class SupervisorRef:
    """The address of a supervisor; it stays valid across the supervisor's restarts."""

    __slots__ = ("directory", "path")

    def __init__(self, directory: Directory, path: str) -> None:
        self.directory = directory
        self.path = path

    def __repr__(self) -> str:
        """The path says who it is."""
        return f"SupervisorRef({self.path!r})"

    def __eq__(self, other: object) -> bool:
        """Two refs to one path in one tree are the same address."""
        return (
            isinstance(other, SupervisorRef)
            and other.path == self.path
            and other.directory is self.directory
        )

    def __hash__(self) -> int:
        """By path."""
        return hash(self.path)

    async def start_child(self, spec: ChildSpec) -> ChildInfo | None:
        """Start a new child and wait until it is ready; the answer says with what.

        One that ignored its start is kept as stopped, or not at all (None) when it is
        temporary or the supervisor dynamic. A cancelled caller does not cancel the start.

        Checks for cancellation each time and gives way at least every 32nd.

        Raises:
            AlreadyStarted, AlreadyPresent: the id is taken.
            ChildStartFailed, StartTimeout: it did not start; nothing is kept.
            TooManyChildren: a dynamic supervisor is full.
            TypeError, ValueError: the supervisor takes no such child.
            StoreError: it could not be remembered; it was stopped again.
            ShuttingDown, NotRunning, CallingSelf: nothing was started.
        """
        if not isinstance(spec, ChildSpec):
            raise TypeError(f"start_child takes a ChildSpec, not {spec!r}")
        refuse_forgetful(spec.start, self.directory.memory)
        supervisor = self._supervisor()
        node = await supervisor.start_child(spec)
        if supervisor.remembered is not None:
            await _written_or_stopped(supervisor, spec.id)
        return child_info(node) if node is not None else None

    async def terminate_child(self, id_: str) -> None:
        """Stop a child and wait until it is gone; its specification stays.

        A temporary child's, and any of a dynamic supervisor, goes with it.

        Raises:
            StoreError: it is gone, but still remembered; ask again.
            UnknownChild, ShuttingDown, NotRunning, CallingSelf.
        """
        supervisor = self._supervisor()
        await supervisor.ask(lambda: supervisor.terminate(id_), about=id_)
        await supervisor.written(id_)

    async def restart_child(self, id_: str) -> ChildInfo:
        """Start a child that is stopped; costs no budget.

        Raises:
            AlreadyStarted: it runs, or is being restarted.
            UnknownChild, ChildStartFailed, ShuttingDown, NotRunning, CallingSelf.
        """
        supervisor = self._supervisor()
        return child_info(await supervisor.ask(lambda: supervisor.revive(id_)))

    async def bounce_child(self, id_: str, *, by: str = "") -> ChildInfo:
        """Stop a child, if it runs, and start it again; costs no budget.

        Raises:
            UnknownChild, ChildStartFailed, ShuttingDown, NotRunning, CallingSelf.
        """
        supervisor = self._supervisor()
        node = await supervisor.ask(lambda: supervisor.bounce(id_, by), about=id_)
        return child_info(node)

    async def delete_child(self, id_: str) -> None:
        """Forget a stopped child.

        Raises:
            AlreadyStarted: it runs; terminate it first.
            StoreError: it is gone, but still remembered; terminate it to try again.
            UnknownChild, ShuttingDown, NotRunning, CallingSelf.
        """
        supervisor = self._supervisor()
        await supervisor.ask(lambda: supervisor.delete(id_))
        await supervisor.written(id_)

    async def reconfigure(self, spec: SupervisorSpec | DynamicSupervisorSpec) -> None:
        """Go by another specification of the same kind, for as long as its parent lives.

        Strategy, budgets and limits count from now on. Children that are new in it are
        kept as stopped, for `restart_child`; those that it changes go on as they are, and
        the next start is as it says (an agent whose class or arguments it changes begins
        with an empty mailbox then); those that it does not name stay, after the others.

        Raises:
            TypeError: it is of another kind.
            ValueError: it cannot have a child that is there, or changes `remember`.
            ShuttingDown, NotRunning, CallingSelf: nothing was changed.
        """
        if not isinstance(spec, (SupervisorSpec, DynamicSupervisorSpec)):
            raise TypeError(f"reconfigure takes a supervisor's spec, not {spec!r}")
        refuse_forgetful(spec, self.directory.memory)
        supervisor = self._supervisor()
        await supervisor.ask(lambda: supervisor.reconfigure(spec))

    async def stop(self) -> None:
        """Stop this supervisor for good: for the root, the whole tree; returns when gone.

        Raises:
            CallingSelf: from inside the tree below it.
            ShuttingDown: its parent is stopping, and stops it too.
            NotRunning: it is gone already.
        """
        supervisor = self._supervisor()
        if supervisor.child_of_caller() is not None:
            raise CallingSelf(f"stopping {self.path} from inside would wait for itself")
        parent = supervisor.node.parent
        if isinstance(parent, Supervisor):
            id_ = supervisor.node.id
            # Unknown when it is asked: somebody else stopped it first.
            with suppress(UnknownChild):
                await parent.ask(lambda: parent.terminate(id_), about=id_)
        else:
            if supervisor.node.life is not None:
                supervisor.ask_to_stop(supervisor.node.life)
            await as_host(parent).done.wait()

    def which_children(self) -> list[ChildInfo]:
        """The children in start order; answered at once, also during a slow start.

        Raises:
            NotRunning: there is no supervisor, or it is stopped or waits to be restarted.
        """
        return [child_info(node) for node in self._running().children.values()]

    def count_children(self) -> ChildCounts:
        """How many there are; NotRunning as for `which_children`."""
        nodes = self._running().children.values()
        supervisors = sum(node.body.kind is Kind.SUPERVISOR for node in nodes)
        return ChildCounts(
            specs=len(nodes),
            active=sum(node.state in _ACTIVE for node in nodes),
            supervisors=supervisors,
            workers=len(nodes) - supervisors,
        )

    def get_childspec(self, id_: str) -> ChildSpec:
        """The specification of a child.

        Raises:
            UnknownChild, NotRunning.
        """
        node = self._running().children.get(id_)
        if node is None:
            raise UnknownChild(self.path, id_)
        return node.spec

    def supervisor(self, id_: str) -> SupervisorRef:
        """The address of a child that is a supervisor.

        Raises:
            UnknownChild: no such child is one.
            NotRunning: as for `which_children`.
        """
        node = self._running().children.get(id_)
        if node is None or as_supervisor(node) is None:
            raise UnknownChild(self.path, id_)
        return SupervisorRef(self.directory, node.path)

    def partition(self, key: object) -> ChildInfo:
        """The child of a partition supervisor that `key` belongs to.

        Raises:
            NotRunning: the supervisor is not there, or that child is not at this moment.
            TypeError: it is no partition supervisor, or no key.
            ValueError: the key does not equal itself.
        """
        supervisor = self._running()
        spec = supervisor.spec
        if not isinstance(spec, PartitionSupervisorSpec):
            raise TypeError(f"{self.path} is no partition supervisor")
        id_ = str(spec.partition_of(key))
        node = supervisor.children.get(id_)
        if node is None:
            raise NotRunning(f"{self.path} has no partition {id_} at this moment")
        return child_info(node)

    def _supervisor(self) -> Supervisor:
        node = self.directory.find(self.path)
        supervisor = as_supervisor(node) if node is not None else None
        if supervisor is None:
            raise NotRunning(f"there is no supervisor at {self.path}")
        return supervisor

    def _running(self) -> Supervisor:
        supervisor = self._supervisor()
        if not supervisor.node.running:
            # Its empty table would look as if it had no children.
            raise NotRunning(f"supervisor {self.path} is not running")
        return supervisor


async def _written_or_stopped(supervisor: Supervisor, id_: str) -> None:
    try:
        await supervisor.written(id_)
    except StoreError:
        with suppress(SupervisionError):
            await supervisor.ask(lambda: supervisor.terminate(id_), about=id_)
        raise


def child_info(node: Node) -> ChildInfo:
    """What may be seen of a child."""
    return ChildInfo(
        id=node.id,
        path=node.path,
        kind=node.body.kind,
        state=node.state,
        incarnation=node.incarnation,
        restart=node.spec.restart,
        restarts=node.restarts,
        last_exit=node.last_exit,
        started_at=node.started_at,
        value=node.life.value if node.life is not None else None,
    )


class Host:
    """The root's parent: where the tree meets the program around it."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.ready = trio.Event()
        self.done = trio.Event()
        self.body = trio.CancelScope()
        self.timers = trio.CancelScope(shield=True)
        self.error: BaseException | None = None

    @property
    def path(self) -> str:
        """It stands above the root."""
        return ""

    def poke(self) -> None:
        """The root is up."""
        self.ready.set()

    def failing(self, life: Life) -> None:
        """The root crashes when its children are gone; each of them has its time."""

    def ended(self, life: Life) -> None:
        """The root is down."""
        life.node.last_exit = life.exit
        life.node.life = None

    async def keep(self, node: Node, life: Life) -> None:
        """The root's task, out of reach of everything outside the tree."""
        try:
            with trio.CancelScope(shield=True):
                await live(node, life)
        finally:
            self.ready.set()
            self.done.set()
            self.timers.cancel()
            # The body, if it still runs, has nothing to stand on.
            self.body.cancel()

    async def keep_time(self) -> None:
        """The task of the tree's timers; the root needs it to the end."""
        with self.timers:
            await self.directory.timers.run()

    async def wait_gone(self) -> None:
        """Until the root is down, whoever cancels: bounded by the shutdown times."""
        with trio.CancelScope(shield=True):
            try:
                await self.done.wait()
            except KeyboardInterrupt:
                # A second one, while the first is being obeyed: no more patience.
                self.directory.hurry()
                await self.done.wait()
                raise


def as_host(parent: object) -> Host:
    """The root's parent, as what it is."""
    return cast("Host", parent)


class _Root(Supervisor):
    """The root keeps the error that ended it, to be raised bare outside the tree.

    Its shutdown time is that of the whole tree: when it is over, what is left is killed.
    """

    _limit: Timer | None = None

    def ask_to_stop(self, life: Life) -> None:
        self._limit_stop()
        super().ask_to_stop(life)

    async def _stop_children(self) -> None:
        self._limit_stop()
        await super()._stop_children()
        if self._limit is not None:
            self._limit.cancel()

    def _limit_stop(self) -> None:
        seconds = self.node.spec.shutdown_seconds()
        if self._limit is None and seconds < math.inf:
            self._limit = self._at(trio.current_time() + seconds, self.directory.hurry)

    async def run(self, life: Life) -> Exit | None:
        try:
            return await super().run(life)
        except Exception as error:
            as_host(self.node.parent).error = error
            raise


@asynccontextmanager
async def open_tree(
    spec: SupervisorSpec,
    *,
    directory: Directory | None = None,
    shutdown: float | None = None,
) -> AsyncIterator[SupervisorRef]:
    """Run a tree for as long as the block lasts.

    Entered once every child is ready. However the block ends (normally, by an exception,
    cancelled from outside), the children are stopped in reverse order, each within its
    shutdown time, before that is passed on; with `shutdown` all of them together have so
    many seconds, and who is left then is killed. Nothing is wrapped in a group.

    Raises:
        ChildStartFailed: a child did not start; those before it were stopped.
        IntensityExceeded: the root gave up; the block was cancelled.
        NotRunning: a supervisor is to remember its children, and there is no store.
        RuntimeError: it is no trio that runs here.
        KeyboardInterrupt, SystemExit: one came out of a child.
    """
    if not trio.lowlevel.in_trio_run():
        raise RuntimeError("treewarden runs on trio; say trio.run(main)")
    if current_life.get() is not None:
        raise CallingSelf("a child cannot open a tree of its own; give it to ChildSpec")
    host = Host(directory if directory is not None else Directory())
    refuse_forgetful(spec, host.directory.memory)
    node = _plant(spec, host, shutdown)
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            life = node.born()
            nursery.start_soon(host.keep_time, name="timers")
            nursery.start_soon(host.keep, node, life, name="/")
            try:
                with host.body:
                    await host.ready.wait()
                    if life.ready:
                        node.state = NodeState.RUNNING
                        host.directory.touch()
                        yield SupervisorRef(host.directory, "/")
            finally:
                node.body.ask_to_stop(life)
                await host.wait_gone()
    except BaseException as error:  # noqa: BLE001 - it, or what it hides, is raised below
        failure = _unwrapped(error)
    finally:
        host.directory.remove(node)
        host.directory.root = None
        host.directory.log.close()
    failure = _first_failure(host, failure)
    if failure is not None:
        raise failure
    if not life.ready:
        raise ShuttingDown("the tree was stopped before it was ready")


def _plant(spec: SupervisorSpec, host: Host, shutdown: float | None) -> Node:
    directory = host.directory
    node = Node(ChildSpec("root", spec, shutdown=shutdown), "/", host, 0)
    node.body = _Root(node, spec, directory)
    node.state = NodeState.STARTING
    directory.root = node
    directory.add(node)
    return node


def _unwrapped(error: BaseException) -> BaseException:
    """Our own nursery's wrapping, and nothing else, is taken off."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    if len(error.exceptions) == 1:
        return error.exceptions[0]
    return interrupt_in(error) or error


def _first_failure(host: Host, raised: BaseException | None) -> BaseException | None:
    # What ended the tree came before what the body made of being cancelled for it, which
    # stays visible as the context of the other.
    return host.directory.interrupt or host.error or raised


@asynccontextmanager
async def open_supervisor(
    children: Sequence[ChildSpec] = (),
    *,
    strategy: str = "one_for_one",
    intensity: Intensity | None = None,
) -> AsyncIterator[SupervisorRef]:
    """Supervision alone, without store, bus or console, for as long as the block lasts.

    Entered once every child is ready. However the block ends, the children are stopped in
    reverse order, each within its shutdown time, before that is passed on.

    Raises:
        ChildStartFailed: a child did not start; those before it were stopped.
        IntensityExceeded: the supervisor gave up; the block was cancelled.
        NotRunning: a supervisor is to remember its children, and there is no store.
        RuntimeError: it is no trio that runs here.
        KeyboardInterrupt, SystemExit: one came out of a child.
    """
    budget = intensity if intensity is not None else Intensity()
    spec = SupervisorSpec(children, strategy=strategy, intensity=budget)
    async with open_tree(spec) as ref:
        yield ref
