"""Which networks are trained: variants of families, and what model files describe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rootmodels.family import Variant
from rootmodels.model_file import open_weights
from rootmodels.variants import VARIANTS, UnknownVariantError, family_of, get_variant
from rootmodels.weights_info import WeightsError, weights_path
from rootserve.pictures import DataError

_SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class Trainee:
    """A network to be trained, which may be one of a family or one that a model file describes."""

    variant: Variant
    """Of what layers it is; that of a model file brings them along."""
    start: Path | None = None
    """Weights to begin with, its own or others that fit (:mod:`rootmodels.train_init`); None: random ones."""

    @property
    def name(self) -> str:
        """What its weights are called."""
        return self.variant.name


Jobs = dict[Trainee, tuple[int, ...]]
"""The seeds of each network."""


def find_jobs(
    words: Iterable[str],
    seeds: Sequence[int],
    weights: Path | None = None,
    init: Path | None = None,
) -> Jobs:
    """What ``NAME``, ``NAME@SEED,SEED`` and paths of model files ask for.

    Args:
        words: Names of variants, or of model files in ``weights``; or paths.
        seeds: Of those that have none.
        weights: A folder of model files.
        init: Weights to begin with: a file, or a folder with one for each network. Without, variants begin
            with random weights, and model files with their own.

    Raises:
        UnknownVariantError: There is no such network.
        WeightsError: A file cannot be used.
        ValueError: A seed is no number, or a network comes twice.
    """
    jobs: Jobs = {}
    for word in words:
        name, at, told = (word, "", "") if word.endswith(_SUFFIX) else word.partition("@")
        trainee = _trainee(name, weights, init)
        if trainee.name in (other.name for other in jobs):
            raise ValueError(
                f"{trainee.name} comes twice; expected its seeds as {trainee.name}@0,1"
            )
        try:
            jobs[trainee] = tuple(map(int, told.split(","))) if at else tuple(seeds)
        except ValueError:
            raise ValueError(f"{word!r}: expected seeds as in {name}@0,1,2") from None
    return jobs


def _trainee(word: str, weights: Path | None, init: Path | None) -> Trainee:
    if word in VARIANTS:
        return Trainee(get_variant(word), _start(word, init))
    path = find_file(word, weights)
    if path is None:
        if weights is None:
            get_variant(word)
        raise UnknownVariantError(
            f"no variant is called {word!r}, and {weights} has no {word}{_SUFFIX}; expected a name of these, "
            "or the path of a model file"
        )
    variant, _ = open_weights(path)
    if variant.home is None:
        raise WeightsError(
            f"{path} holds weights of {variant.name}; expected that name, with --init for the file"
        )
    if variant.name != path.stem:
        raise WeightsError(
            f"{path} holds a network called {variant.name}; expected {variant.name}{_SUFFIX}"
        )
    return Trainee(variant, _start(variant.name, init) or path)


def _start(name: str, init: Path | None) -> Path | None:
    return weights_path(name, init) if init and init.is_dir() else init


def find_file(word: str, weights: Path | None) -> Path | None:
    """The file at the path ``word``, or that of the name in the folder ``weights``; None if there is none."""
    if word.endswith(_SUFFIX):
        return Path(word)
    path = weights_path(word, weights) if weights and "/" not in word else None
    return path if path and path.is_file() else None


def one_image_size(trainees: Iterable[Trainee], asked: int | None) -> int:
    """What the networks take, or what was ``asked`` for.

    Raises:
        DataError: if they take images of different sizes, or a size that makes no sense was asked for.
    """
    if asked is not None:
        if not 16 <= asked <= 1024:
            raise DataError(f"--image-size is {asked}, expected 16 to 1024")
        return asked
    families = {family_of(each.variant).name: family_of(each.variant) for each in trainees}
    sizes = {family_of(each.variant).image_size for each in trainees}
    if len(sizes) > 1:
        raise DataError(
            f"networks of {' and '.join(sorted(families))} take images of different sizes: "
            "expected some of one size, or --image-size"
        )
    return sizes.pop()
