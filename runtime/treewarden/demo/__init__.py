"""The demo: a crawler of the standard library's own documentation.

A real application, written against the public face as any other: four difficult web sites
on loopback, a durable frontier, supervised fetchers behind circuits, a full-text index.
Kill it at any time and start it again: no page is lost and none is indexed twice.
`application` describes it, `headless` runs it without a console, `search` answers from
what it indexed.
"""

from .application import application
from .headless import headless
from .index import Hit, search

__all__ = ["Hit", "application", "headless", "search"]
