"""One network in training: its weights, their optimisers, and the arithmetic of a step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

from rootmodels.cifar10 import LabelledImages
from rootmodels.network import Network
from rootmodels.train_batches import Batch, fitted
from rootmodels.train_optimizers import Muon, Nesterov
from rootmodels.train_recipe import RECIPE_SIDE, Recipe


class Run:
    """A network's training on one device.

    :meth:`state` is all there is between two steps: a run that is saved and restored goes on as if nothing
    had been. On the CPU with as many threads, it ends with the same weights, bit for bit; on a GPU up to the
    order in which its kernels add.

    Args:
        model: The network, on its device: images [N, 3, H, W] in 0..255 -> logits [N, classes].
        recipe: The numbers.
        steps_per_epoch: How many steps an epoch has, for the recipe's averaging.
        dtype: What convolutions compute in; weights and their updates stay fp32.
        forward: How ``model`` is computed, if not by calling it.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        steps_per_epoch: int = 1,
        dtype: torch.dtype = torch.float32,
        forward: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model, self.recipe, self._dtype = model, recipe, dtype
        self._forward = model if forward is None else forward
        convolutions = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
        # A linear layer's matrix as well: no normalisation follows, so its scale matters.
        vectors = [parameter for parameter in model.parameters() if parameter.ndim < 4]
        self.muon = Muon(convolutions, recipe.muon_momentum, dtype, _bare(model))
        self.nesterov = Nesterov(vectors, recipe.vector_momentum)
        device = next(model.parameters()).device
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, hits, images
        self._averaged: list[Tensor] = []
        if recipe.averaging:
            self._averaged = [value.clone() for value in self._changing()]
            horizon = max(1.0, recipe.averaging * steps_per_epoch)
            self._average = get_ema_multi_avg_fn(1 - 1 / horizon)  # type: ignore[no-untyped-call]

    def compute(self, batch: Batch, rate: Tensor) -> None:
        """Do one step at ``rate`` times the peak learning rates; waits for no device."""
        self.model.train()
        with computing_in(self._dtype, batch.images.device):
            logits = self._forward(batch.images).float()
        loss = self.loss(logits, batch)
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.muon.step(rate * self.recipe.muon_lr)
        self.nesterov.step(rate * self.recipe.vector_lr)
        if self._averaged:
            with torch.no_grad():
                self._average(self._averaged, self._changing(), 1)
        hits = (logits.detach().argmax(1) == batch.labels).sum()
        self.sums[0] += loss.detach() * len(batch.labels)
        self.sums[1] += hits
        self.sums[2] += len(batch.labels)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy with the labels, and with what the teacher says.

        The teacher's part is T^2 times the Kullback-Leibler divergence of softmax(teacher / T) from
        softmax(logits / T) (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
        section 2), for whole batches the mean over images.
        """
        recipe, share = self.recipe, self.recipe.teacher_share
        loss = logits.new_zeros(())
        if batch.teaching is not None and share:
            heat = recipe.temperature
            taught = functional.log_softmax(batch.teaching / heat, 1)
            own = functional.log_softmax(logits / heat, 1)
            divergence = functional.kl_div(own, taught, reduction="batchmean", log_target=True)
            loss = loss + share * heat**2 * divergence
        else:
            share = 0.0
        if share < 1:
            told = self._cross_entropy(logits, batch.labels)
            if batch.others is not None and batch.share is not None:
                told = told.lerp(self._cross_entropy(logits, batch.others), batch.share)
            loss = loss + (1 - share) * told
        return loss

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.recipe.label_smoothing
        return functional.cross_entropy(logits, labels, label_smoothing=smoothing)

    def _changing(self) -> list[Tensor]:
        """What is averaged: the parameters, and the statistics of normalisation."""
        values = self.model.state_dict().values()
        return [value for value in values if value.is_floating_point()]

    def begin_averages(self) -> None:
        """Begin the averages with the weights there are."""
        for average, value in zip(self._averaged, self._changing(), strict=False):
            average.copy_(value)

    def take_averages(self) -> None:
        """End the training: the model gets the averaged weights, if the recipe averages."""
        for average, value in zip(self._averaged, self._changing(), strict=False):
            value.copy_(average)

    def state(self) -> dict[str, Tensor]:
        """All tensors that a step changes, by name; not copies."""
        tensors = {f"model/{key}": value for key, value in self.model.state_dict().items()}
        parts = {
            "muon": self.muon.buffers,
            "nesterov": self.nesterov.buffers,
            "average": self._averaged,
        }
        for part, buffers in parts.items():
            tensors |= {f"{part}/{index}": buffer for index, buffer in enumerate(buffers)}
        return tensors | {"sums": self.sums}

    def set_state(self, tensors: dict[str, Tensor]) -> None:
        """Give the tensors of :meth:`state` these values."""
        for key, value in self.state().items():
            value.copy_(tensors[key])


def _bare(model: nn.Module) -> set[nn.Module]:
    """The convolutions of a network that no normalisation follows at once: their scale matters."""
    if not isinstance(model, Network):
        return set()
    layers = [layer for layer in model.layers if layer.kind == "conv" and not layer.norm]
    return {model.get_submodule(layer.path) for layer in layers}


def computing_in(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """A context in which convolutions compute in ``dtype``."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


@torch.inference_mode()
def accuracy(
    model: nn.Module,
    data: LabelledImages,
    device: torch.device,
    image_size: int | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> float:
    """Top-1 accuracy of ``model`` in fp32 over all of ``data``, 0..1; scaled to ``image_size``, if given.

    ``tell`` is called with the number of images that are done.
    """
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32, also in convolutions on a GPU
    model = model.eval().to(device)
    side = image_size or data.images.shape[2]
    # As many pixels at a time, however large the images are.
    rows = max(10, 250 * RECIPE_SIDE**2 // side**2)
    correct = 0
    for start in range(0, len(data), rows):
        images = torch.from_numpy(data.images[start : start + rows]).to(device)
        labels = torch.from_numpy(data.labels[start : start + rows]).to(device)
        correct += int((model(fitted(images, side)).argmax(1) == labels).sum())
        tell(min(start + rows, len(data)))
    return correct / len(data)
