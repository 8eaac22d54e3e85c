"""Engine ``cuda-graphs``: PyTorch on a GPU, each batch size captured as a CUDA graph; fp32, bf16 or fp16.

A small network's kernels are over sooner than Python launches the next one: a graph launches all at once.
Batches are filled up to the next power of two; each of those has its graph, made when it is first needed, and
its own pinned memory. A large batch goes in halves: one is copied while the other computes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from rootmodels.network import Network
from rootserve.server.engines.base import Engine, EngineError, Images, LoadSpec, Precision
from rootserve.server.engines.torch_eager import use_device

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
HALVED_BYTES = 1 << 20
"""Batches from this size on are copied in halves: that takes some 40 us on a GPU's link, a launch 10."""
_WARM_UP_RUNS = 3
"""Before a capture: cuDNN chooses its kernels in the first runs."""


def bucket(rows: int) -> int:
    """The size of the graph that computes ``rows``: the next power of two."""
    return 1 << (rows - 1).bit_length()


def parts(rows: int, row_bytes: int) -> list[slice]:
    """The batch as a whole, or its halves if it is large."""
    if rows < 2 or rows * row_bytes < HALVED_BYTES:
        return [slice(0, rows)]
    middle = bucket(rows) // 2
    return [slice(0, middle), slice(middle, rows)]


def timing_events() -> tuple[torch.cuda.Event, torch.cuda.Event]:
    """Two events between which time is measured."""
    first, last = (
        torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        for _ in range(2)
    )
    return first, last


class ReducedNetwork(Network):
    """Normalises in fp32, whose digits pixels less their mean need, and computes in its weights' type."""

    @override
    def normalise(self, images: Tensor) -> Tensor:
        dtype = next(self.parameters()).dtype
        return super().normalise(images).to(dtype)

    def reduce(self, device: torch.device, dtype: torch.dtype) -> ReducedNetwork:
        """Move to ``device`` with weights of type ``dtype``; in place."""
        mean, std = self.mean, self.std
        self.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean, self.std = mean.to(device), std.to(device)
        return self


class _Graph:
    """A captured batch size: what the GPU reads and writes, and the pinned memory before and behind it."""

    def __init__(self, module: Network, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        device = module.mean.device
        self._pinned = torch.zeros(shape, dtype=dtype, pin_memory=True)
        self._images = torch.zeros(shape, dtype=dtype, device=device)
        self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # What filled the buffers ran on another stream.
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP_RUNS):
                module(self._images)
        self._stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # Of this thread only: another one may be computing with what runs.
        with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
            self._logits = module(self._images).float()
        self._answer = torch.zeros(self._logits.shape, pin_memory=True)

    def start(self, images: Images) -> None:
        """Copy, compute and copy back, without waiting. What is beyond ``images`` stays from before."""
        self._pinned[: len(images)].numpy()[...] = images
        with torch.cuda.stream(self._stream):
            self._images.copy_(self._pinned, non_blocking=True)
            self._graph.replay()
            self._answer.copy_(self._logits, non_blocking=True)
            self._ready.record()

    def device_s(self, times: int) -> float:
        """Seconds of one batch on the device, without the copies: the mean of ``times`` in a row."""
        began, ended = timing_events()
        with torch.cuda.stream(self._stream):
            self._graph.replay()
            began.record()
            for _ in range(times):
                self._graph.replay()
            ended.record()
        ended.synchronize()
        return float(began.elapsed_time(ended)) / 1e3 / times

    def finish(self, rows: int) -> NDArray[np.float32]:
        """Wait for the logits of the ``rows`` images that were started; the next start overwrites them."""
        self._ready.synchronize()
        result: NDArray[np.float32] = self._answer[:rows].numpy()
        return result


class CudaGraphsEngine(Engine):
    """One module, and a graph for each size and type of batch that came."""

    name = "cuda-graphs"

    def __init__(self, module: Network, precision: Precision) -> None:
        self._module = module
        self._graphs: dict[tuple[int, int, np.dtype[np.generic]], _Graph] = {}
        self.precision = precision

    @override
    def run(self, images: Images) -> NDArray[np.float32]:
        started = []
        with torch.inference_mode():
            for half, part in enumerate(parts(len(images), images[0].nbytes)):
                graph = self._graph(half, images[part])
                graph.start(images[part])
                started.append((graph, part.stop - part.start))
            return np.concatenate([graph.finish(rows) for graph, rows in started])

    def device_s(self, images: Images, times: int) -> float:
        """Seconds that a batch like ``images`` takes on the device, without the copies."""
        with torch.inference_mode():
            return self._graph(0, images).device_s(times)

    def _graph(self, half: int, images: Images) -> _Graph:
        """Each half has its own: both may be under way."""
        key = (half, bucket(len(images)), images.dtype)
        if key not in self._graphs:
            shape = (bucket(len(images)), *images.shape[1:])
            dtype = torch.uint8 if images.dtype == np.uint8 else torch.float32
            self._graphs[key] = _Graph(self._module, shape, dtype)
        return self._graphs[key]


def load(spec: LoadSpec) -> CudaGraphsEngine:
    """Load ``spec`` on its GPU; graphs are captured when a batch of their size first comes.

    Raises:
        EngineError: if the device is no GPU, is not there or does not compute in the precision.
        WeightsError: if the weights cannot be used.
    """
    return CudaGraphsEngine(load_module(spec, ReducedNetwork), spec.precision)


def load_module(spec: LoadSpec, kind: type[ReducedNetwork]) -> ReducedNetwork:
    """The module of ``spec`` on its GPU, as a ``kind``; raises as :func:`load` does."""
    device = torch.device(spec.device)
    if device.type != "cuda":
        raise EngineError(f"engine cuda-graphs runs on a GPU, not on {spec.device}; use openvino")
    use_device(spec)
    # Each size of batch is computed three times before it is captured: time to try cuDNN's kernels.
    torch.backends.cudnn.benchmark = True
    if spec.precision == "bf16" and not torch.cuda.is_bf16_supported():
        raise EngineError(f"{spec.device} does not compute in bf16; use precision fp32 or fp16")
    module = kind.from_folded(spec.network())
    assert isinstance(module, ReducedNetwork)
    return module.reduce(device, DTYPES[spec.precision])
