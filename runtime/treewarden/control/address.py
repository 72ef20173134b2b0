"""Where a runtime's socket is: under its name, in a folder of this user only."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs

if TYPE_CHECKING:
    from .protocol import RuntimeRow

SUFFIX: Final = ".sock"
# The kernel takes 107 bytes on Linux and 103 on macOS; `-2` must still fit behind.
MAX_PATH_BYTES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRuntime:
    """A socket that somebody holds; `runtime` is None when nobody answered in time."""

    name: str
    path: Path
    runtime: RuntimeRow | None


def socket_folder() -> Path:
    """The folder of this user's sockets; it need not exist.

    Raises:
        ControlError: somebody else has taken its place.
    """
    with warnings.catch_warnings():
        # No session, no XDG_RUNTIME_DIR: normal on a server, and no news to a user.
        warnings.simplefilter("ignore")
        try:
            return platformdirs.user_runtime_path("treewarden")
        except PermissionError as error:
            # Imported here because the errors need trio, which a console never loads.
            from treewarden.errors import ControlError

            raise ControlError(f"no safe folder for sockets: {error}") from error


def fallback_folder() -> Path:
    """The folder for sockets whose own paths are too long for the kernel."""
    return Path(tempfile.gettempdir()) / f"treewarden-{os.geteuid()}"


def socket_path(name: str) -> Path:
    """The socket of the runtime `name`."""
    return short_path(socket_folder() / f"{name}{SUFFIX}")


def short_path(path: Path) -> Path:
    """`path`, absolute; one made from its hash where it is over `MAX_PATH_BYTES`.

    Both ends compute it, so a client finds the runtime under the long path too.
    """
    raw = os.fsencode(path.absolute())
    if len(raw) <= MAX_PATH_BYTES:
        return path.absolute()
    return fallback_folder() / f"{hashlib.sha256(raw).hexdigest()[:16]}{SUFFIX}"


def sockets() -> list[Path]:
    """All sockets in this user's folders, live or not, by name."""
    folders = (socket_folder(), fallback_folder())
    found = [path for folder in folders for path in folder.glob(f"*{SUFFIX}")]
    # By name, not by path: as a path, `shop-2.sock` comes before `shop.sock`.
    return sorted(found, key=lambda path: path.stem)
