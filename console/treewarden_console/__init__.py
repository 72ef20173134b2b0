"""The operator's console: a live view of one runtime, in a terminal.

It is a process of its own that knows only the control protocol and never opens a
database, so it can come, go and outlive the runtime that it shows. `state` is what it
believes, `link` how it hears, `widgets` and `screens` how it shows, `app` the one loop
that joins them. Start it with `run_console` of `treewarden_console.app`.
"""

__all__: list[str] = []
