"""How weights are updated: Muon for the convolutions, Nesterov momentum for the vectors.

Both take the learning rate as a tensor on the device, so that a step can be captured in a CUDA graph.
Muon is Keller Jordan's ("Muon: An optimizer for hidden layers", 2024), as in cifar10-airbench, here with
each filter group of a grouped convolution as a matrix of its own.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

import torch
from torch import Tensor, nn

_LEAST_LENGTH = 0.01
"""Of a filter that keeps its scale, as far as its changes go."""


def orthogonalise(matrices: Tensor, dtype: torch.dtype = torch.bfloat16, steps: int = 5) -> Tensor:
    """Roughly the nearest semi-orthogonal matrices: singular values between about 0.7 and 1.2.

    [groups, rows, columns] -> the same. Jordan's quintic Newton-Schulz iteration, in ``dtype``: bf16 will do,
    since what matters is the direction, not the last digit.
    """
    x: Tensor = matrices.to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, polynomial, x, beta=3.4445)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon:
    """Orthogonalised Nesterov momentum for convolution weights [out, in / groups, k, k].

    Before each update a weight is scaled to norm sqrt(out), one unit per filter. Batch normalisation
    makes the network blind to that scale, so the learning rate is the relative change of a weight in
    one step, and weight decay has no part to play. Those of ``convolutions`` that are ``bare``, with no
    normalisation after them, keep their scale, and change by as large a share of it. ``dtype`` is one that
    the device is fast at.
    """

    def __init__(
        self,
        convolutions: Iterable[nn.Conv2d],
        momentum: float,
        dtype: torch.dtype = torch.bfloat16,
        bare: Container[nn.Module] = (),
    ) -> None:
        self.momentum, self._dtype = momentum, dtype
        self.weights = [(conv.weight, conv.groups, conv in bare) for conv in convolutions]
        self.buffers = [torch.zeros_like(weight) for weight, _, _ in self.weights]

    @torch.no_grad()
    def step(self, lr: Tensor) -> None:
        """Update all weights from their gradients."""
        for (weight, groups, bare), buffer in zip(self.weights, self.buffers, strict=True):
            assert weight.grad is not None
            buffer.lerp_(weight.grad, 1 - self.momentum)
            ahead = weight.grad.lerp(buffer, self.momentum)
            filters = len(weight) // groups
            update = orthogonalise(ahead.reshape(groups, filters, -1), self._dtype)
            # As long as the weight it changes, also where there are more filters than inputs.
            scale = max(1.0, filters / update.shape[-1]) ** 0.5
            rate = scale * lr
            if bare:
                # Weights that were zero, as some begin, may change as well.
                length = weight.norm() / len(weight) ** 0.5
                rate = rate * length.clamp_min(_LEAST_LENGTH)
            else:
                weight.mul_(len(weight) ** 0.5 / weight.norm())
            weight.sub_(update.reshape(weight.shape) * rate)


class Nesterov:
    """Stochastic gradient descent with Nesterov momentum, as torch.optim.SGD has it."""

    def __init__(self, parameters: Iterable[nn.Parameter], momentum: float) -> None:
        self.momentum = momentum
        self.parameters = list(parameters)
        self.buffers = [torch.zeros_like(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, lr: Tensor) -> None:
        """Update all parameters from their gradients."""
        for parameter, buffer in zip(self.parameters, self.buffers, strict=True):
            assert parameter.grad is not None
            buffer.mul_(self.momentum).add_(parameter.grad)
            parameter.sub_((parameter.grad + self.momentum * buffer) * lr)
