"""The pictures of our metrics that we ship speak of metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

from treewarden.telemetry import metrics

ASSETS = Path(__file__).parents[3] / "assets"

# What Prometheus appends to a name for its unit and kind.
SUFFIX = re.compile(r"(_seconds)?(_total|_bucket)?$")


def names() -> set[str]:
    """Every metric's name, as Prometheus spells it."""
    return {
        name.replace(".", "_")
        for constant, name in vars(metrics).items()
        if constant.isupper() and isinstance(name, str)
    }


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    dashboard = json.loads((ASSETS / "dashboard.json").read_text(encoding="utf-8"))
    queries = [
        target["expr"] for panel in dashboard["panels"] for target in panel["targets"]
    ]
    shown = {
        SUFFIX.sub("", name)
        for query in queries
        for name in re.findall(r"treewarden_\w+", query)
    }
    assert shown == names()


def test_the_collector_listens_where_opentelemetry_sends_by_default() -> None:
    configured = (ASSETS / "collector.yaml").read_text(encoding="utf-8")
    assert "endpoint: 127.0.0.1:4318" in configured
    assert re.findall(r"^    (traces|metrics|logs):", configured, re.MULTILINE) == [
        "traces",
        "metrics",
        "logs",
    ]
