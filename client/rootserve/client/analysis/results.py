"""What an analysis found, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """How block-diagonal a matrix is for one number of groups; see `rootserve.v1.BlockScore`."""

    ratio: float
    energy: float
    fit: float
    deviations: float


@dataclass(frozen=True, slots=True)
class Layer:
    """What was found within one layer.

    Args:
        name: The paper's name of it.
        channels: Its filters.
        height: Of its map, in pixels.
        width: Of its map, in pixels.
        groups: Filter groups of its convolution, 1 if it has none.
        samples: Images x height x width.
        varying: Channels that are not constant over all samples.
        rank: Dimension that whitening kept.
        mean: [channels]; None if not asked for.
        correlation: [channels, channels]; None if not asked for.
    """

    name: str
    channels: int
    height: int
    width: int
    groups: int
    samples: int
    varying: int
    rank: int
    mean: Matrix | None = None
    correlation: Matrix | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """What was found between two layers.

    Args:
        first: The layer whose channels are the rows.
        second: The layer whose channels are the columns.
        samples: Pixels of the larger map, over all images.
        scores: Of the whitened covariance, by number of groups.
        best_groups: The number of groups that fits best, 1 if none stands out from chance.
        covariance: [channels of first, of second]; None if not asked for.
        whitened: The same of the whitened responses; None if not asked for.
    """

    first: str
    second: str
    samples: int
    scores: Mapping[int, Score]
    best_groups: int
    covariance: Matrix | None = None
    whitened: Matrix | None = None

    @property
    def name(self) -> str:
        """Such as "conv1c-conv2a"."""
        return f"{self.first}-{self.second}"


@dataclass(frozen=True, slots=True)
class Sums:
    """What an analysis has accumulated, to be merged with that of other images by `derive`.

    Args:
        header: The message `rootserve.v1.Sums`, serialised: what they belong to.
        matrices: By kind and layers, such as ("scatter", "conv1a", "").
    """

    header: bytes
    matrices: Mapping[tuple[str, str, str], Matrix]


@dataclass(frozen=True, slots=True)
class Analysis:
    """All that was found.

    Args:
        model: Name of the model.
        weights_sha256: Of its weights; empty for random ones.
        images: How many were analysed.
        before_relu: Whether responses were taken before the ReLU instead of after it.
        tolerance: Share of the largest eigenvalue up to which one counted as zero.
        layers: By name, in the order they run.
        pairs: In the order of the request.
        elapsed_s: Time it took.
        sums: None if not asked for.
        where: Who took that time, in words.
    """

    model: str
    weights_sha256: str
    images: int
    before_relu: bool
    tolerance: float
    layers: Mapping[str, Layer]
    pairs: Sequence[Pair]
    elapsed_s: float = 0.0
    sums: Sums | None = field(default=None, repr=False)
    where: str = "in the server"

    def own_groups(self, pair: Pair) -> int:
        """Groups by which the pair's second layer reads its input; 1 if there are none to see."""
        groups = self.layers[pair.second].groups
        return groups if groups in pair.scores else 1
