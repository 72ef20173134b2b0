"""The command line as a person or a script uses it: real processes, real runtimes."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from treewarden.control import connect
from treewarden.errors import ControlError

# How long anything may take on a busy machine before it counts as stuck.
BOUND = 120.0

APPLICATION = """
import msgspec
import trio
from treewarden import Agent, Application, ChildSpec, WorkflowExists, current_runtime


class Total(msgspec.Struct):
    total: float = 0


class Counter(Agent[Total]):
    async def add(self, n: int) -> float:
        self.state.total += n
        return self.state.total

    async def spoil(self) -> None:
        self.state.total = float("nan")

    async def rename(self, name: str) -> str:
        return name

    async def ponder(self) -> None:
        await trio.sleep_forever()

    async def complain(self, about: str) -> None:
        self.runtime.alarms.open("complaint", about, message="it hums")
        self.runtime.health.watch(about)


async def lost(task_status) -> None:
    {}["config"]


class Spoilt(Agent[Total]):
    async def on_start(self) -> None:
        self.state.total = float("nan")


async def pack() -> None:
    pass


async def unpack(packed: None) -> None:
    pass


async def order(flow) -> None:
    await flow.step(pack, compensate=unpack)
    await flow.step(trio.sleep_forever, name="wait")


async def orders() -> None:
    workflows = current_runtime().workflows
    workflows.register(order)
    try:
        await workflows.start(order, id="order-1")
    except WorkflowExists:
        pass
    await trio.sleep_forever()


app = Application("shop", [ChildSpec("counter", Counter), ChildSpec("orders", orders)])
other = Application("other", [ChildSpec("counter", Counter)])
spoilt = Application("spoilt", [ChildSpec("agent", Spoilt)])
unready = Application("unready", [ChildSpec("lost", lost)])
"""

# Where the start of "unready" fails.
LOST_AT = APPLICATION.splitlines().index('    {}["config"]') + 1

Done = subprocess.CompletedProcess[str]


@dataclass
class Home:
    """A user of their own: a folder for state, one for sockets, one to work in."""

    folder: Path
    environ: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        run = self.folder / "run"
        run.mkdir(mode=0o700, parents=True)
        kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
        self.environ = {
            **kept,
            "HOME": str(self.folder),
            "XDG_RUNTIME_DIR": str(run),
            "TMPDIR": str(self.folder),
            "TERM": "xterm-256color",
        }
        (self.folder / "shop.py").write_text(APPLICATION)

    def start(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "treewarden.cli", *words],
            cwd=self.folder,
            env=self.environ,
            text=True,
            **more,
        )

    def treewarden(self, *words: str, environ: dict[str, str] | None = None) -> Done:
        return subprocess.run(
            [sys.executable, "-m", "treewarden.cli", *words],
            cwd=self.folder,
            env=self.environ | (environ or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )

    def json(self, *words: str) -> Any:
        done = self.treewarden(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def answering(self) -> dict[int, str]:
        """The process behind each socket that answers, and the socket's name.

        They are asked in this process, which is quick.
        """
        asked = {asked_pid(path): path.stem for path in self.folder.rglob("*.sock")}
        return {pid: name for pid, name in asked.items() if pid is not None}

    def names(self) -> list[str]:
        return sorted(self.answering().values())

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """`treewarden run` with these words, until it answers, and its orderly end."""
        process = self.start(
            "run",
            *words,
            "--headless",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(
                lambda: process.pid in self.answering() or process.poll() is not None
            )
            assert process.poll() is None, process.communicate()[0]
            yield process
        finally:
            end(process)


def asked_pid(path: Path) -> int | None:
    """Who answers there."""

    async def ask() -> int:
        async with connect(path) as remote:
            return remote.welcome.runtime.pid

    try:
        return trio.run(ask)
    except ControlError:
        return None


def is_gone(pid: int) -> bool:
    """Whether a process that is not our child has ended."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        # Nobody may be there to reap it.
        return status.exists() and status.read_text().rpartition(") ")[2][0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
    process.communicate(timeout=BOUND)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def shared(short_place: str) -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="tw", dir=short_place) as folder:
        yield Home(Path(folder))


@pytest.fixture(scope="module")
def shop(shared: Home) -> Iterator[Home]:
    """A home in which the shop runs, and answers."""
    with shared.running("shop:app", "--rights", "chaos"):
        wait_until(lambda: shared.treewarden("state", "counter").returncode == 0)
        yield shared


@pytest.fixture
def home(short_folder: Path) -> Home:
    return Home(short_folder)


def lines(output: str) -> list[str]:
    """What was said, whether or not the machine was so busy that a loop was late."""
    late = "WARNING treewarden.supervision.watchdog: "
    return [one for one in output.splitlines() if late not in one]


def line(done: Done, status: int) -> str:
    """The one line on stderr of a command that failed with `status`."""
    assert done.returncode == status, done
    assert done.stdout == ""
    [only] = lines(done.stderr)
    assert only.startswith("treewarden: ")
    return only


# --- a running runtime -----------------------------------------------------------------------


def listed(home: Home) -> dict[str, Any]:
    """What `ps` says of the one runtime, when it has answered in time."""
    found: list[dict[str, Any]] = []

    def answered() -> bool:
        found[:] = home.json("ps")["runtimes"]
        return [one["runtime"] is not None for one in found] == [True]

    wait_until(answered)
    return found[0]


def test_ps_lists_it(shop: Home) -> None:
    found = listed(shop)
    assert found["name"] == "shop"
    assert found["runtime"]["level"] == "durable"
    assert "shop" in shop.treewarden("ps").stdout


def test_the_tree_is_nested_json(shop: Home) -> None:
    def paths(nodes: list[dict[str, Any]]) -> Iterator[str]:
        for node in nodes:
            keys = {
                "path",
                "id",
                "kind",
                "state",
                "incarnation",
                "restarts",
                "children",
            }
            assert node.keys() == keys
            yield node["path"]
            yield from paths(node["children"])

    assert "/counter" in list(paths(shop.json("tree")["nodes"]))


def test_a_call_is_answered_and_its_state_shown(shop: Home) -> None:
    before = shop.json("state", "counter")["state"]
    was = 0 if before is None else before["total"]
    assert shop.json("call", "counter", "add", "n=3")["value"] == was + 3
    assert shop.json("state", "/counter")["state"] == {"total": was + 3}
    assert f'"total": {was + 3}' in shop.treewarden("state", "counter").stdout


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["call", "counter", "add", "n=many"], "Expected `int`"),
        (["call", "counter", "nope"], "no operation 'nope'"),
        (["call", "counter", "add", "one"], "key=value"),
        (["call", "counter", "rename", "name=7"], "in quotes: name='\"7\"'"),
        (["call", "counter", "spoil"], "/counter"),
        (["state", "nobody"], "nobody"),
        (["inject", "crash", "nobody"], "nobody"),
        (["circuit", "trip", "nobody"], "nobody"),
        (["events", "--pattern", "a..b"], "a..b"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_1(
    shop: Home, words: list[str], part: str
) -> None:
    assert part in line(shop.treewarden(*words), 1)


def test_an_agent_that_is_too_slow_is_told_from_a_runtime_that_is(shop: Home) -> None:
    def doing() -> str:
        [agent] = shop.json("agents")["agents"]
        return str(agent["doing"])

    # So that it ponders already, however late the machine makes it.
    unheard = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    other = shop.start("call", "counter", "ponder", **unheard)
    wait_until(lambda: doing() == "ponder")
    said = line(shop.treewarden("call", "counter", "ponder", "--seconds", "0.1"), 1)
    assert "/counter did not answer ponder within 0.1 s; doing: ponder" in said
    assert shop.treewarden("inject", "crash", "counter").returncode == 0
    end(other)


def test_a_shell_completes_what_the_runtime_has(shop: Home) -> None:
    def completed(words: str) -> list[str]:
        asked = {
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
            "_TREEWARDEN_COMPLETE": "complete_bash",
        }
        return shop.treewarden(environ=asked).stdout.split()

    # Who is asked for an answer at a prompt has two seconds, and then there is none.
    wait_until(lambda: completed("treewarden state /c") == ["/counter"])
    wait_until(lambda: completed("treewarden tree --runtime s") == ["shop"])


def test_an_injected_crash_is_healed_explained_and_in_the_journal(shop: Home) -> None:
    def incarnation() -> int:
        [agent] = shop.json("agents")["agents"]
        return int(agent["incarnation"])

    before = incarnation()
    assert shop.treewarden("inject", "crash", "counter").returncode == 0
    wait_until(lambda: incarnation() == before + 1)
    assert shop.json("why", "counter")["cause"] == "injection"
    events = shop.treewarden("events", "--json", "--limit", "50").stdout.splitlines()
    assert "injection.crash" in [json.loads(event)["topic"] for event in events]


def test_a_plan_of_injections_is_loaded_listed_and_lifted(
    shop: Home, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'name = "stall"\nseconds = 900\n[[injections]]\npoint = "store.commit.before"\n'
        'do = "stall"\ndelay = 0.01\n'
    )
    assert "ends by itself in 900 s" in shop.treewarden("load", str(plan)).stdout
    assert "loaded already" in line(shop.treewarden("load", str(plan)), 1)
    shop.json("call", "counter", "add", "n=1")
    seen = shop.json("injections")
    assert [(row["name"], row["done"]) for row in seen["plans"]] == [("stall", 1)]
    [point] = [p for p in seen["points"] if p["name"] == "store.commit.before"]
    assert (point["armed"], point["kinds"]) == (1, ["kill", "raise", "stall"])
    assert "store.commit.before" in shop.treewarden("injections").stdout
    assert "done 1 times" in shop.treewarden("lift", "stall").stdout
    assert shop.json("injections")["plans"] == []
    plan.write_text('name = "x"\n[[injections]]\npoint = "here"\ndo = "stall"\n')
    assert "'here'" in line(shop.treewarden("load", str(plan)), 1)


def test_an_alarm_is_listed_and_acknowledged_and_health_is_told(shop: Home) -> None:
    def alarm() -> dict[str, Any]:
        rows = shop.json("alarms")["alarms"]
        return next(row for row in rows if row["name"] == "complaint")

    shop.json("call", "counter", "complain", "about=/engine")
    found = alarm()
    assert (found["subject"], found["severity"]) == ("/engine", "warning")
    assert (found["message"], found["acknowledged_by"]) == ("it hums", "")
    assert "/engine" in shop.treewarden("alarms").stdout
    done = shop.json("acknowledge", str(found["id"]))
    assert alarm()["acknowledged_by"] in done["sentence"]
    assert alarm()["acknowledged_by"]
    assert "no alarm 4711 is open" in line(shop.treewarden("acknowledge", "4711"), 1)
    wait_until(lambda: shop.json("health")["health"][0]["status"] == "dead")
    [subject] = shop.json("health")["health"]
    assert subject["subject"] == "/engine"
    assert "/engine" in shop.treewarden("health").stdout


def test_a_workflow_is_listed_with_its_steps_and_cancelled(shop: Home) -> None:
    def steps() -> dict[str, str]:
        rows = shop.json("steps", "order-1")["steps"]
        return {row["name"]: row["state"] for row in rows}

    wait_until(lambda: steps() == {"pack": "done", "wait": "begun"})
    assert "unpack" in shop.treewarden("steps", "order-1").stdout
    assert "does not wait" in line(shop.treewarden("workflow", "resume", "order-1"), 1)
    assert shop.treewarden("workflow", "cancel", "order-1").returncode == 0
    wait_until(lambda: steps()["pack"] == "compensated")
    [row] = shop.json("workflows")["workflows"]
    assert (row["id"], row["name"]) == ("order-1", "order")
    assert "nobody" in line(shop.treewarden("steps", "nobody"), 1)


def test_a_suspended_agent_waits_until_it_is_resumed(shop: Home) -> None:
    def state() -> str:
        [row] = shop.json("tree", "counter")["nodes"]
        return str(row["state"])

    assert "takes no more messages" in shop.json("suspend", "counter")["sentence"]
    assert state() == "suspended"
    assert shop.treewarden("resume", "counter").returncode == 0
    assert state() == "running"


def test_a_restart_goes_up_by_one(shop: Home) -> None:
    [agent] = shop.json("agents")["agents"]
    done = shop.json("restart", "counter")
    assert done["incarnation"] == agent["incarnation"] + 1
    assert done["sentence"]


@pytest.mark.parametrize(
    "word",
    [
        "circuits",
        "agents",
        "queues",
        "tree",
        "events",
        "exchanges",
        "locks",
        "workflows",
        "alarms",
        "health",
        "resources",
        "performance",
        "gateways",
    ],
)
def test_every_list_has_a_text_for_people(shop: Home, word: str) -> None:
    done = shop.treewarden(word)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") >= 1


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)]
)
def test_following_goes_on_until_it_is_told_to_stop(
    shop: Home, number: signal.Signals, status: int
) -> None:
    follower = shop.start(
        "events", "--follow", "--limit", "1", "--json", stdout=subprocess.PIPE
    )
    assert follower.stdout is not None
    first = json.loads(follower.stdout.readline())
    shop.treewarden("restart", "counter")
    second = json.loads(follower.stdout.readline())
    assert second["position"] == first["position"] + 1
    follower.send_signal(number)
    follower.communicate(timeout=BOUND)
    assert follower.returncode == status


def test_a_reader_that_has_seen_enough_is_no_error(shop: Home) -> None:
    read, write = os.pipe()
    os.close(read)
    process = shop.start("tree", stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert process.communicate(timeout=BOUND)[1] == ""
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has it")
@pytest.mark.parametrize("words", ["ps", "--help", "db --help"])
def test_an_answer_that_nobody_can_take_is_one_line_and_status_1(
    home: Home, words: str
) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        process = home.start(*words.split(), stdout=full, stderr=subprocess.PIPE)
        said = process.communicate(timeout=BOUND)[1]
    assert process.returncode == 1
    assert said == "treewarden: cannot write the answer: No space left on device\n"


def test_with_a_closed_stdout_it_does_what_it_does(home: Home) -> None:
    run = f"{sys.executable} -m treewarden.cli ps >&-"
    done = subprocess.run(
        ["sh", "-c", run],
        env=home.environ,
        cwd=home.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_name_nobody_has_is_status_3_with_the_list(shop: Home) -> None:
    assert "these run: shop" in line(shop.treewarden("tree", "--runtime", "x"), 3)
    assert "x.sock" in line(shop.treewarden("tree", "--socket", "x.sock"), 3)


def test_a_second_runtime_is_named_so_and_must_be_chosen(shop: Home) -> None:
    with shop.running("shop:other", "--name", "shop", "--db", "second.db"):
        assert shop.names() == ["shop", "shop-2"]
        assert "several runtimes run: shop, shop-2" in line(shop.treewarden("tree"), 3)
        second = shop.treewarden("tree", "--runtime", "shop-2")
        assert second.returncode == 0


def test_a_second_runtime_on_the_same_file_is_refused(shop: Home) -> None:
    refusal = line(shop.treewarden("run", "shop:app", "--headless"), 1)
    assert "shop.db" in refusal
    assert "another running runtime" in refusal


# --- rights ----------------------------------------------------------------------------------


def test_a_runtime_caps_what_anybody_may_do(home: Home) -> None:
    with home.running("shop:app", "--rights", "ro"):
        refusal = line(home.treewarden("inject", "crash", "/system"), 1)
        assert "needs chaos rights" in refusal
        assert "at most ro: start it with --rights chaos" in refusal


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["run", "nowhere:app"], "no module 'nowhere'"),
        (["run", "shop:nothing"], "no 'nothing' in shop; applications there: app"),
        (["run", "shop:Counter"], "is the class Counter"),
        (["run", "shop:app", "--config", "absent.toml"], "absent.toml: No such file"),
        (["run", "shop:app", "--otlp", "localhost"], "--otlp: expected"),
        (["run", "shop:app", "--db", "shop.py"], "shop.py"),
        (["run", "shop:app", "--db", "."], "directory"),
        (
            ["run", "shop:app", "--socket", "shop.py"],
            "shop.py exists and is not a socket",
        ),
        (["run", "shop:spoilt"], "/agent"),
        (["run", "shop:unready"], f"shop.py:{LOST_AT})"),
        (["attach"], "needs a terminal that draws"),
    ],
)
def test_bad_input_is_one_clear_line_and_status_1(
    home: Home, words: list[str], part: str
) -> None:
    assert part in line(home.treewarden(*words), 1)


def test_an_unknown_key_is_named_with_its_place_and_the_nearest(home: Home) -> None:
    (home.folder / "shop.toml").write_text('levle = "volatile"\n')
    refusal = line(home.treewarden("run", "shop:app", "--config", "shop.toml"), 1)
    assert refusal.endswith(
        "shop.toml: levle: unknown configuration key; did you mean level?"
    )
    environ = {"TREEWARDEN_SOKCET": "x"}
    refusal = line(home.treewarden("run", "shop:app", environ=environ), 1)
    assert "TREEWARDEN_SOKCET" in refusal
    assert "TREEWARDEN_SOCKET?" in refusal


def test_a_database_of_another_application_is_refused_untouched(home: Home) -> None:
    with home.running("shop:other", "--db", "one.db"):
        pass
    before = (home.folder / "one.db").read_bytes()
    refusal = line(home.treewarden("run", "shop:app", "--db", "one.db"), 1)
    assert "one.db" in refusal
    assert "other" in refusal
    assert (home.folder / "one.db").read_bytes() == before


def test_a_socket_path_that_is_too_long_works_and_says_where(home: Home) -> None:
    path = str(home.folder / ("long" * 50) / "x.sock")
    with home.running("shop:app", "--socket", path) as process:
        assert home.treewarden("tree", "--socket", path).returncode == 0
        process.terminate()
        output = process.communicate(timeout=BOUND)[0]
    assert process.returncode == 0
    [said] = lines(output)
    assert "is over 100 bytes" in said
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING treewarden", said)


@pytest.mark.parametrize("words", [[], ["nonsense"], ["run"], ["circuit", "hug", "x"]])
def test_what_cannot_be_parsed_is_status_2(home: Home, words: list[str]) -> None:
    done = home.treewarden(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_without_a_runtime_the_status_is_3(home: Home) -> None:
    assert "start one with `treewarden run" in line(home.treewarden("tree"), 3)
    assert home.treewarden("ps").stdout == "no runtime runs\n"


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)]
)
def test_a_runtime_that_is_told_to_stop_says_so_by_its_status(
    home: Home, number: signal.Signals, status: int
) -> None:
    with home.running("shop:app") as process:
        process.send_signal(number)
        output = process.communicate(timeout=BOUND)[0]
    assert (process.returncode, lines(output)) == (status, [])


def test_a_runtime_is_shut_down_in_order_from_the_command_line(home: Home) -> None:
    with home.running("shop:app") as process:
        done = home.treewarden("shutdown")
        assert (done.returncode, done.stdout) == (0, "the runtime is stopping\n")
        output = process.communicate(timeout=BOUND)[0]
    assert (process.returncode, lines(output)) == (0, [])


def test_help_is_quick_because_it_loads_nothing(home: Home) -> None:
    program = (
        "import sys; from treewarden.cli.commands import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'trio', 'msgspec', 'sqlite3', 'textual', 'httpx', 'rich'}\n"
        "ours = {name for name in sys.modules if name.startswith('treewarden')}\n"
        "shell = {name for name in ours if name.startswith('treewarden.cli')}\n"
        "print(sorted(heavy & sys.modules.keys()), sorted(ours - shell))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=home.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[] ['treewarden']"


# --- with a terminal -------------------------------------------------------------------------


@dataclass
class Terminal:
    """A command on a terminal of its own, which a test types at and reads."""

    home: Home
    words: list[str]
    shown: bytes = b""

    def __post_init__(self) -> None:
        self.main, side = pty.openpty()
        os.set_blocking(self.main, False)
        size = {"LINES": "36", "COLUMNS": "120"}
        self.home.environ |= size
        self.process = self.home.start(
            *self.words, stdin=side, stdout=side, stderr=side, start_new_session=True
        )
        os.close(side)

    def read(self) -> bytes:
        # Nothing yet, or (an input/output error) nothing any more.
        with suppress(OSError):
            self.shown += os.read(self.main, 1 << 16)
        return self.shown

    def wait_for(self, text: bytes) -> None:
        wait_until(lambda: text in self.read() or self.process.poll() is not None)
        assert text in self.read(), self.shown.decode(errors="replace")

    def type(self, keys: bytes) -> None:
        os.write(self.main, keys)

    def wait_end(self) -> int:
        wait_until(lambda: bool(self.read()) and self.process.poll() is not None)
        self.read()
        os.close(self.main)
        return self.process.wait()


def test_on_a_terminal_a_runtime_says_who_it_is_and_how_to_watch_and_end_it(
    home: Home,
) -> None:
    terminal = Terminal(home, ["run", "shop:app", "--headless"])
    terminal.wait_for(b"running shop as process %d;" % terminal.process.pid)
    assert b"`treewarden attach shop`" in terminal.read()
    wait_until(lambda: home.names() == ["shop"])
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.wait_end() == 130


def test_a_console_left_alone_leaves_its_runtime_running(home: Home) -> None:
    terminal = Terminal(home, ["run", "shop:app"])
    terminal.wait_for(b"counter")
    pid = listed(home)["runtime"]["pid"]
    assert pid != terminal.process.pid
    assert os.getsid(pid) == pid
    terminal.type(b"q")
    terminal.wait_for(b"Leave it running")
    terminal.type(b"\r")
    assert terminal.wait_end() == 0
    assert b"treewarden attach shop" in terminal.shown
    assert home.names() == ["shop"]
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: is_gone(pid))
    assert home.names() == []


def test_a_console_whose_runtime_was_killed_says_so_when_it_is_left(
    home: Home,
) -> None:
    terminal = Terminal(home, ["run", "shop:app"])
    terminal.wait_for(b"counter")
    os.kill(listed(home)["runtime"]["pid"], signal.SIGKILL)
    terminal.wait_for(b"STALE")
    terminal.type(b"q")
    assert terminal.wait_end() == 1
    assert b"the runtime ended by itself (signal SIGKILL); its log: " in terminal.shown


def test_a_runtime_that_does_not_start_shows_its_log(home: Home) -> None:
    terminal = Terminal(home, ["run", "nowhere:app"])
    assert terminal.wait_end() == 1
    assert b"no module 'nowhere'" in terminal.shown
    assert b"ended before it answered (status 1)" in terminal.shown


def test_a_console_cannot_watch_a_runtime_without_a_socket(home: Home) -> None:
    terminal = Terminal(home, ["run", "shop:app", "--socket", "false"])
    assert terminal.wait_end() == 1
    assert b"needs the control socket" in terminal.shown


def test_attaching_to_nobody_is_status_3(home: Home) -> None:
    terminal = Terminal(home, ["attach", "nobody"])
    assert terminal.wait_end() == 3
    assert b"no runtime is called 'nobody'" in terminal.shown
