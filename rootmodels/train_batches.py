"""The images of each step: drawn from (seed, epoch), cropped, mirrored and mixed on the device.

All networks that are trained side by side see the same batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rootmodels.cifar10 import LabelledImages
from rootmodels.train_recipe import RECIPE_SIDE, Recipe
from rootserve.pictures import DataError


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step learns from.

    ``images`` is [N, 3, H, W] in 0..255, channels-last, ``labels`` int64 [N]. Where images are mixed,
    ``share`` of each is another one, whose label is in ``others``. ``teaching`` has the logits of a teacher.
    """

    images: Tensor
    labels: Tensor
    others: Tensor | None = None
    share: Tensor | None = None
    teaching: Tensor | None = None


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """What was drawn for an epoch, one entry for each image in the order in which they are seen."""

    rows: Tensor
    places: Tensor
    """float [2, N] in 0..1: where a crop lies between the first and the last row, and column."""
    mirrored: Tensor
    holes: Tensor
    """float [2, N] in 0..1: where the centre of the square that is cut out lies in the crop."""
    shares: Tensor
    """float [steps] in 0..1: how much of the mixing that the recipe allows a batch gets."""


class Batches:
    """The data set on the device, and the batch of any step.

    Args:
        data: The training set.
        recipe: The numbers.
        seed: Where all that is random comes from.
        device: Where the data set lives.
        colour: What is around an image and in its holes, 0..255: a network's mean colour is zero once it
            has normalised it.
        image_size: Height and width of the images that the networks are for, in pixels. Images of another
            size are scaled once they are cropped.

    Raises:
        DataError: The training set is smaller than one batch.
    """

    def __init__(
        self,
        data: LabelledImages,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        *,
        colour: Sequence[float],
        image_size: int,
    ) -> None:
        if len(data) < recipe.batch_size:
            text = f"the training set has {len(data)} images, expected at least one batch, "
            raise DataError(f"{text}{recipe.batch_size}")
        self.recipe, self.seed, self.device = recipe, seed, device
        self._side: int = data.images.shape[2]
        self._image_size = image_size
        self._padding = self._pixels(recipe.padding)
        self._colour = torch.tensor([round(value) for value in colour], dtype=torch.uint8)
        self._colour = self._colour.to(device)
        self.images = pad(torch.from_numpy(data.images).to(device), self._padding, self._colour)
        self.labels = torch.from_numpy(data.labels).to(device)
        self.mirrored_first = torch.rand(len(data), generator=self._generator("mirror")) < 0.5
        self.steps_per_epoch = len(data) // recipe.batch_size
        self._epoch_plan: tuple[int, EpochPlan] | None = None

        # What a step reads lies in tensors of its own, whose place a CUDA graph knows.
        size = recipe.batch_size
        self._rows = torch.zeros(size, dtype=torch.int64, device=device)
        self._corners = torch.zeros(2, size, dtype=torch.int64, device=device)
        self._mirrored = torch.zeros(size, dtype=torch.bool, device=device)
        self._holes = torch.zeros(2, size, dtype=torch.int64, device=device)
        self._share = torch.zeros((), device=device)

    @property
    def sides(self) -> set[int]:
        """Height and width of the images that networks see in the course of a training, in pixels."""
        crops = (self.recipe.crop(step, 1)[0] for step in (0, 1))
        return {self._scaled_side(self._pixels(crop)) for crop in crops}

    def _scaled_side(self, size: int) -> int:
        return round(size * self._image_size / self._side)

    def choose(self, step: int, steps: int) -> int:
        """Say which images :meth:`take` gives, those of ``step`` of ``steps``; returns their side."""
        epoch, index = divmod(step, self.steps_per_epoch)
        plan = self._plan(epoch)
        batch = slice(index * self.recipe.batch_size, (index + 1) * self.recipe.batch_size)
        size, padding = map(self._pixels, self.recipe.crop(step, steps))
        self._rows.copy_(plan.rows[batch])
        self._corners.copy_(self._corners_of(plan.places[:, batch], size, padding))
        self._mirrored.copy_(plan.mirrored[batch])
        if self.recipe.cutout:
            self._holes.copy_((plan.holes[:, batch] * size).long())
        if self.recipe.mixup:
            self._share.copy_(plan.shares[index] * self.recipe.mixup)
        return size

    def take(self, size: int) -> Batch:
        """The chosen batch, of images with ``size`` pixels a side; waits for no device."""
        images = crop(self.images, self._rows, self._corners, self._mirrored, size)
        labels = self.labels[self._rows]
        if self.recipe.cutout:
            images = cut_out(images, self._holes, self._pixels(self.recipe.cutout), self._colour)
        if self._side != self._image_size:
            images = scaled(images, self._scaled_side(size))
        if not self.recipe.mixup:
            return Batch(images, labels)
        images = images.float()
        mixed = images.lerp(images.roll(1, 0), self._share)
        return Batch(mixed, labels, labels.roll(1), self._share)

    def _plan(self, epoch: int) -> EpochPlan:
        if self._epoch_plan is None or self._epoch_plan[0] != epoch:
            self._epoch_plan = (epoch, self._draw(epoch))
        return self._epoch_plan[1]

    def _draw(self, epoch: int) -> EpochPlan:
        """Draw order and crops on the CPU, so that every device sees the same images.

        An image is mirrored in every other epoch (Jordan, "94% on CIFAR-10 in 3.29 seconds", 2024):
        both of its sides are seen equally often.
        """
        generator = self._generator(f"epoch {epoch}")
        rows = torch.randperm(len(self.labels), generator=generator)
        places = torch.rand(2, len(rows), generator=generator)
        mirrored = self.mirrored_first[rows] ^ bool(epoch % 2)
        holes = torch.rand(2, len(rows), generator=generator)
        shares = torch.rand(self.steps_per_epoch, generator=generator)
        here = self.device
        return EpochPlan(
            rows.to(here), places.to(here), mirrored.to(here), holes.to(here), shares.to(here)
        )

    def _corners_of(self, places: Tensor, size: int, padding: int) -> Tensor:
        """Top and left edges, in the padded images, of crops that reach ``padding`` over the border."""
        choices = self._side + 2 * padding - size + 1
        return (places * choices).long() + (self._padding - padding)

    def _pixels(self, of_recipe: int) -> int:
        """A number of pixels of the recipe, as many as it is of the images at hand."""
        return round(of_recipe * self._side / RECIPE_SIDE)

    def _generator(self, purpose: str) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed}/{purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def crop(images: Tensor, rows: Tensor, corners: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Windows of ``size`` x ``size`` pixels, some mirrored: uint8 [N, 3, size, size], channels-last.

    ``images`` is uint8 [M, H, W, 3]; ``rows`` [N] says which of them, ``corners`` [2, N] where each
    window's top and left edge is, ``mirrored`` bool [N] which windows are turned left to right.
    """
    span = torch.arange(size, device=images.device)
    y = corners[0][:, None] + span
    x = corners[1][:, None] + torch.where(mirrored[:, None], span.flip(0), span)
    return images[rows[:, None, None], y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def cut_out(images: Tensor, centres: Tensor, size: int, colour: Tensor) -> Tensor:
    """Images [N, 3, H, W] with a square of ``size`` pixels around its centre, [2, N], in one colour.

    DeVries and Taylor, "Improved Regularization of CNNs with Cutout", 2017: a square may reach over the
    border.
    """
    span = torch.arange(images.shape[2], device=images.device)
    first = centres - size // 2
    inside = (span >= first[..., None]) & (span < first[..., None] + size)  # [2, N, side]
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(hole, colour.view(1, 3, 1, 1), images)


def pad(images: Tensor, padding: int, colour: Tensor) -> Tensor:
    """Images [N, 3, H, W] with ``padding`` pixels of ``colour`` around, [N, H', W', 3]."""
    count, _, height, width = images.shape
    padded = colour.repeat(count, height + 2 * padding, width + 2 * padding, 1)
    padded[:, padding : padding + height, padding : padding + width] = images.permute(0, 2, 3, 1)
    return padded


def fitted(images: Tensor, size: int) -> Tensor:
    """Images [N, 3, H, W] as they are if they have ``size`` x ``size`` pixels; else :func:`scaled`."""
    return images if images.shape[2] == size else scaled(images, size)


def scaled(images: Tensor, size: int) -> Tensor:
    """Images [N, 3, H, W] in 0..255 made ``size`` x ``size`` pixels, bilinearly: float32."""
    return functional.interpolate(
        images.float(), size=(size, size), mode="bilinear", align_corners=False
    )
