"""Agents in a bare tree, without a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from treewarden import AgentRef, ChildSpec, open_supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from treewarden import SupervisorRef


class StartAgents(Protocol):
    async def __call__(self, *children: ChildSpec) -> SupervisorRef: ...


@pytest.fixture
async def start_agents() -> AsyncIterator[StartAgents]:
    """Start children in a bare tree that ends with the test."""
    async with open_supervisor() as supervisor:

        async def start(*children: ChildSpec) -> SupervisorRef:
            for child in children:
                await supervisor.start_child(child)
            return supervisor

        yield start


@pytest.fixture
def address() -> Any:
    """An agent's address in a bare tree."""

    def make(supervisor: SupervisorRef, path: str) -> AgentRef[Any]:
        return AgentRef(supervisor.directory, path)

    return make
