"""Every setting of the server: one frozen, validated object; the fields are the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rootmodels.weights_info import PRETRAINED_DIR
from server.core.scheduler import Limits

Port = Annotated[int, Field(ge=0, le=65535)]


def _option(group: str, text: str, default: object, **constraints: Any) -> Any:
    """A field that stands under ``group`` in the help."""
    return Field(default, description=text, json_schema_extra={"group": group}, **constraints)


class Settings(BaseModel):
    """Each field is an option ``--like-this``, a variable ``ROOTSERVE_LIKE_THIS`` and a TOML key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = _option("network", "address to listen on", "127.0.0.1")
    port: Port = _option("network", "gRPC port; 0 picks a free one", 8001)
    metrics_port: Port = _option("network", "port of /metrics; 0 picks a free one", 8002)
    max_message_mb: int = _option("network", "largest gRPC message, in MiB", 64, ge=1, le=2047)

    models: tuple[str, ...] = _option(
        "models", "models to serve, separated by commas (default: every trained one)", ()
    )
    weights: Path = _option(
        "models", "folder with NAME.safetensors files (default: those shipped)", PRETRAINED_DIR
    )

    device: str = _option(
        "workers",
        "auto (every GPU, else the CPU), cpu, cuda (every GPU), or cuda:N,...; one worker process per GPU",
        "auto",
        pattern=r"^(auto|cpu|cuda|cuda:\d+(,cuda:\d+)*)$",
    )
    engine: Literal["auto", "torch", "openvino", "fake"] = _option(
        "workers",
        "what computes: auto (openvino on the CPU, torch on a GPU), torch, openvino, or fake (for tests)",
        "auto",
    )
    cpu_workers: int = _option("workers", "worker processes on the CPU", 1, ge=1, le=256)
    threads: int = _option(
        "workers", "threads per CPU worker; 0 shares the processors among them", 0, ge=0, le=1024
    )

    max_batch_rows: int = _option(
        "batching", "most rows (images) in a batch, and in a request", 32, ge=1, le=1024
    )
    max_delay_us: int = _option(
        "batching",
        "longest time a request waits for others to share its batch while a worker is idle, in microseconds",
        0,
        ge=0,
        le=10_000_000,
    )
    preferred_rows: tuple[int, ...] = _option(
        "batching", "batch sizes that are closed without waiting longer, separated by commas", ()
    )
    max_queue_rows: int = _option(
        "batching",
        "rows that may wait per model and priority; further ones are refused",
        1024,
        ge=1,
    )

    priority_levels: int = _option(
        "batching", "priorities a request may have, 1 being the highest", 3, ge=1, le=100
    )
    default_priority: int = _option(
        "batching", "priority of a request that names none, or 0", 2, ge=1
    )

    hang_s: float = _option(
        "operation",
        "a batch that takes longer than this, and than 20 times what is expected, hangs: its worker "
        "is replaced",
        10.0,
        gt=0,
    )
    drain_s: float = _option(
        "operation", "longest time a shutdown waits for admitted requests, in seconds", 30.0, ge=0
    )
    log_level: Literal["debug", "info", "warning", "error"] = _option(
        "operation", "least severe log lines shown", "info"
    )

    @field_validator("models", "preferred_rows", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        for size in self.preferred_rows:
            if not 1 <= size <= self.max_batch_rows:
                raise ValueError(
                    f"preferred_rows: {size} is not between 1 and max_batch_rows, {self.max_batch_rows}"
                )
        if self.max_queue_rows < self.max_batch_rows:
            raise ValueError(
                f"max_queue_rows: {self.max_queue_rows} is less than max_batch_rows, "
                f"{self.max_batch_rows}: a full request could never wait"
            )
        if self.default_priority > self.priority_levels:
            raise ValueError(
                f"default_priority: {self.default_priority} is more than priority_levels, "
                f"{self.priority_levels}"
            )
        return self

    def limits(self) -> Limits:
        """What the scheduler keeps to."""
        return Limits(
            max_batch_rows=self.max_batch_rows,
            max_delay_s=self.max_delay_us * 1e-6,
            preferred_rows=self.preferred_rows,
            max_queue_rows=self.max_queue_rows,
            hang_s=self.hang_s,
        )
