"""A little load of every kind, answered and not, from a thread of its own."""

from __future__ import annotations

import itertools
import threading
from typing import Self

import grpc
from tritonclient.grpc import service_pb2 as oip

from tests.support.server_process import ServerProcess, infer_request, plain_images


class MixedLoad:
    """A context in which requests of every kind are sent to ``models``, one after the other."""

    def __init__(self, server: ServerProcess, models: tuple[str, ...]) -> None:
        self._stub = server.stub
        self._models = models
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.answered = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _send(self) -> None:
        for turn, model in enumerate(itertools.cycle(self._models)):
            if self._stop.wait(0.005):
                return
            self._ask(infer_request(model, plain_images(1 + turn % 4)))
            if turn % 10 == 0:
                self._ask(infer_request(model, plain_images(33)))
                self._ask(infer_request("a-name-a-caller-made-up", plain_images(1)))
                for deadline_us in (1, 30_000_000):
                    timed = infer_request(model, plain_images(1))
                    timed.parameters["timeout"].int64_param = deadline_us
                    self._ask(timed)

    def _ask(self, request: oip.ModelInferRequest) -> None:
        try:
            self._stub.ModelInfer(request, timeout=30)
        except grpc.RpcError:
            return
        self.answered += 1
