"""What an agent knows: the state as bytes, how far it is on disk, and its collections.

It belongs to the node. An incarnation is made from it and writes back to it: `latest` is
what the last handler made of the state, `committed` what everybody else sees. Between the
two stand units that the store has not decided yet; `newest` is the last of them. When one
fails, all of them do, and the agent goes back to what is committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from treewarden.clock import wall_ns
from treewarden.errors import NotRunning
from treewarden.injection import places
from treewarden.store import StateWrite

from .release import decided

if TYPE_CHECKING:
    from treewarden.store import Collection, Store, Unit

    from .agent import Agent
    from .body import AgentBody
    from .codec import StateCodec

_NO_COLLECTIONS: Final[dict[str, Collection]] = {}


class Memory:
    """What of an agent's knowledge outlives its incarnations."""

    __slots__ = (
        "_body",
        "_is_loaded",
        "collections",
        "committed",
        "committed_at_ns",
        "committed_revision",
        "epoch",
        "latest",
        "newest",
        "revision",
    )

    def __init__(self, body: AgentBody) -> None:
        self._body = body
        # Whether it has been looked for in the store, where it is kept from then on.
        self._is_loaded = False
        self.latest = b""
        self.committed = b""
        self.revision = self.committed_revision = 0
        self.committed_at_ns: int | None = None
        self.newest: Unit | None = None
        # How often uncommitted state was given up after a failed commit.
        self.epoch = 0
        # By name; None until they are open.
        self.collections: dict[str, Collection] | None = None

    # --- at the start of an incarnation ------------------------------------------------------

    @property
    def is_at_hand(self) -> bool:
        """Whether `restore` has nothing to wait for."""
        body = self._body
        return (
            (self._is_loaded or not self._is_kept)
            and (self.collections is not None or not body.agent_class.collections)
            and body.node.path not in body.surroundings.undecided
        )

    @property
    def _is_kept(self) -> bool:
        """Whether there is a state, and the store has it."""
        body = self._body
        return (
            body.agent_type.persistence == "write_through"
            and body.agent_class.codec is not None
        )

    async def restore(self, agent: Agent[Any]) -> None:
        """Give `agent` its state and its collections.

        Raises:
            NotRunning: it keeps them in a store, and there is none.
            RestoreError: they cannot be read.
        """
        if not self.is_at_hand:
            # At a first start, seldom later: the coroutines are as much as all the rest.
            await self._wait_for_predecessor()
            await self._load()
            await self._open_collections()
        self.give(agent)

    def give(self, agent: Agent[Any]) -> None:
        """Give `agent` everything, which is at hand.

        Raises:
            RestoreError: it cannot be read.
        """
        agent_class = self._body.agent_class
        codec = agent_class.codec
        if codec is None:
            agent.state = None
        elif self._is_loaded:
            self._give(agent, codec)
        else:
            self.latest = b""
            self._give(agent, codec)
            self.committed = self.latest
        opened = self.collections or _NO_COLLECTIONS
        for declaration in agent_class.collections:
            setattr(agent, declaration.name, opened[declaration.name])

    async def _wait_for_predecessor(self) -> None:
        surroundings = self._body.surroundings
        unit = surroundings.undecided.get(self._body.node.path)
        if unit is not None and surroundings.store is not None:
            await decided(surroundings.store, unit)

    async def _load(self) -> None:
        body, path = self._body, self._body.node.path
        codec, store = body.agent_class.codec, body.surroundings.store
        if self._is_loaded or not self._is_kept or codec is None:
            return
        if store is None:
            raise NotRunning(
                f"{path} keeps its state in a store and none is running: use "
                'open_runtime, or persistence = "none"'
            )
        stored = await store.load(path, body.agent_class.name)
        if stored is not None:
            self.committed = self.latest = codec.migrate(
                body.agent_type, stored.payload, stored.state_version, path
            )
            self.revision = self.committed_revision = stored.revision
            self.committed_at_ns = stored.at_ns
        self._is_loaded = True

    def _give(self, agent: Agent[Any], codec: StateCodec) -> None:
        path = self._body.node.path
        if self.latest:
            agent.state = codec.decode(self.latest, path)
            return
        agent.state = agent.initial_state()
        # Remembered, so that a handler that changes nothing writes nothing.
        self.latest = codec.encode_first(agent.state, path)

    async def _open_collections(self) -> None:
        if self.collections is not None:
            return
        store, path = self._body.surroundings.store, self._body.node.path
        opened: dict[str, Collection] = {}
        for declaration in self._body.agent_class.collections:
            if store is None:
                raise NotRunning(f"{path} has durable collections and no store")
            collection = declaration.make(store, path)
            await collection.open()
            opened[declaration.name] = collection
        self.collections = opened or _NO_COLLECTIONS

    # --- after a handler ---------------------------------------------------------------------

    def encode(self) -> bytes:
        """The state as the handler left it.

        Raises:
            StateNotEncodable: msgspec cannot write it.
        """
        body = self._body
        codec, agent = body.agent_class.codec, body.agent
        if codec is None or agent is None:
            return b""
        try:
            return codec.write(agent.state)
        except Exception:  # noqa: BLE001 - raised again, with what is wrong
            return codec.encode(agent.state, body.node.path)

    def take(self, payload: bytes) -> StateWrite | None:
        """Go on from a changed state, checked before; what the store is to write."""
        self.latest = payload
        if not self._is_loaded:
            self.committed = payload
            return None
        body = self._body
        self.revision += 1
        return StateWrite(
            body.agent_class.name, body.agent_type.state_version, self.revision, payload
        )

    def reset(self) -> None:
        """Give the agent the state back from before the handler."""
        codec, agent = self._body.agent_class.codec, self._body.agent
        if codec is not None and agent is not None:
            self._give(agent, codec)

    # --- after a commit ----------------------------------------------------------------------

    def committed_by(self, unit: Unit, whole: Unit | None = None) -> None:
        """The store has `unit`, as part of a `whole`: what others may see moves on."""
        if places.AGENT_COMMITTED.armed is not None:
            places.AGENT_COMMITTED.reach()
        state = unit.state
        if state is not None:
            self.committed = state.payload
            self.committed_revision = state.revision
            self.committed_at_ns = wall_ns()
        if self.newest is (whole or unit):
            self.newest = None

    def fall_back(self) -> None:
        """A commit failed: what is committed is all that it knows."""
        self.epoch += 1
        self.newest = None
        self.latest = self.committed
        self.revision = self.committed_revision
        for collection in self.open_collections:
            collection.reset()

    async def wait_decided(self, store: Store) -> None:
        """Wait until all that was handed over before now is committed, or has failed."""
        newest = self.newest
        if newest is not None:
            await decided(store, newest)

    # --- for those who look ------------------------------------------------------------------

    @property
    def open_collections(self) -> tuple[Collection, ...]:
        """Its durable collections, once they are open."""
        return tuple((self.collections or _NO_COLLECTIONS).values())

    def shown(self) -> bytes:
        """`committed` for people: as the class's `redact` leaves it; empty: nothing."""
        body, agent_class = self._body, self._body.agent_class
        return agent_class.redaction.state(
            self.committed, agent_class.codec, body.node.path
        )
