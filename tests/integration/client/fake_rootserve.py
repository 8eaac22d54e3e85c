"""A server whose answers one can compute: class n for a picture whose first byte is n."""

import io
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import grpc
import numpy as np
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc

from rootserve.v1 import catalog_pb2, catalog_pb2_grpc

CLASSES = [f"label-{n}" for n in range(10)]
QUEUE_S, BATCH_WAIT_S, COMPUTE_S, TOTAL_S = 0.0001, 0.0002, 0.0003, 0.0007
BATCH_ROWS = 8
WEIGHTS = "3fa8b2c41d0e" + "0" * 52


class FakeRootserve(
    service_pb2_grpc.GRPCInferenceServiceServicer,
    catalog_pb2_grpc.CatalogServiceServicer,
    health_pb2_grpc.HealthServicer,
):
    """Listens on a free port of the loopback.

    Threads and not asyncio, because the command line under test brings its own event loop and
    gRPC wants one of them per process.
    """

    def __init__(self) -> None:
        self.health = "SERVING"
        self.fail: Callable[[int], grpc.StatusCode | None] = lambda _: None
        self.words = "as the test wishes\nin two lines"
        self.delay_s = 0.0
        self.one_at_a_time = False
        self.has_catalog = True
        self.has_timeline = True
        self.retry_after_s: float | None = None
        self.reason = ""
        self.chosen: tuple[str, float] | None = None
        self.served = {"nin-orig"}
        self.batch_limits = {"nin-orig": BATCH_ROWS, "nin-root-4": 0}
        self.of_root_4: dict[str, object] = {}
        self.requests: list[service_pb2.ModelInferRequest] = []
        self._turn = threading.Lock()
        self._server = grpc.server(
            ThreadPoolExecutor(64),
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)],
        )
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        catalog_pb2_grpc.add_CatalogServiceServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> "FakeRootserve":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=None).wait()

    def ModelInfer(self, request, context):  # noqa: N802
        self.requests.append(request)
        number = len(self.requests) - 1
        if request.model_name not in self.served:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model '{request.model_name}'")
        with self._turn if self.one_at_a_time else nullcontext():
            time.sleep(self.delay_s)
        if code := self.fail(number):
            if self.retry_after_s is not None or self.reason:
                status = status_pb2.Status(code=code.value[0])
                delay = duration_pb2.Duration(nanos=round((self.retry_after_s or 0.0) * 1e9))
                status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
                if self.reason:
                    info = error_details_pb2.ErrorInfo(domain="rootserve", reason=self.reason)
                    status.details.add().Pack(info)
                details = ("grpc-status-details-bin", status.SerializeToString())
                context.set_trailing_metadata((details,))
            context.abort(code, self.words)
        return self._answer(request)

    def _answer(self, request):
        images = _images(request)
        logits = np.zeros((len(images), 10), np.float32)
        logits[np.arange(len(images)), images[:, 0, 0, 0] % 10] = 3.0
        powers = np.exp(logits)
        outputs = {"logits": logits, "probabilities": powers / powers.sum(1, keepdims=True)}
        response = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
        for name in [output.name for output in request.outputs] or ["logits"]:
            response.outputs.add(name=name, datatype="FP32", shape=outputs[name].shape)
            response.raw_output_contents.append(outputs[name].tobytes())
        if self.has_timeline:
            for name, seconds in (
                ("queue_ns", QUEUE_S),
                ("batch_wait_ns", BATCH_WAIT_S),
                ("compute_ns", COMPUTE_S),
                ("total_ns", TOTAL_S),
            ):
                response.parameters[name].int64_param = round(seconds * 1e9)
            response.parameters["batch_rows"].int64_param = BATCH_ROWS
            told = (
                ("worker", "cpu-0"),
                ("engine", "fake"),
                ("precision", "fp32"),
                ("weights", WEIGHTS[:12]),
            )
            response.parameters["generation"].int64_param = 2
            for name, text in told:
                response.parameters[name].string_param = text
        if self.chosen is not None:
            variant, accuracy = self.chosen
            response.parameters["variant"].string_param = variant
            response.parameters["accuracy"].double_param = accuracy
        return response

    def ListModels(self, request, context):  # noqa: N802
        if not self.has_catalog:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such service")
        return catalog_pb2.ListModelsResponse(
            models=[
                catalog_pb2.Model(
                    name="nin-orig",
                    family="nin",
                    topology="orig",
                    params=966_986,
                    macs=222_496_000,
                    flops_paper=222_600_000,
                    accuracy=0.9125,
                    trained=True,
                    engine="fake",
                    precision="fp32",
                    state=catalog_pb2.MODEL_STATE_READY,
                    image_size=32,
                    classes=CLASSES,
                    paper=catalog_pb2.PaperFigures(accuracy=0.9211, cpu_ms=39.0, gpu_ms=0.623),
                    batch_rows=self.batch_limits["nin-orig"],
                    version="2",
                    weights_sha256=WEIGHTS,
                    generation=2,
                ),
                catalog_pb2.Model(
                    name="nin-root-4",
                    family="nin",
                    topology="root",
                    params=700_000,
                    macs=150_000_000,
                    flops_paper=150_100_000,
                    state=catalog_pb2.MODEL_STATE_READY
                    if "nin-root-4" in self.served
                    else catalog_pb2.MODEL_STATE_UNLOADED,
                    image_size=32,
                    classes=CLASSES,
                    batch_rows=self.batch_limits["nin-root-4"],
                    **self.of_root_4,
                ),
                catalog_pb2.Model(
                    name="nin-root-8",
                    family="nin",
                    topology="root",
                    state=catalog_pb2.MODEL_STATE_FAILED,
                    state_reason="weights [do not] fit",
                    image_size=32,
                ),
            ]
        )

    def GetServerInfo(self, request, context):  # noqa: N802
        if not self.has_catalog:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such service")
        info = catalog_pb2.GetServerInfoResponse(
            version="9.8.7",
            platform="Testland",
            cpu="Abacus",
            cpu_count=2,
            libraries={"torch": "2", "grpcio": "1"},
            max_batch_rows=64,
            max_delay_us=500,
            max_queue_rows=512,
            workers=[
                catalog_pb2.Worker(
                    name="cpu-0", device="cpu", threads=2, pid=4, ready=True, device_name="Abacus"
                )
            ],
        )
        info.started_at.FromSeconds(0)
        return info

    def Check(self, request, context):  # noqa: N802
        if request.service == "nin-orig":
            return health_pb2.HealthCheckResponse(status="SERVING")
        if request.service:
            return health_pb2.HealthCheckResponse(status="NOT_SERVING")
        return health_pb2.HealthCheckResponse(status=self.health)


def _images(request):
    """Pixels [N, 3, H, W], whichever way they came."""
    content = request.raw_input_contents[0]
    if request.inputs[0].name == "images":
        return np.frombuffer(content, np.uint8).reshape(request.inputs[0].shape)
    images = []
    while content:
        (length,) = struct.unpack_from("<I", content)
        with Image.open(io.BytesIO(content[4 : 4 + length])) as picture:
            images.append(np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
        content = content[4 + length :]
    assert len(images) == request.inputs[0].shape[0]
    return np.stack(images)
