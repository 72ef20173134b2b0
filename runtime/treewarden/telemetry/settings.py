"""Where telemetry goes: the command line's endpoint, or the standard variables.

The variables are those of OpenTelemetry's "OTLP Exporter" page, except that no endpoint
means no export, where the SDK would try localhost. Headers, timeouts, certificates,
compression, samplers and resource attributes are read by the SDK itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from treewarden.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Seconds between two readings of the metrics; OTEL_METRIC_EXPORT_INTERVAL (ms) overrides.
METRIC_INTERVAL: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """The URL each signal is posted to; None: it is not exported."""

    traces: str | None
    metrics: str | None
    logs: str | None
    metric_interval: float = METRIC_INTERVAL

    @property
    def endpoint(self) -> str:
        """Where it goes, to show to people."""
        return shown(self.traces or self.metrics or self.logs)


def shown(url: str | None) -> str:
    """Scheme, host and port of `url`: never its user and password."""
    parts = urlsplit(url or "")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def export_settings(
    endpoint: str | None, environ: Mapping[str, str]
) -> ExportSettings | None:
    """What `endpoint` and the environment ask for; None: nothing is exported.

    `endpoint` (a base URL: `/v1/traces` and so on are added) wins over the variables of
    all signals. `OTEL_SDK_DISABLED=true` wins over everything.

    Raises:
        ConfigError: an endpoint is no http URL, or a variable cannot be honoured.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    traces, metrics, logs = (
        _destination(signal, endpoint, environ)
        for signal in ("traces", "metrics", "logs")
    )
    if not (traces or metrics or logs):
        return None
    return ExportSettings(
        traces=traces,
        metrics=metrics,
        logs=logs,
        metric_interval=_metric_interval(environ),
    )


def _destination(
    signal: str, endpoint: str | None, environ: Mapping[str, str]
) -> str | None:
    if environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower() == "none":
        return None
    if endpoint:
        return _below(_checked(endpoint, "the OTLP endpoint"), signal)
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    if url := environ.get(own, "").strip():
        _check_protocol(signal, environ)
        return _checked(url, own)
    if url := environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip():
        _check_protocol(signal, environ)
        return _below(_checked(url, "OTEL_EXPORTER_OTLP_ENDPOINT"), signal)
    return None


def _below(url: str, signal: str) -> str:
    return f"{url.rstrip('/')}/v1/{signal}"


def _checked(url: str, where: str) -> str:
    if not _is_http(url):
        raise ConfigError(
            f"{where} must be a URL such as http://localhost:4318, not {url!r}"
        )
    return url


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and port != 0


def _check_protocol(signal: str, environ: Mapping[str, str]) -> None:
    for name in (
        f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ):
        if protocol := environ.get(name, "").strip():
            if protocol != "http/protobuf":
                raise ConfigError(f"{name} must be http/protobuf, not {protocol!r}")
            return


def _metric_interval(environ: Mapping[str, str]) -> float:
    name = "OTEL_METRIC_EXPORT_INTERVAL"
    text = environ.get(name, "").strip()
    if not text:
        return METRIC_INTERVAL
    try:
        seconds = float(text) / 1000
    except ValueError:
        seconds = 0.0
    if not (seconds > 0 and isfinite(seconds)):
        raise ConfigError(f"{name} must be a number of milliseconds > 0, not {text!r}")
    return seconds
