"""How often Python's collector runs while a runtime does."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from treewarden import Application, Config, open_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize(("before", "within"), [(700, 5000), (123, 123)])
async def test_garbage_is_collected_less_often_unless_somebody_has_chosen(
    before: int, within: int
) -> None:
    gc.set_threshold(before, 10, 10)
    config = Config(level="volatile", socket=False)
    async with open_runtime(Application("app", ()), config=config):
        assert gc.get_threshold() == (within, 10, 10)
    assert gc.get_threshold() == (before, 10, 10)
