"""Whose a stored state is, and what becomes of it when its type changes."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import pytest

from treewarden import Agent, Application, ChildSpec, open_runtime
from treewarden.config import Config
from treewarden.errors import AgentCrashed
from treewarden.exits import Crash
from treewarden.store import StateWrite, Unit, open_store
from treewarden.store.store import LARGE_STATE_BYTES
from treewarden.testing import store_clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from typing import Protocol

    from trio.testing import MockClock

    from treewarden import Runtime

    class Open(Protocol):
        def __call__(
            self, agent: type[Agent[Any]]
        ) -> AbstractAsyncContextManager[Runtime]: ...


class Profile(msgspec.Struct):
    """What became of {"who": "Ada Lovelace"} and of {"name": …, "mails": "a,b"}."""

    first: str = ""
    last: str = ""
    mails: list[str] = msgspec.field(default_factory=list)


class Person(Agent[Profile]):
    store_as = "Person"
    state_version = 3
    asked: ClassVar[list[int]] = []

    @classmethod
    def migrate(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        cls.asked.append(version)
        if version < 2:
            data = {"name": data["who"], "mails": ""}
        if version < 3:
            first, _, last = data["name"].partition(" ")
            mails = [one for one in data["mails"].split(",") if one]
            data = {"first": first, "last": last, "mails": mails}
        return data

    async def add_mail(self, mail: str) -> int:
        self.state.mails.append(mail)
        return len(self.state.mails)


class Renamed(Agent[Profile]):
    """The class has another name now; the rows do not."""

    store_as = "Person"
    state_version = 3

    async def seen(self) -> Profile:
        return self.state


class Stranger(Agent[Profile]):
    async def seen(self) -> Profile:
        return self.state


class Hoard(Agent[list[str]]):
    async def keep(self, size: int) -> None:
        self.state.append("x" * size)

    async def size(self) -> int:
        return len(self.state)


# Rows as earlier versions of the application have written them, and what they are now.
GOLDEN = [
    (1, {"who": "Ada Lovelace"}, Profile("Ada", "Lovelace")),
    (
        2,
        {"name": "Ada Lovelace", "mails": "a@x,b@y"},
        Profile("Ada", "Lovelace", ["a@x", "b@y"]),
    ),
    (
        3,
        {"first": "Ada", "last": "Lovelace", "mails": ["a@x"]},
        Profile("Ada", "Lovelace", ["a@x"]),
    ),
]


@pytest.fixture
def clock() -> Iterator[MockClock]:
    with store_clock() as clock:
        yield clock


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def opened(clock: MockClock, file: Path) -> Open:
    """Opens a runtime with one child, "one"."""

    def opened(agent: type[Agent[Any]]) -> AbstractAsyncContextManager[Runtime]:
        child = ChildSpec("one", agent, restart="temporary")
        return open_runtime(
            Application("app", [child]), config=Config(store=file, socket=False)
        )

    return opened


@pytest.fixture
def row(clock: MockClock, file: Path) -> Any:
    """Stores a state of "/one" as it was written then."""

    async def store(store_as: str, version: int, data: object) -> None:
        async with open_store(file, application="app") as store:
            unit = Unit("/one")
            unit.state = StateWrite(store_as, version, 7, msgspec.json.encode(data))
            store.hand_over(unit)
            await store.wait(unit)

    return store


def on_disk(file: Path) -> tuple[str, int, Any]:
    with closing(sqlite3.connect(file)) as connection:
        store_as, version, payload = connection.execute(
            "SELECT store_as, state_version, payload FROM agent_state"
            " WHERE path = '/one'"
        ).fetchone()
    return store_as, version, json.loads(payload)


@pytest.mark.parametrize(("version", "data", "now"), GOLDEN)
async def test_a_row_of_each_earlier_version_is_brought_to_this_one(
    opened: Open, row: Any, file: Path, version: int, data: object, now: Profile
) -> None:
    await row("Person", version, data)
    Person.asked.clear()
    async with opened(Person) as runtime:
        person = runtime.ref("one", Person)
        # Once, however many versions lie between; not at all when there is none.
        assert Person.asked == [version] * (version < 3)
        # Nothing is written until it changes: a look must not cost the way back.
        assert on_disk(file)[1] == version
        assert await person.call(Person.add_mail, "new") == len(now.mails) + 1
    wanted = msgspec.to_builtins(now) | {"mails": [*now.mails, "new"]}
    assert on_disk(file) == ("Person", 3, wanted)


async def test_a_class_that_was_renamed_takes_its_state_over(
    opened: Open, row: Any
) -> None:
    await row("Person", 3, Profile("Ada"))
    async with opened(Renamed) as runtime:
        assert await runtime.ref("one", Renamed).call(Renamed.seen) == Profile("Ada")


def refusal(runtime: Runtime) -> str:
    """Why "/one" stays down."""
    (one,) = runtime.supervisor("/application").which_children()
    assert one.state == "failed"
    assert isinstance(one.last_exit, Crash)
    return one.last_exit.fault.summary()


async def test_f15_two_types_with_one_path_do_not_share_a_state(
    opened: Open, row: Any, file: Path
) -> None:
    """F15: the original kept all types in one key space."""
    await row("Person", 3, Profile("Ada"))
    async with opened(Stranger) as runtime:
        assert "of type 'Person', not 'Stranger'" in refusal(runtime)
    assert on_disk(file) == ("Person", 3, msgspec.to_builtins(Profile("Ada")))


async def test_a_row_that_a_newer_class_wrote_is_refused_and_kept(
    opened: Open, row: Any, file: Path
) -> None:
    await row("Person", 4, {"later": True})
    async with opened(Person) as runtime:
        assert "has version 4, newer than" in refusal(runtime)
    assert on_disk(file) == ("Person", 4, {"later": True})


async def test_a_type_that_changed_without_its_version_is_refused_with_the_remedy(
    opened: Open, row: Any, file: Path
) -> None:
    before = {"first": "Ada", "last": "Lovelace", "mails": "a@x,b@y"}
    await row("Person", 3, before)
    async with opened(Person) as runtime:
        assert "Expected `array`, got `str`" in refusal(runtime)
        assert "raise state_version and give it a migrate" in refusal(runtime)
    assert on_disk(file) == ("Person", 3, before)


async def test_f16_a_damaged_state_is_refused_and_never_an_empty_start(
    opened: Open, row: Any, file: Path
) -> None:
    """F16: the original took what it could not read for nothing there."""
    await row("Person", 3, Profile("Ada"))
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("UPDATE agent_state SET payload = '{}'")
    async with opened(Person) as runtime:
        assert "/one is damaged" in refusal(runtime)
    assert on_disk(file) == ("Person", 3, {})


async def test_a_large_state_is_told_of_once_with_the_remedy(opened: Open) -> None:
    async with opened(Hoard) as runtime:
        hoard = runtime.ref("one", Hoard)
        await hoard.call(Hoard.keep, LARGE_STATE_BYTES // 2)
        assert await large_states(runtime) == []
        await hoard.call(Hoard.keep, LARGE_STATE_BYTES // 2)
        for _ in range(3):  # the report rides with the commit after the one it is about
            await hoard.call(Hoard.keep, 1)
        ((source, said),) = await large_states(runtime)
        assert source == "/one"
        assert said["bytes"] > LARGE_STATE_BYTES
        assert "DurableMap" in said["remedy"]


async def test_a_state_over_a_mebibyte_is_rolled_back_and_the_rest_goes_on(
    opened: Open,
) -> None:
    async with opened(Hoard) as runtime:
        hoard = runtime.ref("one", Hoard)
        await hoard.call(Hoard.keep, 1000)
        with pytest.raises(AgentCrashed, match="keep what grows in a DurableMap"):
            await hoard.call(Hoard.keep, 1 << 20)
    async with opened(Hoard) as runtime:
        assert await runtime.ref("one", Hoard).call(Hoard.size) == 1


async def large_states(runtime: Runtime) -> list[tuple[str, Any]]:
    await runtime.store.settled()
    found = await runtime.store.entries(
        since=None, limit=10, pattern="store.large_state"
    )
    return [(one.source, msgspec.json.decode(one.payload)) for one in found]
