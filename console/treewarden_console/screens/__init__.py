"""One full screen per file, the questions over them, and what they ask the app for.

Screens read the desk and draw it with widgets. Keys become messages (`wants`); nothing
here sends a request or waits for one.
"""

from .agents import AgentsScreen
from .bus import BusScreen
from .circuits import CircuitsScreen
from .coordination import CoordinationScreen
from .dialogs import Confirm, Leave, Leaving, Reading, help_page
from .events import EventsScreen
from .monitors import MonitorsScreen
from .places import PLACES, find_place
from .tree import TreeScreen
from .view import View
from .wants import (
    Proposal,
    WantAct,
    WantAnswers,
    WantDone,
    WantNode,
    WantPlace,
    WantTold,
    WantWhy,
)
from .work import WorkScreen

__all__ = [
    "PLACES",
    "AgentsScreen",
    "BusScreen",
    "CircuitsScreen",
    "Confirm",
    "CoordinationScreen",
    "EventsScreen",
    "Leave",
    "Leaving",
    "MonitorsScreen",
    "Proposal",
    "Reading",
    "TreeScreen",
    "View",
    "WantAct",
    "WantAnswers",
    "WantDone",
    "WantNode",
    "WantPlace",
    "WantTold",
    "WantWhy",
    "WorkScreen",
    "find_place",
    "help_page",
]
