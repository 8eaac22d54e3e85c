"""The circle of the paper on Network-in-Network: does the covariance know which channels belong together?

    python -m benchmarks.suggest_circle --data DIR --out DIR

From trained weights (nin-orig), conv2a and conv3a are put into 4, 8 and 16 groups: those that the
covariance suggests, contiguous ones, and random ones. Each network's accuracy on the test set is measured
before any training, and after --epochs passes over the first --train-images of the training set, learning
from nin-orig alone. All get the same treatment: weights fitted in closed form, the same images in the same
order for the same seed. "plain" are contiguous groups whose weights are left as they are: what
`python -m rootmodels root` writes, but for the statistics of the normalisations. With another seed, training
sees other crops in another order, and random groups are others; before training, the other networks are the
same for all seeds.

What was measured lies in --out after each network: the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rootmodels.cifar10 import LabelledImages, read_cifar10
from rootmodels.model_file import write_trained
from rootmodels.source import read_source
from rootmodels.suggest.grouping import (
    Grouping,
    contiguous,
    energy_kept,
    random_grouping,
    sizes_of,
    suggest_groups,
)
from rootmodels.suggest.study import Study, study
from rootmodels.train import keep_freed_memory
from rootmodels.train_batches import Batches
from rootmodels.train_recipe import Recipe, one_cycle
from rootmodels.train_run import Run, computing_in
from rootmodels.weights import load_weights, save_weights
from rootmodels.weights_info import publish, weights_path
from rootserve.server.engines import openvino_cpu
from rootserve.server.engines.base import LoadSpec

WAYS = ("suggested", "contiguous", "random", "plain")
PLAIN = ("energy", "before")
CPU = torch.device("cpu")
BF16 = torch.bfloat16

Result = dict[str, float]
"""Of one network: ``energy`` kept; accuracy ``before`` and ``after`` fine-tuning, which took ``seconds``."""


@dataclass(frozen=True, slots=True)
class Circle:
    """What all networks of one command have in common."""

    out: Path
    recipe: Recipe
    train: LabelledImages
    test: LabelledImages
    study: Study
    threads: int

    def grouping(self, degree: int, way: str, seed: int) -> Grouping:
        """The groups that ``way`` gives; those suggested are found once."""
        pieces = self.study.pieces_for(degree)
        if way == "random":
            return random_grouping(sizes_of(pieces), degree, seed)
        path = self.out / f"groups-{degree}.json"
        if not path.exists():
            sizes = sizes_of(pieces)
            found = {
                "suggested": suggest_groups(pieces, degree),
                "contiguous": {name: contiguous(size, degree) for name, size in sizes.items()},
            }
            content = {
                name: {space: labels.tolist() for space, labels in grouping.items()}
                for name, grouping in found.items()
            }
            publish(path, lambda partial: partial.write_text(json.dumps(content)))
        content = json.loads(path.read_text())[{"plain": "contiguous"}.get(way, way)]
        return {space: np.array(labels) for space, labels in content.items()}

    def make(self, degree: int, way: str, seed: int) -> tuple[Path, float]:
        """Write the network as a file; returns that, and the energy kept."""
        grouping = self.grouping(degree, way, seed)
        fit = way != "plain"
        layers, tensors = self.study.network(degree, grouping, fit=fit)
        pieces = self.study.pieces_for(degree)
        name = f"circle-{way}-{degree}"
        model = replace(
            self.study.source.model, name=name, layers=layers, topology="own", degree=degree
        )
        path = weights_path(name, self.out)
        write_trained(path, model, tensors)
        if fit:
            return path, energy_kept(pieces, grouping) / len(pieces)
        left = [
            one.energy.kept_without_fit(grouping[one.taken], grouping[one.made]) for one in pieces
        ]
        return path, statistics.mean(left)

    def measure(self, degree: int, way: str, seed: int, known: Result) -> Result:
        """What is missing in ``known``: of the network as it is made, and fine-tuned."""
        path, energy = self.make(degree, way, seed)
        result = known | {"energy": energy}
        if "before" not in result:
            result["before"] = self.accuracy(path)
        if self.recipe.epochs and "after" not in result:
            began = time.monotonic()
            result["after"] = self.fine_tuned(path, seed)
            result["seconds"] = round(time.monotonic() - began)
        return result

    def fine_tuned(self, path: Path, seed: int) -> float:
        """Accuracy once the network at ``path`` has been trained."""
        network, info = load_weights(path)
        batches, steps = self.batches(seed)
        run = Run(network, self.recipe, steps_per_epoch=batches.steps_per_epoch, dtype=BF16)
        taught = self.teaching(seed)
        for step in range(steps):
            batch = batches.take(batches.choose(step, steps))
            rate = torch.tensor(one_cycle(step, steps, self.recipe.warmup))
            run.compute(replace(batch, teaching=taught[step]), rate)
        save_weights(path, network, info)
        return self.accuracy(path)

    def batches(self, seed: int) -> tuple[Batches, int]:
        """The images of each step, and how many steps there are."""
        model = self.study.source.model
        batches = Batches(
            self.train, self.recipe, seed, CPU, colour=model.mean, image_size=model.image_size
        )
        return batches, self.recipe.epochs * batches.steps_per_epoch

    def teaching(self, seed: int) -> Tensor:
        """What nin-orig says of the images of each step, [steps, N, classes]; computed once for a seed."""
        path = self.out / f"teacher-{seed}.npy"
        if not path.exists():
            teacher = load_weights(self.study.source.path)[0].fold()
            batches, steps = self.batches(seed)
            said = []
            with torch.inference_mode(), computing_in(BF16, CPU):
                for step in range(steps):
                    images = batches.take(batches.choose(step, steps)).images
                    said.append(teacher(images).float().numpy())
            with path.with_suffix(".partial").open("wb") as file:
                np.save(file, np.stack(said))
            path.with_suffix(".partial").replace(path)
        return torch.from_numpy(np.load(path))

    def accuracy(self, path: Path) -> float:
        """Top-1 on the test set, as the service computes it: OpenVINO, bf16."""
        spec = LoadSpec(path.stem, path, "cpu", precision="bf16", threads=self.threads)
        engine = openvino_cpu.load(spec)
        hits = 0
        for start in range(0, len(self.test), 250):
            part = slice(start, start + 250)
            said = engine.run(self.test.images[part]).argmax(1)
            hits += int((said == self.test.labels[part]).sum())
        return hits / len(self.test)


def plan(degrees: Sequence[int], seeds: int, ways: Sequence[str]) -> Iterator[tuple[int, str, int]]:
    """Degree, way and seed of each network; what is compared comes together."""
    for degree in degrees:
        for seed in range(seeds):
            for way in ways:
                yield degree, way, seed


def table(results: dict[str, Result], degrees: Sequence[int]) -> str:
    """Means over the seeds, in Markdown."""
    lines = [
        "| groups | | energy kept | without training | after fine-tuning | of each seed |",
        "|---|---|---|---|---|---|",
    ]
    for degree in degrees:
        for way in WAYS:
            there = [one for key, one in results.items() if key.startswith(f"{degree}/{way}/")]
            if not there:
                continue
            energy, before = (statistics.mean(one[what] for one in there) for what in PLAIN)
            trained = [one["after"] for one in there if "after" in one]
            after = f"{statistics.mean(trained):.1%}" if trained else "-"
            each = ", ".join(f"{one:.1%}" for one in trained)
            lines.append(f"| {degree} | {way} | {energy:.1%} | {before:.1%} | {after} | {each} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="CIFAR-10 in parquet")
    add("--out", type=Path, required=True, metavar="DIR")
    add("--source", type=Path, default=weights_path("nin-orig"), help="default: the shipped")
    add("--layers", default="conv[23]a", metavar="GLOB")
    add("--degrees", type=int, nargs="+", default=[8, 16, 4])
    add("--seeds", type=int, default=3)
    add("--ways", nargs="+", choices=WAYS, default=WAYS)
    add("--images", type=int, default=1000, help="for the covariance")
    add("--train-images", type=int, default=50_000, help="the first so many; one pass is an epoch")
    add("--epochs", type=int, default=2, help="0: only without training")
    add("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    recipe = Recipe(
        epochs=args.epochs, batch_size=250, muon_lr=0.02, vector_lr=0.1, small_share=0.0,
        teacher_share=1.0, temperature=4.0,
    )  # fmt: skip
    train, test = read_cifar10(args.data, "train"), read_cifar10(args.data, "test")
    part = slice(0, args.train_images)
    train = LabelledImages(train.images[part], train.labels[part])
    looked_at = study(read_source(args.source), train.images[: args.images], args.layers)
    args.out.mkdir(parents=True, exist_ok=True)
    circle = Circle(args.out, recipe, train, test, looked_at, args.threads)
    path = args.out / "results.json"
    results: dict[str, Result] = json.loads(path.read_text()) if path.exists() else {}
    for degree, way, seed in plan(args.degrees, args.seeds, args.ways):
        key = f"{degree}/{way}/{seed}"
        known = results.get(key, {})
        if "before" not in known and way != "random" and f"{degree}/{way}/0" in results:
            # It is the same network for every seed.
            known["before"] = results[f"{degree}/{way}/0"]["before"]
        if "before" not in known or (args.epochs and "after" not in known):
            results[key] = circle.measure(degree, way, seed, known)
            content = json.dumps(results, indent=1)
            publish(path, lambda partial, content=content: partial.write_text(content))  # type: ignore[misc]
            print(key, results[key], flush=True)
    print(table(results, sorted(args.degrees)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
