"""Which runtime is meant, and what is sent to it."""

from pathlib import Path

import pytest

from treewarden.cli.asking import arguments, choose, criteria
from treewarden.control.protocol import Raw
from treewarden.errors import ConfigError, NoRuntime


def test_values_are_json_and_else_text() -> None:
    words = ["n=3", "name=ada", 'text="3"', "list=[1, 2]", "empty=", "sum=1+1=2"]
    assert arguments(words) == {
        "n": Raw(b"3"),
        "name": Raw(b'"ada"'),
        "text": Raw(b'"3"'),
        "list": Raw(b"[1,2]"),
        "empty": Raw(b'""'),
        "sum": Raw(b'"1+1=2"'),
    }


@pytest.mark.parametrize("words", [["n"], ["=3"], ["n=1", "n=2"]])
def test_what_is_no_argument_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"key=value|twice"):
        arguments(words)


async def test_a_socket_that_is_named_is_the_one(tmp_path: Path) -> None:
    assert await choose(tmp_path / "x.sock", "other") == tmp_path / "x.sock"


async def test_variables_that_say_where_to_listen_say_whom_to_ask(
    tmp_path: Path,
) -> None:
    where = {"TREEWARDEN_SOCKET": str(tmp_path / "x.sock"), "TREEWARDEN_NAME": "shop"}
    assert await choose(None, None, where) == tmp_path / "x.sock"
    assert await choose(tmp_path / "y.sock", None, where) == tmp_path / "y.sock"


@pytest.mark.usefixtures("nobody_home")
@pytest.mark.parametrize("socket", ["", "false"])
async def test_a_name_in_the_environment_counts_where_no_option_says_another(
    socket: str,
) -> None:
    where = {"TREEWARDEN_SOCKET": socket, "TREEWARDEN_NAME": "shop"}
    with pytest.raises(NoRuntime, match="called 'shop'"):
        await choose(None, None, where)
    with pytest.raises(NoRuntime, match="called 'yard'"):
        await choose(None, "yard", where)


@pytest.fixture
def nobody_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No runtime anywhere that this user looks."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.mark.usefixtures("nobody_home")
async def test_without_any_runtime_the_error_says_how_to_start_one() -> None:
    with pytest.raises(NoRuntime, match=r"no runtime runs; start one with `treewarden"):
        await choose(None, None)
    with pytest.raises(NoRuntime, match="no runtime is called 'x'"):
        await choose(None, "x")


@pytest.mark.parametrize(
    ("text", "field", "op", "value"),
    [
        ("total>=3", "total", "gte", 3),
        ("a.b = x y", "a.b", "eq", "x y"),
        ("done!=true", "done", "neq", True),
        ("owner~a%", "owner", "like", "a%"),
        ("n<1.5", "n", "lt", 1.5),
        ("n=null", "n", "eq", None),
    ],
)
def test_a_criterion_is_read_as_it_is_typed(
    text: str, field: str, op: str, value: object
) -> None:
    [criterion] = criteria([text])
    assert (criterion.field, criterion.op, criterion.value) == (field, op, value)


@pytest.mark.parametrize("text", ["total", "=3", "a={}", ""])
def test_what_is_no_criterion_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        criteria([text])
