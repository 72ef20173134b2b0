"""What the console believes, as plain records and functions.

Nothing here knows Textual, asyncio or the socket: updates of the control protocol go in,
rows, lines and words come out, and time is always passed in. `Desk` is the whole of it.
"""

from .agents import Difference, Mark, StateHistory, compare, fields
from .desk import Desk, Note, Owner
from .events import Entry, EventLog, Telling, tell
from .filter import Filter
from .hearing import Hearing, Standing
from .layers import find_layer, layer_number, layer_word
from .model import EVERYTHING, UNWELL, Model, News
from .series import FailureStrips, Rates, strip
from .table import ALL, Changes, Table, sorted_ids
from .tree import (
    Line,
    Outline,
    children_of,
    flat_lines,
    nodes_named,
    tree_lines,
)
from .words import age, count, plural, rate, short_error, size, span, time_of_day

__all__ = [
    "ALL",
    "EVERYTHING",
    "UNWELL",
    "Changes",
    "Desk",
    "Difference",
    "Entry",
    "EventLog",
    "FailureStrips",
    "Filter",
    "Hearing",
    "Line",
    "Mark",
    "Model",
    "News",
    "Note",
    "Outline",
    "Owner",
    "Rates",
    "Standing",
    "StateHistory",
    "Table",
    "Telling",
    "age",
    "children_of",
    "compare",
    "count",
    "fields",
    "find_layer",
    "flat_lines",
    "layer_number",
    "layer_word",
    "nodes_named",
    "plural",
    "rate",
    "short_error",
    "size",
    "sorted_ids",
    "span",
    "strip",
    "tell",
    "time_of_day",
    "tree_lines",
]
