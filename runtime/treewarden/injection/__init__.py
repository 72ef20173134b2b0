"""Breaking things on purpose: what an operator switches on, never called a fault.

`crash` is the one injection so far: it makes a node fail now, exactly as if its own code
had raised, so that supervision, state and callers can be watched healing.
"""

from .crash import Breakable, InjectedCrash, Injections

__all__ = ["Breakable", "InjectedCrash", "Injections"]
