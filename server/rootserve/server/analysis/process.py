"""An analysis process: sums chunks of images, derives results, times layers; yields to whatever else runs.

It is in the kernel's idle scheduling class (:mod:`rootserve.server.analysis.launch`): the service and
anything else on the machine takes the processors from it at once. While a worker computes a batch the
service stops it altogether. So it needs neither to watch for inference nor to be told of it.
"""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from rootmodels.analysis.derived import Kind, derive
from rootmodels.analysis.errors import AnalysisError
from rootmodels.analysis.layers import Stage, analysable_layers
from rootmodels.analysis.sums import Sums
from rootmodels.layer import Layer
from rootmodels.weights_info import WeightsError, file_sha256
from rootserve.pictures import DataError
from rootserve.server.analysis import derived, messages
from rootserve.server.datagram import MAX_BYTES
from rootserve.server.engines.base import LoadSpec, Precision
from rootserve.server.engines.profiling import measure
from rootserve.server.engines.registry import get_profiler_loader
from rootserve.server.workers.child import leave_ending_to_the_service
from rootserve.server.workers.memory import SlotLayout, SlotMemory

_Loaded = TypeVar("_Loaded")


@dataclass(slots=True)
class _Job:
    begin: messages.Begin
    memory: SlotMemory
    network: _Network | None = None
    dataset: object = None


class _Network:
    """A loaded network and what its weights are. Imports torch, which deriving alone does not need."""

    def __init__(self, spec: LoadSpec) -> None:
        import torch  # noqa: PLC0415 - see above

        from rootserve.server.engines.torch_eager import build_module  # noqa: PLC0415

        if spec.device == "cpu":
            torch.set_num_threads(spec.threads)
        else:
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
        module, self.weights_sha256 = _hashed(spec, build_module)
        self.module = module.to(spec.device)


class AnalysisProcess:
    """The loop of one analysis process."""

    def __init__(self, device: str, threads: int, link: socket.socket) -> None:
        self._device = device
        self._threads = threads
        self._link = link
        self._jobs: dict[int, _Job] = {}

    def serve(self) -> None:
        """Obey messages until the other end is closed."""
        while True:
            datagram, descriptors, _, _ = socket.recv_fds(self._link, MAX_BYTES, 1)
            if not datagram:
                return
            match messages.decode(datagram):
                case messages.Begin() as begin:
                    layout = SlotLayout(1, begin.input_bytes, begin.output_bytes)
                    self._jobs[begin.job] = _Job(begin, SlotMemory(layout, descriptors[0]))
                    os.close(descriptors[0])
                case messages.End(job):
                    del self._jobs[job]
                case other:
                    self._link.send(messages.encode(self._answer(other)))

    def _answer(self, request: messages.Message) -> messages.Reply:
        job = self._jobs[request.job]
        try:
            return self._compute(job, request)
        except (AnalysisError, DataError) as error:
            return _failed(job, str(error), "request")
        except WeightsError as error:
            return _failed(job, str(error), "weights")
        except ModuleNotFoundError as error:
            text = f"the service is installed without {error.name}; install rootserve[server]"
            return _failed(job, text, "installation")
        except Exception as error:  # noqa: BLE001 - the service must be told, whatever it is
            return _failed(job, f"{type(error).__name__}: {error}", "service")

    def _compute(self, job: _Job, request: messages.Message) -> messages.Reply:
        match request:
            case messages.Images(_, rows, height, width):
                view = job.memory.input_view(0, 0, rows * 3 * height * width, np.uint8)
                # Copied: torch does not take memory that may not be written.
                return self._sum(job, view.reshape(rows, 3, height, width).astype(np.uint8))
            case messages.DatasetImages() as wanted:
                return self._sum(job, _read(job, wanted))
            case messages.Derive(_, kinds, tolerance):
                return _derive(job, {Kind(kind) for kind in kinds}, tolerance)
            case _:
                return self._inspect(job, request)

    def _inspect(self, job: _Job, request: messages.Message) -> messages.Reply:
        match request:
            case messages.Profile(number, engine, precision, rows, image):
                return _profile(number, self._spec(job.begin, precision), engine, (rows, *image))
            case messages.Filters(_, layer):
                return _filters(job, self._spec(job.begin), layer)
            case other:
                raise AssertionError(f"an analysis process is not asked {other}")

    def _spec(self, begin: messages.Begin, precision: Precision = "fp32") -> LoadSpec:
        weights = None if begin.weights is None else Path(begin.weights)
        return LoadSpec(begin.model, weights, self._device, self._threads, precision)

    def _sum(
        self, job: _Job, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    ) -> messages.Summed:
        from rootmodels.analysis.capture import Capture  # noqa: PLC0415 - imports torch

        begin = job.begin
        if job.network is None:
            job.network = _Network(self._spec(begin))
            _check_plan(begin, job.network.module.layers)
        capture = Capture(job.network.module, begin.plan, Stage(begin.stage))
        capture.add(images)
        sums = capture.sums()
        _check_finite(sums)
        job.memory.write_output(0, np.frombuffer(sums.to_bytes(), np.uint8))
        return messages.Summed(begin.job, job.network.weights_sha256)


def _failed(job: _Job, text: str, fault: messages.Fault) -> messages.Failed:
    return messages.Failed(job.begin.job, " ".join(text.split())[:2000], fault)


def _check_plan(begin: messages.Begin, layers: Iterable[Layer]) -> None:
    """Refuse weights that make another network than the one the analysis is planned for.

    Raises:
        WeightsError: naming the first layer that is another.
    """
    found = {shape.name: shape for shape in analysable_layers(layers)}
    for shape in begin.plan.layers:
        if found.get(shape.name) != shape:
            raise WeightsError(
                f"{begin.weights} was replaced by weights for other images: {shape.name} would be "
                f"{found.get(shape.name)}, expected {shape}; load the model again, or restart the service"
            )


def _check_finite(sums: Sums) -> None:
    """Refuse sums of which nothing can be derived.

    Raises:
        AnalysisError: naming the first layer whose responses, or their products, are too large.
    """
    for name, moments in sums.layers.items():
        if not (np.isfinite(moments.mean_rows).all() and np.isfinite(moments.scatter).all()):
            raise AnalysisError(
                f"the responses of {name} overflow float32: its sums are not finite; "
                "expected weights that keep them smaller"
            )
    for (first, second), moments in sums.pairs.items():
        if not np.isfinite(moments.scatter).all():
            raise AnalysisError(f"the products of {first} and {second} overflow float32")


def _read(
    job: _Job, wanted: messages.DatasetImages
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Images of a data set.

    Raises:
        DataError: if they cannot be read, or are not those that the service found when it started.
    """
    from rootmodels.parquet_images import ParquetImages  # noqa: PLC0415 - only data sets need it

    size = wanted.height, wanted.width
    if not isinstance(job.dataset, ParquetImages):
        job.dataset = ParquetImages(Path(wanted.path), max_pixels=wanted.height * wanted.width)
    if job.dataset.size != size:
        raise DataError(
            f"the images of {wanted.path} are {job.dataset.size}, expected {size[0]}x{size[1]} as when the "
            "service started; restart it"
        )
    return job.dataset.read(wanted.start, wanted.rows)


def _derive(job: _Job, kinds: set[Kind], tolerance: float) -> messages.Derived:
    plan = job.begin.plan
    data = job.memory.input_view(0, 0, Sums.byte_size(plan), np.uint8)
    result = derived.to_bytes(derive(Sums.from_bytes(plan, data.tobytes()), kinds, tolerance))
    job.memory.write_output(0, np.frombuffer(result, np.uint8))
    return messages.Derived(job.begin.job, len(result))


def _profile(job: int, spec: LoadSpec, engine: str, shape: tuple[int, ...]) -> messages.Profiled:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    times = measure(get_profiler_loader(engine)(spec), images)
    return messages.Profiled(
        job,
        {name: astuple(each) for name, each in times.layers.items()},
        dict(times.computed_in),
        astuple(times.other),
        astuple(times.total),
        times.runs,
    )


def _filters(job: _Job, spec: LoadSpec, layer: str) -> messages.Filtered:
    network, sha256 = _hashed(spec, LoadSpec.network)
    weight = network.parameters[layer].weight
    if weight.nbytes != job.begin.output_bytes:
        raise WeightsError(
            f"{spec.weights} was replaced: {layer} has {weight.nbytes} bytes, expected "
            f"{job.begin.output_bytes}; load the model again, or restart the service"
        )
    job.memory.write_output(0, weight.astype("<f4"))
    return messages.Filtered(job.begin.job, weight.nbytes, sha256)


def _hashed(spec: LoadSpec, load: Callable[[LoadSpec], _Loaded]) -> tuple[_Loaded, str]:
    """What ``load`` gives, and the SHA-256 of the weights it read; "" if there are none.

    Raises:
        AnalysisError: if the file was replaced meanwhile.
    """
    before = _sha256(spec.weights)
    loaded = load(spec)
    if _sha256(spec.weights) != before:
        raise AnalysisError(f"{spec.weights} was replaced while it was read; try again")
    return loaded, before


def _sha256(path: Path | None) -> str:
    return "" if path is None else file_sha256(path)


def main() -> int:
    """Called by :mod:`rootserve.server.analysis.launch`, with its command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--link-fd", type=int, required=True)
    args = parser.parse_args()
    leave_ending_to_the_service()
    with socket.socket(fileno=args.link_fd) as link:
        try:
            AnalysisProcess(args.device, args.threads, link).serve()
        except (BrokenPipeError, ConnectionResetError):
            return 0  # the service is gone
    return 0
