"""From `module:attribute` to an application, or to one line that says why not.

What is imported is the user's, and anything may go wrong in it. The line names what was
raised and the place in the user's own code, which is what they will look at next.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treewarden.errors import ConfigError, TreewardenError

if TYPE_CHECKING:
    from types import ModuleType

    from treewarden import Application


_PACKAGE = str(Path(__file__).parent.parent)


def load_application(target: str) -> Application:
    """The application that `module:attribute` names: one, or a function that makes one.

    The current folder is searched first, as `python -m` does.

    Raises:
        ConfigError: it is not there, cannot be imported, or is something else.
    """
    module_name, colon, attribute = target.partition(":")
    if not (colon and module_name and attribute):
        raise ConfigError(
            f"expected module:application, as {_example(target)}, not {target!r}"
        )
    if "/" in module_name or module_name.endswith(".py"):
        module = Path(module_name).stem
        raise ConfigError(
            f"{module_name} is a file; name its module, as {module}:{attribute}, where"
            " Python finds it"
        )
    if "" not in sys.path:
        sys.path.insert(0, "")
    return _application(_attribute(_module(module_name), attribute, target), target)


def _example(target: str) -> str:
    """What was probably meant: the module of a file, or as it was named."""
    module = Path(target.partition(":")[0]).name.removesuffix(".py")
    return f"{module or 'weather'}:app"


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            raise ConfigError(f"there is no module {name!r} here") from error
        raise ConfigError(_why(f"cannot import {name}", error)) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(_why(f"cannot import {name}", error)) from error


def _attribute(module: ModuleType, path: str, target: str) -> object:
    found: Any = module
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            names = ", ".join(_applications(module)) or "none"
            raise ConfigError(
                f"{target}: there is no {path!r} in {module.__name__};"
                f" applications there: {names}"
            ) from error
    return found


def _applications(module: ModuleType) -> list[str]:
    from treewarden import Application

    return [
        name for name, value in vars(module).items() if isinstance(value, Application)
    ]


def _application(found: object, target: str) -> Application:
    from treewarden import Application

    if isinstance(found, Application):
        return found
    if inspect.iscoroutinefunction(found):
        raise ConfigError(
            f"{target} is an async function; an Application, or a plain function that"
            " makes one, is run"
        )
    if not callable(found) or isinstance(found, type):
        raise ConfigError(f"{target} is {_kind(found)}, not a treewarden.Application")
    try:
        made = found()
    except TreewardenError:
        raise
    except Exception as error:
        raise ConfigError(_why(f"{target}() made no application", error)) from error
    if not isinstance(made, Application):
        raise ConfigError(
            f"{target}() made a value {_kind(made)}, not a treewarden.Application"
        )
    return made


def _kind(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    return f"of type {type(value).__qualname__}"


def _why(what: str, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        place = f" ({error.filename}:{error.lineno})"
        return f"{what}: {type(error).__name__}: {error.msg}{place}"
    return f"{what}: {type(error).__name__}: {error}{_place(error)}"


def origin(error: BaseException) -> str:
    """Where what led to `error` was raised, as ` (FILE:LINE)`, if in the user's code."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _place(error)


def _place(error: BaseException) -> str:
    """The innermost line of code that is neither ours nor the import machinery's."""
    frames = traceback.extract_tb(error.__traceback__)
    # What begins with < has no file: it is frozen, or a dataclass' own `__init__`.
    ours = (_PACKAGE, str(Path(importlib.__file__).parent), "<")
    inner = [frame for frame in frames if not frame.filename.startswith(ours)]
    return f" ({inner[-1].filename}:{inner[-1].lineno})" if inner else ""
