"""What the parts of a runtime tell of: into the journal, on the bus, to a collector.

Nobody who tells waits for it. What comes while the store is down (its own start, above
all) is kept for it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec

from treewarden.clock import wall_ns
from treewarden.errors import NotRunning
from treewarden.exits import Exit, describe, is_rolled_back
from treewarden.supervision import EXITED, RESTARTED, crash_of, log_record
from treewarden.telemetry import SpanKind, new_context

if TYPE_CHECKING:
    from treewarden.agents import Surroundings
    from treewarden.control import Vitals
    from treewarden.exits import Fault
    from treewarden.resilience import Transition
    from treewarden.store import Content
    from treewarden.supervision import Blocked, Report
    from treewarden.telemetry import Telemetry

_to_json: Final = msgspec.json.Encoder().encode
_EXIT_KINDS: Final = {kind: kind.__name__.lower() for kind in get_args(Exit)}

EARLY_REPORTS: Final = 256
"""Reports that wait for a store that is down; then the oldest is dropped."""


class _Lost(msgspec.Struct, frozen=True, gc=False):
    """A message that found nobody, put into words when there is time for it."""

    operation: str
    reason: str

    def encode(self) -> bytes:
        """As it goes into the journal."""
        return _to_json(self)


class News:
    """Where every part has its say; each is given the method that is meant for it.

    `exits` counts ends by their kind, `moves` what circuits did by name and new state.
    """

    def __init__(
        self, surroundings: Surroundings, telemetry: Telemetry, vitals: Vitals
    ) -> None:
        self._surroundings = surroundings
        self._telemetry = telemetry
        self._vitals = vitals
        self._early: deque[tuple[str, bytes | Content, str, str, int, bool]] = deque(
            maxlen=EARLY_REPORTS
        )
        self.exits: dict[str, int] = {}
        self.moves: dict[tuple[str, str], int] = {}

    # --- into the journal ---------------------------------------------------------------

    def record(
        self, topic: str, payload: dict[str, Any], *, source: str = "", trace: str = ""
    ) -> None:
        """Put a report into the journal."""
        self._note(topic, msgspec.json.encode(payload), source, trace, wall_ns())

    def report(self, report: Report) -> None:
        """What happened to a node."""
        # The store encodes it, later: a restart does not wait for that.
        topic, fault = report.topic, False
        if topic == RESTARTED:
            if self._telemetry.spans.enabled:
                self._restart_span(report)
        else:
            fault = crash_of(report) is not None
            if topic == EXITED and report.exit is not None:
                kind = _exit_kind(report.exit)
                self.exits[kind] = self.exits.get(kind, 0) + 1
        self._note(topic, report, report.path, report.trace, report.at_ns, fault)
        if self._telemetry.logs.enabled:
            self._telemetry.logs.defer(log_record, report)

    def catch_up(self) -> None:
        """The store is up: it gets what came too early for it."""
        while self._early:
            self._note(*self._early.popleft())

    def _note(
        self,
        topic: str,
        payload: bytes | Content,
        source: str,
        trace: str,
        at_ns: int,
        fault: bool = False,
    ) -> None:
        store = self._surroundings.store
        if store is not None:
            store.report(topic, payload, source, trace, at_ns, fault)
        else:
            self._early.append((topic, payload, source, trace, at_ns, fault))

    def _restart_span(self, report: Report) -> None:
        spans, cause = self._telemetry.spans, report.cause
        if cause is None:
            return
        spans.record(
            "restart",
            new_context(),
            None,
            cause.at_ns,
            report.at_ns,
            SpanKind.INTERNAL,
            {
                "treewarden.path": report.path,
                "treewarden.incarnation": report.incarnation,
                "treewarden.cause": cause.kind.value,
                "treewarden.origin": cause.origin,
            },
            (),
            describe(report.exit) or None,
        )

    # --- on the bus ------------------------------------------------------------------------

    def signal(self, topic: str, payload: dict[str, Any], source: str) -> None:
        """Have whoever listens at this moment hear of it.

        Raises:
            NotRunning: the bus is down.
        """
        bus = self._surroundings.bus
        if bus is None:
            raise NotRunning("the bus is not running")
        bus.signal(topic, payload, source=source)

    # --- of each part --------------------------------------------------------------------

    def operator_did(self, topic: str, payload: dict[str, Any], by: str) -> None:
        """What somebody did by way of the control socket."""
        self.record(topic, {**payload, "by": by}, source=payload.get("path", ""))

    def crash_injected(self, fault: Fault, by: str) -> None:
        """A node was crashed on purpose."""
        self.record(
            "injection.crash",
            {"incarnation": fault.incarnation, "by": by},
            source=fault.path,
        )

    def circuit_moved(self, moved: Transition) -> None:
        """A circuit has changed its state; see `signal_transition` for the bus."""
        move = (moved.name, moved.new.value)
        self.moves[move] = self.moves.get(move, 0) + 1
        self.record(f"circuit.{moved.new}", _payload(moved), source=moved.name)

    def signal_transition(self, moved: Transition) -> None:
        """The same for the bus; not from the call that it ends."""
        self.signal(f"circuit.{moved.new}", _payload(moved), moved.name)

    def row_unreadable(self, kind: str, name: str) -> None:
        """What a policy kept is damaged: it begins anew."""
        self.record(f"{kind}.unreadable", {"name": name})

    def message_lost(self, path: str, operation: str, reason: str) -> None:
        """A message found nobody."""
        self._vitals.dead_letters += 1
        lost = _Lost(operation, reason)
        self._note("agent.dead_letter", lost, path, "", wall_ns())

    def of_the_bus(self, topic: str, payload: dict[str, object]) -> None:
        """What became of a subscription."""
        self.record(topic, payload, source="/system/bus")

    def of_monitors(self, topic: str, payload: dict[str, Any], source: str) -> None:
        """An alarm, or a state of health."""
        self.record(topic, payload, source=source)

    def cache_missed(self, operation: str) -> None:
        """The cache was asked while it was closed."""
        self.record("cache.closed", {"operation": operation}, source="/system/cache")

    def of_a_transaction(self, topic: str, payload: dict[str, object]) -> None:
        """What became of a transaction with somebody outside."""
        self.record(topic, payload, source="/system/transactions")

    def of_a_workflow(self, topic: str, payload: dict[str, Any]) -> None:
        """A workflow has begun, or ended."""
        self.record(topic, payload, source="/workflows")
        if self._surroundings.bus is not None:
            self.signal(topic, payload, "/workflows")

    def loop_blocked(self, blocked: Blocked) -> None:
        """Something kept the loop from turning."""
        self.record(
            "runtime.blocked",
            {
                "seconds": blocked.seconds,
                "where": f"{blocked.file}:{blocked.line}",
                "function": blocked.function,
                "frames": blocked.frames,
            },
            source="/system/watchdog",
        )


def _exit_kind(exit_: Exit) -> str:
    return "rolled_back" if is_rolled_back(exit_) else _EXIT_KINDS[type(exit_)]


def _payload(moved: Transition) -> dict[str, Any]:
    return {
        "circuit": moved.name,
        "from": moved.old,
        "reason": moved.reason,
        "calls": moved.window_calls,
        "failures": moved.window_failures,
        "slow": moved.window_slow,
        "by": moved.by,
    }
