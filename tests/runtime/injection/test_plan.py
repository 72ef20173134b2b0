"""Plans in files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from treewarden.errors import ConfigError
from treewarden.injection import Deed, InjectionPlan, Rule, read_plan

if TYPE_CHECKING:
    from pathlib import Path

FILE = """
name = "a disk that stalls"
seconds = 30

[[injections]]
point = "store.commit.*"
do = "stall"
delay = 0.5
nth = 10
times = 3

[[injections]]
point = "agent.take"
do = "cancel"
probability = 0.25
seed = 7
"""


def test_a_plan_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(FILE)
    assert read_plan(file) == InjectionPlan(
        name="a disk that stalls",
        seconds=30.0,
        injections=(
            Rule(point="store.commit.*", do=Deed.STALL, delay=0.5, nth=10, times=3),
            Rule(point="agent.take", do=Deed.CANCEL, probability=0.25, seed=7),
        ),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "Invalid value"),
        ("seconds = 3.0", "missing required field `name`"),
        ('name = "x"\nlease = 3', "unknown field `lease`"),
        ('name = "x"\nlease = 3', "it takes name, injections, seconds, and each of"),
        (
            'name = "x"\n[[injections]]\npoint = "store.comit.after"\ndo = "kill"',
            "did you mean store.commit.after?",
        ),
        ('name = "x"\n[[injections]]\npoint = "bus.publish"', "field `do`"),
        ('name = "x"\n[[injections]]\npoint = "nowhere"\ndo = "kill"', "'nowhere'"),
        ('name = "x"\n[[injections]]\npoint = "bus.publish"\ndo = "sing"', "'sing'"),
        ('name = "x"\nseconds = 9999', "at most 3600"),
    ],
)
def test_a_file_that_is_no_plan_is_refused_with_the_reason(
    tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words) as raised:
        read_plan(file)
    assert str(file) in str(raised.value)


def test_a_file_that_is_not_there_is_a_plain_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_plan(tmp_path / "none.toml")
