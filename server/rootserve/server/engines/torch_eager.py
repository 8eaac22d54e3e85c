"""Engine ``torch``: eager PyTorch, batch normalisation folded, channels-last; CPU or CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from rootmodels.network import Network
from rootserve.server.engines.base import Engine, EngineError, Images, LoadSpec, Precision


def build_module(spec: LoadSpec) -> Network:
    """The folded module of ``spec`` on the CPU, in fp32.

    Raises:
        WeightsError: if the weights cannot be used.
    """
    return Network.from_folded(spec.network())


class TorchEngine(Engine):
    """One module on one device; bf16 by autocast, with the weights kept in fp32."""

    name = "torch"

    def __init__(self, module: Network, device: torch.device, precision: Precision) -> None:
        self.module = module.to(device)
        self.device = device
        self.precision = precision

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Without gradients, and in the engine's precision."""
        reduced = self.precision == "bf16"
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=reduced),
        ):
            yield

    @override
    def run(self, images: Images) -> NDArray[np.float32]:
        with self.computing():
            logits = self.module(torch.from_numpy(images).to(self.device, non_blocking=True))
            result: NDArray[np.float32] = logits.float().cpu().numpy()
            return result


def load(spec: LoadSpec) -> TorchEngine:
    """Load ``spec`` with PyTorch.

    Raises:
        EngineError: if the device is not there, or does not compute in the precision asked for.
        WeightsError: if the weights cannot be used.
    """
    use_device(spec)
    return TorchEngine(build_module(spec), torch.device(spec.device), spec.precision)


def use_device(spec: LoadSpec) -> None:
    """Have this process compute on the device of ``spec``, with its number of threads.

    Raises:
        EngineError: if the device is not there, or is a processor that does not compute in the precision.
    """
    spec.check_processor()
    device = torch.device(spec.device)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise EngineError(f"there is no device {spec.device}: torch sees {count} CUDA devices")
        # fp32 means fp32: TF32 would round the inputs of every product to 10 bits.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(spec.threads)
