from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from treewarden import (
    Agent,
    AgentRef,
    ChildSpec,
    Fault,
    Intensity,
    NameUnknown,
)
from treewarden.monitors import HealthStatus, Reading
from treewarden.supervision import as_supervisor
from treewarden.testing import crash

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from treewarden.monitors import Probe

UNKNOWN, HEALTHY, DEGRADED, UNHEALTHY, UNRESPONSIVE, DEAD = HealthStatus

Answers = Any


class Patient(Agent[None]):
    persistence = "none"

    async def work(self, seconds: float) -> None:
        await trio.sleep(seconds)


async def raises() -> Reading:
    raise OSError("nobody there")


async def hangs() -> Reading:
    await trio.sleep_forever()
    raise AssertionError


async def patient(ward: Any, name: str = "patient", **options: Any) -> AgentRef[Any]:
    await ward.root.start_child(ChildSpec(name, Patient, **options))
    return AgentRef(ward.directory, f"/{name}")


def crash_node(node: Any) -> None:
    fault = Fault(type="Injected", message="on purpose")
    supervisor = as_supervisor(node)
    if supervisor is not None:
        supervisor.crash(fault)
    else:
        node.life.fail(fault)


# --- probes -----------------------------------------------------------------------------------


async def test_h10_one_bad_probe_of_a_hundred_harms_no_other(
    autojump_clock: MockClock, ward: Any, answers: Answers
) -> None:
    """H10, S16, S24: the other 99 go on reporting, and nothing was restarted."""
    for number in range(99):
        ward.health.watch(f"good {number}", answers())
    ward.health.watch("bad", raises)
    await trio.sleep(301)
    found = {one.subject: one for one in ward.health.statistics().subjects}
    bad = found.pop("bad")
    assert {one.status for one in found.values()} == {HEALTHY}
    assert {one.checks for one in found.values()} == {11}
    assert bad.status is UNHEALTHY
    assert bad.reason == "check_failing: OSError: nobody there"
    assert all(node.restarts == 0 for node in ward.directory.nodes())
    assert ward.monitors.crew.statistics().ended_early == 0


async def test_h32_a_probe_that_fails_makes_its_subject_unknown_and_is_news(
    autojump_clock: MockClock, ward: Any, answers: Answers
) -> None:
    """H32: unknown, never a default; also when it was never well."""
    ward.health.watch("never", raises)
    ward.health.watch("once", answers())
    await wait_all_tasks_blocked()
    ward.health.watch("once", raises)
    await wait_all_tasks_blocked()
    assert ward.status("never") is ward.status("once") is UNKNOWN
    unknown = [source for topic, source in ward.records if topic == "health.unknown"]
    assert sorted(unknown) == ["never", "once"]
    assert ("health.unknown", "once") in ward.signals


async def test_what_is_no_reading_is_a_check_that_fails(
    autojump_clock: MockClock, ward: Any
) -> None:
    async def lies() -> Any:
        return True

    ward.health.watch("liar", lies)
    await wait_all_tasks_blocked()
    seen = ward.health.subject("liar")
    assert (seen.status, seen.reason) == (UNKNOWN, "it answered with True")


async def test_hung_probes_cost_their_deadline_and_only_twenty_run_at_once(
    autojump_clock: MockClock,
    ward: Any,
) -> None:
    """S16: n hung subjects do not add up, and the monitors answer all the while."""
    for number in range(50):
        ward.health.watch(f"hung {number}", hangs, deadline=5.0, interval=1000)
    await wait_all_tasks_blocked()
    seen = ward.health.statistics()
    assert (seen.checking, seen.in_line) == (20, 30)
    # Three rows of at most 20 each; whoever was asked gets in line again behind them.
    await trio.sleep(15.5)
    found = ward.health.statistics().subjects
    assert {one.status for one in found} == {UNRESPONSIVE}
    assert {one.reason for one in found} == {"no answer in 5 s"}


async def test_waiting_for_a_place_is_not_held_against_a_subject(
    autojump_clock: MockClock, ward: Any, answers: Answers
) -> None:
    for number in range(20):
        ward.health.watch(f"hung {number}", hangs, deadline=50.0)
    ward.health.watch("quick", answers(), deadline=1.0)
    await trio.sleep(51)
    assert ward.status("quick") is HEALTHY


async def test_a_forced_check_is_one_that_began_after_the_asking(
    autojump_clock: MockClock, ward: Any
) -> None:
    asked: list[float] = []

    async def slow() -> Reading:
        asked.append(trio.current_time())
        await trio.sleep(2)
        return Reading()

    ward.health.watch("slow", slow)
    await trio.sleep(1)
    now = trio.current_time()
    assert (await ward.health.force("slow")).status is HEALTHY
    assert asked[-1] >= now
    assert len(asked) == 2


async def test_whoever_waits_for_a_check_is_told_when_there_will_be_none(
    autojump_clock: MockClock,
    ward: Any,
) -> None:
    ward.health.watch("hung", hangs)
    async with trio.open_nursery() as nursery:

        async def asks() -> None:
            with pytest.raises(NameUnknown, match="not watched any more"):
                await ward.health.force("hung")

        nursery.start_soon(asks)
        await wait_all_tasks_blocked()
        assert ward.health.unwatch("hung")
    assert not ward.health.unwatch("hung")
    with pytest.raises(NameUnknown, match="'hung' is not watched"):
        await ward.health.force("hung")


async def test_watching_again_replaces_the_probe_and_leaks_no_task(
    autojump_clock: MockClock, ward: Any, answers: Callable[..., Probe]
) -> None:
    """S16: re-registering leaks nothing."""
    for _ in range(100):
        ward.health.watch("one", answers(DEGRADED))
        ward.health.watch("one", answers())
    await wait_all_tasks_blocked()
    assert ward.status("one") is HEALTHY
    assert ward.monitors.crew.statistics().wanted == 1
    ward.health.unwatch("one")
    await wait_all_tasks_blocked()
    assert ward.directory.find("/monitors/tasks/1.one") is None
    assert ward.health.statistics().subjects == ()


async def test_what_cannot_be_watched_is_refused(
    autojump_clock: MockClock, ward: Any, answers: Answers
) -> None:
    with pytest.raises(ValueError, match="needs a probe"):
        ward.health.watch("postgres")
    for seconds in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="must be > 0 s"):
            ward.health.watch("postgres", answers(), interval=seconds)
        with pytest.raises(ValueError, match="must be > 0 s"):
            ward.health.watch("postgres", answers(), deadline=seconds)


async def test_monitoring_goes_on_after_its_supervisor_was_restarted(
    autojump_clock: MockClock, ward: Any, answers: Answers
) -> None:
    """S24: every subject is checked again, with what was known of it."""
    for number in range(5):
        ward.health.watch(f"subject {number}", answers())
    await wait_all_tasks_blocked()
    for victim in ("tasks", "crew", "readings"):
        before = [one.checks for one in ward.health.statistics().subjects]
        crash_node(ward.directory.find(f"/monitors/{victim}"))
        await trio.sleep(31)
        after = [one.checks for one in ward.health.statistics().subjects]
        assert all(new > old for new, old in zip(after, before, strict=True)), victim
    assert ward.monitors.crew.statistics().waiting == 0


# --- nodes ------------------------------------------------------------------------------------


async def test_a_node_is_as_its_state_says_and_a_dead_one_is_seen_at_once(
    autojump_clock: MockClock,
    ward: Any,
) -> None:
    """S25: the end of a subject needs no interval to be seen."""
    ref = await patient(ward, restart="temporary")
    ward.health.watch(ref)
    await wait_all_tasks_blocked()
    assert ward.status("/patient") is HEALTHY
    now = trio.current_time()
    await crash(ref)
    await wait_all_tasks_blocked()
    assert ward.status("/patient") is DEAD
    assert trio.current_time() - now < 1.0
    assert ward.open_alarms() == [("health", "/patient")]
    assert ("health.dead", "/patient") in ward.signals


async def test_a_node_that_comes_back_is_well_again_and_its_alarm_cleared(
    autojump_clock: MockClock,
    ward: Any,
) -> None:
    ref = await patient(ward, restart="temporary")
    ward.health.watch(ref)
    await wait_all_tasks_blocked()
    await crash(ref)
    await wait_all_tasks_blocked()
    await patient(ward)
    await trio.sleep(6)
    assert ward.status("/patient") is HEALTHY
    assert ward.open_alarms() == []


async def test_the_probe_of_a_dead_node_is_not_asked(
    autojump_clock: MockClock, ward: Any
) -> None:
    asked = []

    async def probe() -> Reading:
        asked.append(1)
        return Reading()

    ward.health.watch("/nobody", probe)
    await wait_all_tasks_blocked()
    assert (ward.status("/nobody"), asked) == (DEAD, [])


async def test_an_agent_that_is_stuck_in_a_message_is_unresponsive_until_it_is_not(
    autojump_clock: MockClock,
    ward: Any,
) -> None:
    ref = await patient(ward)
    ward.health.watch(ref, interval=4.0)
    await ref.cast(Patient.work, 20.0)
    await ref.cast(Patient.work, 0.0)
    await trio.sleep(3)
    assert ward.status("/patient") is HEALTHY
    await trio.sleep(12)
    assert ward.status("/patient") is UNRESPONSIVE
    assert ward.health.subject("/patient").reason.endswith("s: work")
    await trio.sleep(12)
    assert ward.status("/patient") is HEALTHY


async def test_an_agent_that_had_nothing_to_do_for_long_is_well(
    autojump_clock: MockClock, ward: Any
) -> None:
    ref = await patient(ward)
    ward.health.watch(ref)
    await trio.sleep(29.9)
    await ref.cast(Patient.work, 1.0)
    await ref.cast(Patient.work, 1.0)
    await trio.sleep(0.5)
    assert ward.status("/patient") is HEALTHY


async def test_the_registry_has_the_status_beside_what_was_there(
    autojump_clock: MockClock, ward: Any, answers: Answers
) -> None:
    """S25: on a change, for each incarnation, and nobody else's attributes are lost."""
    ref = await patient(ward)

    def registered() -> Any:
        life = ward.directory.find("/patient").life
        return ward.registry.register("doctor", ref, owner=life, attributes={"ward": 3})

    def attributes() -> Any:
        return dict(ward.registry.lookup("doctor")[0].attributes)

    registered()
    ward.health.watch(ref)
    await wait_all_tasks_blocked()
    assert attributes() == {"ward": 3, "health_status": "healthy"}
    ward.health.watch(ref, answers(DEGRADED))
    await wait_all_tasks_blocked()
    assert attributes() == {"ward": 3, "health_status": "degraded"}
    await crash(ref)
    await wait_all_tasks_blocked()
    registered()
    await trio.sleep(31)
    assert attributes() == {"ward": 3, "health_status": "degraded"}


async def test_nobody_has_died_because_the_tree_is_stopped(
    autojump_clock: MockClock, open_ward: Any
) -> None:
    """S25: no status is written at a shutdown."""
    async with open_ward() as ward:
        ward.health.watch(await patient(ward))
        await wait_all_tasks_blocked()
        before = list(ward.records)
    assert ward.records == before == [("health.healthy", "/patient")]


async def test_the_dead_are_kept_for_an_hour_and_not_longer(
    autojump_clock: MockClock, ward: Any
) -> None:
    """S16: dead statuses are not kept for ever."""
    ref = await patient(ward, restart="temporary")
    ward.health.watch(ref, interval=100)
    await wait_all_tasks_blocked()
    await crash(ref)
    await trio.sleep(3590)
    assert ward.status("/patient") is DEAD
    await trio.sleep(20)
    with pytest.raises(NameUnknown):
        ward.health.subject("/patient")
    assert ward.open_alarms() == []
    assert ward.monitors.crew.statistics().wanted == 0


async def test_of_too_many_dead_the_one_that_died_first_is_forgotten(
    autojump_clock: MockClock, ward: Any
) -> None:
    for number in range(1003):
        ward.health.watch(f"/gone/{number}", interval=1000)
    await trio.sleep(1)
    names = {one.subject for one in ward.health.statistics().subjects}
    assert len(names) == 1000
    assert ward.health.statistics().forgotten == 3


async def test_a_crash_loop_is_watched_through_every_incarnation(
    autojump_clock: MockClock, ward: Any
) -> None:
    """No watcher is left at a life that is over, and none is missing at the next."""
    ref = await patient(ward, intensity=Intensity(1000, 1.0))
    ward.health.watch(ref)
    for _ in range(50):
        await wait_all_tasks_blocked()
        assert len(ward.directory.find("/patient").life.watchers) == 1
        await crash(ref)
    await wait_all_tasks_blocked()
    ward.health.unwatch(ref)
    assert ward.directory.find("/patient").life.watchers == []


class Deaf:
    """Probes that do not obey their cancellation until the block is left."""

    def __init__(self) -> None:
        self.let_go = trio.Event()

    async def probe(self) -> Reading:
        with trio.CancelScope(shield=True):
            await self.let_go.wait()
        return Reading()

    def __enter__(self) -> Deaf:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go.set()


async def test_h10_probes_that_do_not_obey_are_given_up_and_keep_nobody_waiting(
    autojump_clock: MockClock, ward: Any, answers: Answers
) -> None:
    """H10: as many as there are places; counted, and no subject stays as it was."""
    for number in range(20):
        ward.health.watch(f"deaf {number}", answers())
    await wait_all_tasks_blocked()
    with Deaf() as deaf:
        for number in range(20):
            ward.health.watch(f"deaf {number}", deaf.probe, deadline=5.0)
        await wait_all_tasks_blocked()
        ward.health.watch("quick", answers())
        assert ward.status("deaf 0") is HEALTHY
        await trio.sleep(6.5)
        seen = ward.health.statistics()
        assert (seen.stuck, seen.checking, seen.in_line) == (20, 0, 0)
        found = {one.subject: one for one in seen.subjects}
        assert found.pop("quick").status is HEALTHY
        assert {one.status for one in found.values()} == {UNRESPONSIVE}
        assert {one.late for one in found.values()} == {1}
        assert ("health", "deaf 7") in ward.open_alarms()
    await trio.sleep(6)
    # What they answered at last was too late; the next check finds them well.
    assert ward.status("deaf 0") is HEALTHY
    seen = ward.health.statistics()
    assert (seen.stuck, seen.checking) == (0, 0)
    assert ward.open_alarms() == []


async def test_who_forces_a_check_that_does_not_obey_is_told_all_the_same(
    autojump_clock: MockClock, ward: Any
) -> None:
    with Deaf() as deaf:
        ward.health.watch("deaf", deaf.probe, deadline=5.0)
        with trio.fail_after(10):
            assert (await ward.health.force("deaf")).status is UNRESPONSIVE
        assert ward.health.unwatch("deaf")
        assert ward.health.statistics().subjects == ()
    await wait_all_tasks_blocked()
    assert ward.health.statistics().stuck == 0


@pytest.mark.parametrize("wrong", [{"status": "splendid"}, {"reason": 7}])
async def test_a_reading_that_is_none_is_a_check_that_fails_and_the_next_one_comes(
    wrong: dict[str, Any], autojump_clock: MockClock, ward: Any
) -> None:
    async def lies() -> Reading:
        return Reading(**wrong)

    ward.health.watch("liar", lies)
    await trio.sleep(11)
    seen = ward.health.subject("liar")
    assert (seen.status, seen.failures) == (UNKNOWN, 3)
    assert ward.monitors.crew.statistics().ended_early == 0
