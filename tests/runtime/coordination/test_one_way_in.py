"""There is one way into a mailbox, and it is the messaging package's."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING

import treewarden

if TYPE_CHECKING:
    from collections.abc import Iterator

# Nothing gets into a mailbox but in one of these.
ENVELOPES = {"Envelope", "RequestEnvelope", "DurableEnvelope"}


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(treewarden.__path__, "treewarden."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def functions(module: ModuleType) -> Iterator[tuple[str, CodeType]]:
    """Every function of a module and of its classes, as it is at this moment."""
    for name, value in vars(module).items():
        if isinstance(value, FunctionType) and value.__module__ == module.__name__:
            yield name, value.__code__
        elif inspect.isclass(value) and value.__module__ == module.__name__:
            for inner, method in vars(value).items():
                if isinstance(method, FunctionType):
                    yield f"{name}.{inner}", method.__code__


def names_in(code: CodeType) -> set[str]:
    nested = [one for one in code.co_consts if isinstance(one, CodeType)]
    return set(code.co_names).union(*(names_in(one) for one in nested))


def makes_envelopes(module: ModuleType) -> list[str]:
    return [name for name, code in functions(module) if names_in(code) & ENVELOPES]


def test_f24_only_the_messaging_package_puts_into_mailboxes() -> None:
    makers = {module.__name__: makes_envelopes(module) for module in modules()}
    outside = {
        name: found
        for name, found in makers.items()
        if found and not name.startswith("treewarden.agents.")
    }
    assert outside == {}
    # The scan sees what it is to see.
    assert makers["treewarden.agents.ref"] != []
