"""One full screen per file, the questions over them, and what they ask the app for.

Screens read the desk and draw it with widgets. Keys become messages (`wants`); nothing
here sends a request or waits for one.
"""

from .agents import AgentsScreen
from .bus import BusScreen
from .circuits import CircuitsScreen
from .dialogs import Confirm, Leave, Leaving, Reading, help_page
from .events import EventsScreen
from .tree import TreeScreen
from .view import View
from .wants import WantAct, WantBus, WantCircuit, WantLetter, WantState, WantWhy

__all__ = [
    "AgentsScreen",
    "BusScreen",
    "CircuitsScreen",
    "Confirm",
    "EventsScreen",
    "Leave",
    "Leaving",
    "Reading",
    "TreeScreen",
    "View",
    "WantAct",
    "WantBus",
    "WantCircuit",
    "WantLetter",
    "WantState",
    "WantWhy",
    "help_page",
]
