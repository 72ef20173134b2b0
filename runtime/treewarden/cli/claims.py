"""Which stored states an application takes up, as far as its specification tells.

A static child is known by its path and the type that it stores as. What lives below a
dynamic supervisor, or is started by code, is not known before it runs; it is given the
benefit of the doubt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden import Agent, Application, ChildSpec, SupervisorSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def unclaimed(application: Application, states: Iterable[tuple[str, str]]) -> list[str]:
    """A sentence for each state, by path and type, that nothing will take up."""
    agents: dict[str, str] = {}
    unknown: list[str] = []
    _collect(application.children, "", agents, unknown)
    return [
        sentence
        for path, store_as in states
        if (sentence := _verdict(path, store_as, agents, unknown))
    ]


def _collect(
    children: Sequence[ChildSpec],
    parent: str,
    agents: dict[str, str],
    unknown: list[str],
) -> None:
    for child in children:
        path = f"{parent}/{child.id}"
        start = child.start
        if isinstance(start, SupervisorSpec):
            _collect(start.children, path, agents, unknown)
        elif isinstance(start, type) and issubclass(start, Agent):
            agents[path] = start.treewarden_class.name
        else:
            unknown.append(f"{path}/")


def _verdict(
    path: str, store_as: str, agents: dict[str, str], unknown: list[str]
) -> str:
    claimed_as = agents.get(path)
    if claimed_as == store_as or path.startswith(("/system/", *unknown)):
        return ""
    if claimed_as is None:
        return (
            f"nobody claims the state of {path} ({store_as});"
            f" `treewarden db rename {path} NEW` moves it"
        )
    return (
        f"the state of {path} is of type {store_as}, and the agent there stores as"
        f" {claimed_as}; set its store_as, or move the state"
    )
