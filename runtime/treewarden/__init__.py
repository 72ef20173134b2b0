"""treewarden: Erlang-grade supervision for Python.

Fleets of stateful agents on trio, kept alive by supervisors; every acknowledged change is
in SQLite first; events flow over a bus with backpressure; circuits guard the outside
world. Begin with `Agent`, `ChildSpec`, `Application` and `run`.

The face loads lazily (PEP 562): an import costs what it uses.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .agents import (
        Agent,
        AgentRef,
        AgentStatistics,
        DeadLetter,
        Down,
        Handled,
        MailboxPolicy,
        Monitor,
        Participant,
        Reply,
        Request,
        Transaction,
    )
    from .bus import Bus, Event, Subscription
    from .config import Config, load_config
    from .errors import (
        AgentCrashed,
        AgentDown,
        AgentError,
        AlreadyApplied,
        AlreadyPresent,
        AlreadyStarted,
        Backpressure,
        BadArguments,
        BusError,
        CallingSelf,
        CallTimeout,
        ChildStartFailed,
        CircuitOpen,
        ConfigError,
        ControlError,
        IntensityExceeded,
        KeyTaken,
        MailboxFull,
        NameAmbiguous,
        NameUnknown,
        NotRunning,
        PoolFull,
        PoolReentered,
        Refused,
        ResilienceError,
        RestoreError,
        ShuttingDown,
        StartTimeout,
        StateNotEncodable,
        StoreBroken,
        StoreError,
        StoreLocked,
        SupervisionError,
        TransactionConflict,
        TransactionMisuse,
        TransactionTimeout,
        TreewardenError,
        UnknownChild,
        UnknownOperation,
        WorkError,
        WorkStopped,
        WorkTimeout,
    )
    from .exits import Crash, Exit, Fault, Killed, Normal, Shutdown
    from .registry import OwnerScope, Registry, Where
    from .resilience import Backoff, Circuit, CircuitPolicy
    from .runtime import Runtime, current_runtime, open_runtime, run
    from .store import DurableMap, DurableQueue, Item, Store
    from .supervision import (
        IGNORE,
        Application,
        ChildCounts,
        ChildInfo,
        ChildSpec,
        DynamicSupervisorSpec,
        Intensity,
        PartitionSupervisorSpec,
        Stop,
        SupervisorRef,
        SupervisorSpec,
        TreeSnapshot,
        cleanup,
        open_supervisor,
    )
    from .work import (
        Batch,
        Done,
        Failed,
        Handle,
        Outcome,
        Pool,
        PoolPolicy,
        Pools,
        SerialOperation,
        SerialOutcome,
    )

_NAMES = {
    "agents": "Agent AgentRef AgentStatistics DeadLetter Down Handled MailboxPolicy Monitor "
    "Participant Reply Request Transaction",
    "bus": "Bus Event Subscription",
    "config": "Config load_config",
    "errors": "AgentCrashed AgentDown AgentError AlreadyApplied AlreadyPresent AlreadyStarted "
    "Backpressure BadArguments BusError CallTimeout CallingSelf ChildStartFailed "
    "CircuitOpen ConfigError ControlError IntensityExceeded KeyTaken MailboxFull "
    "NameAmbiguous NameUnknown NotRunning PoolFull PoolReentered Refused ResilienceError RestoreError ShuttingDown "
    "StartTimeout StateNotEncodable StoreBroken StoreError StoreLocked SupervisionError "
    "TransactionConflict TransactionMisuse TransactionTimeout TreewardenError UnknownChild UnknownOperation WorkError WorkStopped WorkTimeout",
    "exits": "Crash Exit Fault Killed Normal Shutdown",
    "registry": "OwnerScope Registry Where",
    "resilience": "Backoff Circuit CircuitPolicy",
    "runtime": "Runtime current_runtime open_runtime run",
    "store": "DurableMap DurableQueue Item Store",
    "supervision": "IGNORE Application ChildCounts ChildInfo ChildSpec "
    "DynamicSupervisorSpec Intensity PartitionSupervisorSpec Stop SupervisorRef "
    "SupervisorSpec TreeSnapshot cleanup open_supervisor",
    "work": "Batch Done Failed Handle Outcome Pool PoolPolicy Pools SerialOperation SerialOutcome",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}

__all__ = [
    "IGNORE",
    "Agent",
    "AgentCrashed",
    "AgentDown",
    "AgentError",
    "AgentRef",
    "AgentStatistics",
    "AlreadyApplied",
    "AlreadyPresent",
    "AlreadyStarted",
    "Application",
    "Backoff",
    "Backpressure",
    "BadArguments",
    "Batch",
    "Bus",
    "BusError",
    "CallTimeout",
    "CallingSelf",
    "ChildCounts",
    "ChildInfo",
    "ChildSpec",
    "ChildStartFailed",
    "Circuit",
    "CircuitOpen",
    "CircuitPolicy",
    "Config",
    "ConfigError",
    "ControlError",
    "Crash",
    "DeadLetter",
    "Done",
    "Down",
    "DurableMap",
    "DurableQueue",
    "DynamicSupervisorSpec",
    "Event",
    "Exit",
    "Failed",
    "Fault",
    "Handle",
    "Handled",
    "Intensity",
    "IntensityExceeded",
    "Item",
    "KeyTaken",
    "Killed",
    "MailboxFull",
    "MailboxPolicy",
    "Monitor",
    "NameAmbiguous",
    "NameUnknown",
    "Normal",
    "NotRunning",
    "Outcome",
    "OwnerScope",
    "Participant",
    "PartitionSupervisorSpec",
    "Pool",
    "PoolFull",
    "PoolPolicy",
    "PoolReentered",
    "Pools",
    "Refused",
    "Registry",
    "Reply",
    "Request",
    "ResilienceError",
    "RestoreError",
    "Runtime",
    "SerialOperation",
    "SerialOutcome",
    "Shutdown",
    "ShuttingDown",
    "StartTimeout",
    "StateNotEncodable",
    "Stop",
    "Store",
    "StoreBroken",
    "StoreError",
    "StoreLocked",
    "Subscription",
    "SupervisionError",
    "SupervisorRef",
    "SupervisorSpec",
    "Transaction",
    "TransactionConflict",
    "TransactionMisuse",
    "TransactionTimeout",
    "TreeSnapshot",
    "TreewardenError",
    "UnknownChild",
    "UnknownOperation",
    "Where",
    "WorkError",
    "WorkStopped",
    "WorkTimeout",
    "cleanup",
    "current_runtime",
    "load_config",
    "open_runtime",
    "open_supervisor",
    "run",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
