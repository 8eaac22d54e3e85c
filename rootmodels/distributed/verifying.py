"""Accuracies of weights files, measured on a cluster: a task for each file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import torch

from rootmodels.distributed.joining import joined
from rootmodels.distributed.tasks import Failure, Needs, OnCluster
from rootmodels.verify import Verdict, verify_on

_THREADS = 1
"""Processors of a task: as many files side by side as there are processors."""


def verify_one(path: Path, data: Path, device: str, tolerance: float) -> Verdict:
    """See :func:`rootmodels.verify.verify_on`."""
    before = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    try:
        return verify_on(path, data, torch.device(device), tolerance)
    finally:
        torch.set_num_threads(before)


def verdicts_on_cluster(
    address: str, paths: Sequence[Path], data: Path, device: str | None, tolerance: float
) -> Iterator[Verdict]:
    """What :func:`rootmodels.verify.verify_on` says of each of ``paths``, in their order.

    Args:
        address: HOST:PORT of the cluster, or "auto".
        paths: Weights files, which all nodes see.
        data: What they were trained on; all nodes see it.
        device: cpu or cuda; None for GPUs where a node has any.
        tolerance: By how much an accuracy may differ.

    Raises:
        ClusterError, DataError, FamilyError, UnknownVariantError, WeightsError: of the first file, in their
            order, that cannot be used; or of the cluster.
    """
    folders = [
        each for each in (data, *dict.fromkeys(path.parent for path in paths)) if each.exists()
    ]

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with joined(address, folders) as cluster:
        if device is None:
            device = "cuda" if any(node.gpus >= 1 for node in cluster.nodes()) else "cpu"
        tasks = OnCluster(cluster, Needs(_THREADS, int(device != "cpu")), tell)
        for number, path in enumerate(paths):
            tasks.add(number, verify_one, path.resolve(), data.resolve(), device, tolerance)
        results = {cast("int", number): result for number, result in tasks.finished()}
    for number in range(len(paths)):
        result = results[number]
        if isinstance(result, Failure):
            raise result.error
        yield result
