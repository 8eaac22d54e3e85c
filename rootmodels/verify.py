"""Recompute the accuracy of weights files: ``python -m rootmodels verify [VARIANT...] --data DIR``.

On another number of images than the metadata tell, such as a sample, the accuracy comes with its interval,
and the question is whether it is consistent with the recorded one.

Exit status: 0 if every file is as accurate as its metadata says, 1 if one is not, 2 if something could not
be read.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rootmodels.cifar10 import LabelledImages
from rootmodels.distributed.errors import ClusterError
from rootmodels.family import FamilyError
from rootmodels.model_file import names_with_weights, open_weights
from rootmodels.train_data import check_classes, label_names, read_test_data
from rootmodels.train_run import accuracy
from rootmodels.variants import UnknownVariantError
from rootmodels.weights import load_weights
from rootmodels.weights_info import (
    PRETRAINED_DIR,
    WeightsError,
    class_names,
    image_size,
    weights_path,
)
from rootserve.pictures import DataError

TOLERANCE = 0.0005
"""Five images of 10,000: machines add in different orders, which decides a tie here and there."""
_Z = 2.5758
"""Of the normal distribution, 99 % lie within so many standard deviations."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether weights are as accurate as they say, and how that came out, in a line."""

    agrees: bool
    line: str


def verify(path: Path, data: LabelledImages, device: torch.device, tolerance: float) -> Verdict:
    """Measure the weights at ``path``, and say how that compares with their metadata.

    Raises:
        WeightsError: The file cannot be used, or it is of another variant than its name says.
    """
    model, info = load_weights(path)
    if info.variant != path.stem:
        raise WeightsError(f"{path} has weights of {info.variant}, expected {path.stem}")
    measured = accuracy(model.fold(), data, device, image_size(model.variant, info))
    if info.accuracy is None:
        raise WeightsError(
            f"{path} does not say how accurate it is; measured {measured:.4f} over {len(data):,} images"
        )
    if info.test_images == len(data):
        difference = measured - info.accuracy
        agrees = abs(difference) <= tolerance
        found = f"{measured:.4f}  difference {difference:+.4f}"
        verdict = "as recorded" if agrees else f"DIFFERS by more than {tolerance:g}"
    else:
        low, high = interval(measured, len(data))
        agrees = low - tolerance <= info.accuracy <= high + tolerance
        found = f"{measured:.4f} (99 % interval {low:.4f} to {high:.4f}, {len(data):,} images)"
        verdict = "consistent" if agrees else "NOT CONSISTENT"
    return Verdict(
        agrees,
        f"{info.variant:12} recorded {info.accuracy:.4f} ({info.test_images or 0:,} images)  "
        f"measured {found}  {verdict}",
    )


def verify_on(path: Path, data: Path, device: torch.device, tolerance: float) -> Verdict:
    """As :func:`verify`, on the test set of the data at ``data``, which is read once.

    Raises:
        DataError: it cannot be read.
        FamilyError, UnknownVariantError, WeightsError: the file cannot be used, or is for other data.
    """
    variant, info = open_weights(path)
    check_classes(path, class_names(variant, info), data, label_names(data))
    return verify(path, _test_data(data, image_size(variant, info)), device, tolerance)


_test_data = functools.cache(read_test_data)


def interval(share: float, count: int) -> tuple[float, float]:
    """The 99 % interval of a share seen in ``count`` images, by Wilson's score."""
    spread = _Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
    return middle - half, middle + half


def _verdicts(paths: Sequence[Path], args: argparse.Namespace) -> Iterator[Verdict]:
    if args.ray:
        # Imported here: nobody else needs what knows of clusters.
        from rootmodels.distributed.verifying import verdicts_on_cluster  # noqa: PLC0415

        yield from verdicts_on_cluster(args.ray, paths, args.data, args.device, args.tolerance)
        return
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    for path in paths:
        yield verify_on(path, args.data, device, args.tolerance)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m rootmodels verify", description=__doc__)
    add = parser.add_argument
    add("variants", nargs="*", metavar="VARIANT", help="default: all that have weights")
    add("--data", type=Path, required=True, help="what they were trained on")
    add("--weights", type=Path, default=PRETRAINED_DIR, metavar="DIR", help="default: the shipped")
    add("--tolerance", type=float, default=TOLERANCE, help=f"default: {TOLERANCE:g}")
    add("--device", help="cpu or cuda (default: a GPU where there is one)")
    add(
        "--ray",
        metavar="auto|HOST:PORT",
        help="on the machines of this Ray cluster (extra ray), which all see --data and --weights",
    )
    args = parser.parse_args(arguments)
    try:
        names = names_with_weights(args.weights, args.variants)
        paths = [weights_path(name, args.weights) for name in names]
        agreed = []
        for verdict in _verdicts(paths, args):
            print(verdict.line, flush=True)
            agreed.append(verdict.agrees)
    except (DataError, FamilyError, UnknownVariantError, WeightsError, ClusterError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    wrong = agreed.count(False)
    if wrong:
        print(f"{wrong} of {len(names)} files are not as accurate as their metadata says")
        return 1
    print(f"all {len(names)} files are as accurate as their metadata says")
    return 0
