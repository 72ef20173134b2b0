"""Acknowledged delivery, as senders and receivers see it."""

from __future__ import annotations

import gc
import math
import os
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden import (
    Agent,
    AgentCrashed,
    AgentDown,
    AgentRef,
    Backpressure,
    BadArguments,
    Buffered,
    ChildSpec,
    Delivered,
    DeliveryFailed,
    Exchange,
    ExchangePolicy,
    Fault,
    LineFull,
    NotRunning,
    OwnerScope,
    Refused,
    UnknownOperation,
    open_supervisor,
)
from treewarden.coordination.parcel import Parcel

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.coordination import ExchangeStatistics, LineStatistics

# A cycle is a start, a message, its answer and an end: 10,000 of them belong to the soak.
CYCLES = 10_000 if "SOAK" in os.environ else 300


def balanced(seen: ExchangeStatistics | LineStatistics) -> bool:
    over = seen.delivered + seen.failed + seen.dropped + seen.withdrawn
    return seen.accepted == over + seen.pending


def nothing_is_left(hall: Any) -> bool:
    seen = hall.exchange.statistics()
    return (
        seen.lines == ()
        and (seen.pending, seen.workers) == (0, 0)
        and balanced(seen)
        and hall.root.supervisor("exchange").which_children() == []
    )


# --- F23: what a sender is told ---------------------------------------------------------------


async def test_f23_nobody_there_is_found_out_at_once(hall: Any) -> None:
    nobody = AgentRef[Any](hall.directory, "/nobody")
    (gone,) = await hall.start("gone")
    await hall.gone("gone")
    for ref in (nobody, gone):
        begun = trio.current_time()
        with pytest.raises(DeliveryFailed) as failed:
            await hall.exchange.send(ref, hall.box.take, 1)
        assert failed.value.reason == "receiver_not_found"
        assert failed.value.receiver == ref.path
        assert trio.current_time() - begun < 0.05
    assert nothing_is_left(hall)


async def test_f23_who_ends_with_the_message_in_hand_is_not_found(hall: Any) -> None:
    (box,) = await hall.start("box")
    hall.mode(box, "hang")
    outcomes: list[object] = []

    async def send() -> None:
        outcomes.append(await hall.trial(box, 1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(send)
        await hall.settle()
        await hall.gone("box")
    assert [one.reason for one in outcomes] == ["receiver_not_found"] * 2  # type: ignore[attr-defined]
    assert nothing_is_left(hall)


async def test_f23_a_hung_receiver_costs_five_seconds_and_no_more(hall: Any) -> None:
    (box,) = await hall.start("box")
    hall.mode(box, "hang")
    begun = trio.current_time()
    with pytest.raises(DeliveryFailed) as failed:
        await hall.exchange.send(box, hall.box.take, 1)
    assert (failed.value.reason, failed.value.begun) == ("delivery_timeout", True)
    assert trio.current_time() - begun == pytest.approx(5.0, abs=0.1)


async def test_f23_what_the_receiver_raised_is_the_cause(hall: Any) -> None:
    (box,) = await hall.start("box")
    hall.mode(box, "crash")
    with pytest.raises(DeliveryFailed) as failed:
        await hall.exchange.send(box, hall.box.take, 7)
    assert failed.value.reason == "delivery_failed"
    cause = failed.value.__cause__
    assert isinstance(cause, AgentCrashed)
    assert cause.fault.message == "7"
    assert hall.log[box.path] == []


async def test_f23_what_is_well_is_delivered_once_with_its_answer(hall: Any) -> None:
    (box,) = await hall.start("box")
    assert await hall.exchange.send(box, hall.box.take, 7) == Delivered(value=7)
    assert hall.log[box.path] == [7]
    seen = hall.exchange.statistics()
    assert (seen.accepted, seen.delivered, seen.pending) == (1, 1, 0)


async def test_a_refusal_is_an_answer_and_not_held_against_the_receiver(
    hall: Any,
) -> None:
    (box,) = await hall.start("box")
    for mode, kind in (("refuse", Refused), ("down", DeliveryFailed)):
        hall.mode(box, mode)
        for number in range(6):
            with pytest.raises(DeliveryFailed) as failed:
                await hall.exchange.send(box, hall.box.take, number)
            assert isinstance(failed.value.__cause__, kind)
            assert (failed.value.reason, failed.value.receiver) == (
                "delivery_failed",
                "/box",
            )
    assert hall.exchange.circuit(box).state == "closed"


async def test_what_could_not_be_asked_is_the_senders_to_mend(hall: Any) -> None:
    (box,) = await hall.start("box")
    with pytest.raises(BadArguments):
        await hall.exchange.send(box, hall.box.take)
    with pytest.raises(UnknownOperation):
        hall.exchange.send_nowait(box, Exchange.send)
    with pytest.raises(AgentCrashed, match="would send to itself"):
        await box.call(hall.box.send_to_itself)
    assert hall.exchange.statistics().accepted == 0


async def test_without_an_exchange_nothing_is_sent(hall: Any) -> None:
    (box,) = await hall.start("box")
    other = Exchange(hall.directory, "/other")
    with pytest.raises(NotRunning, match="no exchange at /other"):
        await other.send(box, hall.box.take, 1)
    await hall.root.terminate_child("exchange")
    with pytest.raises(NotRunning):
        hall.exchange.send_nowait(box, hall.box.take, 1)
    assert hall.log[box.path] == []


async def test_it_is_sent_as_whoever_sent_it(hall: Any) -> None:
    """S18: the sender of buffered tasks was recorded as the manager itself."""
    first, second = await hall.start("first", "second")
    assert await first.call(hall.box.send_on, second, 3) == 3
    assert second.recent()[-1].sender == "/first"


async def test_f25_whatever_is_lost_on_the_way_every_sender_is_told_at_once(
    hall: Any,
) -> None:
    """The transport's part: three of ten deliveries come to nothing, and nobody hangs."""
    boxes = await hall.start("a", "b", "c", "d", "e")
    delivered = told_lost = 0

    async def persist(sender: int) -> None:
        nonlocal delivered, told_lost
        box = boxes[sender % 5]
        for step in range(10):
            number = (sender * 7 + step * 3) % 10
            hall.mode(box, "crash" if number < 3 else "take")
            outcome = await hall.trial(box, number)
            delivered += isinstance(outcome, Delivered)
            told_lost += isinstance(outcome, DeliveryFailed)

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for group in range(0, 50, 5):
            for sender in range(group, group + 5):
                nursery.start_soon(persist, sender)
            await hall.settle()
    assert (delivered, told_lost) == (350, 150)
    assert trio.current_time() - begun < 1.0
    assert hall.exchange.statistics().pending == 0


# --- one delivery ---------------------------------------------------------------------------


async def test_h06_a_late_answer_causes_no_second_delivery(hall: Any) -> None:
    (box,) = await hall.start("box")
    with pytest.raises(DeliveryFailed, match="delivery_timeout"):
        await hall.exchange.send(box, hall.box.sleep, 5.2, 1)
    await trio.sleep(120)
    assert hall.log[box.path] == [1]


async def test_h06_a_buffered_message_that_is_late_is_delivered_once(hall: Any) -> None:
    (box,) = await hall.start("box")
    hall.exchange.send_nowait(box, hall.box.sleep, 13.0, 1)
    hall.exchange.send_nowait(box, hall.box.take, 2)
    await trio.sleep(60)
    assert hall.log[box.path] == [1, 2]
    seen = hall.exchange.statistics()
    assert (seen.delivered, seen.failed, seen.pending) == (2, 0, 0)


async def test_what_is_taken_back_before_it_began_never_happens(hall: Any) -> None:
    (box,) = await hall.start("box")
    hall.mode(box, "hang")
    with pytest.raises(DeliveryFailed) as first:
        await hall.exchange.send(box, hall.box.take, 1)
    with pytest.raises(DeliveryFailed) as second:
        await hall.exchange.send(box, hall.box.take, 2)
    assert (first.value.begun, second.value.begun) == (True, False)
    hall.mode(box, "take")
    await hall.settle()
    assert hall.log[box.path] == [1]


async def test_a_cancelled_sender_takes_back_what_was_not_begun(hall: Any) -> None:
    (box,) = await hall.start("box")
    hall.mode(box, "hang")
    for number in (1, 2, 3):
        with trio.move_on_after(1.0):
            await hall.exchange.send(box, hall.box.take, number)
    hall.mode(box, "take")
    await hall.settle()
    assert hall.log[box.path] == [1]
    await trio.sleep(10)
    seen = hall.exchange.statistics()
    assert (seen.withdrawn, seen.pending, balanced(seen)) == (2, 0, True)
    assert hall.exchange.circuit(box).state == "closed"


async def test_each_receiver_gets_its_messages_in_order(hall: Any) -> None:
    boxes = await hall.start("a", "b")
    async with trio.open_nursery() as nursery:
        for number in range(50):
            for box in boxes:
                nursery.start_soon(hall.exchange.send, box, hall.box.take, number)
            await hall.settle()
    assert [hall.log[box.path] for box in boxes] == [list(range(50))] * 2


async def test_a_workers_crash_loses_nothing_and_repeats_nothing(hall: Any) -> None:
    (box,) = await hall.start("box")
    hall.mode(box, "hang")
    for number in range(5):
        hall.exchange.send_nowait(box, hall.box.take, number)
    await hall.settle()
    for _ in range(3):
        (worker,) = hall.root.supervisor("exchange").which_children()
        node = hall.directory.resolve(worker.path)
        node.life.fail(_fault(worker.path))
        await hall.settle()
        assert hall.directory.resolve(worker.path).incarnation > worker.incarnation
    hall.mode(box, "take")
    await hall.settle()
    assert hall.began[box.path] == hall.log[box.path] == list(range(5))


async def test_an_exchanges_crash_loses_nothing_and_repeats_nothing(hall: Any) -> None:
    (box,) = await hall.start("box")
    hall.mode(box, "hang")
    outcomes: list[object] = []

    async def send() -> None:
        outcomes.append(await hall.trial(box, 3))

    async with trio.open_nursery() as nursery:
        for number in range(3):
            hall.exchange.send_nowait(box, hall.box.take, number)
        nursery.start_soon(send)
        await hall.settle()
        hall.directory.resolve("/exchange").body.crash(_fault("/exchange"))
        await hall.settle()
        hall.mode(box, "take")
    assert outcomes == [Delivered(value=3)]
    assert hall.began[box.path] == hall.log[box.path] == [0, 1, 2, 3]


async def test_an_exchange_that_is_stopped_leaves_nobody_waiting(hall: Any) -> None:
    (box,) = await hall.start("box")
    hall.mode(box, "hang")
    outcomes: list[object] = []

    async def send() -> None:
        outcomes.append(await hall.trial(box, 2))

    async with trio.open_nursery() as nursery:
        hall.exchange.send_nowait(box, hall.box.take, 1)
        nursery.start_soon(send)
        await hall.settle()
        await hall.root.terminate_child("exchange")
    assert [type(one) for one in outcomes] == [NotRunning]
    assert hall.dead_letters == [("/box", "take", "exchange_stopped")]


async def test_a_message_that_crashes_its_receiver_again_and_again_is_given_up(
    open_hall: Callable[..., Any],
) -> None:
    async with open_hall(ExchangePolicy(max_attempts=3)) as hall:
        (box,) = await hall.start("box")
        hall.mode(box, "crash")
        hall.exchange.send_nowait(box, hall.box.take, 1)
        await trio.sleep(2.9)
        hall.exchange.send_nowait(box, hall.box.take, 2)
        assert hall.dead_letters == []
        await trio.sleep(0.2)
        hall.mode(box, "take")
        assert hall.dead_letters == [("/box", "take", "delivery_failed")]
        await trio.sleep(1)
        assert hall.log[box.path] == [2]


async def test_attempts_leave_a_default_restart_budget_unspent() -> None:
    """A receiver may crash three times in any five seconds, and be there still."""
    crashes: list[float] = []

    class Fragile(Agent[None]):
        persistence = "none"

        async def take(self) -> None:
            crashes.append(trio.current_time())
            raise ValueError

    children = [ChildSpec("exchange", Exchange), ChildSpec("fragile", Fragile)]
    async with open_supervisor(children) as root:
        exchange = Exchange(root.directory, "/exchange")
        exchange.send_nowait(AgentRef(root.directory, "/fragile"), Fragile.take)
        await trio.sleep(400)
    assert len(crashes) == ExchangePolicy().max_attempts


def _fault(path: str) -> Fault:
    return Fault(type="Injected", message="on purpose", path=path)


# --- F26 to F29: bounds -----------------------------------------------------------------------


async def test_f26_100_000_sends_to_a_stalled_receiver_cost_nobody_else(
    hall: Any,
) -> None:
    stalled, quick = await hall.start("stalled", "quick")
    hall.mode(stalled, "hang")
    refused = most = 0
    waits: list[float] = []

    async def flood() -> None:
        nonlocal refused, most
        for number in range(10_000):
            try:
                hall.exchange.send_nowait(stalled, hall.box.take, number)
            except Backpressure as error:
                refused += isinstance(error, LineFull) and error.receiver == "/stalled"
            if number % 1000 == 0:
                most = max(most, hall.exchange.statistics().pending)
                await trio.lowlevel.checkpoint()

    async def go_on() -> None:
        for number in range(100):
            begun = trio.current_time()
            await hall.exchange.send(quick, hall.box.take, number)
            waits.append(trio.current_time() - begun)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(flood)
        nursery.start_soon(go_on)
    seen = hall.exchange.statistics()
    assert (seen.pending, refused, seen.refused) == (1000, 99_000, 99_000)
    assert most <= 10_000
    gc.collect()
    assert sum(type(one) is Parcel for one in gc.get_objects()) <= 1001
    assert sorted(waits)[98] < 0.05
    assert hall.log[quick.path] == list(range(100))


async def test_f26_all_lines_together_have_a_bound_too(
    open_hall: Callable[..., Any],
) -> None:
    async with open_hall(ExchangePolicy(capacity=4, total=6)) as hall:
        boxes = await hall.start("a", "b", "c")
        for box in boxes:
            hall.mode(box, "hang")
        for box in boxes[:2]:
            for number in range(3):
                hall.exchange.send_nowait(box, hall.box.take, number)
        with pytest.raises(LineFull, match="whole exchange is full"):
            hall.exchange.send_nowait(boxes[2], hall.box.take, 0)
        seen = hall.exchange.statistics()
        assert (seen.pending, seen.refused) == (6, 1)
        # Nothing is kept of a receiver that nothing goes to.
        assert [line.receiver for line in seen.lines] == ["/a", "/b"]
        assert boxes[2].resolve().ties.farewells == {}


async def test_f27_ends_that_are_gone_leave_nothing(hall: Any) -> None:
    many = 1000
    names = [f"{end}{n}" for n in range(many) for end in "ab"]
    refs = await hall.start(*names)
    for one, other in zip(refs[::2], refs[1::2], strict=True):
        await one.call(hall.box.send_on, other, 1)
    assert hall.exchange.statistics().workers == many
    ties = [body.ties for ref in refs if (body := ref.resolve()).ties is not None]
    assert len(ties) == many
    for name in names:
        await hall.root.terminate_child(name)
    await trio.sleep(1)
    assert nothing_is_left(hall)
    assert hall.exchange.statistics().delivered == many
    assert not any(one.farewells for one in ties)


async def test_r1_many_short_lives_leave_the_counts_at_zero(hall: Any) -> None:
    for _ in range(CYCLES):
        (box,) = await hall.start("box")
        await hall.exchange.send(box, hall.box.take, 1)
        hall.exchange.circuit(box).trip()
        hall.exchange.send_nowait(box, hall.box.take, 2)
        await hall.gone("box")
    await hall.settle()
    assert nothing_is_left(hall)
    assert len(hall.dead_letters) == CYCLES


async def fill(hall: Any, box: AgentRef[Any], many: int) -> None:
    """An open circuit, and so many messages before it."""
    await hall.exchange.send(box, hall.box.take, 0)
    hall.exchange.circuit(box).trip()
    for number in range(1, many + 1):
        hall.exchange.send_nowait(box, hall.box.take, number)


async def test_f28_before_an_open_circuit_the_oldest_go_for_the_newest(
    hall: Any,
) -> None:
    (box,) = await hall.start("box")
    await fill(hall, box, 2000)
    (line,) = hall.exchange.statistics().lines
    assert (line.pending, line.dropped, line.stalled) == (1000, 1000, True)
    assert hall.dead_letters == [("/box", "take", "exchange_full")] * 1000
    assert [topic for topic, _ in hall.reports].count("exchange.overflow") == 1
    await trio.sleep(1.0)
    for number in (2001, 2002):
        hall.exchange.send_nowait(box, hall.box.take, number)
    assert [topic for topic, _ in hall.reports].count("exchange.overflow") == 2
    hall.exchange.circuit(box).reset()
    await trio.sleep(1.0)
    assert hall.log[box.path][1:] == list(range(1003, 2003))


async def test_f29_a_closed_circuit_lets_the_buffer_go_in_order(hall: Any) -> None:
    (box,) = await hall.start("box")
    await fill(hall, box, 2000)
    begun = trio.current_time()
    hall.exchange.circuit(box).reset()
    await hall.settle()
    assert trio.current_time() - begun < 1.0
    assert hall.log[box.path] == [0, *range(1001, 2001)]
    assert hall.exchange.statistics().pending == 0


async def test_f29_a_drain_that_fails_half_way_loses_nothing(hall: Any) -> None:
    (box,) = await hall.start("box")
    await fill(hall, box, 1000)

    hall.crashes_from[box.path] = 300
    hall.exchange.circuit(box).reset()
    await trio.sleep(20)
    (line,) = hall.exchange.statistics().lines
    assert hall.log[box.path] == list(range(300))
    assert (line.pending, line.circuit, line.stalled) == (701, "open", True)
    hall.crashes_from.clear()
    await trio.sleep(60)
    assert hall.log[box.path] == list(range(1001))
    assert hall.exchange.statistics().pending == 0


async def test_h07_an_overflowed_buffer_drains_and_nobody_was_restarted(
    hall: Any,
) -> None:
    (box,) = await hall.start("box")
    before = hall.directory.resolve("/exchange").incarnation
    await fill(hall, box, 2500)
    worker = hall.root.supervisor("exchange").which_children()
    hall.exchange.circuit(box).reset()
    await hall.settle()
    assert hall.log[box.path] == [0, *range(1501, 2501)]
    assert hall.directory.resolve("/exchange").incarnation == before
    assert hall.root.supervisor("exchange").which_children() == worker
    assert not any("crashed" in detail for _, detail in hall.reports)


# --- several receivers --------------------------------------------------------------------


async def test_s19_to_all_or_to_nobody(
    open_hall: Callable[..., Any],
) -> None:
    async with open_hall(ExchangePolicy(capacity=2, total=5)) as hall:
        a, b, c = boxes = await hall.start("a", "b", "c")
        send = hall.exchange.send_all_nowait
        send(boxes, hall.box.take, 1)
        await hall.settle()
        hall.mode(b, "hang")
        send([b], hall.box.take, 2)
        nobody = AgentRef[Any](hall.directory, "/nobody")
        with pytest.raises(DeliveryFailed, match="receiver_not_found"):
            send([a, nobody, c], hall.box.take, 3)
        with pytest.raises(LineFull) as full:
            send([a, b, b, c], hall.box.take, 4)
        assert full.value.receiver == "/b"
        with pytest.raises(LineFull, match="whole exchange"):
            send([a, a, b, c, c], hall.box.take, 5)
        with pytest.raises(BadArguments):
            send([a, c], hall.box.take)
        await hall.settle()
        assert [hall.log[box.path] for box in boxes] == [[1], [1], [1]]
        # The oldest of a stalled line go, so that it has room.
        hall.exchange.circuit(c).trip()
        for number in (6, 7, 8):
            send([c], hall.box.take, number)
        hall.exchange.circuit(c).reset()
        await hall.settle()
        assert hall.log[c.path] == [1, 7, 8]
        hall.mode(b, "take")


async def test_s19_to_each_that_takes_it(hall: Any) -> None:
    a, b = await hall.start("a", "b")
    nobody = AgentRef[Any](hall.directory, "/nobody")
    await hall.root.terminate_child("b")
    refused = hall.exchange.send_each_nowait([a, nobody, b], hall.box.take, 1)
    await hall.settle()
    assert hall.log[a.path] == [1]
    assert {ref.path: error.reason for ref, error in refused.items()} == {
        "/b": "receiver_not_found",
        "/nobody": "receiver_not_found",
    }


# --- circuits -----------------------------------------------------------------------------


async def open_by_failing(hall: Any, box: AgentRef[Any]) -> None:
    hall.mode(box, "crash")
    for number in range(5):
        with pytest.raises(DeliveryFailed):
            await hall.exchange.send(box, hall.box.take, number)


async def test_five_failures_in_a_row_and_the_rest_is_buffered(hall: Any) -> None:
    (box,) = await hall.start("box")
    await open_by_failing(hall, box)
    begun = trio.current_time()
    assert await hall.exchange.send(box, hall.box.take, 5) == Buffered(ahead=0)
    assert await hall.exchange.send(box, hall.box.take, 6) == Buffered(ahead=1)
    assert trio.current_time() == begun
    hall.mode(box, "take")
    await trio.sleep(30)
    await hall.settle()
    assert hall.log[box.path] == [5, 6]


async def test_who_waits_when_the_circuit_opens_is_told_that_it_is_buffered(
    hall: Any,
) -> None:
    (box,) = await hall.start("box")
    hall.mode(box, "hang")
    outcomes: dict[int, object] = {}

    async def send(number: int) -> None:
        outcomes[number] = await hall.trial(box, number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(send, number)
            await hall.settle()
        hall.exchange.circuit(box).trip()
        await hall.settle()
        assert outcomes == {1: Buffered(ahead=1), 2: Buffered(ahead=2)}
        hall.mode(box, "take")
    assert outcomes[0] == Delivered(value=0)
    hall.exchange.circuit(box).reset()
    await hall.settle()
    assert hall.log[box.path] == [0, 1, 2]


async def test_a_cancelled_sender_has_buffered_what_it_was_told_of_and_no_more(
    hall: Any,
) -> None:
    (box,) = await hall.start("box")
    await fill(hall, box, 1)
    told = 0

    async def send(scope: trio.CancelScope) -> None:
        nonlocal told
        with scope:
            assert await hall.exchange.send(box, hall.box.take, 2) == Buffered(
                ahead=told + 1
            )
            told += 1

    async def cancel(scope: trio.CancelScope) -> None:
        scope.cancel()

    for _ in range(40):
        # Both in one step, in either order.
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            nursery.start_soon(send, scope)
            nursery.start_soon(cancel, scope)
    assert 0 < told < 40
    assert hall.exchange.statistics().pending == told + 1


async def test_the_first_message_after_the_open_time_is_a_probe(hall: Any) -> None:
    (box,) = await hall.start("box")
    await open_by_failing(hall, box)
    await trio.sleep(31)
    hall.mode(box, "take")
    assert await hall.exchange.send(box, hall.box.take, 9) == Delivered(value=9)
    assert hall.exchange.circuit(box).state == "closed"


async def test_f30_each_transition_is_told_once_and_only_to_the_living(
    hall: Any,
) -> None:
    (box,) = await hall.start("box")
    told: list[tuple[str, str, str]] = []
    with OwnerScope() as me:
        hall.exchange.listen(
            lambda moved: told.append((moved.name, moved.old, moved.new)), owner=me
        )
        hall.exchange.listen(_raises, owner=me)
        assert hall.exchange.statistics().listeners == 2
        await open_by_failing(hall, box)
        hall.exchange.send_nowait(box, hall.box.take, 5)
        hall.mode(box, "take")
        await trio.sleep(31)
        assert told == [
            ("/box", "closed", "open"),
            ("/box", "open", "half_open"),
            ("/box", "half_open", "closed"),
        ]
    seen = hall.exchange.statistics()
    assert (seen.listeners, seen.listener_failures) == (0, 3)
    hall.exchange.circuit(box).trip()
    assert len(told) == 3
    with pytest.raises(NotRunning):
        hall.exchange.listen(_raises, owner=me)
    with OwnerScope() as other:
        hall.exchange.listen(_raises, owner=other)
        hall.exchange.listen(_raises, owner=other)
        hall.exchange.unlisten(_raises)
        assert other.watchers == []
        assert hall.exchange.statistics().listeners == 0


def _raises(_: object) -> None:
    raise ValueError("a listener's own mistake")


async def test_f31_a_hung_receiver_stalls_nobody_else(hall: Any) -> None:
    hung, *others = await hall.start("hung", "a", "b", "c", "d")
    hall.mode(hung, "hang")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hall.trial, hung, 0)
        await hall.settle()
        begun = trio.current_time()
        for number in range(25):
            for box in others:
                await hall.exchange.send(box, hall.box.take, number)
                assert hall.exchange.statistics().pending == 1
        assert trio.current_time() - begun < 0.05
        hall.mode(hung, "take")
    assert all(hall.log[box.path] == list(range(25)) for box in others)


async def test_an_idle_receiver_is_forgotten_and_an_operators_order_is_not(
    hall: Any,
) -> None:
    boxes = await hall.start("idle", "tripped")
    for box in boxes:
        await hall.exchange.send(box, hall.box.take, 1)
    hall.exchange.circuit(boxes[1]).trip()
    await trio.sleep(59)
    assert hall.exchange.statistics().workers == 2
    await trio.sleep(2)
    seen = hall.exchange.statistics()
    assert [line.receiver for line in seen.lines] == ["/tripped"]
    assert (seen.workers, seen.delivered, seen.accepted) == (1, 2, 2)
    assert hall.exchange.circuit(boxes[0]) is None
    assert not boxes[0].resolve().ties.farewells
    assert await hall.exchange.send(boxes[0], hall.box.take, 2) == Delivered(value=2)


async def test_what_is_sent_while_its_receiver_is_being_forgotten_arrives(
    hall: Any,
) -> None:
    boxes = await hall.start(*(f"box{number}" for number in range(20)))
    for box in boxes:
        await hall.exchange.send(box, hall.box.take, 1)
    async with trio.open_nursery() as nursery:
        # In the step in which the worker's patience ends, before or after it.
        for box in boxes:
            nursery.start_soon(_send_later, hall, box)
    assert all(hall.log[box.path] == [1, 2] for box in boxes)


async def _send_later(hall: Any, box: AgentRef[Any]) -> None:
    await trio.sleep(60)
    assert await hall.trial(box, 2) == Delivered(value=2)


async def test_a_receivers_restart_is_no_end(hall: Any) -> None:
    (box,) = await hall.start("box")
    await fill(hall, box, 3)
    await hall.root.bounce_child("box")
    hall.exchange.circuit(box).reset()
    await hall.settle()
    assert hall.log[box.path] == [0, 1, 2, 3]


async def test_a_sender_whose_worker_is_gone_is_not_left_waiting(hall: Any) -> None:
    """A worker that spent its own budget cannot end what it had in hand."""
    (box,) = await hall.start("box")
    hall.mode(box, "hang")
    outcomes: list[object] = []

    async def send() -> None:
        outcomes.append(await hall.trial(box, 1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await hall.settle()
        (worker,) = hall.root.supervisor("exchange").which_children()
        for _ in range(4):
            hall.directory.resolve(worker.path).life.fail(_fault(worker.path))
            await hall.settle()
    (failed,) = outcomes
    assert isinstance(failed, DeliveryFailed)
    assert failed.reason == "delivery_timeout"
    # The next message starts another worker in the place of the failed one.
    hall.mode(box, "take")
    assert await hall.exchange.send(box, hall.box.take, 2) == Delivered(value=2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"capacity": 0},
        {"total": True},
        {"max_attempts": 1.5},
        {"delivery_timeout": 0},
        {"idle": math.inf},
    ],
)
def test_a_policy_that_is_no_bound_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        ExchangePolicy(**wrong)


async def test_an_exchange_takes_a_policy_and_nothing_else(hall: Any) -> None:
    with pytest.raises(TypeError, match="takes one ExchangePolicy"):
        await hall.root.start_child(ChildSpec("other", Exchange, args=(1000,)))


async def test_what_is_sent_to_a_stopped_agent_says_so(hall: Any) -> None:
    (box,) = await hall.start("box")
    await hall.root.terminate_child("box")
    with pytest.raises(DeliveryFailed) as failed:
        await hall.exchange.send(box, hall.box.take, 1)
    assert isinstance(failed.value.__cause__, AgentDown)


async def test_an_exchange_that_was_restarted_forgets_whom_nothing_is_sent_to(
    open_hall: Any,
) -> None:
    """Its workers are new, also those that have nothing to deliver."""
    async with open_hall(ExchangePolicy(idle=5.0)) as hall:
        (box,) = await hall.start("box")
        await hall.exchange.send(box, hall.box.take, 1)
        hall.directory.resolve("/exchange").body.crash(_fault("/exchange"))
        await hall.settle()
        assert len(hall.exchange.statistics().lines) == 1
        await trio.sleep(6)
        seen = hall.exchange.statistics()
        assert (seen.lines, seen.workers, seen.delivered) == ((), 0, 1)
