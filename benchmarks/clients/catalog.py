"""Which clients there are, and what each is asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.clients.cat import MODEL


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, as people would type it in the repository.

    ``{address}`` and ``{other}`` stand for the servers, ``{work}`` for a folder with the picture: its 3,072
    bytes are ``data/images``, and ``cat.json`` is a request. ``< FILE`` at its end gives it an input.
    """

    line: str
    expected: str = ""
    """A pattern that what it prints must have, where the exit status alone would say little."""
    shown: str = ""
    """A pattern of the lines that a reader wants to see; all of them if empty."""


@dataclass(frozen=True, slots=True)
class Client:
    """One row of the table, and one transcript."""

    name: str
    environment: str
    version: str
    called: str
    commands: tuple[Command, ...]


def _installed(package: str) -> str:
    return f'python -c "from importlib.metadata import version; print(version({package!r}))"'


def _script(name: str, addresses: str = "{address}") -> tuple[Command, ...]:
    return (Command(f"python benchmarks/clients/{name}.py {addresses}"),)


_PERF_ANALYZER = f"perf_analyzer -m {MODEL} -u {{address}} -i grpc --concurrency-range 4"
_SHORT = "--measurement-interval 1000 --stability-percentage 999"
_INFERENCE = "inference.GRPCInferenceService"


def _perf_analyzer(options: str) -> Command:
    return Command(
        " ".join(f"{_PERF_ANALYZER} {_SHORT} {options}".split()),
        r"throughput: [1-9]",
        r"^ +Request count|^Concurrency:",
    )


def _grpcurl(what: str, expected: str, shown: str = "") -> Command:
    return Command(f"grpcurl -plaintext {what}", expected, shown)


CLIENTS = (
    Client(
        "tritonclient.grpc",
        "triton",
        _installed("tritonclient"),
        "health, metadata, configuration, statistics, index, `infer`, gzip, `async_infer`",
        _script("triton_sync"),
    ),
    Client(
        "tritonclient.grpc.aio",
        "triton",
        _installed("tritonclient"),
        "100 calls side by side, `stream_infer`, a time limit",
        _script("triton_aio"),
    ),
    Client(
        "tritonclient's streams",
        "triton",
        _installed("tritonclient"),
        "`start_stream`, `async_stream_infer`, final answers, `triton_grpc_error`",
        _script("triton_stream"),
    ),
    Client(
        "tritonclient's shared memory",
        "triton",
        _installed("tritonclient"),
        "system regions for images and logits, their status",
        _script("triton_shared_memory"),
    ),
    Client(
        "The calls of Triton's image clients",
        "triton",
        _installed("tritonclient"),
        "all is read from metadata and configuration; `class_count`",
        _script("classes"),
    ),
    Client(
        "KServe's InferenceGRPCClient",
        "kserve",
        _installed("kserve"),
        "health, typed and raw contents",
        _script("kserve_client"),
    ),
    Client(
        "MLServer's types and converters",
        "mlserver",
        _installed("mlserver"),
        "metadata, typed and raw contents",
        _script("mlserver_client"),
    ),
    Client(
        "PyTriton's clients",
        "pytriton",
        _installed("nvidia-pytriton"),
        "`ModelClient`, `FuturesModelClient`, `AsyncioModelClient`",
        _script("pytriton_client"),
    ),
    Client(
        "perf_analyzer",
        "perf_analyzer",
        _installed("perf-analyzer"),
        "unary, `--streaming`, `--shared-memory system`, `--input-data` of a folder, batches",
        (
            _perf_analyzer(""),
            _perf_analyzer("--streaming --async"),
            _perf_analyzer("--shared-memory system"),
            _perf_analyzer("--input-data {work}/data"),
            _perf_analyzer("-b 8 --shared-memory system --input-data {work}/data"),
        ),
    ),
    Client(
        "Locust",
        "locust",
        _installed("locust"),
        "eight gRPC users for five seconds",
        (
            Command(
                "locust -f benchmarks/clients/locust_user.py --headless --users 8 --spawn-rate 8 "
                "--run-time 5s --only-summary --host {address}",
                r"ModelInfer +\d+ +0\(0.00%\)",
                r"^Type.*req/s|^grpc.*%\)",
            ),
        ),
    ),
    Client(
        "grpcurl",
        "grpcurl",
        "grpcurl -version",
        "reflection, health, metadata, inference",
        (
            _grpcurl("{address} list", _INFERENCE),
            _grpcurl(f"{{address}} describe {_INFERENCE}.ModelInfer", "ModelInferRequest"),
            _grpcurl("{address} grpc.health.v1.Health/Check", "SERVING"),
            _grpcurl(
                f'-d \'{{{{"name": "{MODEL}"}}}}\' {{address}} {_INFERENCE}/ModelReady', "true"
            ),
            _grpcurl(
                f"-d @ {{address}} {_INFERENCE}/ModelInfer < {{work}}/cat.json",
                "raw_output_contents",
                r"model_name|\"id\"|name|raw_output_contents|==\"",
            ),
        ),
    ),
    Client(
        "grpc-js (Node.js)",
        "node",
        "node -p \"require('@grpc/grpc-js/package.json').version\"",
        "reflection, `ModelInfer` of a PNG file, a stream",
        (Command("node benchmarks/clients/node_client.js {address}"),),
    ),
    Client(
        "grpcio with `healthCheckConfig`",
        "triton",
        _installed("grpcio"),
        "round_robin over two servers, one of which unloads its model and loads it again",
        _script("health_config", "{address} {other}"),
    ),
    Client(
        "grpc_health_probe",
        "probe",
        "grpc_health_probe -version",
        "health of the server and of a model",
        (
            Command("grpc_health_probe -addr {address}", "SERVING"),
            Command(f"grpc_health_probe -addr {{address}} -service {MODEL}", "SERVING"),
        ),
    ),
)
