"""How much of a convolution's response is left when it is in groups, from the covariance of what it takes.

A filter's response is ``y = w . x + b``, where ``x`` are the values under its kernel: ``C k k`` of them,
channel by channel. With ``S`` the covariance of ``x``, its variance is ``w S w'``. In groups, it sees the
channels of its own group ``g`` alone. The best that it can do with them, in the mean of squares, are the
weights of a least squares fit, in closed form

    v = (w S)_g  S_gg^-1

and the variance of its response that they explain is ``v S_gg v' = (w S)_g S_gg^-1 (w S)_g'``. The *energy
kept* is the sum of that over all filters, over the sum of their variances: 0 to 1, and 1 where no filter
needs another group. More channels in view never explain less. Leaving weights out without a fit keeps ``1 -
w_d S_dd w_d' / w S w'`` (``d``: the channels dropped), which is never more, and may be below 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.intp]
"""For each channel, its group."""

RIDGE = 1e-5
"""Added to the variances, as a share of their mean: channels that say the same would make a fit arbitrary."""


_LEAST_LEFT = 0.01
"""Of a filter's variance: with less, its responses are not made to vary as before."""


@dataclass(frozen=True, slots=True)
class View:
    """What a group of channels gives, and what one more or one less would change."""

    explained: Array
    """[out]: the variance of each filter's response that the group explains."""
    added: Array
    """[in]: what some of the filters would be explained more with that channel too; 0 for those it has."""
    removed: Array
    """[in]: what they would be explained less without that channel; 0 for those it has not."""


class Energy:
    """A convolution's responses as a function of the channels that its filters see.

    Args:
        weight: [out, in, k, k] as the responses' energies are to be compared: with the normalisation that
            follows multiplied in.
        covariance: [in k k, in k k] of the values under its kernel, channel by channel.
    """

    def __init__(self, weight: Array, covariance: Array) -> None:
        self.filters, self.channels = weight.shape[:2]
        self.window = int(np.prod(weight.shape[2:]))
        self._weight = weight.reshape(self.filters, -1).astype(np.float64)
        size = self.channels * self.window
        if covariance.shape != (size, size):
            raise ValueError(f"a covariance of {covariance.shape} came, expected {(size, size)}")
        self._covariance = covariance
        self._cross = self._weight @ covariance
        self.variances: Array = np.maximum((self._cross * self._weight).sum(1), 0.0)
        """[out], of the filters' responses."""
        self._ridge = RIDGE * max(float(np.trace(covariance)) / size, 1e-30)

    @property
    def total(self) -> float:
        """The sum of all variances; a tiny number if nothing varies."""
        return max(float(self.variances.sum()), 1e-30)

    def explained(self, channels: Sequence[int] | Labels) -> Array:
        """Variance of each filter's response, [out], that these input ``channels`` explain."""
        values = self._values(channels)
        inverse = self._inverse(values)
        cross = self._cross[:, values]
        result: Array = np.clip(((cross @ inverse) * cross).sum(1), 0.0, self.variances)
        return result

    def view(self, channels: Sequence[int] | Labels, filters: Labels) -> View:
        """What ``channels`` give, and what one more or one less would change for ``filters``."""
        values = self._values(channels)
        inverse = self._inverse(values)
        cross = self._cross[:, values]
        fitted = cross @ inverse
        explained = np.clip((fitted * cross).sum(1), 0.0, self.variances)
        inside = np.asarray(channels, np.intp)
        outside = np.setdiff1d(np.arange(self.channels), inside)
        added, removed = np.zeros(self.channels), np.zeros(self.channels)
        own = inverse.reshape(len(inside), self.window, len(inside), self.window)
        each = np.arange(len(inside))
        removed[inside] = _quadratic(own[each, :, each], fitted[filters])
        if len(outside):
            others = self._values(outside)
            between = self._covariance[np.ix_(values, others)]
            leading = inverse @ between
            left = self._cross[np.ix_(filters, others)] - cross[filters] @ leading
            # What of each other channel the group does not know yet.
            known = (x.reshape(len(values), -1, self.window) for x in (between, leading))
            rest = self._diagonal_blocks(outside) - np.einsum("acp,acq->cpq", *known, optimize=True)
            rest += self._ridge * np.eye(self.window)
            added[outside] = _quadratic(rest, left)
        return View(explained, added, removed)

    def kept(self, taken: Labels, made: Labels) -> float:
        """The energy kept by groups: channels have the labels ``taken`` [in], filters ``made`` [out]."""
        found = 0.0
        for group in range(int(taken.max()) + 1):
            found += float(self.explained(np.flatnonzero(taken == group))[made == group].sum())
        return found / self.total

    def kept_without_fit(self, taken: Labels, made: Labels) -> float:
        """The same where the weights within the groups stay as they are; may be below 0."""
        lost = 0.0
        for group in range(int(taken.max()) + 1):
            dropped = self._values(np.flatnonzero(taken != group))
            weight = self._weight[np.ix_(made == group, dropped)]
            lost += float(((weight @ self._covariance[np.ix_(dropped, dropped)]) * weight).sum())
        return 1.0 - lost / self.total

    def fitted(self, weight: Array, channels: Sequence[int] | Labels, filters: Labels) -> Array:
        """The best weights [filters, channels, window] of ``filters`` that see these ``channels`` alone.

        Args:
            weight: [out, in, k, k], on whatever scale each filter is to have.
            channels: What they see, in the order that the result has.
            filters: Numbers of filters, as well.
        """
        values = self._values(channels)
        others = np.setdiff1d(np.arange(self.channels * self.window), values)
        flat = weight.reshape(self.filters, -1)[filters].astype(np.float64)
        # What the other channels gave, as far as these can tell it: next to nothing is a fit of nothing.
        missing = flat[:, others] @ self._covariance[np.ix_(others, values)]
        result = flat[:, values] + missing @ self._inverse(values)
        shaped: Array = result.reshape(len(filters), len(channels), self.window)
        return shaped

    def scale(
        self, weight: Array, part: Array, channels: Sequence[int] | Labels, filters: Labels
    ) -> Array:
        """By what the responses of ``part`` have to be multiplied to vary as those of ``weight``; [filters].

        Args:
            weight: As :meth:`fitted`.
            part: Weights [filters, channels, window] of ``filters`` that see ``channels`` alone.
            channels: What they see.
            filters: Numbers of filters.
        """
        values = self._values(channels)
        flat, small = weight.reshape(self.filters, -1)[filters], part.reshape(len(filters), -1)
        before = ((flat @ self._covariance) * flat).sum(1)
        after = ((small @ self._covariance[np.ix_(values, values)]) * small).sum(1)
        # A filter of which next to nothing is left would be noise.
        some = (before > 0) & (after > _LEAST_LEFT * before)
        result: Array = np.sqrt(np.where(some, before, 1.0) / np.where(some, after, 1.0))
        return result

    def solo(self) -> Array:
        """[out, in]: the variance of what each input channel alone gives to each filter's response."""
        blocks = self._diagonal_blocks(np.arange(self.channels))
        weight = self._weight.reshape(self.filters, self.channels, self.window)
        result: Array = np.einsum("ocp,cpq,ocq->oc", weight, blocks, weight, optimize=True)
        return result

    def _values(self, channels: Sequence[int] | Labels) -> Labels:
        starts = np.asarray(channels, np.intp)[:, None] * self.window
        return (starts + np.arange(self.window)).ravel()

    def _inverse(self, values: Labels) -> Array:
        own = self._covariance[np.ix_(values, values)]
        own[np.diag_indices_from(own)] += self._ridge
        return np.linalg.inv(own).astype(np.float64, copy=False)

    def _diagonal_blocks(self, channels: Labels) -> Array:
        places = channels[:, None] * self.window + np.arange(self.window)
        blocks: Array = self._covariance[places[:, :, None], places[:, None, :]]
        return blocks


def _quadratic(blocks: Array, vectors: Array) -> Array:
    """For each block [c, p, p], the sum of ``v B^-1 v'`` over its parts of the vectors [n, c p]: [c]."""
    channels, window = blocks.shape[:2]
    parts = vectors.reshape(len(vectors), channels, window).transpose(1, 2, 0)  # [c, p, n]
    result: Array = (parts * np.linalg.solve(blocks, parts)).sum((1, 2))
    return result
