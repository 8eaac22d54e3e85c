"""Measure what int8 and the choice of a precision need: ``python -m rootserve.server.calibrate --data DIR``.

Writes NAME.calibration.json beside each weights file: the ranges of the responses over some training images,
the accuracy in each precision over all test images, and logits by which an engine is checked when it loads.
To be run again when weights have changed. Exit status 2 if something could not be read.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rootmodels.calibration import Calibration, accuracy_key, file_sha256, write_calibration
from rootmodels.check_images import check_images
from rootmodels.cifar10 import LabelledImages
from rootmodels.family import FamilyError
from rootmodels.model_file import names_with_weights, open_weights
from rootmodels.processor import int8_weight_bits
from rootmodels.ranges import measure_ranges
from rootmodels.signs import signs
from rootmodels.train_batches import fitted
from rootmodels.train_data import check_classes, label_names, read_some, read_test_data
from rootmodels.variants import UnknownVariantError
from rootmodels.weights_info import (
    PRETRAINED_DIR,
    WeightsError,
    class_names,
    image_size,
    weights_path,
)
from rootserve.pictures import DataError
from rootserve.server.engines import openvino_cpu
from rootserve.server.engines.base import Engine, EngineError, LoadSpec, Precision
from rootserve.server.engines.torch_eager import build_module
from rootserve.server.machine import cpu_count

_BATCH = 32

_MEASURED: tuple[tuple[Precision, int], ...] = (("fp32", 0), ("bf16", 0), ("int8", 8), ("int8", 7))
"""Precisions, and bits of a weight where that matters: int8 with weights as any processor needs them."""


def calibrate(
    spec: LoadSpec,
    training: NDArray[np.uint8],
    test: LabelledImages,
    tell: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Measure the weights of ``spec``, write what was found beside them, and return it.

    Images of another size than the network's are scaled. ``tell`` is called with what is at hand.

    Raises:
        WeightsError: if the weights cannot be used.
    """
    assert spec.weights is not None
    module, size = build_module(spec), spec.image_size()
    with torch.inference_mode():
        logits = module(torch.from_numpy(check_images(size)))
    measured = Calibration(
        variant=spec.model,
        weights_sha256=file_sha256(spec.weights),
        range_images=len(training),
        ranges=measure_ranges(module, training, size),
        test_images=len(test),
        check_logits=[[round(value, 5) for value in row] for row in logits.tolist()],
    )
    # int8 reads the ranges from there.
    write_calibration(spec.weights, measured)
    for precision, weight_bits in _MEASURED:
        key = accuracy_key(precision, weight_bits)
        try:
            if weight_bits > int8_weight_bits():
                raise EngineError("on this processor, sums of products of 8-bit weights overflow")
            engine = openvino_cpu.load(replace(spec, precision=precision), weight_bits)
        except EngineError as error:
            print(f"{spec.model}: {key} was not measured: {error}", flush=True)
            continue
        tell(f"{spec.model}: accuracy in {key} over {len(test):,} images")
        measured.accuracy[key] = round(_accuracy(engine, test, size), 6)
    write_calibration(spec.weights, measured)
    return measured


def _accuracy(engine: Engine, data: LabelledImages, size: int) -> float:
    """Top-1 accuracy, 0..1."""
    correct = 0
    for start in range(0, len(data), _BATCH):
        images = fitted(torch.from_numpy(data.images[start : start + _BATCH]), size)
        logits = engine.run(images.numpy())
        correct += int((logits.argmax(1) == data.labels[start : start + _BATCH]).sum())
    return correct / len(data)


def _read(path: Path, count: int, size: int) -> tuple[NDArray[np.uint8], LabelledImages]:
    """Training images for the ranges, and the test set."""
    return read_some(path, size, count), read_test_data(path, size)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m rootserve.server.calibrate", description=__doc__
    )
    add = parser.add_argument
    add("variants", nargs="*", metavar="VARIANT", help="default: all that have weights")
    add("--data", type=Path, required=True, help="what they were trained on")
    add("--weights", type=Path, default=PRETRAINED_DIR, metavar="DIR", help="default: the shipped")
    add("--images", type=int, default=512, help="training images for the ranges (512)")
    add("--threads", type=int, default=cpu_count(), help="default: all processors")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    try:
        names = names_with_weights(args.weights, args.variants)
        read = functools.cache(functools.partial(_read, args.data, args.images))
        for name in names:
            path = weights_path(name, args.weights)
            variant, info = open_weights(path)
            labels = label_names(args.data)
            check_classes(path, class_names(variant, info), args.data, labels)
            training, test = read(image_size(variant, info))
            with signs(f"{name}: ranges over {len(training):,} images") as tell:
                spec = LoadSpec(name, path, "cpu", args.threads)
                measured = calibrate(spec, training, test, tell)
            figures = ", ".join(f"{key} {value:.4f}" for key, value in measured.accuracy.items())
            print(f"{name:12} accuracy over {len(test)} images: {figures}", flush=True)
    except (DataError, FamilyError, UnknownVariantError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
