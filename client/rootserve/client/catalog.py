"""What a server tells of itself and its models, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC
from typing import Any

from rootserve.v1 import catalog_pb2

_STATES = {
    catalog_pb2.MODEL_STATE_UNLOADED: "unloaded",
    catalog_pb2.MODEL_STATE_LOADING: "loading",
    catalog_pb2.MODEL_STATE_READY: "ready",
    catalog_pb2.MODEL_STATE_FAILED: "failed",
}


@dataclass(frozen=True, slots=True)
class PaperFigures:
    """What the paper reports for a variant: accuracies 0..1, milliseconds per image."""

    accuracy: float
    cpu_ms: float
    gpu_ms: float
    top5_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """One variant. Fields as in `rootserve.v1.Model`; None where the server has nothing to say.

    One with `members` is a family that is served as one model: what it costs depends on which computes.
    `state` is "unloaded", "loading", "ready", "failed", or "unknown" from a newer server.
    """

    name: str
    family: str
    topology: str
    params: int
    macs: int
    flops_paper: int
    accuracy: float | None
    trained: bool
    engine: str | None
    precision: str | None
    state: str
    state_reason: str | None
    image_size: int
    classes: Sequence[str]
    paper: PaperFigures | None
    short_side: int | None = None
    paper_rows: int | None = None
    batch_rows: int | None = None
    version: str | None = None
    weights_sha256: str | None = None
    generation: int | None = None
    members: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields by name, ready for `json.dumps`; without those that only measuring needs."""
        fields = asdict(self)
        del fields["short_side"], fields["paper_rows"]
        return fields


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process. Fields as in `rootserve.v1.Worker`."""

    name: str
    device: str
    device_name: str
    threads: int
    pid: int
    ready: bool


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The server's description. Fields as in `rootserve.v1.GetServerInfoResponse`."""

    version: str
    started_at: str
    platform: str
    cpu: str
    cpu_count: int
    libraries: Mapping[str, str]
    max_batch_rows: int
    max_delay_us: int
    max_queue_rows: int
    metrics_port: int
    workers: Sequence[Worker]

    def to_json(self) -> dict[str, Any]:
        """The fields by name, ready for `json.dumps`; `started_at` is ISO 8601 in UTC."""
        return asdict(self)


def read_model(message: catalog_pb2.Model) -> Model:
    """Turn the wire's model into a plain value."""
    paper = message.paper
    return Model(
        name=message.name,
        family=message.family,
        topology=message.topology,
        params=message.params,
        macs=message.macs,
        flops_paper=message.flops_paper,
        accuracy=message.accuracy if message.HasField("accuracy") else None,
        trained=message.trained,
        engine=message.engine or None,
        precision=message.precision or None,
        state=_STATES.get(message.state, "unknown"),
        state_reason=message.state_reason or None,
        image_size=message.image_size,
        classes=tuple(message.classes),
        paper=PaperFigures(
            paper.accuracy,
            paper.cpu_ms,
            paper.gpu_ms,
            paper.top5_accuracy if paper.HasField("top5_accuracy") else None,
        )
        if message.HasField("paper")
        else None,
        short_side=message.short_side or None,
        paper_rows=message.paper_rows or None,
        batch_rows=message.batch_rows or None,
        version=message.version or None,
        weights_sha256=message.weights_sha256 or None,
        generation=message.generation or None,
        members=tuple(message.members),
    )


def read_server_info(message: catalog_pb2.GetServerInfoResponse) -> ServerInfo:
    """Turn the wire's description into a plain value."""
    return ServerInfo(
        version=message.version,
        started_at=message.started_at.ToDatetime(tzinfo=UTC).isoformat(timespec="seconds"),
        platform=message.platform,
        cpu=message.cpu,
        cpu_count=message.cpu_count,
        libraries=dict(sorted(message.libraries.items())),
        max_batch_rows=message.max_batch_rows,
        max_delay_us=message.max_delay_us,
        max_queue_rows=message.max_queue_rows,
        metrics_port=message.metrics_port,
        workers=tuple(
            Worker(
                name=worker.name,
                device=worker.device,
                device_name=worker.device_name,
                threads=worker.threads,
                pid=worker.pid,
                ready=worker.ready,
            )
            for worker in message.workers
        ),
    )
