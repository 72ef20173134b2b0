"""A durable subscription on a real store, through whatever happens, beside a naive model."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from treewarden.bus import Bus, DurablePolicy, Start, StoreJournal
from treewarden.errors import StoreBroken
from treewarden.resilience import Backoff
from treewarden.store import Level, Unit, load_letters, open_store
from treewarden.testing import store_clock

if TYPE_CHECKING:
    from treewarden.bus import DurableStatistics, LeasedEvent, Subscriber
    from treewarden.store import Store, StoredLetter

# Mostly one key, so that its order is often at stake.
TOPICS = ("a", "a", "b")
POLICY = DurablePolicy(
    capacity=4,
    max_attempts=3,
    lease=5.0,
    backoff=Backoff(initial=1.0, maximum=2.0, jitter=0.0),
)
STEPS = st.lists(
    st.sampled_from(
        (
            *(["publish"] * 6),
            *(["take"] * 5),
            *(["ack"] * 4),
            "nack",
            "give_back",
            "join",
            "leave",
            "fail_commit",
            *(["fail_behind"] * 2),
            "reopen",
            "wait",
        )
    ),
    min_size=10,
    max_size=60,
)


@dataclass
class World:
    """A bus, its subscribers, and what the model knows of every event."""

    store: Store
    dice: list[int]
    published: list[int] = field(default_factory=list)
    topics: dict[int, str] = field(default_factory=dict)
    done: list[int] = field(default_factory=list)
    held: list[LeasedEvent] = field(default_factory=list)
    # Handed out while the one before of their key seemed done, and was not.
    orphans: set[LeasedEvent] = field(default_factory=set)
    subscribers: list[tuple[Subscriber, AsyncExitStack]] = field(default_factory=list)

    def pick(self, count: int) -> int:
        self.dice[0] = (self.dice[0] * 1103515245 + 12345) % (1 << 31)
        return self.dice[0] % count

    def drop_stale(self) -> None:
        self.held = [one for one in self.held if one.is_held]


async def join(world: World, bus: Bus) -> None:
    stack = AsyncExitStack()
    subscriber = await stack.enter_async_context(
        bus.subscribe_durable("b", "*", policy=POLICY, start=Start(after=0))
    )
    world.subscribers.append((subscriber, stack))


async def leave(world: World, which: int) -> None:
    _, stack = world.subscribers.pop(which)
    await stack.aclose()
    world.drop_stale()


async def take(world: World) -> None:
    if not world.subscribers:
        return
    subscriber, _ = world.subscribers[world.pick(len(world.subscribers))]
    with trio.move_on_after(0.5):
        leased = await subscriber.__anext__()
        assert leased.attempt <= POLICY.max_attempts
        world.held.append(leased)


async def settle(world: World, *, fails: bool, behind: bool) -> None:
    """Acknowledge one, in a unit that may fail; take one `behind` it before it does."""
    world.drop_stale()
    if not world.held:
        return
    leased = world.held.pop(world.pick(len(world.held)))
    unit = Unit("/a")
    assert leased.settle(unit)
    assert unit.writes is not None
    if fails:
        unit.writes.append(("INSERT INTO meta VALUES ('boot', 'twice', 0)", ()))
    before = len(world.held)
    if behind:
        await take(world)
    world.store.hand_over(unit)
    try:
        await world.store.wait(unit)
    except StoreBroken:
        assert fails or leased in world.orphans
        key = leased.event.topic
        world.orphans |= {one for one in world.held[before:] if one.event.topic == key}
    else:
        assert not fails
        assert leased not in world.orphans
        note_done(world, leased.event.position)


def note_done(world: World, position: int) -> None:
    assert position not in world.done, f"{position} was done before"
    # Nothing here is taken out of the dead letters: of a key, all is done in its order.
    same = [one for one in world.done if world.topics[one] == world.topics[position]]
    assert max(same, default=0) < position
    world.done.append(position)


def account(bus: Bus) -> DurableStatistics | None:
    found = bus.statistics().durable
    if not found:
        return None
    (one,) = found
    assert one.published == one.delivered + one.dropped + one.pending
    assert one.dropped == sum(one.dropped_by.values())
    assert one.leased + one.waiting + one.unread <= one.pending
    return one


async def step(world: World, bus: Bus, what: str) -> None:
    world.drop_stale()
    match what:
        case "publish":
            topic = TOPICS[world.pick(len(TOPICS))]
            event = await bus.publish(topic, None)
            world.published.append(event.position)
            world.topics[event.position] = topic
        case "take":
            await take(world)
        case "ack" | "fail_commit" | "fail_behind":
            behind = what == "fail_behind"
            await settle(world, fails=what != "ack", behind=behind)
        case "nack" if world.held:
            world.held.pop(world.pick(len(world.held))).nack("no")
        case "give_back" if world.held:
            world.held.pop(world.pick(len(world.held))).give_back()
        case "join":
            await join(world, bus)
        case "leave" if world.subscribers:
            await leave(world, world.pick(len(world.subscribers)))
        case "reopen":
            while world.subscribers:
                await leave(world, 0)
            await join(world, bus)
        case "wait":
            await trio.sleep(world.pick(8))
    account(bus)


async def drain(world: World, bus: Bus) -> None:
    """Acknowledge all that is left."""
    for leased in world.held:
        leased.give_back()
    if not world.subscribers:
        await join(world, bus)
    subscriber, _ = world.subscribers[0]
    while (one := account(bus)) is not None and one.pending:
        with trio.move_on_after(10):
            leased = await subscriber.__anext__()
            # Of a key nothing comes before what was published before it.
            blocked = [
                other
                for other in world.published
                if other < leased.event.position
                and world.topics[other] == leased.event.topic
                and other not in world.done
            ]
            if blocked:
                # It may come while the dead letter of one before it is being committed.
                await world.store.settled()
                buried = {int(letter.id) for letter in await letters(world.store)}
                assert set(blocked) <= buried
            assert await leased.ack()
            note_done(world, leased.event.position)


async def letters(store: Store) -> list[StoredLetter]:
    return await store.read(lambda connection: load_letters(connection, 0, 1000))


async def live(steps: list[str], seed: int) -> None:
    async with open_store(None, level=Level.VOLATILE) as store:
        bus = Bus(StoreJournal(store), store=store)
        world = World(store, [seed])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bus.serve)
            await join(world, bus)
            for what in steps:
                await step(world, bus, what)
            await drain(world, bus)
            while world.subscribers:
                await leave(world, 0)
            nursery.cancel_scope.cancel()
        await store.settled()
        buried = [int(letter.id) for letter in await letters(store)]
        assert sorted([*world.done, *buried]) == sorted(world.published)


# In `make test` 150 lives of a real store, in `make soak` as many as its profile says.
@settings(max_examples=max(150, settings().max_examples))
@given(STEPS, st.integers(0, 1 << 30))
# The second of a key comes while the dead letter of the first is on its way into the file.
@example(
    [
        *(["publish"] * 4),
        *("take", "fail_commit", "publish", "take", "reopen", "publish"),
        *("take", "wait", "take", "fail_commit"),
    ],
    0,
)
def test_every_event_is_done_once_or_a_dead_letter_whatever_happens(
    steps: list[str], seed: int
) -> None:
    with store_clock() as clock:
        trio.run(live, steps, seed, clock=clock)
