"""Which workers there are to be, and what the scheduler keeps to with them."""

from __future__ import annotations

import dataclasses

from rootserve.server.core.scheduler import Limits
from rootserve.server.machine import cache_folder, usable_processors
from rootserve.server.models import Models
from rootserve.server.placement import place
from rootserve.server.settings import Settings
from rootserve.server.workers.handle import WorkerSpec


class StartError(RuntimeError):
    """The service cannot start; one line that says why."""


def worker_specs(settings: Settings, models: Models, cuda_devices: int) -> list[WorkerSpec]:
    """The workers that ``settings`` ask for on a machine with ``cuda_devices``.

    Raises:
        StartError: if a GPU is asked for that is not there.
    """
    match settings.device:
        case "auto":
            devices = [f"cuda:{index}" for index in range(cuda_devices)]
        case "cpu":
            devices = []
        case "cuda":
            devices = [f"cuda:{index}" for index in range(cuda_devices)]
            if not devices:
                raise StartError("device: cuda came, but torch sees no CUDA device; use cpu")
        case names:
            devices = names.split(",")
            for device in devices:
                if int(device.removeprefix("cuda:")) >= cuda_devices:
                    raise StartError(
                        f"device: {device} came, but torch sees {cuda_devices} CUDA devices"
                    )
    limits = settings.limits()
    # With explicit control, each model may be asked for.
    explicit = settings.model_control == "explicit"
    cards = [model.card for model in (models if explicit else models.served())]
    max_pixels = max(card.pixels for card in cards)
    max_classes = max(len(card.classes) for card in cards)

    def spec(
        name: str, device: str, threads: int, processors: tuple[int, ...] = (), lanes: int = 1
    ) -> WorkerSpec:
        return WorkerSpec(
            name=name,
            device=device,
            engine=settings.engine,
            precision=settings.precision,
            threads=threads,
            processors=processors,
            max_batch_rows=limits.max_batch_rows,
            max_pixels=max_pixels,
            max_classes=max_classes,
            lanes=lanes,
            slots=max(lanes, 1 + limits.batches_ahead),
            max_picture_bytes=settings.max_image_mb * 2**20,
            max_picture_pixels=settings.max_image_megapixels * 1_000_000,
            cache=settings.cache or cache_folder(),
        )

    if devices:
        return [spec(device.replace(":", "-"), device, 0) for device in devices]
    processors = usable_processors()
    own = processors.numbers if processors.are_ours else ()
    placements = place(
        processors.available, own, settings.optimize_for, settings.cpu_workers, settings.threads
    )
    return [spec(f"cpu-{index}", "cpu", *placement) for index, placement in enumerate(placements)]


def scheduler_limits(settings: Settings, specs: list[WorkerSpec]) -> Limits:
    """What the scheduler keeps to with workers of ``specs``.

    On a CPU the service has its turn on the processors that compute: to wake up before the end of a batch
    costs more than it saves.
    """
    limits = settings.limits()
    on_cpu = all(spec.device == "cpu" for spec in specs)
    return dataclasses.replace(limits, lead_s=None) if on_cpu else limits
