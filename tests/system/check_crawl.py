"""The judge of the demo: was every page indexed, and each only once? And counted so?

    python check_crawl.py DATA_DIR

It knows nothing of treewarden. What there was to find it reads in the request logs of the
web sites (`*.requests/*.jsonl`): each start of a site says which paths it serves, each
request which path was asked for and what was answered. What was found it reads with
sqlite3 in the index (`*.index.db`). A page is lost when a site serves it and the index
does not have it; indexed twice when the index, or its history of additions, has it more
than once; invented when it is indexed and no site ever answered with it. What was counted
it reads in the state of `/census` in the store (`*.db`): a site is miscounted when that is
not the number of its pages in the index.

Status 0: nothing of the kind. 1: something is wrong. 2: there is nothing to judge.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path


def read_logs(folder: Path) -> tuple[set[str], Counter[str]]:
    """The addresses that are served, and how often each was answered with its page."""
    served: set[str] = set()
    answered: Counter[str] = Counter()
    for log in sorted(folder.glob("*.requests/*.jsonl")):
        for line in log.read_text("utf-8").splitlines():
            entry = json.loads(line)
            root = f"http://{entry['site']}.localhost"
            if "serves" in entry:
                served |= {root + path for path in entry["serves"]}
            elif entry["status"] == 200:
                answered[root + entry["path"]] += 1
    return served, answered


def read_index(path: Path) -> tuple[Counter[str], Counter[str]]:
    """How often each address is in the index, and in the history of additions."""
    with closing(
        sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    ) as db:
        words = Counter(url for (url,) in db.execute("SELECT url FROM words"))
        additions = Counter(url for (url,) in db.execute("SELECT url FROM additions"))
    return words, additions


def read_census(path: Path) -> Counter[str]:
    """How many pages of each host were counted; nothing when nobody counted."""
    with closing(
        sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    ) as db:
        rows = db.execute("SELECT payload FROM agent_state WHERE path = '/census'")
        return sum((Counter(json.loads(text)["pages"]) for (text,) in rows), Counter())


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main(folder: Path) -> int:
    """Print the verdict and return the status."""
    served, answered = read_logs(folder)
    indexes = sorted(folder.glob("*.index.db"))
    if not served or len(indexes) != 1:
        say(f"nothing to judge in {folder}: no request log, or not one index")
        return 2
    words, additions = read_index(indexes[0])
    name = indexes[0].name.removesuffix(".index.db")
    counted = read_census(folder / f"{name}.db")
    hosts = Counter(url.split("/")[2] for url in words)
    lost = served - words.keys() | served - additions.keys()
    twice = {url for counts in (words, additions) for url in counts if counts[url] > 1}
    invented = words.keys() - answered.keys()
    miscounted = {host for host in hosts | counted if hosts[host] != counted[host]}
    for what, urls in (
        ("lost", lost), ("twice", twice), ("invented", invented),
        ("miscounted", miscounted),
    ):  # fmt: skip
        for url in sorted(urls):
            say(f"{what}: {url}")
    again = sum(count - 1 for url, count in answered.items() if url in served)
    say(
        f"served {len(served)}, indexed {len(words)}, fetched again {again}: "
        f"lost {len(lost)}, indexed twice {len(twice)}, invented {len(invented)}, "
        f"sites miscounted {len(miscounted)}"
    )
    return 1 if lost or twice or invented or miscounted else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} DATA_DIR")
    sys.exit(main(Path(sys.argv[1])))
