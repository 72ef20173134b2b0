from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from treewarden.errors import ConfigError
from treewarden.telemetry import Telemetry, export

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from treewarden.telemetry import Exporter


def exporting(
    telemetry: Telemetry, endpoint: str | None
) -> AbstractAsyncContextManager[Exporter]:
    return export(
        telemetry, endpoint=endpoint, service_name="demo", service_instance="i1"
    )


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


async def test_without_an_endpoint_nothing_is_recorded_or_sent() -> None:
    telemetry = Telemetry(enabled=True)
    async with exporting(telemetry, None) as exporter:
        assert not telemetry.enabled
        assert exporter.settings is None
        assert exporter.statistics() is None
    assert telemetry.statistics().export is None


async def test_a_bad_endpoint_starts_nothing() -> None:
    telemetry = Telemetry()
    with pytest.raises(ConfigError, match="must be a URL"):
        async with exporting(telemetry, "collector"):
            raise AssertionError("it started")
    assert not telemetry.enabled
