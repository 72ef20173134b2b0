"""The composed whole: one tree of system and application, wired together.

`open_runtime` builds the system's tree (store, bus, circuits, telemetry, control) under
`/system`, then the application; rest_for_one, so that what stands on a part that failed is
started again after it. It is the same in every environment. This package is the only one
that knows everybody; what it wires together does not know each other.
"""

from .opening import current_runtime, open_runtime, run, running
from .runtime import Runtime, version

__all__ = [
    "Runtime",
    "current_runtime",
    "open_runtime",
    "run",
    "running",
    "version",
]
