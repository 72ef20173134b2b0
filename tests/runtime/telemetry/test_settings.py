from __future__ import annotations

import pytest

from treewarden.errors import ConfigError
from treewarden.telemetry import ExportSettings, export_settings

BASE = "OTEL_EXPORTER_OTLP_ENDPOINT"


def test_without_an_endpoint_nothing_is_exported() -> None:
    assert export_settings(None, {}) is None
    assert export_settings("", {BASE: " "}) is None


def test_each_signal_has_its_path_below_the_endpoint() -> None:
    expected = ExportSettings(
        traces="http://c:4318/x/v1/traces",
        metrics="http://c:4318/x/v1/metrics",
        logs="http://c:4318/x/v1/logs",
    )
    assert export_settings("http://c:4318/x/", {}) == expected
    assert export_settings(None, {BASE: "http://c:4318/x"}) == expected


def test_the_command_line_wins_over_the_environment() -> None:
    settings = export_settings(
        "http://flag:1",
        {BASE: "http://env:2", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://env:3/t"},
    )
    assert settings is not None
    assert settings.traces == "http://flag:1/v1/traces"


def test_the_endpoint_of_one_signal_is_taken_as_it_is() -> None:
    settings = export_settings(
        None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/spans"}
    )
    assert settings == ExportSettings(traces="https://c/spans", metrics=None, logs=None)


def test_a_signal_can_be_switched_off() -> None:
    settings = export_settings("http://c:1", {"OTEL_LOGS_EXPORTER": "none"})
    assert settings is not None
    assert (settings.logs, settings.traces) == (None, "http://c:1/v1/traces")


def test_the_disabled_sdk_exports_nothing_whatever_else_is_said() -> None:
    assert export_settings("http://c:1", {"OTEL_SDK_DISABLED": "True"}) is None


@pytest.mark.parametrize(
    "url",
    [
        "localhost:4318",
        "ftp://c",
        "http://",
        "http://c:99999",
        "http://c:x",
        "http://[1",
    ],
)
def test_an_endpoint_that_is_no_http_url_is_one_clear_line(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        export_settings(url, {})
    assert str(caught.value) == (
        f"the OTLP endpoint must be a URL such as http://localhost:4318, not {url!r}"
    )


def test_a_bad_endpoint_in_the_environment_names_its_variable() -> None:
    with pytest.raises(
        ConfigError, match=r"^OTEL_EXPORTER_OTLP_ENDPOINT must be a URL"
    ):
        export_settings(None, {BASE: "collector"})


def test_a_protocol_that_we_do_not_speak_is_refused() -> None:
    environ = {BASE: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with pytest.raises(
        ConfigError, match="OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf"
    ):
        export_settings(None, environ)
    assert export_settings("http://c:4318", environ) is not None


def test_the_interval_of_metrics_is_in_milliseconds() -> None:
    settings = export_settings("http://c", {"OTEL_METRIC_EXPORT_INTERVAL": "500"})
    assert settings is not None
    assert settings.metric_interval == 0.5


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_an_interval_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="OTEL_METRIC_EXPORT_INTERVAL must be"):
        export_settings("http://c", {"OTEL_METRIC_EXPORT_INTERVAL": text})


def test_passwords_in_an_endpoint_are_not_shown() -> None:
    settings = export_settings("https://me:secret@c:4318", {})
    assert settings is not None
    assert settings.endpoint == "https://c:4318"
