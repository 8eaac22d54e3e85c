"""Engine ``torch-compiled``: PyTorch's compiler ahead of time (AOTInductor), weights frozen; for the CPU.

Compiled for one image, and a batch is computed image by image: a graph for any size is slower, one per size
would take the compiler minutes, and on a CPU a bigger batch buys nothing. What was compiled is kept as a
package in the folder ``compiled`` of the cache: to load it needs no compiler, and takes a third of the time
that ``torch.compile`` takes to find its own work again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._inductor import aoti_compile_and_package, aoti_load_package

from rootserve.server.engines.base import EngineError, Images, LoadSpec, Precision
from rootserve.server.engines.circumstances import circumstances, digest
from rootserve.server.engines.torch_eager import build_module, use_device

_COMPILERS = ("g++", "clang++", "c++")
_WRITABLE_BY_OTHERS = 0o022

Graph = Callable[[Tensor], Tensor]
"""From a float32 image [1, 3, H, W] to logits [1, classes], in the precision it was compiled for."""


class CompiledEngine:
    """A network that was compiled."""

    name = "torch-compiled"

    def __init__(self, graph: Graph, precision: Precision) -> None:
        self._graph = graph
        self.precision = precision

    def run(self, images: Images) -> NDArray[np.float32]:
        """See :class:`rootserve.server.engines.base.Engine`."""
        # What was compiled takes an image's values one after the other, however they lie.
        floats = torch.from_numpy(np.ascontiguousarray(images, np.float32))
        with torch.inference_mode():
            logits = torch.cat([self._graph(image) for image in torch.split(floats, 1)])
        result: NDArray[np.float32] = logits.float().numpy()
        return result


def load(spec: LoadSpec) -> CompiledEngine:
    """Load what was compiled of ``spec`` before, or compile it.

    Raises:
        EngineError: if the device is not a CPU, or there is no C++ compiler and it has to be compiled.
        WeightsError: if the weights cannot be used.
    """
    if spec.device != "cpu":
        raise EngineError(f"engine torch-compiled runs on the cpu, not on {spec.device}; use torch")
    use_device(spec)
    name = f"{digest({**circumstances(spec), 'precision': spec.precision})}.pt2"
    folder = None if spec.cache is None else _own_folder(spec.cache / "compiled")
    graph = None if folder is None else _kept(folder / name)
    return CompiledEngine(graph or _compiled(spec, folder, name), spec.precision)


def _own_folder(path: Path) -> Path | None:
    """``path``, made if need be; None if it cannot be, or if others could put code there for us to run."""
    with contextlib.suppress(OSError):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
        if status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS:
            return path
    return None


def _kept(package: Path) -> Graph | None:
    """What an earlier start compiled; None if there is nothing that can be loaded."""
    if not package.exists():
        return None
    try:
        graph: Graph = aoti_load_package(str(package), run_single_threaded=True)
    except RuntimeError:
        return None
    return graph


def _compiled(spec: LoadSpec, folder: Path | None, name: str) -> Graph:
    """Compile ``spec``, and keep the package in ``folder`` if there is one."""
    wanted = (os.environ["CXX"],) if os.environ.get("CXX") else _COMPILERS
    if not any(map(shutil.which, wanted)):
        raise EngineError(
            f"engine torch-compiled needs a C++ compiler, and {', '.join(wanted)} is not there; use openvino"
        )
    size = spec.image_size()
    image = torch.zeros(1, 3, size, size)
    reduced = spec.precision == "bf16"
    with tempfile.TemporaryDirectory() as scratch:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            program = torch.export.export(build_module(spec), (image,))
            package = aoti_compile_and_package(
                program,
                package_path=str(Path(scratch) / name),
                inductor_configs={"freezing": True},
            )
        graph: Graph = aoti_load_package(package, run_single_threaded=True)
        if folder is not None:
            with contextlib.suppress(OSError):
                partial = folder / f"{name}.{os.getpid()}"
                shutil.copyfile(package, partial)
                partial.replace(folder / name)
    return graph
