"""Breaking things on purpose: what an operator switches on, never called a fault.

`Injections` is a runtime's own: it makes a node fail now, exactly as if its own code had
raised, so that supervision, state and callers can be watched healing; and it loads plans.
An `InjectionPlan` says what is to happen at which `InjectionPoint`, a named place in the
runtime (`places` declares all of them, `POINTS` lists them), and ends by itself.
"""

from . import places
from .crash import Breakable, InjectedCrash
from .injections import Injections
from .plan import InjectionPlan, Rule, parse_plan, read_plan
from .points import POINTS, Deed, Home, InjectionPoint, Loaded, load_plan

__all__ = [
    "POINTS",
    "Breakable",
    "Deed",
    "Home",
    "InjectedCrash",
    "InjectionPlan",
    "InjectionPoint",
    "Injections",
    "Loaded",
    "Rule",
    "load_plan",
    "parse_plan",
    "places",
    "read_plan",
]
