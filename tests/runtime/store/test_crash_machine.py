"""The store's machine that may die (`style.md` 26): what was acknowledged is there.

Units are written in groups, fail, and are written again; the process dies at any injection
point of writing, housekeeping or opening. Dying is taken literally, without a process: at
the point the files are copied as they are, everything in memory is dropped, and the next
run opens the copies. Each unit writes a number to a state, to the journal and to a list of
children, so that half a unit shows.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import treewarden.store.writer
from treewarden.clock import wall_ns
from treewarden.injection import Deed, InjectionPlan, Rule, load_plan, places
from treewarden.store.database import Opened, open_database
from treewarden.store.group import Group
from treewarden.store.level import Level
from treewarden.store.remembered import load_children, remember_child
from treewarden.store.snapshots import load_state
from treewarden.store.unit import StagedEvent, StateWrite, Unit
from treewarden.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.injection import InjectionPoint

OPENING = (
    places.LOCK,
    places.LOCKED,
    places.JUDGE,
    places.CONNECT,
    places.QUICK_CHECK,
    places.MIGRATE_BEGIN,
    places.MIGRATE_STEP,
    places.MIGRATE_COMMIT,
    places.BEGIN_RUN,
    places.LOAD_TAIL,
    places.READERS,
)
WRITING = (
    places.BEFORE_BEGIN,
    places.AFTER_BEGIN,
    places.WRITE_STATE,
    places.WRITE_COLLECTION,
    places.WRITE_JOURNAL,
    places.STEP,
    places.BEFORE_COMMIT,
    places.AFTER_COMMIT,
    places.ROLL_BACK,
    places.RECONNECT,
)
RESTING = (
    places.PROBE,
    places.PRUNE,
    places.CHECKPOINT,
    places.TRUNCATE,
    places.SCRUB,
    places.END_RUN,
)
PATHS = ("/a", "/b", "/c")
SUPERVISOR = "/crew"

Staged: TypeAlias = list[tuple[str, bool]]
# Of each unit: whose it is, and whether the file will refuse it.
GROUPS = st.lists(
    st.tuples(st.sampled_from(PATHS), st.sampled_from([False, False, False, True])),
    min_size=1,
    max_size=4,
)


class Died(BaseException):
    """The process is gone."""


class Death:
    """At a point's n-th reach: keep the files as they are, and nothing else."""

    def __init__(self, nth: int, keep_files: Callable[[], None]) -> None:
        self.left = nth
        self.keep_files = keep_files

    def is_due(self) -> bool:
        self.left -= 1
        if self.left == 0:
            self.keep_files()
            raise Died
        return False


class StoreThatDies(RuleBasedStateMachine):
    """Against a list of numbers: those that were acknowledged, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.place = TemporaryDirectory()
        self.runs = 0
        self.number = 0
        self.acknowledged: list[int] = []
        self.path_of: dict[int, str] = {}
        # Those of which nobody knows: the process died, and nobody has looked.
        self.open_question: list[int] = []
        self.patch = pytest.MonkeyPatch()
        # Each group makes the log long enough to be copied, and cut.
        self.patch.setattr(treewarden.store.writer, "IDLE_PAGES", 1)
        self.patch.setattr(treewarden.store.writer, "BUSY_PAGES", 8)
        self.patch.setattr(treewarden.store.writer, "TRUNCATE_BYTES", 1)
        self.patch.setattr(treewarden.store.writer, "REST_BYTES", 1)
        self.opened: Opened | None = None
        self.writer: Writer | None = None

    # --- the process and its files ---------------------------------------------------------

    @property
    def folder(self) -> Path:
        return Path(self.place.name) / str(self.runs)

    def keep_files(self) -> None:
        """What a kill leaves; the lock goes with the process."""
        before = self.folder
        self.runs += 1
        self.folder.mkdir()
        for name in ("db", "db-wal", "db-journal"):
            if (before / name).exists():
                shutil.copyfile(before / name, self.folder / name)

    def open(self) -> None:
        self.opened = open_database(
            self.folder / "db", level=Level.DURABLE, application="", boot="boot"
        )
        self.writer = Writer(self.opened)

    def drop(self) -> None:
        """What belonged to the process; its files are not looked at any more."""
        if self.writer is not None and self.writer.connection is not None:
            self.writer.connection.close()
        if self.opened is not None:
            for reader in self.opened.readers:
                reader.close()
            self.opened.database.close()
        self.opened = self.writer = None

    def survive(
        self, what: Callable[[], None], point: InjectionPoint, nth: int
    ) -> None:
        """Do it, and die at the point if it is reached; then there is a next run."""
        armed = Death(nth, self.keep_files)
        point.armed = (armed,)  # type: ignore[assignment] # all that a point asks of it
        try:
            what()
        except Died:
            self.drop()
        finally:
            point.armed = None
        if self.opened is None:
            self.open()

    @initialize(point=st.sampled_from(OPENING))
    def begin(self, point: InjectionPoint) -> None:
        """The file itself is made, and that is cut off once."""
        self.folder.mkdir()
        self.survive(self.open, point, 1)

    def teardown(self) -> None:
        self.drop()
        self.patch.undo()
        self.place.cleanup()

    # --- what happens ------------------------------------------------------------------------

    def _made(self, path: str, bad: bool) -> Unit:
        self.number += 1
        unit = Unit(path)
        unit.state = StateWrite("Count", 1, self.number, b"%d" % self.number)
        unit.events = [StagedEvent("n", b"%d" % self.number, wall_ns(), path)]
        unit.writes = [remember_child(SUPERVISOR, str(self.number), b"0")]
        if bad:
            statement = "INSERT INTO meta (key, value, crc) VALUES (?, ?, 0)"
            unit.writes.append((statement, ("boot", "a second one")))
        self.path_of[self.number] = path
        return unit

    def _commit(self, staged: Staged) -> None:
        assert self.writer is not None
        units = [self._made(path, bad) for path, bad in staged]
        self.open_question = [self._number(unit) for unit in units]
        decision = self.writer.commit(Group(units))
        self.open_question = []
        if decision.broken is None:
            self.acknowledged += [
                self._number(unit) for unit in units if unit not in decision.errors
            ]
        self.writer.after_commit()

    @staticmethod
    def _number(unit: Unit) -> int:
        assert unit.state is not None
        return unit.state.revision

    @rule(staged=GROUPS)
    def commit(self, staged: Staged) -> None:
        self._commit(staged)

    @rule(
        staged=GROUPS,
        point=st.sampled_from([one for one in WRITING if Deed.RAISE in one.kinds]),
        error=st.sampled_from(["io", "full", "busy", "row"]),
        nth=st.integers(1, 3),
    )
    def fail(self, staged: Staged, point: InjectionPoint, error: str, nth: int) -> None:
        """The disk fails in the middle, or SQLite does not like a row."""
        failure = Rule(point=point.name, do=Deed.RAISE, error=error, nth=nth)
        loaded = load_plan(InjectionPlan(name="fail", injections=(failure,)))
        try:
            self._commit(staged)
        finally:
            loaded.lift()

    @rule()
    def rest(self) -> None:
        assert self.writer is not None
        self.writer.rest()

    @rule(staged=GROUPS, point=st.sampled_from(WRITING), nth=st.integers(1, 2))
    def die_writing(self, staged: Staged, point: InjectionPoint, nth: int) -> None:
        self.survive(partial(self._commit, staged), point, nth)

    @rule(point=st.sampled_from(RESTING))
    def die_resting(self, point: InjectionPoint) -> None:
        def rest_and_close() -> None:
            assert self.writer is not None
            self.writer.rest()
            self.writer.close()
            self.drop()

        self.survive(rest_and_close, point, 1)

    @rule(point=st.sampled_from(OPENING))
    def die_opening(self, point: InjectionPoint) -> None:
        """After a kill in the middle of nothing."""
        self.keep_files()
        self.drop()
        self.survive(self.open, point, 1)

    @rule()
    def close_and_open(self) -> None:
        assert self.writer is not None
        self.writer.close()
        self.drop()
        self.open()

    # --- what must be so ---------------------------------------------------------------------

    @invariant()
    def what_was_acknowledged_is_there_and_nothing_is_half_there(self) -> None:
        if self.opened is None:
            return
        connection = self.opened.readers[0]
        rows = connection.execute("SELECT payload FROM journal ORDER BY position")
        found = [int(payload) for (payload,) in rows]
        if self.open_question:
            self._settle(found)
        assert found == self.acknowledged
        children = load_children(connection, SUPERVISOR)
        assert [int(id_) for id_, _ in children] == found
        for path in PATHS:
            state = load_state(connection, path, "Count")
            last = [number for number in found if self.path_of[number] == path][-1:]
            assert (
                [msgspec.json.decode(state.payload)] if state is not None else []
            ) == last

    def _settle(self, found: list[int]) -> None:
        """All of the group that was under way is there, but for its bad ones, or none."""
        late = found[len(self.acknowledged) :]
        good = [number for number in self.open_question if number in late]
        assert late in ([], good)
        self.acknowledged += late
        self.open_question = []


def test_what_was_acknowledged_survives_a_death_at_any_point() -> None:
    """A2, A4: and nothing is half there."""
    run_state_machine_as_test(
        StoreThatDies,
        settings=settings(stateful_step_count=40),
    )


def test_a_death_at_each_point_of_a_group_leaves_all_of_it_or_nothing() -> None:
    """A2: the same without chance."""
    for point in WRITING:
        machine = StoreThatDies()
        try:
            machine.begin(point)
            machine._commit([("/a", False), ("/b", False)])
            group = [("/a", False), ("/b", True), ("/c", False), ("/a", False)]
            machine.survive(partial(machine._commit, group), point, 1)
            machine.what_was_acknowledged_is_there_and_nothing_is_half_there()
            assert machine.acknowledged[:2] == [1, 2]
        finally:
            machine.teardown()
