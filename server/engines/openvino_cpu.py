"""Engine ``openvino``: the folded module compiled by OpenVINO for the CPU, in fp32."""

from __future__ import annotations

import warnings

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray

from server.engines.base import EngineError, Images, LoadSpec
from server.engines.torch_eager import build_module


class OpenVinoEngine:
    """One compiled model with its own inference request."""

    name = "openvino"
    precision = "fp32"

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self._request = compiled.create_infer_request()

    def run(self, images: Images) -> NDArray[np.float32]:
        """See :class:`server.engines.base.Engine`."""
        results = self._request.infer([images.astype(np.float32)], share_inputs=True)
        logits: NDArray[np.float32] = results[0]
        return logits


def load(spec: LoadSpec) -> OpenVinoEngine:
    """Convert and compile ``spec``; the batch dimension stays open.

    Raises:
        EngineError: if the device is not a CPU.
    """
    if spec.device != "cpu":
        raise EngineError(f"engine openvino runs on the cpu, not on {spec.device}; use torch")
    module = build_module(spec)
    example = torch.zeros(2, 3, 32, 32)
    open_rows = ({0: torch.export.Dim("rows", min=1)},)
    with warnings.catch_warnings():
        # OpenVINO 2026.4 copies an exported program in a way that torch 2.13 deprecates.
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.export.export(module, (example,), dynamic_shapes=open_rows)
        model = ov.convert_model(program)
    model.reshape({0: ov.PartialShape([-1, 3, 32, 32])})
    options = {
        # Without this, OpenVINO computes in bf16 on processors that can.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": spec.threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    return OpenVinoEngine(ov.Core().compile_model(model, "CPU", options))
