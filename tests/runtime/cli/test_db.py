"""`treewarden db`: what each command prints, changes and refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import pytest
import trio
from typer.testing import CliRunner

from treewarden import (
    Agent,
    Application,
    ChildSpec,
    DynamicSupervisorSpec,
    MailboxPolicy,
    SupervisorSpec,
)
from treewarden.cli.claims import Claims
from treewarden.cli.commands import app
from treewarden.cli.commands.files import NEWEST
from treewarden.clock import wall_ns
from treewarden.config import state_folder
from treewarden.ids import new_id
from treewarden.store import (
    Belonging,
    DurableMap,
    DurableQueue,
    StagedEvent,
    StateWrite,
    StoredMessage,
    Unit,
    copies,
    insert_applied,
    insert_letter,
    insert_message,
    open_store,
)
from treewarden.store.journal import END

if TYPE_CHECKING:
    from typer.testing import Result

    from treewarden.store import Write

FIRST_SCHEMA = Path(__file__).parents[2] / "data" / "schema_1.sql"


class Total(msgspec.Struct):
    total: int = 0


class Counter(Agent[Total]):
    """A state to claim."""


class Db(Protocol):
    """Run a command on the file and expect a status."""

    def __call__(self, *words: str, status: int = 0) -> Result: ...


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that a runtime has closed in order."""
    file = tmp_path / "shop.db"

    async def fill() -> None:
        async with open_store(file, application="shop") as store:
            for path in ("/counter", "/other"):
                unit = Unit(path)
                unit.state = StateWrite("Counter", 1, 1, b'{"total":3}')
                unit.events = [StagedEvent("counted", b'{"n":1}', wall_ns(), path)]
                queue = DurableQueue(store, path, "pending", int)
                await queue.put(7, key="k")
                queue.seal(unit)
                pages = DurableMap[str, int](store, path, "pages", int)
                await pages.set("k", 7)
                pages.seal(unit)
                store.hand_over(unit)
            await store.settled()

    trio.run(fill)
    return file


@pytest.fixture
def db(file: Path) -> Db:
    def run(*words: str, status: int = 0) -> Result:
        result = CliRunner().invoke(app, ["db", *words, "--db", str(file)])
        assert result.exit_code == status, result.output
        return result

    return run


def write(file: Path, *writes: Write) -> None:
    """Commit something as a runtime does, and end the run."""

    async def hand_over() -> None:
        async with open_store(file) as store:
            store.hand_over(Unit("/counter", writes=[*writes]))

    trio.run(hand_over)


async def outcomes(file: Path, ids: list[str]) -> list[str]:
    """What the next run says of them."""
    async with open_store(file) as store:
        return [str(await store.outcome(id_)) for id_ in ids]


def change(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(statement)


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def rows(file: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection:
        return [row for (row,) in connection.execute(query)]


def load(file: Path, path: str) -> bytes | None:
    """What the agent at `path` would start with."""

    async def load() -> bytes | None:
        async with open_store(file) as store:
            stored = await store.load(path, "Counter")
            return stored.payload if stored is not None else None

    return trio.run(load)


# --- check ------------------------------------------------------------------------------


def test_a_sound_file_is_said_to_be_so_and_not_touched(db: Db, file: Path) -> None:
    before = digest(file)
    output = db("check").output
    assert "schema" in output
    assert "of shop, closed in order" in output
    assert output.endswith("no damage\n")
    assert digest(file) == before
    report = json.loads(db("check", "--json").output)
    assert report["problems"] == []
    assert report["rows"]["agent_state"] == 2
    assert (report["application"], report["clean"]) == ("shop", True)


def test_what_a_killed_runtime_left_in_its_log_is_looked_at_too(
    db: Db, file: Path
) -> None:
    log = file.with_name("shop.db-wal")
    before = file.read_bytes()
    with closing(sqlite3.connect(file, isolation_level=None)) as killed:
        killed.execute("UPDATE agent_state SET revision = 9 WHERE path = '/counter'")
        left = log.read_bytes()
    file.write_bytes(before)
    assert db("check").output.endswith("no damage\n")
    log.write_bytes(left)
    assert "the row /counter is damaged" in db("check", status=1).output


def test_damage_is_named_and_the_status_is_1(db: Db, file: Path) -> None:
    change(file, "UPDATE agent_state SET revision = 9 WHERE path = '/counter'")
    output = db("check", status=1).output
    assert "agent_state: the row /counter is damaged" in output
    assert "no damage" not in output


def test_a_page_that_is_no_page_is_one_clear_problem(db: Db, file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[4096 * 3 : 4096 * 5] = bytes(8192)
    file.write_bytes(content)
    report = json.loads(db("check", "--json", status=1).output)
    assert report["problems"]


def test_what_is_no_database_of_ours_is_refused(db: Db, file: Path) -> None:
    file.write_text("my diary, and not a short one" * 9)
    assert "not an SQLite database" in db("check", status=1).output
    file.unlink()
    assert f"there is no file {file}" in db("check", status=1).output
    assert not file.exists()


@pytest.mark.parametrize("command", ["check", "vacuum"])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("loop.db", "cannot be a file"),
        ("~nobody-here/x.db", "cannot be a file"),
        ("a" * 300, "File name too long"),
        ("folder.db", "no file"),
        ("fifo.db", "no file"),
        ("none.db", "there is no file"),
    ],
)
def test_what_cannot_be_a_file_is_one_clear_sentence(
    tmp_path: Path, command: str, name: str, says: str
) -> None:
    (tmp_path / "loop.db").symlink_to(tmp_path / "loop.db")
    (tmp_path / "folder.db").mkdir()
    os.mkfifo(tmp_path / "fifo.db")
    file = name if name.startswith("~") else str(tmp_path / name)
    result = CliRunner().invoke(app, ["db", *command.split(), "--db", file])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert says in result.output


def test_what_lies_beside_the_files_does_not_keep_the_only_one_from_being_found(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = state_folder()
    folder.mkdir(parents=True)
    shutil.copy(file, folder / "shop.db")
    (folder / "folder.db").mkdir()
    (folder / "gone.db").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "fifo.db")
    result = CliRunner().invoke(app, ["db", "check", "--json"])
    assert json.loads(result.output)["application"] == "shop"


def test_a_newer_file_is_refused_by_every_command_and_keeps_every_byte(
    db: Db, file: Path, tmp_path: Path
) -> None:
    change(file, "PRAGMA user_version = 99")
    before = digest(file)
    for words in (
        ["check"],
        ["backup"],
        ["journal"],
        ["export"],
        ["migrate"],
        ["scrub"],
        ["vacuum"],
        ["rename", "/counter", "/new"],
    ):
        assert "newer treewarden" in db(*words, status=1).output, words
        assert digest(file) == before
    assert not list(tmp_path.glob("*.backup.*"))


def test_state_that_nobody_claims_is_listed() -> None:
    tree = Application(
        "shop",
        [
            ChildSpec("counter", Counter),
            ChildSpec("group", SupervisorSpec([ChildSpec("inner", Counter)])),
            ChildSpec("many", DynamicSupervisorSpec()),
        ],
    )
    states = [
        ("/counter", "Counter"),
        ("/group/inner", "Other"),
        ("/gone", "Counter"),
        ("/many/1", "Anything"),
        ("/system/thing", "Thing"),
    ]
    assert Claims(tree).unclaimed(states) == [
        "the state of /group/inner is of type Other, and the agent there stores as"
        " Counter; set its store_as, or move the state",
        "nobody claims the state of /gone (Counter);"
        " `treewarden db rename /gone NEW` moves it",
    ]


class Clerk(Agent[Total]):
    """Something else to claim."""

    pending: DurableQueue[int]
    mailbox = MailboxPolicy(durable=True)


def test_belongings_that_nobody_claims_are_listed() -> None:
    tree = Application(
        "shop",
        [
            ChildSpec("clerk", Clerk),
            ChildSpec("counter", Counter),
            ChildSpec("many", DynamicSupervisorSpec()),
        ],
    )

    def belonging(path: str, what: str, name: str = "", rows: int = 2) -> Belonging:
        return Belonging(path=path, what=what, name=name, rows=rows)

    claimed = [
        belonging("/clerk", "queue", "pending"),
        belonging("/clerk", "durable mailbox"),
        belonging("/counter", "dead letters"),
        belonging("/many/1", "map", "pages"),
        belonging("/system/x", "subscription", "x"),
    ]
    unclaimed = [
        belonging("/clerk", "map", "pages"),
        belonging("/counter", "durable mailbox"),
        belonging("/gone", "queue", "pending", 1),
        belonging("/gone", "dead letters"),
    ]
    assert Claims(tree).unclaimed([], claimed + unclaimed) == [
        "the agent at /clerk does not declare the map pages, which has 2 items",
        "2 messages wait for the agent at /counter, whose mailbox is not durable any more",
        "nobody claims the queue pending of /gone (1 row);"
        " `treewarden db rename /gone NEW` moves all of it",
        "nobody claims the dead letters of /gone (2 rows);"
        " `treewarden db rename /gone NEW` moves all of it",
    ]


MESSAGE = StoredMessage(
    seq=1, path="/other", id="m", operation="add", arguments=b"{}", sender="", at_ns=5
)


def test_check_asks_the_application_what_it_claims(
    db: Db, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leave_messages() -> None:
        async with open_store(file, application="shop") as store:
            unit = Unit("/other")
            unit.writes = [
                insert_message(MESSAGE),
                *insert_letter(MESSAGE, 2, 3, 5, "crashed"),
            ]
            store.hand_over(unit)
            await store.wait(unit)

    trio.run(leave_messages)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "db_claims_case.py").write_text(
        "from treewarden import Application\napp = Application('shop', [])\n"
    )
    output = db("check", "--app", "db_claims_case:app", status=1).output
    assert "nobody claims the state of /counter (Counter)" in output
    assert "nobody claims the state of /other (Counter)" in output
    assert "nobody claims the queue pending of /other (1 row)" in output
    assert "nobody claims the map pages of /other (1 row)" in output
    assert "nobody claims the durable mailbox of /other (1 row)" in output
    assert "nobody claims the dead letters of /other (1 row)" in output


# --- which file -------------------------------------------------------------------------


def test_the_only_file_needs_no_name(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treewarden.config.state_folder", lambda: tmp_path)
    run = CliRunner().invoke
    assert run(app, ["db", "check"]).exit_code == 0
    assert run(app, ["db", "check", "--name", "shop"]).exit_code == 0
    change(tmp_path / "shop.index.db", "CREATE TABLE theirs (x)")
    (tmp_path / "empty.db").touch()
    assert run(app, ["db", "check"]).exit_code == 0
    shutil.copy(file, tmp_path / "mail.db")
    result = run(app, ["db", "check"])
    assert result.exit_code == 1
    assert "there are: mail, shop" in result.output
    assert run(app, ["db", "check", "--name", "../shop"]).exit_code == 1
    # The variables of what is run say it too, and an option wins over them.
    for variable, value in (("NAME", "shop"), ("STORE", str(file))):
        said = {f"TREEWARDEN_{variable}": value}
        assert run(app, ["db", "check"], env=said).exit_code == 0
        one = run(app, ["db", "check", "--runtime", "mail"], env=said)
        assert str(tmp_path / "mail.db") in one.output


# --- looking ----------------------------------------------------------------------------


def test_the_journal_is_shown_as_a_runtime_shows_it(db: Db) -> None:
    lines = db("journal").output.splitlines()
    assert len(lines) == 2
    assert 'counted [/counter] {"n":1}' in lines[0]
    entries = [json.loads(line) for line in db("journal", "--json").output.splitlines()]
    assert [entry["position"] for entry in entries] == [1, 2]
    assert len(db("journal", "--since", "1").output.splitlines()) == 1
    assert db("journal", "--at", "1").output.splitlines() == lines[:1]
    assert db("journal", "--pattern", "nothing").output == ""


@pytest.mark.parametrize("option", ["--since", "--at"])
def test_a_position_that_no_journal_has_is_refused(db: Db, option: str) -> None:
    assert NEWEST == END
    assert "Invalid value" in db("journal", option, "9" * 20, status=2).output
    assert db("journal", option, str(NEWEST)).output.count("\n") in (0, 2)


def test_everything_is_exported_and_damage_says_so(db: Db, file: Path) -> None:
    exported = [json.loads(line) for line in db("export").output.splitlines()]
    states = [row for row in exported if row["table"] == "agent_state"]
    assert states[0]["payload"] == {"total": 3}
    assert not any(row["damaged"] for row in exported)
    change(file, "UPDATE agent_state SET payload = CAST(x'fffe' AS TEXT)")
    exported = [json.loads(line) for line in db("export", status=1).output.splitlines()]
    assert [row["damaged"] for row in exported if row["table"] == "agent_state"] == [
        True,
        True,
    ]


def test_a_backup_is_made_beside_the_file_or_where_it_is_told(
    db: Db, file: Path, tmp_path: Path
) -> None:
    made = json.loads(db("backup", "--json").output)
    copy = Path(made["path"])
    assert copy.name.startswith("shop.db.backup.")
    assert made["damaged"] == []
    assert rows(copy, "SELECT path FROM agent_state") == ["/counter", "/other"]
    target = tmp_path / "there.db"
    db("backup", str(target))
    assert target.exists()
    assert "is there already" in db("backup", str(target), status=1).output
    nowhere = str(tmp_path / "nowhere" / "there.db")
    said = db("backup", nowhere, status=1).output
    assert f"there is no folder for {nowhere}" in said


def test_looking_works_beside_a_running_runtime_and_changing_does_not(
    db: Db, file: Path, tmp_path: Path
) -> None:
    async def beside() -> None:
        async with open_store(file) as store:
            unit = Unit("/late")
            unit.state = StateWrite("Counter", 1, 1, b'{"total":4}')
            store.hand_over(unit)
            await store.settled()
            await trio.to_thread.run_sync(ask)
            # The locks of the process that owns the file are as they were.
            store.hand_over(Unit("/late"))
            await store.settled()

    def ask() -> None:
        for words in (["check"], ["journal"], ["export"], ["backup"]):
            subprocess_db(*words)
        for words in (["migrate"], ["scrub"], ["vacuum"], ["rename", "/late", "/new"]):
            done = subprocess_db(*words, status=1)
            assert "belongs to another running runtime: process" in done
        done = subprocess_db("restore", str(copies()[0]), "--replace", status=1)
        assert "belongs to another running runtime" in done

    def copies() -> list[Path]:
        return list(tmp_path.glob("shop.db.backup.*Z"))

    def subprocess_db(*words: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "treewarden.cli", "db", *words, "--db", str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    trio.run(beside)
    assert rows(copies()[0], "SELECT count(*) FROM agent_state") == [3]


# --- changing ---------------------------------------------------------------------------


def test_a_backup_is_restored_and_what_was_there_is_kept(
    db: Db, file: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    db("backup", str(copy))
    change(file, "DELETE FROM agent_state")
    assert "say --replace" in db("restore", str(copy), status=1).output
    assert rows(file, "SELECT path FROM agent_state") == []
    done = json.loads(db("restore", str(copy), "--replace", "--json").output)
    assert rows(file, "SELECT path FROM agent_state") == ["/counter", "/other"]
    assert rows(Path(done["kept"]), "SELECT path FROM agent_state") == []
    assert load(file, "/counter") == b'{"total":3}'
    file.unlink()
    db("restore", str(copy))
    assert load(file, "/counter") == b'{"total":3}'


def test_what_a_replaced_file_still_had_in_its_log_goes_with_it(
    db: Db, file: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    db("backup", str(copy))
    with closing(sqlite3.connect(file, isolation_level=None)) as killed:
        killed.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        killed.execute("UPDATE agent_state SET store_as = 'Late'")
        log = file.with_name("shop.db-wal").read_bytes()
    file.with_name("shop.db-wal").write_bytes(log)
    done = json.loads(db("restore", str(copy), "--replace", "--json").output)
    assert rows(file, "SELECT DISTINCT store_as FROM agent_state") == ["Counter"]
    assert rows(Path(done["kept"]), "SELECT DISTINCT store_as FROM agent_state") == [
        "Late"
    ]
    assert db("check").output.endswith("no damage\n")


def test_a_log_whose_file_is_gone_is_not_read_into_the_backup_that_comes(
    db: Db, file: Path, tmp_path: Path
) -> None:
    """A11: a killed runtime leaves a log; somebody removes the file, and not the log."""
    copy = tmp_path / "copy.db"
    db("backup", str(copy))
    with closing(sqlite3.connect(file, isolation_level=None)) as killed:
        killed.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        killed.execute("UPDATE agent_state SET store_as = 'Late'")
        log = file.with_name("shop.db-wal").read_bytes()
    file.unlink()
    file.with_name("shop.db-wal").write_bytes(log)
    assert "shop.db-wal is there already" in db("restore", str(copy), status=1).output
    done = json.loads(db("restore", str(copy), "--replace", "--json").output)
    assert rows(file, "SELECT DISTINCT store_as FROM agent_state") == ["Counter"]
    assert db("check").output.endswith("no damage\n")
    assert Path(done["kept"]).read_bytes() == log


def test_a_file_that_is_read_is_not_put_aside_without_its_log(
    db: Db, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its log has would be apart from it if the restore were killed half-way."""
    copy = tmp_path / "copy.db"
    db("backup", str(copy))
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", partial(real, timeout=0))
    with closing(real(file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM agent_state").fetchall()
        change(file, "UPDATE agent_state SET store_as = 'Late'")
        output = db("restore", str(copy), "--replace", status=1).output
    assert "is read by another process; have it end" in output
    assert rows(file, "SELECT DISTINCT store_as FROM agent_state") == ["Late"]


def test_of_two_copies_within_a_second_neither_is_lost(
    db: Db, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "wall_ns", lambda: 5)
    made = [json.loads(db("backup", "--json").output)["path"] for _ in range(3)]
    assert len({*made}) == 3
    assert all(Path(one).exists() for one in made)


def test_a_damaged_backup_is_not_restored(db: Db, file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    db("backup", str(copy))
    change(copy, "UPDATE agent_state SET revision = 9 WHERE path = '/other'")
    before = digest(file)
    output = db("restore", str(copy), "--replace", status=1).output
    assert "1 damaged rows (first: agent_state: the row /other is damaged)" in output
    assert digest(file) == before
    assert not list(tmp_path.glob("*.partial"))
    assert not list(tmp_path.glob("*.replaced.*"))
    assert "is the backup itself" in db("restore", str(file), status=1).output


def test_a_schema_is_brought_up_to_date_and_the_file_kept(tmp_path: Path) -> None:
    file = tmp_path / "old.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.executescript(FIRST_SCHEMA.read_text())
    run = CliRunner().invoke
    checked = run(app, ["db", "check", "--db", str(file)])
    assert checked.exit_code == 1
    assert "`treewarden db migrate` brings it up to date" in checked.output
    assert run(app, ["db", "export", "--db", str(file)]).exit_code == 1
    done = json.loads(run(app, ["db", "migrate", "--db", str(file), "--json"]).output)
    assert done["before"] == 1
    assert Path(done["kept"]).exists()
    assert run(app, ["db", "check", "--db", str(file)]).exit_code == 0
    again = run(app, ["db", "migrate", "--db", str(file)])
    assert "nothing to do" in again.output


def test_damaged_rows_are_taken_out_and_kept(db: Db, file: Path) -> None:
    change(file, "UPDATE agent_state SET path = '/lost' WHERE path = '/counter'")
    change(file, "UPDATE queue_item SET attempts = 9 WHERE path = '/other'")
    change(file, "UPDATE journal SET topic = 'x' WHERE position = 1")
    output = db("scrub", status=1).output
    assert "3 of them damaged" in output
    assert "queue_item: the row /other pending k is damaged" in output
    done = json.loads(db("scrub", "--remove", "--json").output)
    assert done["removed"] == 2
    kept = [json.loads(line) for line in Path(done["kept"]).read_text().splitlines()]
    assert [row["table"] for row in kept] == ["agent_state", "queue_item"]
    assert kept[0]["payload"] == {"total": 3}
    assert load(file, "/counter") is None
    assert load(file, "/other") == b'{"total":3}'
    assert rows(file, "SELECT path FROM queue_item") == ["/counter"]


@pytest.mark.parametrize("table", ["applied", "committed_range", "meta"])
def test_what_is_taken_out_is_not_denied_afterwards(
    db: Db, file: Path, table: str
) -> None:
    """A8: of an id whose row was removed nobody says that it was not applied."""
    id_ = new_id()
    write(file, insert_applied("/counter", id_, wall_ns(), None))
    (boot,) = rows(file, "SELECT value FROM meta WHERE key = 'boot'")
    ids = [id_, f"{boot}:1", new_id()]
    change(file, f"UPDATE {table} SET crc = crc + 1")  # noqa: S608 - our own names
    db("scrub", "--remove")
    known, call, earlier, later = trio.run(outcomes, file, [*ids, new_id()])
    assert known == ("forgotten" if table == "applied" else "applied")
    assert call == ("forgotten" if table == "committed_range" else "applied")
    assert (earlier, later) == ("forgotten", "not_applied")


def test_a_vacuum_gives_free_pages_back(db: Db, file: Path) -> None:
    change(file, "CREATE TABLE filler AS SELECT zeroblob(1000000) AS x")
    change(file, "DROP TABLE filler")
    done = json.loads(db("vacuum", "--json").output)
    assert done["after_bytes"] < done["before_bytes"] - 900_000
    assert done["after_bytes"] == file.stat().st_size
    assert load(file, "/counter") == b'{"total":3}'


MEASURED_VACUUM = """
import resource, sys
from pathlib import Path
from treewarden.store import vacuum_file
vacuum_file(Path(sys.argv[2]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
vacuum_file(Path(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_vacuum_does_not_hold_the_file_in_memory(file: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.db"
    shutil.copy(file, small)
    change(
        file,
        "CREATE TABLE filler AS WITH RECURSIVE n(i) AS"
        " (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 240)"
        " SELECT zeroblob(100000) AS x FROM n",
    )
    command = [sys.executable, "-c", MEASURED_VACUUM, str(file), str(small)]
    grown = int(subprocess.check_output(command))
    unit = 1024 if sys.platform == "linux" else 1
    assert grown * unit < file.stat().st_size / 2
    assert {one.name for one in tmp_path.iterdir()} == {
        "shop.db",
        "shop.db.lock",
        "small.db",
        "small.db.lock",
    }


def test_what_is_stored_under_a_path_moves_to_another(db: Db, file: Path) -> None:
    moved = json.loads(db("rename", "/counter", "/a/new", "--json").output)["moved"]
    assert {table: count for table, count in moved.items() if count} == {
        "agent_state": 1,
        "queue_item": 1,
        "map_item": 1,
    }
    assert db("check").output.endswith("no damage\n")
    assert load(file, "/a/new") == b'{"total":3}'
    assert load(file, "/counter") is None
    for table in ("queue_item", "map_item"):
        assert rows(file, f"SELECT path FROM {table}") == ["/a/new", "/other"]  # noqa: S608


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (
            "/counter",
            "/other",
            "/other has rows in agent_state, queue_item, map_item already",
        ),
        ("/gone", "/new", "nothing is stored under /gone"),
        ("/counter", "new", "is no path"),
        ("/counter", "/", "is no path"),
        ("/counter", "/a//b", "is no path"),
        ("/counter", "/a\nb", "is no path"),
    ],
)
def test_a_move_that_would_lose_something_is_refused(
    db: Db, file: Path, old: str, new: str, why: str
) -> None:
    assert why in db("rename", old, new, status=1).output
    assert rows(file, "SELECT path FROM agent_state") == ["/counter", "/other"]


def test_a_damaged_row_that_is_moved_stays_damaged(db: Db, file: Path) -> None:
    change(file, "UPDATE agent_state SET revision = 9 WHERE path = '/counter'")
    db("rename", "/counter", "/new")
    output = db("check", status=1).output
    assert "agent_state: the row /new is damaged" in output
