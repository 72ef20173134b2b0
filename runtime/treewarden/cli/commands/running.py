"""Commands that run something, and the console that watches it."""

# No postponed annotations here: they are what typer reads.
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from . import complete
from .group import Section, app
from .options import Given, Json, RightsWord, RuntimeName, Socket, configured

if TYPE_CHECKING:
    from treewarden import Config

Headless = Annotated[
    bool,
    typer.Option("--headless", help="No console (so it is anyway without a terminal)."),
]


def _has_terminal() -> bool:
    """Whether a console can be drawn: not in a pipe, nor where no cursor can be moved."""
    can_draw = os.environ.get("TERM") != "dumb"
    return can_draw and sys.stdin.isatty() and sys.stdout.isatty()


def _check_console(config: "Config") -> None:
    if config.socket is False:
        from treewarden.errors import ConfigError

        raise ConfigError("a console needs the control socket; or run it --headless")


def _run_here(target: str, config: "Config") -> None:
    import treewarden
    from treewarden.cli.loading import load_application

    application = load_application(target)
    if sys.stderr.isatty():
        # Whoever looks at a silent terminal would not know that it does something.
        name = config.name or application.name
        print(
            f"treewarden: running {name} as process {os.getpid()};"
            f" watch it with `treewarden attach {name}`, end it with ctrl-C",
            file=sys.stderr,
        )
    treewarden.run(application, config)


def _end(status: int) -> None:
    if status:
        raise typer.Exit(status)


@app.command(rich_help_panel=Section.RUN)
@configured
def run(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:APP", help="An Application, or a function that makes one."
        ),
    ],
    given: Given,
    headless: Headless = False,
) -> None:
    """Run an application, with a console or --headless.

    With a console the runtime is a process of its own, and leaving the console asks
    whether it should go on. Options win over TREEWARDEN_* variables, and these over the
    file.
    """
    settings = given.config()
    if headless or not _has_terminal():
        _run_here(target, settings)
        return
    _check_console(settings)
    from treewarden.cli.launching import launch

    words = ["run", target, "--headless", *given.words()]
    _end(
        launch(
            words,
            label=settings.name or target,
            socket=settings.socket or None,
            owner="run",
            rights="rw",
        )
    )


@app.command(rich_help_panel=Section.RUN)
def attach(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="The runtime's name.",
            autocompletion=complete.runtimes,
        ),
    ] = None,
    socket: Socket = None,
    runtime: RuntimeName = None,
    rights: Annotated[
        RightsWord, typer.Option(help="What to ask for.")
    ] = RightsWord.RO,
) -> None:
    """Open a console on a running runtime.

    It can only look, unless it asks for more --rights. NAME is what other commands take as
    --runtime.
    """
    from treewarden.cli.asking import find
    from treewarden.errors import ConfigError

    if name is not None and runtime not in (None, name):
        raise ConfigError(f"attach to {name} or to {runtime}? Name one")
    if not _has_terminal():
        raise ConfigError(
            "a console needs a terminal that draws; `treewarden tree` needs none"
        )
    path = find(socket, name or runtime)
    from treewarden_console.app import run_console

    _end(run_console(path, rights=str(rights), owner="attach"))


# --- the demo ----------------------------------------------------------------------------

demo = typer.Typer(rich_markup_mode=None, help="Crawl documentation, and see it heal.")


@demo.callback(invoke_without_command=True)
@configured
def run_demo(
    ctx: typer.Context,
    given: Given,
    headless: Headless = False,
    seconds: Annotated[
        float | None,
        typer.Option(min=0, help="End after so many seconds; without a console."),
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Crawl this site instead.")
    ] = None,
) -> None:
    """Crawl the standard library's documentation, or a site, and watch it heal.

    Without a terminal it prints what it does, breaks two of its own parts, and ends with a
    summary.
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = given
        return
    settings = given.config(rights="chaos")
    if "until_console_gone" in given.flags:
        _demo_of_a_console(settings, url)
    elif headless or seconds is not None or not _has_terminal():
        from treewarden.demo import headless as run_headless

        _end(run_headless(settings, seconds=seconds, url=url))
    else:
        _demo_with_console(settings, url, given.words())


def _demo_of_a_console(settings: "Config", url: str | None) -> None:
    import treewarden
    from treewarden.demo import application

    treewarden.run(application(settings, url=url), settings)


def _demo_with_console(
    settings: "Config", url: str | None, arguments: list[str]
) -> None:
    from treewarden.cli.launching import launch

    _check_console(settings)
    # A demo that nobody watches any more is of no use to anybody.
    words = ["demo", "--headless", "--until-console-gone", "10", *arguments]
    if url is not None:
        words += ["--url", url]
    _end(
        launch(
            words,
            label=settings.name or "demo",
            socket=settings.socket or None,
            owner="demo",
            rights="chaos",
        )
    )


@demo.command("search")
def search_demo(
    ctx: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="WORDS", help='"Quotes" make a phrase.')
    ],
    as_json: Json = False,
) -> None:
    """Answer from what the demo has indexed.

    \b
    --json: {"hits": [{"title", "url", "snippet"}]}
    """
    from treewarden.cli import showing
    from treewarden.control.plain import plain
    from treewarden.demo import application, search

    settings = ctx.obj.config()
    hits = search(settings.store_path(application(settings).name), " ".join(words))
    if as_json:
        rows = [
            {"title": hit.title, "url": hit.url, "snippet": hit.snippet} for hit in hits
        ]
        print(showing.as_json({"hits": rows}))
        return
    for hit in hits:
        print(f"{plain(hit.title)}\n  {plain(hit.url)}\n  {plain(hit.snippet)}")
    if not hits:
        print("treewarden: nothing found; did the demo run?", file=sys.stderr)
        _end(1)
