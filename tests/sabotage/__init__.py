"""Promises, broken on purpose: a test that cannot fail proves nothing.

A *double* takes one promise of the real code back (a budget that is never spent, an answer
before its commit) and names the tests that must turn red while it is in place:

    make sabotage                      every double, one line each; status 1 if one survives
    make sabotage ARGS="budget ring"   only those whose names hold one of the words
    make sabotage ARGS="-v budget"     and what pytest printed

To add one, write it into the module of its area, beside its like:

    @DOUBLES.swaps(RestartWindow, "_prune", caught_by="test_intensity.py::test_only_time…")
    def a_budget_for_life(self: RestartWindow, now: float) -> None:
        \"\"\"INT-18, pitfall 9: three restarts in five seconds, or in five years.\"\"\"

The function, or the class, stands in the place of what it swaps. Its name is the double's;
its docstring says what is wrong, and opens with the flaw, case or pitfall that it is about.
What is more than one swap is a function that does it all:

    @DOUBLES.breaks(caught_by=("test_a.py::test_x", "test_b.py::test_y"))
    def rings_are_not_looked_for(replace: Replace) -> None:
        \"\"\"Agents with full mailboxes wait for each other for ever.\"\"\"
        replace(outbox, "closes_a_ring", lambda sender, target: False)

A new area is a module with `DOUBLES = Area(folder of its tests)` and a row in `doubles.py`.
`tests/data/pitfalls.tsv` lists the 79 mistakes that a naive supervisor makes, with the
reason where there is no double; `tests/contracts/test_sabotage.py` holds the list true.
"""
