"""What is to be broken, where and when: a plan, from code or from a TOML file.

    name = "a disk that stalls"
    seconds = 30.0                  # the lease: after that nothing of it holds

    [[injections]]
    point = "store.commit.*"        # a point, or a pattern of `fnmatch`
    do = "stall"                    # kill | raise | cancel | stall
    delay = 0.2                     # seconds, for stall
    nth = 10                        # from the tenth reach on
    times = 3                       # 0: as often as it comes

A plan always ends by itself, so that nothing stays broken because somebody forgot it.
"""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import msgspec

from treewarden.errors import ConfigError

from .points import ERRORS, POINTS, Deed

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_LEASE: Final = 3600.0
"""Seconds that a plan may hold."""
LONGEST_STALL: Final = 60.0
"""Seconds that one stall may take."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing to do: `do` at `point`, from the `nth` reach on, `times` in all.

    `times` 0 is without end; `probability` is of each reach, drawn from `seed`. `delay`
    is what a stall takes, in seconds; `error` is what a raise raises, one of `ERRORS`
    ("" is what suits the point).
    """

    point: str
    do: Deed
    error: str = ""
    delay: float = 0.2
    nth: int = 1
    times: int = 1
    probability: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what could not be carried out.

        Raises:
            ConfigError: a value is wrong; it is named.
        """
        for holds, words in (
            (self.error in ERRORS or not self.error, f"error {self.error!r}"),
            (0.0 <= self.delay <= LONGEST_STALL, f"delay {self.delay}"),
            (self.nth >= 1, f"nth {self.nth}"),
            (self.times >= 0, f"times {self.times}"),
            (0.0 <= self.probability <= 1.0, f"probability {self.probability}"),
        ):
            if not holds:
                raise ConfigError(f"an injection cannot have {words}")
        self.points()

    def points(self) -> list[str]:
        """The names of the points it means, in order.

        Raises:
            ConfigError: there is no such point, or none that can do it.
        """
        named = [name for name in POINTS if fnmatchcase(name, self.point)]
        if not named:
            near = get_close_matches(self.point, POINTS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"there is no injection point {self.point!r}{hint}")
        able = [name for name in named if self.do in POINTS[name].kinds]
        if not able:
            kinds = ", ".join(sorted(POINTS[named[0]].kinds))
            raise ConfigError(f"{self.point} cannot {self.do}; it can {kinds}")
        return able


class InjectionPlan(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """Rules, and for how many `seconds` after it was loaded they hold.

    A plan without rules breaks nothing; while it is loaded, points count their reaches.
    """

    name: str
    injections: tuple[Rule, ...] = ()
    seconds: float = 60.0

    def __post_init__(self) -> None:
        """Refuse a plan without end.

        Raises:
            ConfigError: the lease is no time, or too long.
        """
        if not 0.0 < self.seconds <= LONGEST_LEASE:
            raise ConfigError(
                f"a plan holds for more than 0 and at most {LONGEST_LEASE:g} seconds,"
                f" not {self.seconds}"
            )


def parse_plan(text: bytes) -> InjectionPlan:
    """A plan from JSON.

    Raises:
        ConfigError: it is no plan; says where.
    """
    try:
        return msgspec.json.decode(text, type=InjectionPlan)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"this is no plan of injections: {error}") from error


def read_plan(file: Path) -> InjectionPlan:
    """The plan in a TOML file.

    Raises:
        ConfigError: it cannot be read, or is no plan; says where.
    """
    try:
        found = tomllib.loads(file.read_text("utf-8"))
        return msgspec.convert(found, InjectionPlan)
    except OSError as error:
        raise ConfigError(f"cannot read the plan {file}: {error.strerror}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{file} is no plan of injections: {error}; it takes"
            f" {', '.join(InjectionPlan.__struct_fields__)}, and each of [[injections]]"
            f" {', '.join(Rule.__struct_fields__)}"
        ) from error
    except (ValueError, ConfigError) as error:
        raise ConfigError(f"{file} is no plan of injections: {error}") from error
