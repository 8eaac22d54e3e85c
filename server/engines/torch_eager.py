"""Engine ``torch``: eager PyTorch in fp32, batch normalisation folded, channels-last; CPU or CUDA."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from rootmodels.nin import NetworkInNetwork
from rootmodels.variants import get_variant
from rootmodels.weights import load_weights
from server.engines.base import EngineError, Images, LoadSpec


def build_module(spec: LoadSpec) -> NetworkInNetwork:
    """The folded module of ``spec`` on the CPU; with He initialisation where weights are missing."""
    if spec.weights is None:
        torch.manual_seed(0)
        return NetworkInNetwork(get_variant(spec.model)).fold()
    model, info = load_weights(spec.weights)
    if info.variant != spec.model:
        raise EngineError(f"{spec.weights} holds weights of {info.variant}, not of {spec.model}")
    return model.fold()


class TorchEngine:
    """One module on one device."""

    name = "torch"
    precision = "fp32"

    def __init__(self, module: NetworkInNetwork, device: torch.device) -> None:
        self._module = module.to(device)
        self._device = device

    def run(self, images: Images) -> NDArray[np.float32]:
        """See :class:`server.engines.base.Engine`."""
        with torch.inference_mode():
            logits = self._module(torch.from_numpy(images).to(self._device, non_blocking=True))
            result: NDArray[np.float32] = logits.cpu().numpy()
            return result


def load(spec: LoadSpec) -> TorchEngine:
    """Load ``spec`` with PyTorch.

    Raises:
        EngineError: if the device is not there.
    """
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
    return TorchEngine(build_module(spec), device)
