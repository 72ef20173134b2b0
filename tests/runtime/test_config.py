from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewarden.config import KEYS, Config, load_config
from treewarden.errors import ConfigError


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "treewarden.toml"


def test_the_defaults_are_those_of_the_design() -> None:
    config = load_config()
    assert config == Config()
    assert (config.name, config.store, config.socket, config.otlp) == (None,) * 4
    assert (config.level, config.rights, config.log_level) == ("durable", "rw", "info")


def test_the_environment_wins_over_the_file_and_flags_over_both(toml: Path) -> None:
    toml.write_text('name = "file"\nlevel = "volatile"\nrights = "ro"\n')
    environ = {"TREEWARDEN_NAME": "environment", "TREEWARDEN_LEVEL": "crash_safe"}
    config = load_config(toml, environ, {"name": "flag", "level": None})
    assert config == Config(name="flag", level="crash_safe", rights="ro")


def test_other_variables_are_nobodys_business() -> None:
    assert load_config(environ={"HOME": "/x", "TREEWARD": "y"}) == Config()


def test_how_much_of_the_journal_is_kept_is_configured(toml: Path) -> None:
    toml.write_text("journal_days = 0.5\njournal_bytes = 2000000\n")
    config = load_config(toml, {"TREEWARDEN_JOURNAL_DAYS": "30"})
    assert (config.journal_days, config.journal_bytes) == (30.0, 2_000_000)
    for words in ({"journal_bytes": 1000}, {"journal_days": 0}):
        with pytest.raises(ConfigError, match=next(iter(words)).replace("_", "-")):
            load_config(flags=words)


def test_paths_in_a_file_are_relative_to_its_folder(toml: Path) -> None:
    toml.write_text('store = "data/x.db"\nsocket = "x.sock"\n')
    config = load_config(toml)
    assert config.store == toml.parent / "data" / "x.db"
    assert config.socket == toml.parent / "x.sock"


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert load_config(flags={"store": "~/x.db"}).store == Path("/somewhere/x.db")


@pytest.mark.parametrize("given_", [False, "false"])
def test_false_means_no_socket(given_: object) -> None:
    assert load_config(flags={"socket": given_}).socket is False


def test_a_false_in_the_file_means_no_socket(toml: Path) -> None:
    toml.write_text("socket = false\n")
    assert load_config(toml).socket is False


@pytest.mark.parametrize(
    ("file", "environ", "flags", "words"),
    [
        ('sotre = "x"', {}, {}, ["treewarden.toml: sotre", "did you mean store?"]),
        ("[store]\n", {}, {}, ["treewarden.toml: store", "expected text"]),
        (
            "",
            {"TREEWARDEN_LEVLE": "x"},
            {},
            ["LEVLE", "did you mean TREEWARDEN_LEVEL?"],
        ),
        (
            "",
            {"TREEWARDEN_store": "x"},
            {},
            ["_store", "did you mean TREEWARDEN_STORE?"],
        ),
        ("", {"TREEWARDEN_": "x"}, {}, ["TREEWARDEN_:", "unknown"]),
        ("", {}, {"log_levle": "x"}, ["--log-levle", "did you mean --log-level?"]),
        ("", {}, {"zzz": "x"}, ["--zzz", "known: name, store"]),
    ],
)
def test_an_unknown_key_is_refused_with_its_place_and_the_nearest_one(
    toml: Path,
    file: str,
    environ: dict[str, str],
    flags: dict[str, object],
    words: list[str],
) -> None:
    toml.write_text(file)
    with pytest.raises(ConfigError) as caught:
        load_config(toml, environ, flags)
    message = str(caught.value)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "a/b"),
        ("name", ".."),
        ("name", ""),
        ("name", "x" * 65),
        ("name", "new\nline"),
        ("name", 3),
        ("store", ""),
        ("store", "nul\x00"),
        ("store", 1),
        ("level", "safe"),
        ("level", ["durable"]),
        ("socket", True),
        ("rights", "all"),
        ("otlp", "collector:4318"),
        ("otlp", "http://"),
        ("log_level", "INFO"),
        ("until_console_gone", True),
        ("until_console_gone", "soon"),
        ("until_console_gone", -1),
        ("until_console_gone", float("nan")),
        ("until_console_gone", float("inf")),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_place(
    key: str, value: object
) -> None:
    with pytest.raises(ConfigError, match=key.replace("_", "[-_]") + "|--db"):
        load_config(flags={key: value})
    with pytest.raises(ConfigError, match=rf"Config\({key}="):
        Config(**{key: value})  # type: ignore[arg-type]


def test_a_message_is_one_line_whatever_was_given() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(environ={"TREEWARDEN_NAME": "a\nb\x1b]0;c\x07"})
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", [b"name = ", b"\xff\xfe", b'name = "a"\nname = "b"'])
def test_a_file_that_is_not_toml_is_named(toml: Path, text: bytes) -> None:
    toml.write_bytes(text)
    with pytest.raises(ConfigError, match=r"treewarden\.toml: not TOML"):
        load_config(toml)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file"):
        load_config(tmp_path / "absent.toml")


def test_the_store_is_in_the_state_folder_under_the_runtimes_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert Config().store_path("shop").name == "shop.db"
    assert Config(name="mine").store_path("shop").name == "mine.db"
    assert Config(store=Path("x.db")).store_path("shop") == Path("x.db")
    with pytest.raises(ConfigError, match="application's name"):
        Config().store_path("../etc")


@given(key=st.text(), value=st.text())
def test_any_variable_is_taken_or_refused_in_words(key: str, value: str) -> None:
    refusal = ""
    try:
        load_config(environ={f"TREEWARDEN_{key}": value})
    except ConfigError as error:
        refusal = str(error)
    assert key.lower() in KEYS if not refusal else f"TREEWARDEN_{key}" in refusal
