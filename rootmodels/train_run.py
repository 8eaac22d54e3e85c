"""One training run: the recipe, the state, and the step that takes one to the next.

Everything random is drawn from (seed, epoch), and :meth:`Run.state` is all there is between two steps:
a run that is saved and restored goes on as if nothing had been. On the CPU with as many threads, it ends
with the same weights, bit for bit; on a GPU up to the order in which its kernels add.

On a GPU the data set and its augmentation live on the device, the network is compiled, and the whole step is
one CUDA graph for each image size.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rootmodels.cifar10 import LabelledImages
from rootmodels.data_error import DataError
from rootmodels.families import FAMILIES
from rootmodels.network import Network
from rootmodels.train_optimizers import Muon, Nesterov
from rootmodels.variants import get_variant

RECIPE_SIDE = 32
"""The numbers of pixels in a recipe are for images with such a side; they grow with larger ones."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The numbers of a training run; written into the metadata of the weights."""

    epochs: int = 6
    batch_size: int = 256
    muon_lr: float = 0.04  # relative change of a convolution's weight in one step, at the peak
    muon_momentum: float = 0.95
    vector_lr: float = 0.3  # of the scales and shifts of batch normalisation, at the peak
    vector_momentum: float = 0.9
    warmup: float = 0.1  # share of the steps in which the learning rates rise
    label_smoothing: float = 0.1
    small_share: float = 0.75  # of the steps that see small crops: cheaper, and enough to begin
    small_size: int = 24  # pixels, a side of a small crop
    padding: int = 2  # pixels, around the image when the crop is as large as the image

    def crop(self, step: int, steps: int) -> tuple[int, int]:
        """The crops at ``step`` of ``steps``: their side, how far they reach over the image's border."""
        if step < self.small_share * steps:
            return self.small_size, 0
        return RECIPE_SIDE, self.padding


def one_cycle(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at ``step`` of ``steps``: straight up, then straight to zero.

    After Smith and Topin, "Super-Convergence", 2018.
    """
    top = warmup * steps
    if step < top:
        return (step + 1) / (top + 1)
    return (steps - step) / (steps - top)


def crop(images: Tensor, rows: Tensor, corners: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Windows of ``size`` x ``size`` pixels, some mirrored: uint8 [N, 3, size, size], channels-last.

    ``images`` is uint8 [M, H, W, 3]; ``rows`` [N] says which of them, ``corners`` [2, N] where each
    window's top and left edge is, ``mirrored`` bool [N] which windows are turned left to right.
    """
    span = torch.arange(size, device=images.device)
    y = corners[0][:, None] + span
    x = corners[1][:, None] + torch.where(mirrored[:, None], span.flip(0), span)
    return images[rows[:, None, None], y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def pad(images: Tensor, padding: int, colour: Sequence[float]) -> Tensor:
    """Images [N, 3, H, W] with ``padding`` pixels of ``colour`` around, [N, H', W', 3].

    A network's mean colour is zero once it has normalised it.
    """
    count, _, height, width = images.shape
    mean = images.new_tensor([round(value) for value in colour])
    padded = mean.repeat(count, height + 2 * padding, width + 2 * padding, 1)
    padded[:, padding : padding + height, padding : padding + width] = images.permute(0, 2, 3, 1)
    return padded


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """What was drawn for an epoch, one entry for each image in the order in which they are seen."""

    rows: Tensor
    places: Tensor
    """float [2, N] in 0..1: where a crop lies between the first and the last row, and column."""
    mirrored: Tensor


class Run:
    """One variant's training on one device.

    Args:
        name: The variant.
        recipe: The numbers.
        seed: Where all that is random comes from.
        data: The training set.
        device: Where to train.
        image_size: Height and width of the images that the network is for, in pixels; without, the
            family's. Images of another size are scaled once they are cropped.
        classes: Number of logits; without, the family's.
        compiled: On a GPU, compile the network and capture each step in a CUDA graph.

    Raises:
        UnknownVariantError: There is no such variant.
        DataError: The training set is smaller than one batch.
    """

    def __init__(  # noqa: PLR0913 - each is said once, by whoever begins a run
        self,
        name: str,
        recipe: Recipe,
        seed: int,
        data: LabelledImages,
        device: torch.device,
        *,
        image_size: int | None = None,
        classes: int | None = None,
        compiled: bool = True,
    ) -> None:
        if len(data) < recipe.batch_size:
            text = f"the training set has {len(data)} images, expected at least one batch, "
            raise DataError(f"{text}{recipe.batch_size}")
        self.recipe, self.seed, self.device = recipe, seed, device
        variant = get_variant(name)
        facts = FAMILIES[variant.family]
        self._side: int = data.images.shape[2]
        self._image_size = image_size or facts.image_size
        self._padding = self._pixels(recipe.padding)
        self.images = pad(torch.from_numpy(data.images).to(device), self._padding, facts.mean)
        self.labels = torch.from_numpy(data.labels).to(device)
        self.mirrored_first = torch.rand(len(data), generator=self._generator("mirror")) < 0.5
        self.steps_per_epoch = len(data) // recipe.batch_size
        self.steps = self.steps_per_epoch * recipe.epochs
        self.step = 0
        self._epoch_plan: tuple[int, EpochPlan] | None = None

        torch.manual_seed(seed)
        self.model = Network(variant, image_size, classes).to(device)
        convolutions = [part for part in self.model.modules() if isinstance(part, nn.Conv2d)]
        # A linear layer's matrix as well: no normalisation follows, so its scale matters.
        vectors = [parameter for parameter in self.model.parameters() if parameter.ndim < 4]
        self.muon = Muon(convolutions, recipe.muon_momentum)
        self.nesterov = Nesterov(vectors, recipe.vector_momentum)
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, hits, images

        # What a step reads lies in tensors of its own, whose place a CUDA graph knows.
        self._rate = torch.zeros((), device=device)
        self._rows = torch.zeros(recipe.batch_size, dtype=torch.int64, device=device)
        self._corners = torch.zeros(2, recipe.batch_size, dtype=torch.int64, device=device)
        self._mirrored = torch.zeros(recipe.batch_size, dtype=torch.bool, device=device)
        self._captured = compiled and device.type == "cuda"
        torch.backends.cudnn.benchmark = self._captured  # shapes stay the same: try all kernels
        self._network: Callable[[Tensor], Tensor] = (
            torch.compile(self.model, dynamic=False, fullgraph=True)
            if self._captured
            else self.model
        )
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def train_step(self) -> None:
        """Do one step, and add the batch's loss and hits to ``sums``."""
        epoch, index = divmod(self.step, self.steps_per_epoch)
        plan = self._plan(epoch)
        batch = slice(index * self.recipe.batch_size, (index + 1) * self.recipe.batch_size)
        size, padding = map(self._pixels, self.recipe.crop(self.step, self.steps))
        self._rows.copy_(plan.rows[batch])
        self._corners.copy_(self._corners_of(plan.places[:, batch], size, padding))
        self._mirrored.copy_(plan.mirrored[batch])
        self._rate.fill_(one_cycle(self.step, self.steps, self.recipe.warmup))
        if self._captured:
            if size not in self._graphs:
                self._graphs[size] = self._capture(size)
            self._graphs[size].replay()
        else:
            self._compute(size)
        self.step += 1

    def _compute(self, size: int) -> None:
        """The arithmetic of a step, on what lies in the step's tensors; waits for no device."""
        images = crop(self.images, self._rows, self._corners, self._mirrored, size)
        if self._side != self._image_size:
            images = scaled(images, round(size * self._image_size / self._side))
        labels = self.labels[self._rows]
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self._network(images).float()
        smoothing = self.recipe.label_smoothing
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.muon.step(self._rate * self.recipe.muon_lr)
        self.nesterov.step(self._rate * self.recipe.vector_lr)
        hits = (logits.detach().argmax(1) == labels).sum()
        self.sums[0] += loss.detach() * len(labels)
        self.sums[1] += hits
        self.sums[2] += len(labels)

    def _capture(self, size: int) -> torch.cuda.CUDAGraph:
        """A CUDA graph of the step for images of ``size``; leaves the state as it was.

        Compilation and the choice of kernels must be over before the capture: hence the steps on a
        stream of their own, as torch's notes on CUDA graphs ask for.
        """
        before = {key: value.clone() for key, value in self.state().items()}
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream), warnings.catch_warnings():
            # The compiler advises TF32 for fp32 products; a step has none worth it.
            warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
            for _ in range(3):
                self._compute(size)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._compute(size)
        self.set_state(before)
        return graph

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
        here = self.device
        return EpochPlan(rows.to(here), places.to(here), mirrored.to(here))

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

    def state(self) -> dict[str, Tensor]:
        """All tensors that a step changes, by name; not copies."""
        tensors = {f"model/{key}": value for key, value in self.model.state_dict().items()}
        for part, buffers in (("muon", self.muon.buffers), ("nesterov", self.nesterov.buffers)):
            tensors |= {f"{part}/{index}": buffer for index, buffer in enumerate(buffers)}
        return tensors | {"sums": self.sums}

    def set_state(self, tensors: dict[str, Tensor]) -> None:
        """Give the tensors of :meth:`state` these values."""
        for key, value in self.state().items():
            value.copy_(tensors[key])


def scaled(images: Tensor, size: int) -> Tensor:
    """Images [N, 3, H, W] in 0..255 made ``size`` x ``size`` pixels, bilinearly: float32."""
    return functional.interpolate(
        images.float(), size=(size, size), mode="bilinear", align_corners=False
    )


@torch.inference_mode()
def accuracy(
    model: nn.Module, data: LabelledImages, device: torch.device, image_size: int | None = None
) -> float:
    """Top-1 accuracy of ``model`` in fp32 over all of ``data``, 0..1; scaled to ``image_size``, if given."""
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32, also in convolutions on a GPU
    model = model.eval().to(device)
    side = image_size or data.images.shape[2]
    # As many pixels at a time, however large the images are.
    rows = max(10, 250 * RECIPE_SIDE**2 // side**2)
    correct = 0
    for start in range(0, len(data), rows):
        images = torch.from_numpy(data.images[start : start + rows]).to(device)
        labels = torch.from_numpy(data.labels[start : start + rows]).to(device)
        if side != images.shape[2]:
            images = scaled(images, side)
        correct += int((model(images).argmax(1) == labels).sum())
    return correct / len(data)
