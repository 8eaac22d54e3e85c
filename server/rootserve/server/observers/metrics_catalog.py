"""The metric catalogue: every metric with its name, type, unit, labels, buckets and help.

docs/metrics.md is generated from it. Counters stand without the ``_total``, and info metrics without the
``_info``, that they are exposed with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The types of OpenMetrics that are used here."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the catalogue. ``unit`` is for people where the name does not end with it."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()

    @property
    def exposed_name(self) -> str:
        """The name that one queries; a histogram's is followed by _bucket, _sum or _count."""
        suffix = {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(self.kind, "")
        return f"{self.name}{suffix}"


# 100 us to 10 s in steps of about 2: a small network answers in under a millisecond.
LATENCY_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
# Around what was predicted: the first beyond it are misses of the prediction.
RATIO_BUCKETS = (0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 4.0)
ROWS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

LABELS: Mapping[str, str] = {
    "model": 'a model of the table, such as `nin-root-4`; "" for a request that names none of them',
    "outcome": "`ok`, or the reason of a refusal; of an analysis `ok`, `failed` or `cancelled`; of a "
    "load `ok` or `failed`",
    "reason": "why a request got no answer (`rootserve.server.refusals`)",
    "stage": "`arrival`: the deadline had passed when the request came; `waiting`: while it waited",
    "deadline": "`yes` for a request with a deadline, else `no`",
    "result": "`in_time`: answered, and within its deadline if it has one; `late`: answered after it; "
    "`expired`: admitted, and dropped because it had passed; `refused`: not admitted; `failed`; "
    "`cancelled`: by the caller",
    "computed_by": "the variant of a family that computed it, such as `nin-root-4`",
    "method": "a gRPC method that the server has, such as `ModelInfer`",
    "worker": "a worker process of the settings, such as `cpu-0`",
    "device": "`cpu` or `cuda:N`",
    "family": "network family, such as `nin`",
    "variant": "variant of the family, such as `root-4`",
    "engine": "what computes the model, such as `openvino`; empty until it is loaded",
    "precision": "number format it computes in, such as `fp32`; empty until it is loaded",
    "accuracy": "top-1 accuracy of the served weights; empty if they are untrained",
    "params": "number of parameters",
    "macs": "multiply-accumulates per image",
    "version": "version of the server; of weights, as in the folder of the model",
    "weights": "first 12 digits of the SHA-256 of the weights file; empty if they are untrained",
    "gpu": "index of a GPU, as NVML counts",
    "gpu_uuid": "its UUID",
    "gpu_name": "its product name",
}
"""What each label holds. Every value is the server's own: nothing that a caller sends becomes one."""

# Requests: told by events.
REQUEST = Metric(
    "rootserve_request_seconds",
    Kind.HISTOGRAM,
    "seconds",
    ("model", "outcome"),
    "Time from the arrival of a request to its answer or refusal.",
    LATENCY_BUCKETS,
)
QUEUE = Metric(
    "rootserve_queue_seconds",
    Kind.HISTOGRAM,
    "seconds",
    ("model",),
    "Time a request waited until its batch was closed.",
    LATENCY_BUCKETS,
)
BATCH_WAIT = Metric(
    "rootserve_batch_wait_seconds",
    Kind.HISTOGRAM,
    "seconds",
    ("model",),
    "Time a closed batch waited until a worker began to compute it, per request.",
    LATENCY_BUCKETS,
)
COMPUTE = Metric(
    "rootserve_compute_seconds",
    Kind.HISTOGRAM,
    "seconds",
    ("model",),
    "Time a worker computed a batch, per batch.",
    LATENCY_BUCKETS,
)
ROWS = Metric("rootserve_rows", Kind.COUNTER, "rows", ("model",), "Rows (images) answered.")
REFUSALS = Metric(
    "rootserve_refusals",
    Kind.COUNTER,
    "requests",
    ("model", "reason"),
    "Requests that were refused or dropped, by reason.",
)
DEADLINE_MISSES = Metric(
    "rootserve_deadline_misses",
    Kind.COUNTER,
    "requests",
    ("model", "stage"),
    "Requests that were dropped because their deadline had passed.",
)
RECEIVED = Metric(
    "rootserve_received_bytes",
    Kind.COUNTER,
    "bytes",
    ("method",),
    "Bytes of the gRPC messages that came, before they are decoded.",
)
SENT = Metric(
    "rootserve_sent_bytes",
    Kind.COUNTER,
    "bytes",
    ("method",),
    "Bytes of the gRPC messages that were answered.",
)

# Deadlines and accuracy.
OFFERED = Metric(
    "rootserve_offered",
    Kind.COUNTER,
    "requests",
    ("model", "deadline", "result"),
    "Valid requests that came, by what became of them; attainment is in_time over all but cancelled.",
)
ACCURACY_IN_TIME = Metric(
    "rootserve_accuracy_in_time",
    Kind.COUNTER,
    "accuracies, 0..1 each",
    ("model", "deadline"),
    "Sum of the accuracies of what computed the requests that were answered in time.",
)
VARIANT_ANSWERS = Metric(
    "rootserve_variant_answers",
    Kind.COUNTER,
    "requests",
    ("model", "computed_by"),
    "Answers of a family that is served as one model, by the variant that computed them.",
)
PREDICTION = Metric(
    "rootserve_prediction_ratio",
    Kind.HISTOGRAM,
    "ratio",
    ("model",),
    "Time a batch took over the time it was predicted to take at most (p99); the share up to 1 is covered.",
    RATIO_BUCKETS,
)

# Queue and batches.
BATCH_ROWS = Metric(
    "rootserve_batch_rows",
    Kind.HISTOGRAM,
    "rows",
    ("model",),
    "Rows (images) per computed batch.",
    ROWS_BUCKETS,
)
BATCHES_BESIDE = Metric(
    "rootserve_batches_beside",
    Kind.COUNTER,
    "batches",
    ("model",),
    "Batches computed beside others (optimize_for adaptive); of all, whose number rootserve_batch_rows has.",
)
BATCH_LIMIT = Metric(
    "rootserve_batch_limit_rows", Kind.GAUGE, "rows", (), "Most rows of a batch (max_batch_rows)."
)
ROWS_QUEUED = Metric(
    "rootserve_rows_queued", Kind.GAUGE, "rows", ("model",), "Rows (images) that wait for a worker."
)
BACKLOG = Metric(
    "rootserve_backlog_seconds",
    Kind.GAUGE,
    "seconds",
    ("model",),
    "Seconds in which this server's workers would compute what waits for a model, as predicted from earlier "
    "batches; missing while something waits and nothing is known of them.",
)
QUEUE_LIMIT = Metric(
    "rootserve_queue_limit_rows",
    Kind.GAUGE,
    "rows",
    (),
    "Rows that may wait per model and priority (max_queue_rows).",
)
ROWS_IN_FLIGHT = Metric(
    "rootserve_rows_in_flight",
    Kind.GAUGE,
    "rows",
    ("model",),
    "Rows (images) that are with a worker: being computed, or ahead.",
)

# Workers.
WORKER_UP = Metric(
    "rootserve_worker_up",
    Kind.GAUGE,
    "1 or 0",
    ("worker", "device"),
    "Whether a worker takes batches.",
)
WORKER_RESTARTS = Metric(
    "rootserve_worker_restarts",
    Kind.COUNTER,
    "ends",
    ("worker",),
    "How often a worker ended and had to be replaced.",
)
WORKER_BUSY = Metric(
    "rootserve_worker_busy_seconds",
    Kind.COUNTER,
    "seconds",
    ("worker",),
    "Time a worker spent computing batches, one or several; its rate is the share of time it is busy.",
)
WORKER_CPU = Metric(
    "rootserve_worker_cpu_seconds",
    Kind.COUNTER,
    "seconds",
    ("worker",),
    "Processor time of a worker process, user and system.",
)
WORKER_MEMORY = Metric(
    "rootserve_worker_resident_memory_bytes",
    Kind.GAUGE,
    "bytes",
    ("worker",),
    "Resident memory of a worker process.",
)

# Models.
MODEL_INFO = Metric(
    "rootserve_model",
    Kind.INFO,
    "1",
    ("model", "family", "variant", "engine", "precision", "accuracy", "params", "macs"),
    "What a served model is and how it is computed.",
)
MODEL_READY = Metric(
    "rootserve_model_ready",
    Kind.GAUGE,
    "1 or 0",
    ("model",),
    "Whether a served model answers requests.",
)
MODEL_ACCURACY = Metric(
    "rootserve_model_accuracy_ratio",
    Kind.GAUGE,
    "ratio",
    ("model",),
    "Top-1 accuracy of the served weights on the test set; missing if they are untrained.",
)
MODEL_PARAMS = Metric(
    "rootserve_model_params", Kind.GAUGE, "parameters", ("model",), "Parameters of a served model."
)
MODEL_MACS = Metric(
    "rootserve_model_macs",
    Kind.GAUGE,
    "multiply-accumulates",
    ("model",),
    "Multiply-accumulates of a served model, per image.",
)

MODEL_WEIGHTS = Metric(
    "rootserve_model_weights",
    Kind.INFO,
    "1",
    ("model", "version", "weights"),
    "Which weights of a served model are live.",
)
MODEL_GENERATION = Metric(
    "rootserve_model_generation",
    Kind.GAUGE,
    "loads",
    ("model",),
    "How often a served model was loaded; it changes when other weights become live.",
)

MODEL_LOADS = Metric(
    "rootserve_model_loads",
    Kind.COUNTER,
    "loads",
    ("model", "outcome"),
    "Loads of a model that callers asked for.",
)

# Analysis.
ANALYSIS_JOBS = Metric(
    "rootserve_analysis_jobs", Kind.GAUGE, "jobs", (), "Analysis jobs under way."
)
ANALYSIS_IMAGES = Metric(
    "rootserve_analysis_images",
    Kind.COUNTER,
    "images",
    ("model",),
    "Images that analysis jobs have computed; its rate is the rate of the analysis.",
)

ANALYSES = Metric(
    "rootserve_analyses",
    Kind.COUNTER,
    "jobs",
    ("model", "outcome"),
    "Analysis jobs that are over.",
)

# GPUs: only where NVML is installed and finds one.
_GPU_LABELS = ("gpu", "gpu_uuid", "gpu_name")
GPU_UTILIZATION = Metric(
    "rootserve_gpu_utilization_ratio",
    Kind.GAUGE,
    "ratio",
    _GPU_LABELS,
    "Share of time in which a GPU computed, 0 to 1.",
)
GPU_MEMORY_USED = Metric(
    "rootserve_gpu_memory_used_bytes", Kind.GAUGE, "bytes", _GPU_LABELS, "GPU memory in use."
)
GPU_MEMORY_TOTAL = Metric(
    "rootserve_gpu_memory_total_bytes", Kind.GAUGE, "bytes", _GPU_LABELS, "GPU memory there is."
)
GPU_POWER = Metric(
    "rootserve_gpu_power_watts", Kind.GAUGE, "watts", _GPU_LABELS, "Power a GPU draws."
)


def _as_triton_names(name: str, metric: Metric) -> Metric:
    """What ``perf_analyzer --collect-metrics`` looks for."""
    text = f"As {metric.name}, under Triton's name."
    return Metric(name, metric.kind, metric.unit, ("gpu_uuid",), text)


NV_UTILIZATION = _as_triton_names("nv_gpu_utilization", GPU_UTILIZATION)
NV_MEMORY_USED = _as_triton_names("nv_gpu_memory_used_bytes", GPU_MEMORY_USED)
NV_MEMORY_TOTAL = _as_triton_names("nv_gpu_memory_total_bytes", GPU_MEMORY_TOTAL)
NV_POWER = _as_triton_names("nv_gpu_power_usage", GPU_POWER)

# The server as a whole.
BUILD = Metric("rootserve_build", Kind.INFO, "1", ("version",), "Which server this is.")
SERVING = Metric(
    "rootserve_serving",
    Kind.GAUGE,
    "1 or 0",
    (),
    "Whether health says SERVING: every model is ready and the server is not shutting down.",
)

SECTIONS: Mapping[str, tuple[Metric, ...]] = {
    "Requests": (
        REQUEST,
        QUEUE,
        BATCH_WAIT,
        COMPUTE,
        ROWS,
        REFUSALS,
        DEADLINE_MISSES,
        RECEIVED,
        SENT,
    ),
    "Deadlines and accuracy": (OFFERED, ACCURACY_IN_TIME, VARIANT_ANSWERS, PREDICTION),
    "Queue and batches": (
        BATCH_ROWS,
        BATCHES_BESIDE,
        BATCH_LIMIT,
        ROWS_QUEUED,
        BACKLOG,
        QUEUE_LIMIT,
        ROWS_IN_FLIGHT,
    ),
    "Workers": (WORKER_UP, WORKER_RESTARTS, WORKER_BUSY, WORKER_CPU, WORKER_MEMORY),
    "Models": (
        MODEL_INFO,
        MODEL_READY,
        MODEL_WEIGHTS,
        MODEL_GENERATION,
        MODEL_LOADS,
        MODEL_ACCURACY,
        MODEL_PARAMS,
        MODEL_MACS,
    ),
    "Analysis": (ANALYSIS_JOBS, ANALYSIS_IMAGES, ANALYSES),
    "GPUs": (
        GPU_UTILIZATION,
        GPU_MEMORY_USED,
        GPU_MEMORY_TOTAL,
        GPU_POWER,
        NV_UTILIZATION,
        NV_MEMORY_USED,
        NV_MEMORY_TOTAL,
        NV_POWER,
    ),
    "Server": (BUILD, SERVING),
}
"""The whole catalogue, in the order of the documentation."""

CATALOG: tuple[Metric, ...] = tuple(metric for section in SECTIONS.values() for metric in section)

PROCESS_METRICS: Mapping[str, str] = {
    "process_cpu_seconds_total": "processor time of the front process",
    "process_resident_memory_bytes": "its resident memory",
    "process_virtual_memory_bytes": "its virtual memory",
    "process_start_time_seconds": "when it started, Unix time",
    "process_open_fds": "its open file descriptors",
    "process_max_fds": "how many it may have",
    "python_info": "the Python that runs it",
    "python_gc_collections_total": "garbage collections, by generation",
    "python_gc_objects_collected_total": "objects they freed",
    "python_gc_objects_uncollectable_total": "objects they could not free",
}
"""What prometheus_client tells of the front process."""
