"""An analysis on a cluster: shards are found, summed wherever there is room, kept, and merged in one tree."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from rootmodels.analysis.covariance import DEFAULT_TOLERANCE
from rootmodels.analysis.derived import Derived, Kind, derive
from rootmodels.analysis.errors import AnalysisError
from rootmodels.analysis.layers import Stage, network_plan
from rootmodels.analysis.sums import Pair, Plan, Sums
from rootmodels.distributed.errors import ClusterError
from rootmodels.distributed.partial_sums import Folder, Subject
from rootmodels.distributed.shards import Frame, Shard, Source, find_sources, look_at
from rootmodels.distributed.summing import Work, sum_shard
from rootmodels.distributed.tasks import Failure, Tasks, installed
from rootmodels.layers import network_layers
from rootmodels.model_file import open_weights
from rootmodels.variants import family_of
from rootmodels.weights_info import (
    PRETRAINED_DIR,
    WeightsError,
    class_names,
    image_size,
    weights_path,
)

PARTIAL_FOLDER = "partial"
"""Below that of the results: the sums of single shards, until there are results of all."""

_LEAST_IMAGES = 500
_BYTES_PER_IMAGE = 64 * 1024
"""So much of a shard's sums may come on each image: large sums are brought and kept for more images."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to analyse.

    Attributes:
        model: Name of a variant or of a model file.
        data: A parquet file, a folder of such or of pictures, or a pattern of files; all nodes see it there.
        pairs: Of layers; without, every two that are adjacent.
        stage: Where responses are taken.
        weights: The folder with ``MODEL.safetensors``.
        tolerance: See :func:`rootmodels.analysis.covariance.whitening`.
        shard_images: Images of a shard; None for as many as suit the size of the sums.
    """

    model: str
    data: str
    pairs: tuple[Pair, ...] = ()
    stage: Stage = Stage.AFTER_RELU
    weights: Path = PRETRAINED_DIR
    tolerance: float = DEFAULT_TOLERANCE
    shard_images: int | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What is not in the sums: its name, its images where they were counted, and why."""

    name: str
    images: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an analysis is. ``images_total`` grows until all files are looked at (``counted``)."""

    images_done: int
    images_total: int
    counted: bool
    images_per_s: float

    @property
    def remaining_s(self) -> float | None:
        """Seconds that are left at this rate; None while that cannot be told."""
        if not self.counted or self.images_per_s <= 0:
            return None
        return (self.images_total - self.images_done) / self.images_per_s


class Watcher(Protocol):
    """Is told of an analysis under way. What it raises ends the analysis."""

    def planned(self, plan: Plan) -> None:
        """What is summed; before any image is read."""

    def progress(self, progress: Progress) -> None:
        """A shard more is done, or was found."""


@dataclass(frozen=True, slots=True)
class Result:
    """What an analysis found. ``taken_over`` counts the images whose sums were there already."""

    model: str
    weights_sha256: str
    stage: Stage
    tolerance: float
    sums: Sums
    derived: Derived
    left_out: tuple[LeftOut, ...]
    elapsed_s: float
    taken_over: int


class Analysis:
    """One analysis, from its request to its result.

    Raises:
        AnalysisError, FamilyError, UnknownVariantError, WeightsError: What is asked of the model makes no
            sense.
        ClusterError: The folder has partial sums of an earlier analysis, and ``resume`` is False.
        DataError: There are no images.

    Args:
        request: What to analyse.
        folder: Where partial sums are kept until there are results.
        resume: Whether sums that are there are to be used.
    """

    def __init__(self, request: Request, folder: Path, *, resume: bool) -> None:
        self._began = time.monotonic()
        self._request = request
        if not 0 <= request.tolerance < 1:
            raise AnalysisError(
                f"tolerance {request.tolerance:g} came, expected 0 or more and below 1"
            )
        path = _weights_of(request)
        self._weights = path.read_bytes()
        variant, info = open_weights(path)
        size = image_size(variant, info)
        layers = network_layers(variant, size, len(class_names(variant, info)))
        self.plan = network_plan(layers, request.pairs)
        frame = Frame(size, family_of(variant).short_side(size))
        self._work = Work(request.model, self.plan, request.stage, "cpu", frame)
        self._weights_sha256 = hashlib.sha256(self._weights).hexdigest()
        self._folder = Folder(folder, self.plan)
        if self._folder.keys() and not resume:
            raise ClusterError(
                f"{folder} has sums of {len(self._folder.keys())} shards, of an analysis that did not end; "
                "expected --resume to go on from there, or another folder for results"
            )
        self._images = request.shard_images or _shard_images(self.plan)
        self._sources = find_sources(request.data, self._images)
        self._shards: dict[Shard, str] = {}
        self._looking = len(self._sources)
        self._left_out: list[LeftOut] = []
        self._done = self._taken_over = 0

    def run(
        self, tasks: Tasks, watcher: Watcher, kinds: Collection[Kind], device: str = "cpu"
    ) -> Result:
        """Have it done as ``tasks``, and derive ``kinds``. The sums of each shard are kept at once.

        ``device`` is what computes them, cpu or cuda.

        Raises:
            AnalysisError: Nothing can be derived of the sums.
            ClusterError: No shard could be read; or the cluster went away.
            OSError: The folder cannot be written to.
        """
        watcher.planned(self.plan)
        self._work = replace(self._work, device=device)
        weights = tasks.share(self._weights)
        for source in self._sources:
            tasks.add(source, look_at, source, self._images)
        # By key: of two shards with the same images one is computed.
        computing: dict[str, list[Shard]] = {}
        for key, result in tasks.finished():
            if isinstance(key, Source):
                self._looking -= 1
                for shard in self._found(key, result):
                    own = self._shards[shard]
                    computing.setdefault(own, []).append(shard)
                    if len(computing[own]) == 1:
                        tasks.add(shard, sum_shard, self._work, weights, shard)
            else:
                assert isinstance(key, Shard)
                self._summed(computing.pop(self._shards[key]), result)
            watcher.progress(self._progress())
        return self._result(kinds)

    def clear(self) -> None:
        """Forget the partial sums: the results are written."""
        self._folder.clear()

    def _key(self, shard: Shard) -> str:
        """What the sums of ``shard`` are kept under."""
        own, frame = installed(), self._work.frame
        return Subject(
            self._request.model,
            self._weights_sha256,
            self.plan,
            self._request.stage.value,
            self._work.device,
            (frame.size, frame.short_side),
            (own["rootserve"], own["torch"]),
        ).key(shard.sha256)

    def _found(self, source: Source, result: Sequence[Shard] | Failure) -> list[Shard]:
        """The shards of ``source`` that are still to be computed."""
        if isinstance(result, Failure):
            self._left_out.append(LeftOut(source.name, None, str(result.error)))
            return []
        missing = []
        for shard in result:
            key = self._key(shard)
            self._shards[shard] = key
            if self._folder.has(key):
                self._done += shard.images
                self._taken_over += shard.images
            else:
                missing.append(shard)
        return missing

    def _summed(self, shards: Sequence[Shard], result: bytes | Failure) -> None:
        if isinstance(result, Failure):
            for shard in shards:
                del self._shards[shard]
                self._left_out.append(LeftOut(shard.name, shard.images, str(result.error)))
            return
        self._folder.write(self._shards[shards[0]], result)
        self._done += sum(shard.images for shard in shards)

    def _progress(self) -> Progress:
        computed = self._done - self._taken_over
        rate = computed / max(1e-9, time.monotonic() - self._began)
        total = sum(shard.images for shard in self._shards)
        return Progress(self._done, total, self._looking == 0, rate)

    def _result(self, kinds: Collection[Kind]) -> Result:
        if not self._shards:
            first = self._left_out[0]
            raise ClusterError(
                f"none of {len(self._sources)} files or shards could be used; the first: {first.why}"
            )
        sums = self._folder.merged(self._shards.values())
        derived = derive(sums, kinds, self._request.tolerance)
        return Result(
            self._request.model,
            self._weights_sha256,
            self._request.stage,
            self._request.tolerance,
            sums,
            derived,
            tuple(sorted(self._left_out, key=lambda each: each.name)),
            time.monotonic() - self._began,
            self._taken_over,
        )


def _weights_of(request: Request) -> Path:
    path = weights_path(request.model, request.weights)
    if "/" in request.model or not path.is_file():
        raise WeightsError(
            f"{request.model}: {path} is not there; expected a model whose weights are in that folder, or "
            "--weights DIR"
        )
    return path


@functools.cache
def _shard_images(plan: Plan) -> int:
    """Images of a shard: a multiple of those of a step, and no more than some minutes of a processor."""
    wanted = Sums.byte_size(plan) // _BYTES_PER_IMAGE
    return max(_LEAST_IMAGES, wanted - wanted % 64)
