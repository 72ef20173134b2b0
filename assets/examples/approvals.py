"""Trips that a model plans and a person approves; what was booked is cancelled if not.

    treewarden run approvals:app
    treewarden call desk plan trip=lisbon "wish=three days in Lisbon"
    treewarden call desk open
    treewarden call desk decide trip=lisbon approved=true
    treewarden workflows

Each trip is a workflow: killed at any moment, it goes on behind the last step that is
recorded. The step that waits for a person may wait for weeks.
"""

from __future__ import annotations

import math

import msgspec
import trio

from treewarden import (
    Agent,
    Application,
    Backoff,
    ChildSpec,
    DurableMap,
    Flow,
    Refused,
    Reply,
    Retry,
    WorkflowExists,
    current_runtime,
    current_step,
)

# Whoever waits for a person waits as long as it takes, whatever is restarted meanwhile.
PATIENT = Retry(attempts=math.inf, total_timeout=math.inf, backoff=Backoff(initial=0.1))


class Plan(msgspec.Struct):
    """What the model thinks should be booked."""

    bookings: list[str]


class Asked(msgspec.Struct):
    """What waits for a person, by trip."""

    plans: dict[str, Plan] = {}


class Desk(Agent[Asked]):
    """Where trips are ordered and approved."""

    decided: DurableMap[str, bool]

    def __init__(self) -> None:
        self._waiting: dict[str, Reply] = {}

    async def on_start(self) -> None:
        """Say what a trip is: those of earlier runs go on."""
        self.runtime.workflows.register(trip, name="trip")

    async def plan(self, trip: str, wish: str) -> None:
        """Begin a trip; from here on it is brought to its end."""
        try:
            await self.runtime.workflows.start("trip", wish, id=trip)
        except WorkflowExists as error:
            # An answer to who asked; any other error here would be a crash of the desk.
            raise Refused(f"there is a trip {trip!r} already") from error

    async def open(self) -> dict[str, Plan]:
        """What waits for a person."""
        return self.state.plans

    async def ask(self, trip: str, plan: Plan) -> bool:
        """Whether the plan is approved; the answer comes when somebody decides."""
        known = await self.decided.get(trip)
        if known is not None:
            return known
        self.state.plans[trip] = plan
        self._waiting[trip] = self.defer()
        return False  # ignored: the answer is deferred

    async def decide(self, trip: str, approved: bool) -> None:
        """Say yes or no."""
        if self.state.plans.pop(trip, None) is None:
            raise Refused(f"nobody asks about {trip!r}")
        await self.decided.set(trip, approved)
        if (reply := self._waiting.pop(trip, None)) is not None:
            reply.send(approved)


async def trip(flow: Flow, wish: str) -> list[str]:
    """Plan, book, have it approved; `Refused` out of here has the bookings cancelled."""
    plan = await flow.step(think, wish)
    numbers = [
        await flow.step(book, what, name=f"book {what}", compensate=cancel)
        for what in plan.bookings
    ]
    if not await flow.step(approved, flow.id, plan, retry=PATIENT):
        raise Refused("not approved")
    return numbers


async def think(wish: str) -> Plan:
    """Ask the model; here would be `runtime.http.client("model").post(...)`."""
    await trio.sleep(0.1)
    return Plan(["flight", "hotel"] if "days" in wish else ["flight"])


async def book(what: str) -> str:
    """Book it; the key, the same at each attempt, keeps us from paying twice."""
    return f"{what}-{current_step().key}"


async def cancel(number: str) -> None:
    """Cancel a booking; nothing if it is cancelled already."""


async def approved(trip: str, plan: Plan) -> bool:
    """Wait for a person."""
    desk = current_runtime().ref("desk", Desk)
    return await desk.with_timeout(math.inf).call(Desk.ask, trip, plan)


app = Application("approvals", [ChildSpec("desk", Desk)])
