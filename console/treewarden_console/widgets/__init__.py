"""The parts that screens are made of: rows, pages, lines, and how things look.

Widgets get plain records and draw them; they send messages up and never ask for anything.
All text of the runtime passes through `Ink`.
"""

from .bar import Bar
from .circuit_page import circuit_page
from .coordination_pages import line_page, meeting_page
from .event_page import event_page
from .event_table import EventTable
from .gateway_page import gateway_page
from .header import Tab, alarms, headline, tab_line, tabs
from .ink import (
    DEGRADED,
    Ink,
    Look,
    Span,
    Spans,
    Tone,
    circuit_look,
    event_look,
    length_of,
    node_look,
    state_look,
    wrap,
)
from .letter_page import letter_page, receiver
from .monitor_pages import (
    alarm_page,
    gauge_page,
    gauged,
    health_page,
    operation_page,
)
from .node_page import node_page
from .page import BLANK, Page, heading, labelled
from .policy_page import policy_page
from .preview_page import preview_page
from .state_page import state_page
from .subscription_page import pauses, subscription_page
from .table_tree import BLANK_ROW, Cell, Column, TableTree
from .why_page import why_page
from .work_pages import collection_page, workflow_page

__all__ = [
    "BLANK",
    "BLANK_ROW",
    "DEGRADED",
    "Bar",
    "Cell",
    "Column",
    "EventTable",
    "Ink",
    "Look",
    "Page",
    "Span",
    "Spans",
    "Tab",
    "TableTree",
    "Tone",
    "alarm_page",
    "alarms",
    "circuit_look",
    "circuit_page",
    "collection_page",
    "event_look",
    "event_page",
    "gateway_page",
    "gauge_page",
    "gauged",
    "heading",
    "headline",
    "health_page",
    "labelled",
    "length_of",
    "letter_page",
    "line_page",
    "meeting_page",
    "node_look",
    "node_page",
    "operation_page",
    "pauses",
    "policy_page",
    "preview_page",
    "receiver",
    "state_look",
    "state_page",
    "subscription_page",
    "tab_line",
    "tabs",
    "why_page",
    "workflow_page",
    "wrap",
]
