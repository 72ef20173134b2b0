"""How others see and steer a runtime: a wire contract, and both of its ends.

`protocol` has the shapes of all messages, `session` their order, `plain` what makes
foreign text harmless to show; these three are pure, and are imported as modules by whoever
speaks the protocol (`from treewarden.control.plain import plain`). `serve` answers on a
Unix socket for a `Target`, `connect` asks there, `find_runtimes` lists who answers. The
face loads lazily: a console that speaks the protocol on asyncio never loads trio.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .address import FoundRuntime, short_path, socket_folder, socket_path
    from .client import RemoteRuntime, connect, find_runtimes
    from .desk import Desk, Vitals
    from .server import ControlServer, ControlStatistics, serve
    from .session import ClientSession, IllegalMessage, ServerSession
    from .target import Client, Target

_HOMES = {
    "Client": "target",
    "ClientSession": "session",
    "ControlServer": "server",
    "ControlStatistics": "server",
    "Desk": "desk",
    "FoundRuntime": "address",
    "IllegalMessage": "session",
    "RemoteRuntime": "client",
    "ServerSession": "session",
    "Target": "target",
    "Vitals": "desk",
    "connect": "client",
    "find_runtimes": "client",
    "serve": "server",
    "short_path": "address",
    "socket_folder": "address",
    "socket_path": "address",
}

__all__ = [
    "Client",
    "ClientSession",
    "ControlServer",
    "ControlStatistics",
    "Desk",
    "FoundRuntime",
    "IllegalMessage",
    "RemoteRuntime",
    "ServerSession",
    "Target",
    "Vitals",
    "connect",
    "find_runtimes",
    "serve",
    "short_path",
    "socket_folder",
    "socket_path",
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
