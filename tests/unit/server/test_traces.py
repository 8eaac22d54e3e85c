"""Opening and closing of traces: settings that make no sense, a receiver that does not answer."""

import subprocess
import sys
import threading

import pytest
from opentelemetry.sdk.trace import SpanProcessor

from rootserve.server import starting
from rootserve.server.observers import traces_otel
from rootserve.server.observers.traces import TracesError
from rootserve.server.observers.traces_otel import OtelTraces, open_traces
from rootserve.server.options import OptionError, read_settings
from rootserve.server.specs import StartError


class StuckProcessor(SpanProcessor):
    def __init__(self) -> None:
        self.told = threading.Event()
        self.free = threading.Event()

    def shutdown(self) -> None:
        self.told.set()
        self.free.wait()


def test_closing_does_not_wait_for_a_receiver_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traces_otel, "_FLUSH_S", 0.01)
    stuck = StuckProcessor()
    OtelTraces("1", stuck).close()  # without a bound this never ends
    assert stuck.told.is_set()
    stuck.free.set()


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "'http/protobuf' came, expected grpc"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "could not convert string to float: 'soon'"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", 'Invalid value "zip" for compression'),
    ],
)
def test_variables_that_make_no_sense_are_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, text: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(TracesError, match=text):
        open_traces("1", None, None)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--traces", "jaeger"], "--traces: 'jaeger' came, expected off or otlp"),
        (["--traces-ratio", "2"], "--traces-ratio: '2' came, expected less than or equal to 1"),
        (
            ["--traces-endpoint", "collector:4317"],
            "--traces-endpoint: 'collector:4317' came, expected http://HOST:PORT or https://",
        ),
    ],
)
def test_options_that_make_no_sense_are_named(arguments: list[str], text: str) -> None:
    with pytest.raises(OptionError) as caught:
        read_settings(arguments, {})
    assert text in str(caught.value).replace("should be ", "")


def test_traces_without_opentelemetry_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rootserve.server.observers.traces_otel")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(StartError, match=r"is not installed; pip install 'rootserve\[traces\]'"):
        starting.open_traces(read_settings(["--traces", "otlp"], {}))


def test_the_service_knows_nothing_of_opentelemetry_until_traces_are_on() -> None:
    code = (
        "import sys, rootserve.server.main;"
        "print([n for n in sys.modules if n.startswith('opentelemetry')])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert found == "[]\n"
