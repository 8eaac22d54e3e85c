"""Locust's users speak gRPC through gevent.

locust -f benchmarks/clients/locust_user.py --headless --users 8 --spawn-rate 8 --run-time 5s --host ADDRESS
"""

from __future__ import annotations

import time

import grpc
import grpc.experimental.gevent as grpc_gevent
from cat import CLASS, MODEL, pixels
from locust import User, task
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

grpc_gevent.init_gevent()


class Classifier(User):
    """Asks again as soon as it is answered; all users share a connection."""

    def on_start(self) -> None:
        """Prepare what is sent."""
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(self.host))
        self.request = oip.ModelInferRequest(model_name=MODEL)
        self.request.inputs.add(name="images", datatype="UINT8", shape=(1, 3, 32, 32))
        self.request.outputs.add(name="logits").parameters["classification"].int64_param = 1
        self.request.raw_input_contents.append(pixels().tobytes())

    @task
    def classify(self) -> None:
        """One image; an answer that is no cat is a failure."""
        began_s, error, length = time.perf_counter(), None, 0
        try:
            answer = self.stub.ModelInfer(self.request, timeout=10)
            length = answer.ByteSize()
            if f":{CLASS}:cat".encode() not in answer.raw_output_contents[0]:
                error = ValueError(f"{answer.raw_output_contents[0]!r} came, expected a cat")
        except grpc.RpcError as refused:
            error = refused
        self.environment.events.request.fire(
            request_type="grpc",
            name="ModelInfer",
            response_time=1000 * (time.perf_counter() - began_s),
            response_length=length,
            exception=error,
        )
