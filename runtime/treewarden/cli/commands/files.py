"""`treewarden db`: looking after a database file.

Those that only look work beside a running runtime too; those that change the file take
the runtime's lock, and are refused while it runs.
"""

# No postponed annotations here: they are what typer reads.
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

files = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Check, copy and look after a runtime's database file.",
)

Db = Annotated[
    Path | None,
    typer.Option(
        "--db",
        metavar="FILE",
        help="The database file [TREEWARDEN_STORE, the only one].",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        "--runtime",
        metavar="NAME",
        help="The runtime whose file it is [TREEWARDEN_NAME].",
    ),
]
NEWEST = (1 << 62) - 1
"""A position that no journal comes to, as `store.journal` has it; that is not loaded yet."""
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _file(db: Path | None, name: str | None) -> Path:
    """The file that is meant: named, of a runtime's name, or the only one there is.

    Where nothing is said the variables count that say it to what is run.
    """
    from treewarden.config import state_folder, valid_name
    from treewarden.errors import ConfigError
    from treewarden.store import is_ours

    if db is None and name is None:
        stored_in = os.environ.get("TREEWARDEN_STORE")
        db = Path(stored_in) if stored_in else None
        name = os.environ.get("TREEWARDEN_NAME") or None
    if db is not None:
        return db
    folder = state_folder()
    if name is not None:
        return folder / f"{valid_name(name, '--name')}.db"
    # Applications keep databases of their own there too.
    found = sorted(path for path in folder.glob("*.db") if is_ours(path))
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.stem for path in found) or "none"
    raise ConfigError(
        f"say which file with --db FILE or --name NAME; in {folder} there are: {names}"
    )


def _print(record: object, sentences: list[str], *, as_json: bool) -> None:
    from treewarden.cli import showing
    from treewarden.control.plain import plain

    if as_json:
        print(showing.as_json(_values(record)))
        return
    for sentence in sentences:
        print(plain(sentence, 2000))


def _values(record: Any) -> Any:  # noqa: ANN401 - whatever a record holds
    from dataclasses import fields, is_dataclass

    if is_dataclass(record):
        return {one.name: _values(getattr(record, one.name)) for one in fields(record)}
    if isinstance(record, list):
        return [_values(one) for one in record]
    return str(record) if isinstance(record, Path) else record


def _fail_if(wrong: object) -> None:
    if wrong:
        raise typer.Exit(1)


def _size(count: int) -> str:
    return f"{count:,} bytes"


# --- looking ---------------------------------------------------------------------------------


@files.command()
def check(
    db: Db = None,
    name: Name = None,
    claimed_by: Annotated[
        str | None,
        typer.Option(
            "--app",
            metavar="MODULE:APP",
            help="Also list what it does not claim: state, collections, messages.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Look for damage in the file.

    SQLite's structure is looked at, and the checksum of every row.
    Status 1 when there is any, or when --app does not claim something that is stored.

    \b
    --json: {"file", "application", "schema", "clean", "bytes", "log_bytes",
             "rows": {TABLE: NUMBER}, "problems": [...]}
    """
    from dataclasses import replace

    from treewarden.store import belongings_of, check_file, states_of

    file = _file(db, name)
    report = check_file(file)
    if claimed_by is not None:
        from treewarden.cli.claims import Claims
        from treewarden.cli.loading import load_application

        claims = Claims(load_application(claimed_by))
        unknown = claims.unclaimed(states_of(file), belongings_of(file))
        report = replace(report, problems=[*report.problems, *unknown])
    _print(report, _check_lines(report), as_json=as_json)
    _fail_if(report.problems)


def _check_lines(report: Any) -> list[str]:  # noqa: ANN401 - a FileReport, not loaded yet
    closed = {True: "closed in order", False: "not closed, or in use"}
    lines = [
        f"{report.file}: schema {report.schema},"
        f" of {report.application or 'no application'},"
        f" {closed.get(report.clean, 'end of the last run unknown')},"
        f" {_size(report.bytes)}, log {_size(report.log_bytes)}",
        *(f"{count:>10,} {table}" for table, count in report.rows.items()),
        *report.problems,
    ]
    if not report.problems:
        lines.append("no damage")
    return lines


@files.command()
def backup(
    target: Annotated[
        Path | None, typer.Argument(metavar="TO", help="The copy.")
    ] = None,
    db: Db = None,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Copy the file, also while it is in use.

    Every row of the copy is looked at. Without TO the copy is beside the file and has the time in its name. Status 1 when
    rows are damaged: they were so before.

    \b
    --json: {"path", "bytes", "rows", "damaged": [{"table", "key"}]}
    """
    from treewarden.store import backup_file

    made = backup_file(_file(db, name), target)
    lines = [f"{made.path}: {made.rows:,} rows, {_size(made.bytes)}"]
    _print(made, lines + [str(row) for row in made.damaged], as_json=as_json)
    _fail_if(made.damaged)


@files.command()
def journal(
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    since: Annotated[
        int | None,
        typer.Option(min=0, max=NEWEST, metavar="POSITION", help="Those after it."),
    ] = None,
    at: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=NEWEST,
            metavar="POSITION",
            help="As it was when that was its newest.",
        ),
    ] = None,
    pattern: Annotated[str, typer.Option(help="Which topics.")] = ">",
    db: Db = None,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Show what happened last: published events and reports.

    \b
    --json: one line an entry: {"position", "topic", "at_ns", "kind", "source", "trace",
             "payload"}
    """
    from treewarden.cli import asking, showing
    from treewarden.control.views import event_row
    from treewarden.store import journal_of

    asking.check(pattern)
    entries = journal_of(
        _file(db, name), since=since, limit=limit, pattern=pattern, until=at
    )
    show: Callable[[Any], str] = showing.as_json if as_json else showing.event_text
    for entry in entries:
        print(show(event_row(entry)))


@files.command()
def export(db: Db = None, name: Name = None) -> None:
    """Print everything that can be read, a line of JSON a row.

    Status 1 when rows are damaged; they say so.

    \b
    {"table", "damaged", COLUMN: VALUE, ...}
    """
    from treewarden.cli import showing
    from treewarden.store import export_rows

    damaged = 0
    for row in export_rows(_file(db, name)):
        print(showing.as_json(row))
        damaged += bool(row["damaged"])
    _fail_if(damaged)


# --- changing --------------------------------------------------------------------------------


@files.command()
def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="A copy.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put a file that is there aside.")
    ] = False,
    db: Db = None,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Put a backup in the file's place.

    Every row of it is looked at first.

    \b
    --json: {"file", "rows", "kept"}
    """
    from treewarden.store import restore_file

    done = restore_file(source, _file(db, name), replace=replace)
    lines = [f"{done.file}: {done.rows:,} rows, from {source}"]
    if done.kept is not None:
        lines.append(f"what was there is now {done.kept}")
    _print(done, lines, as_json=as_json)


@files.command()
def migrate(db: Db = None, name: Name = None, as_json: Json = False) -> None:
    """Bring the file's schema up to date.

    After a copy, and as a whole or not at all; a runtime does so by itself.

    \b
    --json: {"file", "before", "after", "kept"}
    """
    from treewarden.store import migrate_file

    done = migrate_file(_file(db, name))
    if done.kept is None:
        lines = [f"{done.file}: schema {done.after}, nothing to do"]
    else:
        lines = [
            f"{done.file}: from schema {done.before} to {done.after}",
            f"as it was before it is {done.kept}",
        ]
    _print(done, lines, as_json=as_json)


@files.command()
def scrub(
    remove: Annotated[
        bool,
        typer.Option("--remove", help="Move damaged rows to a file beside this one."),
    ] = False,
    db: Db = None,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Find damaged rows, and --remove them.

    The checksum of every row is looked at. An agent whose row was taken out starts from its
    initial state; entries of the journal stay. Indexes that do not agree with the rows are
    made anew by --remove, too. Without it, status 1 when there is any such damage.

    \b
    --json: {"file", "rows", "damaged": [{"table", "key"}], "removed", "kept",
             "indexes": [...]}
    """
    from treewarden.store import scrub_file

    done = scrub_file(_file(db, name), remove=remove)
    lines = [
        f"{done.file}: {done.rows:,} rows, {len(done.damaged):,} of them damaged",
        *map(str, done.damaged),
        *done.indexes,
    ]
    if done.kept is not None:
        lines.append(f"{done.removed:,} rows were moved to {done.kept}")
    _print(done, lines, as_json=as_json)
    _fail_if(not remove and (done.damaged or done.indexes))


@files.command()
def vacuum(db: Db = None, name: Name = None, as_json: Json = False) -> None:
    """Write the file anew without its free pages.

    That takes up to twice as much room again meanwhile.

    \b
    --json: {"file", "before_bytes", "after_bytes"}
    """
    from treewarden.store import vacuum_file

    done = vacuum_file(_file(db, name))
    before, after = _size(done.before_bytes), _size(done.after_bytes)
    _print(done, [f"{done.file}: {before} before, {after} now"], as_json=as_json)


@files.command()
def rename(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The path it has.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The path it gets.")],
    db: Db = None,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Move what is stored for an agent to another path.

    Its state, crashes, queues and maps, from OLD to NEW.

    \b
    --json: {"file", "moved": {TABLE: NUMBER}}
    """
    from treewarden.store import rename_path

    file = _file(db, name)
    moved = rename_path(file, old, new)
    rows = ", ".join(f"{count:,} {table}" for table, count in moved.items() if count)
    record = {"file": str(file), "moved": moved}
    _print(record, [f"{old} is now {new}: {rows}"], as_json=as_json)
