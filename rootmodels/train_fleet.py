"""Networks that are trained side by side: the same batches, the same teacher, one schedule.

On a GPU the step of each network is one CUDA graph for each image size, and a few streams replay them, so
that the small kernels of one network's optimiser run beside the large ones of another's convolutions.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rootmodels.cifar10 import LabelledImages
from rootmodels.family import FamilyError, Variant
from rootmodels.layers import network_layers
from rootmodels.network import Network
from rootmodels.train_batches import Batch, Batches
from rootmodels.train_dense import DenseForm, dense_form
from rootmodels.train_recipe import Recipe, one_cycle
from rootmodels.train_run import Run, computing_in
from rootmodels.variants import family_of
from rootserve.pictures import DataError

STREAMS = 3
_WARM_UP_STEPS = 2
_TIMED_STEPS = 20


@dataclass(frozen=True, slots=True)
class Computing:
    """How a fleet computes. ``captured`` needs a GPU, ``compiled`` a compiler that torch can use.

    ``dense`` computes grouped convolutions as dense ones, see :mod:`rootmodels.train_dense`.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    dense: bool = False
    compiled: bool = False
    captured: bool = False


class Fleet:
    """Runs on the same batches, step by step.

    Args:
        runs: The networks.
        batches: What they see.
        computing: How; its device is that of the runs.
        teacher: What the recipe compares with: images -> logits, in ``eval`` mode on the device.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        batches: Batches,
        computing: Computing,
        teacher: nn.Module | None = None,
    ) -> None:
        self.runs, self.batches, self.computing, self.teacher = runs, batches, computing, teacher
        self.epochs = batches.recipe.epochs
        self.step = 0
        self._rate = torch.zeros((), device=computing.device)
        # Shapes stay the same: try all kernels.
        torch.backends.cudnn.benchmark = computing.captured
        self._captured: dict[int, _Captured] = {}

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has."""
        return self.batches.steps_per_epoch

    @property
    def steps(self) -> int:
        """How many steps the whole training has."""
        return self.epochs * self.steps_per_epoch

    def train_step(self) -> None:
        """Do one step of every run, and add each batch's loss and hits to the runs' ``sums``."""
        recipe = self.batches.recipe
        size = self.batches.choose(self.step, self.steps)
        self._rate.fill_(one_cycle(self.step, self.steps, recipe.warmup))
        if self.computing.captured:
            if size not in self._captured:
                self._captured[size] = self._capture(size)
            self._captured[size].replay()
        else:
            self._compute(size)
        self.step += 1

    def _compute(self, size: int) -> None:
        """The arithmetic of a step, on what the batches have chosen; waits for no device."""
        batch = self._take(size)
        for run in self.runs:
            run.compute(batch, self._rate)

    def _take(self, size: int) -> Batch:
        """The batch, with what the teacher says of it."""
        batch = self.batches.take(size)
        if self.teacher is None:
            return batch
        with torch.no_grad(), computing_in(self.computing.dtype, self.computing.device):
            teaching = self.teacher(batch.images).float()
        return Batch(batch.images, batch.labels, batch.others, batch.share, teaching)

    def _capture(self, size: int) -> _Captured:
        """CUDA graphs of the step for images of ``size``; leaves the runs as they were.

        Compilation and the choice of kernels must be over before the capture: hence the steps on a
        stream of their own, as torch's notes on CUDA graphs ask for.
        """
        before = self._copies()
        stream = torch.cuda.Stream(self.computing.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.computing.device))
        with torch.cuda.stream(stream), warnings.catch_warnings():
            # The compiler advises TF32 for fp32 products; a step has none worth it.
            warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
            for _ in range(_WARM_UP_STEPS):
                self._compute(size)
        torch.cuda.current_stream(self.computing.device).wait_stream(stream)
        # Each capture collects garbage: without what is there already, that takes no time.
        gc.collect()
        gc.freeze()
        captured = _Captured(self.computing.device, lambda: self._take(size))
        for run in self.runs:
            captured.add(run, self._rate)
        gc.unfreeze()
        self.set_state(before)
        return captured

    def epochs_within(self, seconds: float) -> int:
        """How many epochs fit, at least 1, by timing some steps of each image size; those are undone."""
        recipe = self.batches.recipe
        before = self._copies()
        spent = 0.0
        for share, step in ((recipe.small_share, 0), (1 - recipe.small_share, self.steps - 1)):
            if share == 0:
                continue
            self.step = step
            self.train_step()  # compiles and captures, where that is asked for
            self._wait()
            began = time.monotonic()
            for _ in range(_TIMED_STEPS):
                self.step = step
                self.train_step()
            self._wait()
            spent += share * (time.monotonic() - began) / _TIMED_STEPS
        self.step = 0
        self.set_state(before)
        return max(1, int(seconds / (spent * self.steps_per_epoch)))

    def _wait(self) -> None:
        if self.computing.device.type == "cuda":
            torch.cuda.synchronize(self.computing.device)

    def state(self) -> list[dict[str, Tensor]]:
        """Of each run, all tensors that a step changes; not copies."""
        return [run.state() for run in self.runs]

    def _copies(self) -> list[dict[str, Tensor]]:
        """What :meth:`state` has, in memory of its own."""
        return [{key: value.clone() for key, value in state.items()} for state in self.state()]

    def set_state(self, states: Sequence[dict[str, Tensor]]) -> None:
        """Give the tensors of :meth:`state` these values."""
        for run, state in zip(self.runs, states, strict=True):
            run.set_state(state)


class _Captured:
    """The CUDA graphs of a step: one that makes the batch, one for each run, on a few streams."""

    def __init__(self, device: torch.device, take: Callable[[], Batch]) -> None:
        self._device = device
        self._streams: list[torch.cuda.Stream] = [
            torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            for _ in range(STREAMS)
        ]
        # Graphs of one stream follow each other and share their memory.
        self._pools = [torch.cuda.graph_pool_handle() for _ in range(STREAMS)]
        self._first = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._first):
            self._batch = take()
        self._graphs: list[torch.cuda.CUDAGraph] = []

    def add(self, run: Run, rate: Tensor) -> None:
        """Capture the step of ``run``."""
        place = len(self._graphs) % STREAMS
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pools[place], stream=self._streams[place]):
            run.compute(self._batch, rate)
        self._graphs.append(graph)

    def replay(self) -> None:
        """Do the step; returns before the device has."""
        main = torch.cuda.current_stream(self._device)
        self._first.replay()
        for stream in self._streams:
            stream.wait_stream(main)
        for index, graph in enumerate(self._graphs):
            with torch.cuda.stream(self._streams[index % STREAMS]):
                graph.replay()
        for stream in self._streams:
            main.wait_stream(stream)


def variants_fleet(  # noqa: PLR0913 - each is said once, by whoever begins a training
    variants: Sequence[Variant],
    recipe: Recipe,
    seed: int,
    data: LabelledImages,
    computing: Computing,
    *,
    image_size: int | None = None,
    classes: int | None = None,
    teacher: nn.Module | None = None,
) -> Fleet:
    """A fleet of networks with random weights drawn from ``seed``.

    Args:
        variants: Those of families, or of model files; where their images' means differ, the first one's is
            the colour around images and in their holes.
        recipe: The numbers.
        seed: Where all that is random comes from.
        data: The training set.
        computing: How to compute.
        image_size: Height and width of the images that the networks are for, in pixels; without, the
            first one's family's. Images of another size are scaled once they are cropped.
        classes: Number of logits; without, the family's.
        teacher: As of :class:`Fleet`.

    Raises:
        FamilyError: A network cannot be for such images, or so many classes.
        DataError: The training set is smaller than one batch, or a network, or one of the teacher's, cannot
            take the smaller images that the recipe begins with.
    """
    family = family_of(variants[0])
    batches = Batches(
        data,
        recipe,
        seed,
        computing.device,
        colour=family.mean,
        image_size=image_size or family.image_size,
    )
    runs = []
    for network in teacher.modules() if teacher else ():
        if isinstance(network, Network):
            _check_sides(network.variant, batches.sides, network.layers[-1].out_channels)
    for variant in variants:
        network_layers(variant, image_size, classes)
        _check_sides(variant, batches.sides, classes)
        torch.manual_seed(seed)
        model = Network(variant, image_size, classes).to(computing.device)
        forward = None
        if computing.dense or computing.compiled:
            form = dense_form(variant, image_size, classes, computing.device, computing.compiled)
            forward = _bound(form, model)
        runs.append(
            Run(
                model,
                recipe,
                steps_per_epoch=batches.steps_per_epoch,
                dtype=computing.dtype,
                forward=forward,
            )
        )
    return Fleet(runs, batches, computing, teacher)


def _check_sides(variant: Variant, sides: Iterable[int], classes: int | None) -> None:
    """Refuse a recipe whose images are too small for ``variant``.

    Raises:
        DataError: saying so.
    """
    for side in sides:
        try:
            network_layers(variant, side, classes)
        except FamilyError as error:
            raise DataError(
                f"the recipe has images of {side} pixels: {error}; expected another small_size, or "
                "small_share=0"
            ) from error


def _bound(form: DenseForm, model: Network) -> Callable[[Tensor], Tensor]:
    return lambda images: form(model, images)
