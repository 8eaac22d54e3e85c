"""Load reports are what ORCA's message says, as protobuf itself reads it."""

import math
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from rootserve.server.wire.load_report import TRAILER, LoadReports, encode


def orca_type() -> Any:
    """The fields of xds.data.orca.v3.OrcaLoadReport that are written here, from the published .proto."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="orca.proto", package="test", syntax="proto3")
    message = file.message_type.add(name="OrcaLoadReport")
    for name, number in (("cpu_utilization", 1), ("mem_utilization", 2), ("rps_fractional", 6)):
        message.field.add(
            name=name, number=number, type=field.TYPE_DOUBLE, label=field.LABEL_OPTIONAL
        )
    entry = message.nested_type.add(name="NamedMetricsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=field.TYPE_DOUBLE, label=field.LABEL_OPTIONAL)
    message.field.add(
        name="named_metrics",
        number=8,
        type=field.TYPE_MESSAGE,
        type_name=".test.OrcaLoadReport.NamedMetricsEntry",
        label=field.LABEL_REPEATED,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.OrcaLoadReport"))


OrcaLoadReport = orca_type()


@pytest.mark.parametrize("name", ["a", "m" * 300])
def test_protobuf_reads_what_is_written(name: str) -> None:
    report = OrcaLoadReport.FromString(encode(12.5, {"backlog_s": 0.25, name: 1e-9}))
    assert report.rps_fractional == 12.5
    assert dict(report.named_metrics) == {"backlog_s": 0.25, name: 1e-9}
    assert not report.cpu_utilization


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_report_tells_of_what_waits_and_of_the_rate() -> None:
    clock = Clock()
    waits: dict[str, float | None] = {"one": 0.5, "two": 0.0, "unknown": None}
    reports = LoadReports(lambda: waits, waits.__getitem__, clock)
    for _ in range(2000):
        clock.now_s += 0.01
        ((key, content),) = reports.trailers()
    assert key == TRAILER
    report = OrcaLoadReport.FromString(content)
    assert dict(report.named_metrics) == {"backlog_s": 0.5, "backlog_s.one": 0.5}
    assert math.isclose(report.rps_fractional, 100, rel_tol=0.02)


def test_a_report_is_made_anew_only_now_and_then() -> None:
    clock, asked = Clock(), []
    reports = LoadReports(lambda: ["m"], lambda model: asked.append(model) or 0.0, clock)
    for _ in range(5):
        reports.trailers()
        clock.now_s += 0.001
    assert asked == ["m"]
    clock.now_s += 0.01
    reports.trailers()
    assert asked == ["m", "m"]
