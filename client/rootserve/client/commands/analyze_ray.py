"""`rootserve analyze covariance --ray`: the same analysis on the machines of a cluster, without a server."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rootmodels.analysis.blocks import best_groups
from rootmodels.analysis.covariance import DEFAULT_TOLERANCE
from rootmodels.analysis.derived import Kind
from rootmodels.analysis.errors import AnalysisError
from rootmodels.analysis.layers import Stage
from rootmodels.analysis.sums import LayerShape, Plan
from rootmodels.distributed import analysis as distributed
from rootmodels.distributed.errors import ClusterError, ClusterLostError, UnreachableError
from rootmodels.distributed.on_ray import analyse
from rootmodels.family import FamilyError
from rootmodels.variants import UnknownVariantError
from rootmodels.weights_info import WeightsError
from rootserve.client.analysis import files
from rootserve.client.analysis.options import Output
from rootserve.client.analysis.progress import ProgressBar, progress_text
from rootserve.client.analysis.results import Analysis, Layer, Matrix, Pair, Score, Sums
from rootserve.client.analysis.service import Progress, Request
from rootserve.client.commands.analyze import print_covariance, write_covariance
from rootserve.client.errors import InputError, Interrupted, Unreachable
from rootserve.client.tables import console
from rootserve.client.telling import Tell, telling
from rootserve.client.units import count
from rootserve.pictures import DataError
from rootserve.v1 import analysis_pb2 as pb

_KINDS = {
    "covariance": {Kind.COVARIANCE},
    "whitened": {Kind.WHITENED},
    "correlation": {Kind.CORRELATION},
    "mean": {Kind.MEAN},
    "sums": {Kind.MEAN, Kind.SCATTER, Kind.CROSS_SCATTER},
}
_REFUSED = (
    AnalysisError,
    ClusterError,
    DataError,
    FamilyError,
    UnknownVariantError,
    WeightsError,
)
_LEFT_OUT_FILE = "left-out.json"
_NAMED = 10
"""So many shards that were left out are named on the terminal; all of them are in the file."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where on a cluster, and with what.

    Args:
        address: HOST:PORT of the cluster, or "auto".
        weights: Folder with the model's file; None for the shipped weights.
        device: What computes: auto, cpu or cuda.
        resume: Go on from sums that an earlier command left.
    """

    address: str
    weights: Path | None
    device: str
    resume: bool


def run_covariance_on_ray(place: Place, request: Request, data: Path, output: Output) -> bool:
    """Analyse pairs of layers; write and print as `run_covariance`. Whether nothing was left out.

    Raises:
        InputError: What was asked for cannot be done; or nodes have other versions.
        Interrupted: by the user; what was done is kept.
        Unreachable: There is no such cluster, or it went away; what was done is kept.
    """
    files.prepare_folder(output.folder)
    wanted = distributed.Request(
        model=request.model,
        data=str(data),
        pairs=tuple(request.pairs),
        stage=Stage.BEFORE_RELU if request.before_relu else Stage.AFTER_RELU,
        tolerance=DEFAULT_TOLERANCE if request.tolerance is None else request.tolerance,
    )
    if place.weights is not None:
        wanted = replace(wanted, weights=place.weights)
    kinds = set().union(*(_KINDS[name] for name in request.results))
    folder = output.folder / distributed.PARTIAL_FOLDER
    try:
        with _Watcher(request.model, output.groups) as watcher:
            result, work = analyse(
                place.address,
                wanted,
                folder,
                device=place.device,
                resume=place.resume,
                kinds=kinds,
                watcher=watcher,
                tell=watcher.tell,
            )
    except (UnreachableError, ClusterLostError) as error:
        raise Unreachable(str(error)) from None
    except _REFUSED as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}") from None
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; the sums of shards that were done are in {folder}: --resume goes on from there"
        ) from None
    analysis = _as_from_the_service(result, with_sums="sums" in request.results)
    write_covariance(analysis, output)
    _write_left_out(result.left_out, output.folder)
    if not result.left_out:
        work.clear()
    print_covariance([analysis], output)
    _tell_left_out(result.left_out, output.folder)
    return not result.left_out


class _Watcher:
    """Progress on a terminal as a bar, off it as a line every ten seconds; other news at once."""

    def __init__(self, model: str, groups: int | None) -> None:
        self._screen = console(stderr=True)
        self._model = model
        self._bar = ProgressBar(self._screen, model, groups)
        self._stack = ExitStack()
        self._line: Tell = lambda text: None
        self._said = ""

    def __enter__(self) -> "_Watcher":
        if self._screen.is_terminal:
            self._stack.enter_context(self._bar)
        else:
            self._line = self._stack.enter_context(telling(self._screen))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def planned(self, plan: Plan) -> None:
        channels = {layer.name: layer.channels for layer in plan.layers}
        self._bar.started(channels, plan.pairs)

    def progress(self, progress: distributed.Progress) -> None:
        told = Progress(
            progress.images_done,
            progress.images_total,
            progress.images_per_s,
            progress.remaining_s,
        )
        self._bar.progress(told)
        self._line(f"{self._model}: {progress_text(told)}")

    def tell(self, line: str) -> None:
        """Say ``line``, unless it was the last that was said."""
        if line != self._said:
            self._screen.print(line, markup=False, soft_wrap=True)
        self._said = line


def _as_from_the_service(result: distributed.Result, *, with_sums: bool) -> Analysis:
    matrices: dict[tuple[str, str, str], Matrix] = {}
    for matrix in result.derived.matrices:
        first, second = (*matrix.layers, "")[:2]
        matrices[matrix.kind.value, first, second] = matrix.values
    plan = result.sums.plan
    layers = {
        shape.name: Layer(
            shape.name,
            shape.channels,
            shape.height,
            shape.width,
            shape.groups,
            result.sums.layers[shape.name].samples,
            figures.varying_channels,
            figures.rank,
            _mean(matrices, shape.name),
            matrices.get(("correlation", shape.name, "")),
        )
        for shape, figures in zip(plan.layers, result.derived.layers, strict=True)
    }
    pairs = [
        Pair(
            pair[0],
            pair[1],
            result.sums.pairs[pair].samples,
            {s.groups: Score(s.ratio, s.energy, s.fit, s.deviations) for s in scores},
            best_groups(list(scores)),
            matrices.get(("covariance", *pair)),
            matrices.get(("whitened", *pair)),
        )
        for pair, scores in zip(plan.pairs, result.derived.scores, strict=True)
    ]
    return Analysis(
        result.model,
        result.weights_sha256,
        result.sums.images,
        result.stage is Stage.BEFORE_RELU,
        result.tolerance,
        layers,
        pairs,
        result.elapsed_s,
        _sums(result, matrices) if with_sums else None,
        "on the cluster",
    )


def _mean(matrices: dict[tuple[str, str, str], Matrix], layer: str) -> Matrix | None:
    mean = matrices.get(("mean", layer, ""))
    return None if mean is None else mean[0]


def _sums(result: distributed.Result, matrices: dict[tuple[str, str, str], Matrix]) -> Sums:
    stage = pb.RESPONSE_STAGE_AFTER_RELU
    if result.stage is Stage.BEFORE_RELU:
        stage = pb.RESPONSE_STAGE_BEFORE_RELU
    header = pb.Sums(
        model=result.model,
        weights_sha256=result.weights_sha256,
        stage=stage,
        images=result.sums.images,
        layers=[_shape(layer) for layer in result.sums.plan.layers],
        pairs=[
            pb.LayerPair(first=first, second=second) for first, second in result.sums.plan.pairs
        ],
    )
    kinds = ("mean", "scatter", "cross_scatter")
    return Sums(
        header.SerializeToString(),
        {key: matrix for key, matrix in matrices.items() if key[0] in kinds},
    )


def _shape(layer: LayerShape) -> pb.LayerShape:
    return pb.LayerShape(
        name=layer.name,
        channels=layer.channels,
        height=layer.height,
        width=layer.width,
        groups=layer.groups,
    )


def _write_left_out(left_out: Sequence[distributed.LeftOut], folder: Path) -> None:
    path = folder / _LEFT_OUT_FILE
    with files.writing(folder):
        if left_out:
            path.write_text(json.dumps([asdict(each) for each in left_out], indent=2) + "\n")
        else:
            path.unlink(missing_ok=True)


def _tell_left_out(left_out: Sequence[distributed.LeftOut], folder: Path) -> None:
    if not left_out:
        return
    screen = console(stderr=True)

    def say(text: str) -> None:
        screen.print(text, markup=False, soft_wrap=True)

    known = sum(each.images or 0 for each in left_out)
    uncounted = sum(each.images is None for each in left_out)
    rest = f", and {uncounted} files whose images nobody could count" if uncounted else ""
    say(f"left out, {count(known)} images{rest}:")
    for each in left_out[:_NAMED]:
        say(f"  {each.why if each.name in each.why else f'{each.name}: {each.why}'}")
    if len(left_out) > _NAMED:
        say(f"  and {len(left_out) - _NAMED} more")
    say(
        f"all are in {folder / _LEFT_OUT_FILE}; once they are repaired, --resume adds them to what is done"
    )
