"""Derived results as bytes, from the process that derives them to the one that sends them.

A JSON head (figures, and kind, layers and shape of each matrix), its length before it as 8 bytes, and
then the matrices, one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict

import numpy as np

from rootmodels.analysis.blocks import BlockScore, candidate_groups
from rootmodels.analysis.derived import Derived, Kind, LayerFigures, Matrix
from rootmodels.analysis.sums import Plan

_LENGTH_BYTES = 8
_SCORE_BYTES = 256
_ENTRY_BYTES = 512


def to_bytes(derived: Derived) -> bytes:
    """``derived`` as bytes."""
    head = json.dumps(
        {
            "layers": [asdict(layer) for layer in derived.layers],
            "scores": [[asdict(score) for score in scores] for scores in derived.scores],
            "matrices": [
                {"kind": matrix.kind.value, "layers": matrix.layers, "shape": matrix.values.shape}
                for matrix in derived.matrices
            ],
        }
    ).encode()
    head += b" " * (-len(head) % _LENGTH_BYTES)
    parts = [len(head).to_bytes(_LENGTH_BYTES, "little"), head]
    parts += [matrix.values.astype("<f8").tobytes() for matrix in derived.matrices]
    return b"".join(parts)


def from_bytes(data: bytes) -> Derived:
    """What :func:`to_bytes` was given."""
    position = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    head = json.loads(data[_LENGTH_BYTES:position])
    matrices = []
    for entry in head["matrices"]:
        rows, columns = entry["shape"]
        values = np.frombuffer(data, "<f8", rows * columns, position).reshape(rows, columns)
        position += values.nbytes
        matrices.append(Matrix(Kind(entry["kind"]), tuple(entry["layers"]), values))
    return Derived(
        tuple(LayerFigures(**layer) for layer in head["layers"]),
        tuple(tuple(BlockScore(**score) for score in scores) for scores in head["scores"]),
        tuple(matrices),
    )


def largest_bytes(plan: Plan, kinds: Collection[Kind]) -> int:
    """No result for ``plan`` is longer as bytes."""
    size = _LENGTH_BYTES + _ENTRY_BYTES * (1 + 3 * len(plan.layers) + 3 * len(plan.pairs))
    per_layer = len({Kind.CORRELATION, Kind.SCATTER} & set(kinds))
    per_pair = len({Kind.COVARIANCE, Kind.WHITENED, Kind.CROSS_SCATTER} & set(kinds))
    for shape in plan.layers:
        size += 8 * shape.channels * (1 + per_layer * shape.channels)
    for pair in plan.pairs:
        first, second = plan.pair(pair)
        size += 8 * per_pair * first.channels * second.channels
        size += _SCORE_BYTES * len(candidate_groups(first.channels, second.channels))
    return size
