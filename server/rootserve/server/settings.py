"""Every setting of the server: one frozen, validated object; the fields are the documentation."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rootmodels.weights_info import PRETRAINED_DIR
from rootserve.server.core.scheduler import Limits
from rootserve.server.engines.base import PrecisionSetting
from rootserve.server.engines.registry import ENGINES
from rootserve.server.placement import OptimizeFor

SHIPPED = "shipped"
"""Stands for the folder of weights that comes along."""

Port = Annotated[int, Field(ge=0, le=65535)]

if TYPE_CHECKING:
    EngineSetting = str
else:
    EngineSetting = Literal[("auto", *ENGINES)]

_WHERE = {(): " (for tests)", ("cuda",): " (on a GPU)"}
_ENGINES_TEXT = ", ".join(name + _WHERE.get(one.devices, "") for name, one in ENGINES.items())


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

    min_ping_interval_s: float = _option(
        "network",
        "how often a client may ping a connection, also one without calls; more often closes it",
        5.0,
        ge=0,
        le=86_400,
    )

    tls_cert: Path | None = _option(
        "security", "PEM file with the server's certificate chain; turns TLS on", None
    )
    tls_key: Path | None = _option("security", "PEM file with its private key", None)
    tls_client_ca: Path | None = _option(
        "security",
        "PEM file with certificate authorities; only clients with a certificate of theirs connect",
        None,
    )
    token_file: Path | None = _option(
        "security", "TOML file with bearer tokens; only calls with a token of it are answered", None
    )
    max_concurrent_streams: int = _option(
        "security", "calls one connection may have under way", 4096, ge=1, le=2**31 - 1
    )
    max_connection_age_s: float = _option(
        "security",
        "a connection is closed after this time, and then has drain_s to finish; 0 never closes it",
        0.0,
        ge=0,
        le=1_000_000,
    )

    models: tuple[str, ...] = _option(
        "models", "models to serve, separated by commas (default: every trained one)", ()
    )
    weights: tuple[Path, ...] = _option(
        "models",
        "folder with NAME.safetensors files; may come several times, or have several separated by "
        f"{os.pathsep!r}; {SHIPPED} is the one that comes along (default: {SHIPPED})",
        (PRETRAINED_DIR,),
    )

    versions: tuple[str, ...] = _option(
        "models",
        "versions to serve where it is not to be the latest, as NAME=N, separated by commas",
        (),
    )

    listed_tensors: Literal["basic", "all"] = _option(
        "models",
        "tensors that metadata and configuration list: basic is one input, images, and one output, logits, "
        "as many clients want it; all adds encoded and probabilities, which are served either way",
        "basic",
    )
    shared_memory: Literal["none", "system"] = _option(
        "network",
        "system lets callers on this machine register regions under /dev/shm for inputs and outputs",
        "none",
    )

    load_reports: Literal["off", "orca"] = _option(
        "network",
        "orca tells balancers in the trailers of each answer how much work waits here, in predicted seconds",
        "off",
    )

    model_control: Literal["none", "explicit"] = _option(
        "models",
        "explicit lets callers load and unload models (RepositoryModelLoad, RepositoryModelUnload)",
        "none",
    )

    untrained: Literal["named", "any"] = _option(
        "models",
        "which models may have random weights: those without a weights file that are named in models, or any "
        "that callers load",
        "named",
    )

    device: str = _option(
        "workers",
        "auto (every GPU, else the CPU), cpu, cuda (every GPU), or cuda:N,...; one worker process per GPU",
        "auto",
        pattern=r"^(auto|cpu|cuda|cuda:\d+(,cuda:\d+)*)$",
    )
    engine: EngineSetting = _option(
        "workers",
        f"what computes: auto (the fastest that is correct), {_ENGINES_TEXT}",
        "auto",
    )
    precision: PrecisionSetting = _option(
        "workers",
        "what it computes in: auto (the fastest of those in which these weights were measured to lose less "
        "than 0.002 of accuracy), fp32, bf16, fp16 (on a GPU) or int8",
        "auto",
    )
    cache: Path | None = _option(
        "workers",
        "folder where choices of engines are remembered (default: rootserve in $XDG_CACHE_HOME, else in "
        "~/.cache)",
        None,
    )
    optimize_for: OptimizeFor = _option(
        "workers",
        "on the CPU, adaptive has one worker that computes a batch on all processors while few requests "
        "come, and several side by side when many do; latency always does the former; throughput has a "
        "worker for each processor",
        "adaptive",
    )
    cpu_workers: int = _option(
        "workers", "worker processes on the CPU; 0 chooses by optimize_for", 0, ge=0, le=256
    )
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
    max_image_mb: int = _option(
        "batching", "largest JPEG or PNG file in the input encoded, in MiB", 8, ge=1, le=2047
    )
    max_image_megapixels: int = _option(
        "batching",
        "most pixels of such a picture, in millions; one with more is refused before it is decoded",
        25,
        ge=1,
        le=1000,
    )
    max_queue_rows: int = _option(
        "batching",
        "rows that may wait per model and priority; further ones are refused",
        1024,
        ge=1,
    )
    max_queue_mb: int = _option(
        "batching",
        "bytes of the requests that are admitted and not answered yet, in MiB; further ones are refused. "
        "With room for three of the largest messages more it bounds all that callers send",
        1024,
        ge=1,
    )

    priority_levels: int = _option(
        "batching", "priorities a request may have, 1 being the highest", 3, ge=1, le=100
    )
    default_priority: int = _option(
        "batching", "priority of a request that names none, or 0", 2, ge=1
    )

    priority_age_s: float = _option(
        "batching",
        "a request goes before those of the next higher priority that came so much later, so that none "
        "waits for ever; 0 makes priorities of no effect",
        10.0,
        ge=0,
        le=1_000_000,
    )

    caller_key: str = _option(
        "batching",
        "metadata whose value says whose share of a family a call takes (default: the name of its token)",
        "",
        pattern=r"^([a-z0-9_.-]{1,100})?$",
    )
    explain: int = _option(
        "batching",
        "how many of the last requests are kept to be explained (rootserve explain); 0 keeps none",
        0,
        ge=0,
        le=100_000,
    )

    datasets: tuple[str, ...] = _option(
        "analysis",
        "data sets that can be analysed without being sent, as NAME=PATH, separated by commas; a path is "
        "a parquet file, or a folder with test-*.parquet",
        (),
    )
    analysis_max_jobs: int = _option(
        "analysis", "analyses that may run at a time; 0 allows none", 2, ge=0, le=64
    )
    analysis_max_images: int = _option("analysis", "most images of an analysis", 1_000_000, ge=1)
    analysis_max_mb: int = _option(
        "analysis", "most bytes of images, or of sums, that one call may send, in MiB", 4096, ge=1
    )

    hang_s: float = _option(
        "operation",
        "a batch that takes longer than this, and than 20 times what is expected, hangs: its worker "
        "is replaced",
        10.0,
        gt=0,
    )
    load_timeout_s: float = _option(
        "operation",
        "a worker that takes longer than this to start, or to load and warm up one model, hangs and is "
        "replaced",
        120.0,
        gt=0,
    )
    grace_s: float = _option(
        "operation",
        "seconds after SIGTERM in which health says NOT_SERVING but requests are still served, so that "
        "load balancers can look away first",
        0.0,
        ge=0,
        le=3600,
    )
    drain_s: float = _option(
        "operation", "longest time a shutdown waits for admitted requests, in seconds", 30.0, ge=0
    )
    log_level: Literal["debug", "info", "warning", "error"] = _option(
        "operation", "least severe log lines shown", "info"
    )
    log_format: Literal["human", "json"] = _option(
        "operation", "how log lines look: human, or json (one object per line)", "human"
    )
    access_log: Literal["off", "on"] = _option(
        "operation", "on logs every request, with its timeline and its caller", "off"
    )
    slow_request_ms: float = _option(
        "operation",
        "log answers that took as long or longer, with their timeline; 0 logs none",
        0.0,
        ge=0,
    )

    @property
    def logs_requests(self) -> bool:
        """Whether requests are logged one by one."""
        return self.access_log == "on" or self.slow_request_ms > 0

    traces: Literal["off", "otlp"] = _option(
        "traces", "otlp sends a trace of each request to an OpenTelemetry collector", "off"
    )
    traces_endpoint: str | None = _option(
        "traces",
        "where to, by OTLP over gRPC: http://HOST:PORT, or https:// for TLS (default: "
        "OTEL_EXPORTER_OTLP_ENDPOINT, else http://localhost:4317)",
        None,
    )
    traces_ratio: float | None = _option(
        "traces",
        "share of the requests that are traced unless their caller decided, 0 to 1 (default: "
        "OTEL_TRACES_SAMPLER, else all)",
        None,
        ge=0,
        le=1,
    )

    @field_validator("models", "versions", "datasets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("weights", mode="before")
    @classmethod
    def _split_folders(cls, value: object) -> object:
        given = [value] if isinstance(value, str | Path) else value
        if not isinstance(given, list | tuple):
            return value
        parts = [part for each in given for part in str(each).split(os.pathsep) if part]
        return tuple(PRETRAINED_DIR if part == SHIPPED else Path(part) for part in parts)

    @field_validator("weights")
    @classmethod
    def _different_folders(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        if not value:
            raise ValueError("expected a folder")
        places = [folder.resolve() for folder in value]
        for number, folder in enumerate(value):
            if places[number] in places[:number]:
                raise ValueError(f"the folder {folder} comes twice")
        return value

    @field_validator("host")
    @classmethod
    def _bare_host(cls, value: str) -> str:
        """As addresses are printed, IPv6 is in brackets."""
        return value[1:-1] if value.startswith("[") and value.endswith("]") else value

    @field_validator("caller_key")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        if value == "authorization" or value.endswith("-bin"):
            raise ValueError(
                f"{value!r} holds a secret, or bytes; expected metadata that may be shown, such as x-caller"
            )
        return value

    @field_validator("traces_endpoint")
    @classmethod
    def _check_endpoint(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/\s]+/?", value):
            raise ValueError("expected http://HOST:PORT or https://HOST:PORT")
        return value

    @model_validator(mode="after")
    def _files_fit_together(self) -> Settings:
        if self.tls_cert and not self.tls_key:
            raise ValueError("tls_cert: came without tls_key; expected both")
        if self.tls_key and not self.tls_cert:
            raise ValueError("tls_key: came without tls_cert; expected both")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("tls_client_ca: came without tls_cert; expected both, and tls_key")
        for key in ("tls_cert", "tls_key", "tls_client_ca", "token_file"):
            path = getattr(self, key)
            if path is None:
                continue
            try:
                path.stat()
            except OSError as error:
                raise ValueError(
                    f"{key}: {path} cannot be read: {error.strerror}; expected a file"
                ) from None
        return self

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        if self.max_queue_rows < self.max_batch_rows:
            raise ValueError(
                f"max_queue_rows: {self.max_queue_rows} is less than max_batch_rows, "
                f"{self.max_batch_rows}: a full request could never wait"
            )
        if self.max_queue_mb < self.max_message_mb:
            raise ValueError(
                f"max_queue_mb: {self.max_queue_mb} is less than max_message_mb, "
                f"{self.max_message_mb}: the largest request could never be admitted"
            )
        if self.default_priority > self.priority_levels:
            raise ValueError(
                f"default_priority: {self.default_priority} is more than priority_levels, "
                f"{self.priority_levels}"
            )
        return self

    @field_validator("datasets")
    @classmethod
    def _name_paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = set()
        for part in value:
            name, equals, path = part.partition("=")
            if not (name and equals and path):
                raise ValueError(f"{part!r} is not NAME=PATH")
            if name in names:
                raise ValueError(f"the name {name!r} comes twice")
            names.add(name)
        return value

    @field_validator("versions")
    @classmethod
    def _name_versions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            if not re.fullmatch(r"[^=]+=[1-9]\d{0,8}", part):
                raise ValueError(f"expected NAME=N with N from 1 on, not {part!r}")
        return value

    def pinned_versions(self) -> dict[str, int]:
        """The version to serve of each model of which it is not the latest."""
        parts = (part.partition("=") for part in self.versions)
        return {name: int(version) for name, _, version in parts}

    def changed(self) -> dict[str, object]:
        """The settings that have another value than their default, for people."""
        return {
            key: told(value) for key, value in self if value != type(self).model_fields[key].default
        }

    def dataset_paths(self) -> dict[str, Path]:
        """Where each data set is."""
        parts = (part.partition("=") for part in self.datasets)
        return {name: Path(path) for name, _, path in parts}

    def limits(self) -> Limits:
        """What the scheduler keeps to."""
        return Limits(
            max_batch_rows=self.max_batch_rows,
            max_delay_s=self.max_delay_us * 1e-6,
            max_queue_rows=self.max_queue_rows,
            priority_age_s=self.priority_age_s,
            hang_s=self.hang_s,
            explain=self.explain > 0,
        )


def told(value: object) -> object:
    """``value`` for people: paths as text."""
    if value and isinstance(value, tuple) and all(isinstance(each, Path) for each in value):
        return os.pathsep.join(map(str, value))
    return str(value) if isinstance(value, Path) else value
