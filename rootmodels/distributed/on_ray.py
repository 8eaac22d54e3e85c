"""An analysis on a Ray cluster, in one call: what `rootserve analyze covariance --ray` does."""

from __future__ import annotations

import glob
from collections.abc import Callable, Collection
from pathlib import Path

from rootmodels.analysis.derived import Kind
from rootmodels.distributed.analysis import Analysis, Request, Result, Watcher
from rootmodels.distributed.joining import joined
from rootmodels.distributed.tasks import Needs, OnCluster


def analyse(  # noqa: PLR0913 - each is said once, by the command
    address: str,
    request: Request,
    folder: Path,
    *,
    device: str,
    resume: bool,
    kinds: Collection[Kind],
    watcher: Watcher,
    tell: Callable[[str], None],
) -> tuple[Result, Analysis]:
    """The result of ``request``, computed by all nodes of the cluster at ``address``, and what did it.

    Of CPUs and GPUs one kind computes, so that the result does not depend on who was there first: ``device``,
    cpu or cuda, or with "auto" GPUs where a node has any. ``tell`` is told of nodes that die, in a line.

    Raises:
        AnalysisError, ClusterError, DataError, FamilyError, UnknownVariantError, WeightsError, OSError: as
            :class:`rootmodels.distributed.analysis.Analysis`, and
            :func:`rootmodels.distributed.joining.joined`.
    """
    analysis = Analysis(request, folder, resume=resume)
    with joined(address, _roots(request.data)) as cluster:
        if device == "auto":
            device = "cuda" if any(node.gpus >= 1 for node in cluster.nodes()) else "cpu"
        needs = Needs(cpus=1, gpus=int(device == "cuda"))
        return analysis.run(OnCluster(cluster, needs, tell), watcher, kinds, device), analysis


def _roots(data: str) -> list[Path]:
    """The folder that all nodes have to see for ``data``, if it is there."""
    path = Path(data)
    while glob.has_magic(str(path)):
        path = path.parent
    return [path] if path.exists() else []
