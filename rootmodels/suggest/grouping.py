"""Which channels belong together: groups of equal size that keep the most of the energy.

First a spectral co-clustering (Dhillon, "Co-clustering documents and words using bipartite spectral graph
partitioning", 2001): channels and filters are the two sides of a graph whose edges are the energies between
them, and the leading eigenvectors of its normalised adjacency place those near one another that have much
to do with each other. Groups of equal size are filled around centres there. Then two channels of different
groups change places wherever that keeps more, until no such pair is found: from there on the energy never
falls. The contiguous groups are a start as well, so what comes out is never worse than they.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rootmodels.suggest.energy import Array, Energy, Labels

Grouping = dict[str, Labels]
"""For each space, the group of each of its channels."""

MOST_ROUNDS = 12
"""Of all spaces in turns; by then a round gains next to nothing."""

LEAST_GAIN = 1e-4
"""A round that gains less of the energy than this is the last one."""

_LEAST_SWAP = 1e-9
_CLUSTER_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Piece:
    """A convolution that is to be in groups: which space it takes, and which its filters make."""

    name: str
    taken: str
    made: str
    energy: Energy


def contiguous(channels: int, groups: int) -> Labels:
    """The first of the channels in the first group, and so on."""
    return np.arange(channels) * groups // channels


def random_grouping(sizes: Mapping[str, int], groups: int, seed: int) -> Grouping:
    """Groups of equal size by chance; ``sizes`` are the channels of each space."""
    rng = np.random.default_rng(seed)
    return {name: rng.permutation(contiguous(size, groups)) for name, size in sizes.items()}


def sizes_of(pieces: Sequence[Piece]) -> dict[str, int]:
    """Channels of each space that the ``pieces`` take or make."""
    sizes: dict[str, int] = {}
    for piece in pieces:
        sizes[piece.taken] = piece.energy.channels
        sizes[piece.made] = piece.energy.filters
    return sizes


def energy_kept(pieces: Sequence[Piece], grouping: Grouping) -> float:
    """The sum of the shares that the ``pieces`` keep."""
    return sum(piece.energy.kept(grouping[piece.taken], grouping[piece.made]) for piece in pieces)


def suggest_groups(pieces: Sequence[Piece], groups: int) -> Grouping:
    """Groups of equal size, for each space, that keep much of the energy of all ``pieces`` together.

    No piece takes what it makes, and ``groups`` divides all channels.
    """
    found: Grouping = {}
    for connected in _connected(pieces):
        sizes = sizes_of(connected)
        starts = [
            _spectral(connected, sizes, groups),
            {name: contiguous(size, groups) for name, size in sizes.items()},
        ]
        searches = [_Search(connected, start, groups) for start in starts]
        for search in searches:
            search.place_filters()
        best = max(searches, key=lambda one: one.score)
        best.improve()
        found |= best.grouping
    return found


@dataclass(slots=True)
class _Search:
    """Local search from one grouping on; ``score`` never falls."""

    pieces: Sequence[Piece]
    grouping: Grouping
    groups: int
    _explained: dict[str, Array] = field(default_factory=dict)
    """For each piece, [groups, out]: the share of its energy that a filter would have in that group."""

    def __post_init__(self) -> None:
        for piece in self.pieces:
            self._explained[piece.name] = np.stack(
                [
                    piece.energy.explained(np.flatnonzero(self.grouping[piece.taken] == group))
                    / piece.energy.total
                    for group in range(self.groups)
                ]
            )

    @property
    def score(self) -> float:
        """As :func:`energy_kept`."""
        return sum(self._kept(piece) for piece in self.pieces)

    def _kept(self, piece: Piece) -> float:
        made = self.grouping[piece.made]
        return float(self._explained[piece.name][made, np.arange(len(made))].sum())

    def improve(self) -> None:
        """Swap channels, space by space, until that gains next to nothing."""
        for _ in range(MOST_ROUNDS):
            before = self.score
            for space in dict.fromkeys(piece.taken for piece in self.pieces):
                self._swap_taken(space)
            self.place_filters()
            if self.score - before < LEAST_GAIN:
                return

    def place_filters(self) -> None:
        """Swap filters that no other piece takes; what that gains is known without trying."""
        taken = {piece.taken for piece in self.pieces}
        for space in dict.fromkeys(piece.made for piece in self.pieces):
            if space in taken:
                continue
            worth = sum(self._explained[p.name] for p in self.pieces if p.made == space)
            _swap_best(np.asarray(worth), self.grouping[space])

    def _swap_taken(self, space: str) -> None:
        """One pass over the most promising swaps in ``space``, each tried before it is kept."""
        labels = self.grouping[space]
        for first, second in self._promising(space):
            if labels[first] != labels[second]:
                self._try(space, first, second)

    def _promising(self, space: str) -> list[tuple[int, int]]:
        """Pairs of channels, each channel once, by what their swap would gain at a first glance."""
        labels = self.grouping[space]
        moved = np.zeros((len(labels), self.groups))  # what a channel would add to a group
        lost = np.zeros(len(labels))
        for piece in self.pieces:
            if piece.taken == space:
                made = self.grouping[piece.made]
                for group in range(self.groups):
                    inside = np.flatnonzero(labels == group)
                    view = piece.energy.view(inside, np.flatnonzero(made == group))
                    moved[:, group] += view.added / piece.energy.total
                    lost += view.removed / piece.energy.total
            if piece.made == space:
                worth = self._explained[piece.name].T
                moved += worth
                lost += worth[np.arange(len(labels)), labels]
        gain = _swap_gains(moved, lost, labels)
        order = np.argsort(-gain, axis=None, kind="stable")[: 8 * len(labels)]
        left = np.ones(len(labels), bool)
        pairs = []
        for first, second in zip(*np.unravel_index(order, gain.shape), strict=True):
            if left[first] and left[second] and np.isfinite(gain[first, second]):
                left[[first, second]] = False
                pairs.append((int(first), int(second)))
        return pairs

    def _try(self, space: str, first: int, second: int) -> None:
        """Swap two channels if that keeps more."""
        labels = self.grouping[space]
        before = self.score
        old = dict(self._explained)
        labels[[first, second]] = labels[[second, first]]
        for piece in self.pieces:
            if piece.taken == space:
                explained = self._explained[piece.name].copy()
                for group in (labels[first], labels[second]):
                    inside = np.flatnonzero(labels == group)
                    explained[group] = piece.energy.explained(inside) / piece.energy.total
                self._explained[piece.name] = explained
        if self.score - before <= _LEAST_SWAP:
            labels[[first, second]] = labels[[second, first]]
            self._explained = old


def _swap_gains(moved: Array, lost: Array, labels: Labels) -> Array:
    """[C, C], of channels of different groups in the upper triangle, and minus infinity elsewhere."""
    change = moved[:, labels] - lost[:, None]  # of channel i where channel j is
    gain = change + change.T
    allowed = np.triu(labels[:, None] != labels[None, :])
    return np.where(allowed, gain, -np.inf)


def _swap_best(worth: Array, labels: Labels) -> None:
    """Swap in ``labels``, in place, as long as that gains; ``worth`` [groups, C] of a channel in a group."""
    channels = np.arange(len(labels))
    for _ in range(10 * len(labels)):
        gain = _swap_gains(worth.T, worth[labels, channels], labels)
        first, second = np.unravel_index(int(gain.argmax()), gain.shape)
        if not gain[first, second] > _LEAST_SWAP:
            return
        labels[[first, second]] = labels[[second, first]]


def _connected(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Pieces that share spaces, directly or by others, together; in their order."""
    parts: list[list[Piece]] = []
    for piece in pieces:
        ends = {piece.taken, piece.made}
        joined = [part for part in parts if any({p.taken, p.made} & ends for p in part)]
        parts = [part for part in parts if part not in joined]
        parts.append([*(p for part in joined for p in part), piece])
    return parts


def _spectral(pieces: Sequence[Piece], sizes: Mapping[str, int], groups: int) -> Grouping:
    """Groups of equal size by co-clustering."""
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    edges = np.zeros((sum(sizes.values()),) * 2)
    for piece in pieces:
        rows, columns = (
            slice(starts[name], starts[name] + sizes[name]) for name in (piece.made, piece.taken)
        )
        energies = piece.energy.solo() / piece.energy.total
        edges[rows, columns] += energies
        edges[columns, rows] += energies.T
    scale = 1 / np.sqrt(np.maximum(edges.sum(1), 1e-12))
    places = np.linalg.eigh(edges * scale[:, None] * scale)[1][:, -groups:]
    places /= np.maximum(np.linalg.norm(places, axis=1, keepdims=True), 1e-12)
    centres = _spread(places, groups)
    labels: Grouping = {}
    for _ in range(_CLUSTER_ROUNDS):
        near = places @ centres.T
        found = {
            name: _filled(near[starts[name] : starts[name] + size]) for name, size in sizes.items()
        }
        if labels and all(np.array_equal(found[name], labels[name]) for name in sizes):
            break
        labels = found
        together = np.concatenate([labels[name] for name in sizes])
        centres = np.stack([places[together == group].mean(0) for group in range(groups)])
    return labels


def _spread(places: Array, groups: int) -> Array:
    """Places far from one another, to begin with: each the farthest from those before."""
    chosen = [int(np.linalg.norm(places - places.mean(0), axis=1).argmax())]
    distance = np.full(len(places), np.inf)
    for _ in range(groups - 1):
        distance = np.minimum(distance, np.linalg.norm(places - places[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return places[chosen].copy()


def _filled(near: Array) -> Labels:
    """Groups of equal size; the nearest channel and centre first. ``near`` is [C, groups]."""
    channels, groups = near.shape
    labels = np.full(channels, -1, np.intp)
    room = np.full(groups, channels // groups)
    for place in np.argsort(-near, axis=None, kind="stable"):
        channel, group = divmod(int(place), groups)
        if labels[channel] < 0 and room[group]:
            labels[channel] = group
            room[group] -= 1
    return labels
