"""The sums of one shard, where they are computed: on any node, with the same result to the bit.

That holds for processors and GPUs of one kind: others round in other places.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from rootmodels.analysis.capture import Capture
from rootmodels.analysis.layers import Stage
from rootmodels.analysis.sums import Plan
from rootmodels.distributed.shards import Frame, Shard, read
from rootmodels.model_file import open_weights
from rootmodels.network import Network
from rootmodels.parameters import load_network
from rootmodels.weights_info import weights_path

_ROWS = 64
"""Images in memory at a time; what a GPU computes at a time, and a multiple of that of a CPU."""


@dataclass(frozen=True, slots=True)
class Work:
    """What all shards of an analysis have in common."""

    model: str
    plan: Plan
    stage: Stage
    device: str
    frame: Frame


def sum_shard(work: Work, weights: bytes, shard: Shard) -> bytes:
    """The sums of ``shard`` in the network whose weights file is ``weights``, as ``Sums.to_bytes`` has them.

    Raises:
        DataError: if its images cannot be read or are others than before.
        WeightsError: if the weights cannot be used.
    """
    # One thread: products are added in an order that depends on how many there are.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        module = _module(work.model, hashlib.sha256(weights).digest(), work.device, weights)
        capture = Capture(module, work.plan, work.stage)
        for images in read(shard, work.frame, _ROWS):
            capture.add(images)
        return capture.sums().to_bytes()
    finally:
        torch.set_num_threads(before)


class _Bytes(bytes):
    """Not hashed and not compared: the digest beside it stands for it."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return True


def _module(model: str, digest: bytes, device: str, weights: bytes) -> Network:
    return _loaded(model, digest, device, _Bytes(weights))


@functools.lru_cache(maxsize=1)
def _loaded(model: str, digest: bytes, device: str, weights: _Bytes) -> Network:
    """A process computes shard after shard in the same network."""
    if device != "cpu":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    with tempfile.TemporaryDirectory() as folder:
        path = weights_path(model, Path(folder))
        path.write_bytes(weights)
        variant, _ = open_weights(path)
        # As the service's analyses make it: folded before it becomes a module.
        return Network.from_folded(load_network(path, variant)).to(device)
