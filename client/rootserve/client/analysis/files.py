"""What an analysis leaves in its folder: matrices, scores and sums; written and read again.

covariance.npz    samples/A-B, covariance/A-B, whitened/A-B (rows: channels of A, columns: of B),
                  mean/A, correlation/A, and the figures that belong to them
scores.json       {"A-B": {"GROUPS": {"ratio": r, "energy": e, ...}}}
sums.npz          what `rootserve analyze merge` takes
"""

import json
import math
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from rootserve.client.analysis.messages import sums_header
from rootserve.client.analysis.results import Analysis, Layer, Pair, Score, Sums
from rootserve.client.errors import InputError

COVARIANCE_FILE = "covariance.npz"
CORRELATION_FILE = "correlation.npz"
SCORES_FILE = "scores.json"
SUMS_FILE = "sums.npz"

_LAYER_FIGURES = ("channels", "height", "width", "groups", "samples", "varying", "rank")
_ABOUT = ("model", "weights_sha256", "images", "before_relu", "tolerance")


@contextmanager
def results_in(*folders: Path) -> Iterator[None]:
    """Make folders if need be, and see that files can be written there, before any work is done.

    Those that are made here and stay empty are taken away again.

    Raises:
        InputError: They cannot; the message says why.
    """
    made: list[Path] = []
    try:
        for path in folders:
            made += [each for each in (path, *path.parents) if not each.exists()][::-1]
            try:
                path.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=path):
                    pass
            except OSError as error:
                raise InputError(
                    f"{path}: results cannot be written there ({error.strerror}); "
                    "expected a folder, or a place for a new one"
                ) from None
        yield
    finally:
        for path in reversed(made):
            with suppress(OSError):  # what is in use stays
                path.rmdir()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Tell of a full disk and the like as an expected failure.

    Raises:
        InputError: A file cannot be written in there.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder}: results cannot be written there ({error.strerror})") from None


def write_matrices(analysis: Analysis, path: Path) -> None:
    """Write the matrices and the figures that belong to them as `.npz`."""
    arrays: dict[str, Any] = {name: getattr(analysis, name) for name in _ABOUT}
    for layer in analysis.layers.values():
        for figure in _LAYER_FIGURES:
            arrays[f"{figure}/{layer.name}"] = getattr(layer, figure)
        arrays[f"mean/{layer.name}"] = layer.mean
        arrays[f"correlation/{layer.name}"] = layer.correlation
        arrays[f"labels/{layer.name}"] = np.array(layer.labels) if layer.labels else None
    for pair in analysis.pairs:
        arrays[f"samples/{pair.name}"] = pair.samples
        arrays[f"best_groups/{pair.name}"] = pair.best_groups
        arrays[f"covariance/{pair.name}"] = pair.covariance
        arrays[f"whitened/{pair.name}"] = pair.whitened
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def read_analysis(folder: Path) -> Analysis:
    """Read `covariance.npz` and `scores.json` of a folder again.

    Raises:
        InputError: They are missing, or not such files.
    """
    arrays = _load(folder / COVARIANCE_FILE)
    scores = _read_scores(folder / SCORES_FILE)
    try:
        names = [key.removeprefix("rank/") for key in arrays if key.startswith("rank/")]
        layers = {
            name: Layer(
                name=name,
                mean=arrays.get(f"mean/{name}"),
                correlation=arrays.get(f"correlation/{name}"),
                labels=tuple(map(str, arrays.get(f"labels/{name}", ()))),
                **{figure: int(arrays[f"{figure}/{name}"]) for figure in _LAYER_FIGURES},
            )
            for name in names
        }
        pairs = tuple(
            Pair(
                first,
                second,
                int(arrays[f"samples/{first}-{second}"]),
                by_groups,
                int(arrays[f"best_groups/{first}-{second}"]),
                arrays.get(f"covariance/{first}-{second}"),
                arrays.get(f"whitened/{first}-{second}"),
            )
            for (first, second), by_groups in scores.items()
        )
        about = {name: arrays[name].item() for name in _ABOUT}
    except KeyError as error:
        raise InputError(f"{folder / COVARIANCE_FILE}: has no entry {error}") from None
    return Analysis(layers=layers, pairs=pairs, **about)


def scores_json(analysis: Analysis) -> dict[str, dict[str, dict[str, float | None]]]:
    """Scores by pair and number of groups, ready for `json.dumps`; None stands for infinity."""
    return {
        pair.name: {
            str(groups): {
                name: value if math.isfinite(value) else None
                for name, value in asdict(score).items()
            }
            for groups, score in pair.scores.items()
        }
        for pair in analysis.pairs
    }


def write_scores(analysis: Analysis, path: Path) -> None:
    """Write the scores as JSON."""
    path.write_text(json.dumps(scores_json(analysis), indent=2, allow_nan=False) + "\n")


def _read_scores(path: Path) -> dict[tuple[str, str], dict[int, Score]]:
    names = [field.name for field in fields(Score)]
    try:
        content = json.loads(path.read_text())
        scores = {}
        for pair, by_groups in content.items():
            first, _, second = pair.partition("-")
            scores[first, second] = {
                int(groups): Score(
                    *(math.inf if score[name] is None else float(score[name]) for name in names)
                )
                for groups, score in by_groups.items()
            }
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected scores of an analysis") from None
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        raise InputError(f"{path}: not a file of scores") from None
    return scores


def write_sums(sums: Sums, path: Path) -> None:
    """Write sums as `.npz`."""
    arrays = {"/".join(key): matrix for key, matrix in sums.matrices.items()}
    np.savez(path, header=np.frombuffer(sums.header, np.uint8), **arrays)  # type: ignore[arg-type]


def read_sums(path: Path) -> Sums:
    """Read what `write_sums` wrote; of a folder, its `sums.npz`.

    Raises:
        InputError: It is missing, or no such file.
    """
    file = path / SUMS_FILE if path.is_dir() else path
    arrays = _load(file)
    header = arrays.pop("header", None)
    keys = {name: tuple(name.split("/")) for name in arrays}
    if header is None or any(len(key) != 3 for key in keys.values()):
        raise InputError(f"{file}: holds no sums; expected what --sums wrote")
    sums = Sums(
        header.tobytes(),
        {(key[0], key[1], key[2]): arrays[name] for name, key in keys.items()},
    )
    try:
        sums_header(sums)
    except DecodeError:
        raise InputError(f"{file}: holds no sums; expected what --sums wrote") from None
    return sums


def _load(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            content: Mapping[str, Any] = dict(arrays)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected results of an analysis") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        raise InputError(f"{path}: not a file of results of an analysis") from None
    return dict(content)
