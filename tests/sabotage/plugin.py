"""For pytest's `-p`: break what SABOTAGE names before any test is imported."""

from __future__ import annotations

import os

from .double import replace
from .doubles import find

find(os.environ["SABOTAGE"]).breaks(replace)
