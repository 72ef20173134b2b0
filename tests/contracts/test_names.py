"""The words that the vocabulary does without: they say nothing about what a thing is."""

from __future__ import annotations

import ast
import re
from pathlib import PurePosixPath
from typing import Protocol

import pytest

EMPTY_WORDS = {
    "base",
    "bridge",
    "data",
    "handler",
    "helper",
    "helpers",
    "impl",
    "info",
    "integration",
    "manager",
    "object",
    "service",
    "util",
    "utils",
}
# "Context" is a word only together with what it is the context of.
EMPTY_ALONE = {"context", "common", "misc", "core"}

# design.md 4 fixes these names.
FIXED = {"ChildInfo"}

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


class Module(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def tree(self) -> ast.Module: ...


def empty_words(name: str) -> set[str]:
    """The words of `name`, in whichever case style, that say nothing."""
    if name in FIXED:
        return set()
    words = [word.lower() for word in _WORD.findall(name)]
    return (set(words) & EMPTY_WORDS) | (EMPTY_ALONE & {"".join(words)})


def test_no_class_is_named_with_an_empty_word(sources: list[Module]) -> None:
    found = [
        f"{source.path}:{node.lineno}: {node.name}"
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and empty_words(node.name)
    ]
    assert found == []


def test_no_module_is_named_with_an_empty_word(sources: list[Module]) -> None:
    parts = {
        part for s in sources for part in PurePosixPath(s.path).with_suffix("").parts
    }
    assert sorted(part for part in parts if empty_words(part)) == []


@pytest.mark.parametrize(
    "name", ["TaskManager", "HTTPHandler", "BaseAgent", "Context", "utils", "DataPool"]
)
def test_an_empty_word_is_seen(name: str) -> None:
    assert empty_words(name)


@pytest.mark.parametrize(
    "name",
    ["Database", "CallContext", "Supervisor", "Handling", "ChildInfo", "Metadata"],
)
def test_a_word_that_only_contains_one_is_not(name: str) -> None:
    assert not empty_words(name)
