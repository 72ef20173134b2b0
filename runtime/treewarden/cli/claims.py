"""What of a file an application takes up, as far as its specification tells.

A static child is known by its path, the type that it stores as and the collections that it
declares. What lives below a dynamic supervisor, or is started by code, is not known before
it runs; it is given the benefit of the doubt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden import Agent, Application, ChildSpec, SupervisorSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from treewarden.store import Belonging


class Claims:
    """What the specification of an application says of the paths in a file."""

    def __init__(self, application: Application) -> None:
        self._agents: dict[str, type[Agent[Any]]] = {}
        self._unknown: list[str] = []
        self._collect(application.children, "")

    def _collect(self, children: Sequence[ChildSpec], parent: str) -> None:
        for child in children:
            path = f"{parent}/{child.id}"
            start = child.start
            if isinstance(start, SupervisorSpec):
                self._collect(start.children, path)
            elif isinstance(start, type) and issubclass(start, Agent):
                self._agents[path] = start
            else:
                self._unknown.append(f"{path}/")

    def unclaimed(
        self,
        states: Iterable[tuple[str, str]],
        belongings: Iterable[Belonging] = (),
    ) -> list[str]:
        """A sentence for each state, by path and type, that nothing will take up.

        And one for everything else that is stored for an agent that is not there.
        """
        found = [self._of_state(path, store_as) for path, store_as in states]
        found += [self._of_belonging(one) for one in belongings]
        return [sentence for sentence in found if sentence]

    def _may_be_anybodys(self, path: str) -> bool:
        return path.startswith(("/system/", *self._unknown))

    def _of_state(self, path: str, store_as: str) -> str:
        agent = self._agents.get(path)
        if agent is None:
            return self._nobody(path, f"the state of {path} ({store_as})", "it")
        claimed_as = agent.treewarden_class.name
        if claimed_as == store_as:
            return ""
        return (
            f"the state of {path} is of type {store_as}, and the agent there stores as"
            f" {claimed_as}; set its store_as, or move the state"
        )

    def _of_belonging(self, one: Belonging) -> str:
        agent = self._agents.get(one.path)
        if agent is None:
            thing = f"the {one.what} {one.name}".rstrip()
            rows = f"{one.rows} row" + "s" * (one.rows != 1)
            return self._nobody(
                one.path, f"{thing} of {one.path} ({rows})", "all of it"
            )
        declared = {one.name for one in agent.treewarden_class.collections}
        if one.what in ("queue", "map") and one.name not in declared:
            return (
                f"the agent at {one.path} does not declare the {one.what} {one.name},"
                f" which has {one.rows} items"
            )
        if one.what == "durable mailbox" and not agent.mailbox.durable:
            return (
                f"{one.rows} messages wait for the agent at {one.path}, whose mailbox is"
                " not durable any more"
            )
        return ""

    def _nobody(self, path: str, thing: str, moved: str) -> str:
        if self._may_be_anybodys(path):
            return ""
        return f"nobody claims {thing}; `treewarden db rename {path} NEW` moves {moved}"
