"""From `module:attribute` to an application, or to one line that says why not."""

import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from treewarden import Application
from treewarden.cli.loading import load_application
from treewarden.errors import ConfigError

Write = Callable[[str], str]
_numbers = count()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module that is importable from the current folder, under a fresh name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(text: str) -> str:
        name = f"loading_case_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("loading_case_"):
            del sys.modules[name]


APP = 'from treewarden import Application\napp = Application("shop", [])\n'


def refusal(target: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_application(target)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_application_is_found_in_the_current_folder(module: Write) -> None:
    app = load_application(f"{module(APP)}:app")
    assert isinstance(app, Application)
    assert app.name == "shop"


def test_a_function_may_make_it(module: Write) -> None:
    name = module(APP + "def make():\n    return app\n")
    assert load_application(f"{name}:make").name == "shop"


def test_an_attribute_of_an_attribute_may_be_it(module: Write) -> None:
    name = module(APP + "class Apps:\n    main = app\n")
    assert load_application(f"{name}:Apps.main").name == "shop"


@pytest.mark.parametrize(
    ("target", "example"),
    [
        ("shop", "shop:app"),
        ("shop:", "shop:app"),
        ("a/shop.py", "shop:app"),
        (":app", "weather:app"),
        ("", "weather:app"),
    ],
)
def test_what_is_not_module_and_attribute_is_refused(target: str, example: str) -> None:
    said = f"expected module:application, as {example}, not {target!r}"
    assert refusal(target) == said


def test_a_module_that_is_not_there_is_named(module: Write) -> None:
    assert refusal("loading_case_x:app") == "there is no module 'loading_case_x' here"
    assert "no module" in refusal("loading_case_x.y:app")


def test_a_module_that_lacks_another_says_which_and_where(module: Write) -> None:
    name = module("import nowhere_to_be_found\n")
    message = refusal(f"{name}:app")
    assert f"cannot import {name}: ModuleNotFoundError" in message
    assert "nowhere_to_be_found" in message
    assert message.endswith(f"{name}.py:1)")


def test_a_module_that_fails_says_how_and_where(module: Write) -> None:
    name = module("def f():\n    return 1 / 0\nf()\n")
    message = refusal(f"{name}:app")
    assert "ZeroDivisionError: division by zero" in message
    assert message.endswith(f"{name}.py:2)")


def test_a_wrong_specification_is_told_by_the_line_that_made_it(module: Write) -> None:
    name = module("from treewarden import ChildSpec\n\nChildSpec('a', 1)\n")
    assert f"{name}.py:3)" in refusal(f"{name}:app")


def test_a_module_that_is_not_python_says_where(module: Write) -> None:
    name = module("x = 1\nx = = 2\n")
    assert refusal(f"{name}:app").endswith(f"{name}.py:2)")


def test_a_module_that_exits_does_not_end_the_command(module: Write) -> None:
    assert "SystemExit: 3" in refusal(f"{module('raise SystemExit(3)')}:app")


def test_a_missing_attribute_lists_the_applications(module: Write) -> None:
    name = module(APP)
    assert refusal(f"{name}:ap").endswith("applications there: app")
    assert refusal(f"{module('')}:ap").endswith("applications there: none")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("app = 3", "is of type int, not"),
        ("class app: pass", "is the class app, not"),
        ("def app(): return 3", "() made a value of type int"),
        ("async def app(): return 3", "is an async function; an Application, or"),
        ("def app(x): return 3", "TypeError: app() missing 1 required"),
        ("def app(): 1 / 0", "() made no application: ZeroDivisionError"),
    ],
)
def test_what_is_no_application_is_described(
    module: Write, text: str, words: str
) -> None:
    assert words in refusal(f"{module(text)}:app")


@pytest.mark.parametrize("file", ["shop.py", "./shop.py", "apps/shop", "/srv/shop.py"])
def test_a_file_is_no_module_and_is_told_its_name(file: str) -> None:
    assert f"{file} is a file; name its module, as shop:app" in refusal(f"{file}:app")
