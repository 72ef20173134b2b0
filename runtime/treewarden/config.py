"""What a runtime is told from outside, as one frozen record.

Four places are read, the later ones win: the defaults, a TOML file, `TREEWARDEN_*`
variables, the flags of the command line. Whatever nobody knows is refused by name, with
its place and the nearest name that exists: a misspelt key that is passed over is a
runtime that does something else than its file says.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import platformdirs

from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Level: TypeAlias = Literal["durable", "crash_safe", "volatile"]
RightsName: TypeAlias = Literal["ro", "rw", "chaos"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

PREFIX: Final = "TREEWARDEN_"
# A journal that may not hold a mebibyte answers no question.
_LEAST_JOURNAL: Final = 1 << 20
# A name becomes a file name and a word on the command line.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How to run an application; every field has a default.

    Attributes:
        name: Of this runtime; None: the application's.
        store: The database file; None: `store_path` decides.
        level: What an acknowledged change survives: `durable` power loss, `crash_safe`
            the death of the process, `volatile` neither (no file is opened).
        socket: Where the control server listens; None: in the runtime folder of this
            user, under the name; False: nowhere.
        rights: The most that anybody gets over the control socket.
        otlp: The URL of an OpenTelemetry collector (OTLP over HTTP); None: the standard
            `OTEL_*` variables decide.
        log_level: The least level of log record that is printed.
        shutdown: Seconds for the whole of a stop, all that run together; what is not down
            by then is killed. None: each child has its own time, and no more.
        journal_days: Days after which what is in the journal goes.
        journal_bytes: Bytes of the journal beyond which its oldest entries go; at least
            a mebibyte.
        until_console_gone: Seconds after which a runtime that had a console and lost it
            ends by itself; None: it never does.
    """

    name: str | None = None
    store: Path | None = None
    level: Level = "durable"
    socket: Path | Literal[False] | None = None
    rights: RightsName = "rw"
    otlp: str | None = None
    log_level: LogLevel = "info"
    shutdown: float | None = None
    journal_days: float = 7.0
    journal_bytes: int = 1 << 30
    until_console_gone: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            key, value = field.name, getattr(self, field.name)
            if value is not None or field.default is not None:
                parsed = _PARSERS[key](value, f"Config({key}=...)")
                object.__setattr__(self, key, parsed)

    def store_path(self, app_name: str) -> Path:
        """The database file of an application of that name.

        Raises:
            ConfigError: the name cannot be a file's.
        """
        if self.store is not None:
            return self.store
        name = valid_name(self.name or app_name, "the application's name")
        return state_folder() / f"{name}.db"


def state_folder() -> Path:
    """Where databases and logs of this user's runtimes are, if nobody says otherwise."""
    return platformdirs.user_state_path("treewarden")


def valid_name(name: str, place: str) -> str:
    """`name`, if a runtime can be called that.

    Raises:
        ConfigError: it cannot; `place` says where it came from.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{place}: a name is 1 to 64 letters, digits, dots, dashes or underscores and"
            f" begins with a letter or digit, not {name[:80]!r}"
        )
    return name


# --- one parser a field: a value as TOML, a variable or a flag has it ------------------------


def _text(value: object, place: str) -> str:
    if not isinstance(value, str) or not value or "\x00" in value:
        raise ConfigError(f"{place}: expected text, not {value!r}")
    return value


def _name(value: object, place: str) -> str:
    return valid_name(_text(value, place), place)


def _path(value: object, place: str) -> Path:
    text = _text(str(value) if isinstance(value, Path) else value, place)
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{place}: {error}: {text!r}") from error


def _socket(value: object, place: str) -> Path | Literal[False]:
    if value is False or value == "false":
        return False
    if value is True or value == "true":
        raise ConfigError(f"{place}: expected a path or false, not {value!r}")
    return _path(value, place)


def _number(value: object) -> float:
    try:
        # bool is an int to Python, but nobody means a second by `true`.
        return math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _seconds(value: object, place: str) -> float:
    seconds = _number(value)
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"{place}: expected seconds, not {value!r}")
    return seconds


def _days(value: object, place: str) -> float:
    days = _number(value)
    if not 0 < days < math.inf:
        raise ConfigError(f"{place}: expected days, more than 0, not {value!r}")
    return days


def _journal_bytes(value: object, place: str) -> int:
    count = _number(value)
    if not _LEAST_JOURNAL <= count < math.inf or count != int(count):
        raise ConfigError(
            f"{place}: expected a number of bytes, {_LEAST_JOURNAL} or more,"
            f" not {value!r}"
        )
    return int(count)


def _url(value: object, place: str) -> str:
    text = _text(value, place)
    if not re.fullmatch(r"https?://[^\s/]+\S*", text):
        raise ConfigError(f"{place}: expected an http:// or https:// URL, not {text!r}")
    return text


def _one_of(choices: object) -> Callable[[object, str], str]:
    words = get_args(choices)

    def parse(value: object, place: str) -> str:
        if value in words:
            return str(value)
        raise ConfigError(f"{place}: expected {' | '.join(words)}, not {value!r}")

    return parse


_PARSERS: Final[dict[str, Callable[[object, str], object]]] = {
    "name": _name,
    "store": _path,
    "level": _one_of(Level),
    "socket": _socket,
    "rights": _one_of(RightsName),
    "otlp": _url,
    "log_level": _one_of(LogLevel),
    "shutdown": _seconds,
    "journal_days": _days,
    "journal_bytes": _journal_bytes,
    "until_console_gone": _seconds,
}
KEYS: Final = tuple(field.name for field in fields(Config))


# --- the four places ---------------------------------------------------------------------


def load_config(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    defaults: Mapping[str, object] | None = None,
) -> Config:
    """The configuration of a TOML file, of `TREEWARDEN_*` in `environ`, and of `flags`.

    Paths in the file are relative to its folder, all others to the current one. Flags
    that are None were not given. `defaults` stand in for those of `Config`.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, a value does not fit.
    """
    values: dict[str, object] = dict(defaults or {})
    if file is not None:
        values |= _from_file(file)
    values |= _from_environment(environ or {})
    values |= _from_flags(flags or {})
    # Each parser returns its own field's type; the table cannot say so.
    return Config(**values)  # type: ignore[arg-type]


def _from_file(file: Path) -> dict[str, object]:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error
    values = {key: _parse(key, value, f"{file}: {key}") for key, value in table.items()}
    for key in ("store", "socket"):
        path = values.get(key)
        if isinstance(path, Path):
            values[key] = file.absolute().parent / path
    return values


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for variable, text in environ.items():
        if variable.startswith(PREFIX):
            key = variable.removeprefix(PREFIX)
            # Elsewhere case counts, so `TREEWARDEN_store` is as unknown as `..._SOTRE`.
            known = key.lower() if key == key.upper() else key.upper()
            values[known] = _parse(known, text, variable, shown=_variable)
    return values


def _from_flags(flags: Mapping[str, object]) -> dict[str, object]:
    return {
        key: _parse(key, value, _flag(key), shown=_flag)
        for key, value in flags.items()
        if value is not None
    }


def _variable(key: str) -> str:
    return f"{PREFIX}{key.upper()}"


def _flag(key: str) -> str:
    # The command line calls the store what it is there: a file.
    return "--db" if key == "store" else f"--{key.replace('_', '-')}"


def _parse(
    key: str, value: object, place: str, *, shown: Callable[[str], str] = str
) -> object:
    parser = _PARSERS.get(key)
    if parser is not None:
        return parser(value, place)
    near = difflib.get_close_matches(key.lower(), KEYS, n=1)
    hint = f"did you mean {shown(near[0])}?" if near else f"known: {', '.join(KEYS)}"
    raise ConfigError(f"{place}: unknown configuration key; {hint}")
