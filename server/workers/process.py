"""A worker process: loads models, computes batches, one after the other, until its service is gone."""

from __future__ import annotations

import argparse
import platform
import socket
import sys
import threading
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rootmodels.variants import get_variant
from server.engines.base import Engine, Images, LoadSpec
from server.engines.registry import get_loader
from server.machine import cpu_count, cpu_name
from server.workers import messages
from server.workers.assembly import Decoded, PictureSize, decode_segments
from server.workers.child import leave_ending_to_the_service
from server.workers.memory import SlotLayout, SlotMemory
from server.workers.pictures import Decoder, short_side


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker is told on its command line; ``image`` is C, H, W.

    ``max_image_pixels`` is the size of the largest picture that is decoded.
    """

    device: str
    threads: int
    max_batch_rows: int
    image: tuple[int, int, int]
    classes: int
    max_image_pixels: int


class WorkerProcess:
    """The loop of one worker."""

    def __init__(self, options: WorkerOptions, memory: SlotMemory, link: socket.socket) -> None:
        self._options = options
        self._memory = memory
        self._link = link
        self._decoder = Decoder(options.threads or cpu_count(), options.max_image_pixels)
        self._engines: dict[str, Engine] = {}
        self._behind: dict[str, Engine] = {}

    def serve(self) -> None:
        """Obey messages until the other end is closed."""
        device_name, libraries = _describe(self._options.device)
        self._send(messages.Started(device_name, libraries))
        while datagram := self._link.recv(messages.MAX_BYTES):
            match messages.decode(datagram):
                case messages.Load(behind=True) as load:
                    threading.Thread(target=self._load_behind, args=[load], daemon=True).start()
                case messages.Load() as load:
                    self._send(self._load(load, self._engines))
                case messages.Swap(model):
                    self._engines[model] = self._behind.pop(model)
                case messages.Discard(model, running):
                    self._behind.pop(model, None)
                    if running:
                        self._engines.pop(model, None)
                case messages.Run() as run:
                    self._send(self._run(run))
                case other:
                    raise AssertionError(f"a worker is not told {other}")

    def _load_behind(self, load: messages.Load) -> None:
        # A datagram is sent as a whole: the loop may send as well.
        self._send(self._load(load, self._behind))

    def _load(
        self, load: messages.Load, engines: dict[str, Engine]
    ) -> messages.Loaded | messages.LoadFailed:
        began = time.monotonic()
        weights = None if load.weights is None else Path(load.weights)
        spec = LoadSpec(
            load.model, weights, self._options.device, self._options.threads, load.precision
        )
        try:
            engine = get_loader(load.engine)(spec)
            self._warm_up(engine)
        except Exception as error:  # noqa: BLE001 - whatever it is, the service must be told
            return messages.LoadFailed(load.model, _one_line(error))
        engines[load.model] = engine
        seconds = time.monotonic() - began
        return messages.Loaded(load.model, engine.name, engine.precision, seconds)

    def _warm_up(self, engine: Engine) -> None:
        """Run every batch size that is a power of two, and the largest: first runs allocate."""
        largest = self._options.max_batch_rows
        rows = 1
        while rows < largest:
            engine.run(np.zeros((rows, *self._options.image), np.uint8))
            rows *= 2
        engine.run(np.zeros((largest, *self._options.image), np.uint8))

    def _run(self, run: messages.Run) -> messages.Done | messages.Failed:
        began_ns = time.monotonic_ns()
        expired = tuple(
            position
            for position, (_, _, deadline_ns) in enumerate(run.segments)
            if 0 < deadline_ns <= began_ns
        )
        try:
            decoded = self._decode(run, expired)
            left_out = (*expired, *(position for position, _ in decoded.refused))
            if len(left_out) < len(run.segments):
                self._memory.write_output(run.slot, self._logits(run, left_out, decoded))
        except Exception as error:  # noqa: BLE001 - a failing model must not take the worker along
            return messages.Failed(run.batch, _one_line(error))
        ended_ns = time.monotonic_ns()
        return messages.Done(
            run.batch, began_ns, ended_ns, expired, decoded.refused, decoded.decode_ns
        )

    def _decode(self, run: messages.Run, expired: tuple[int, ...]) -> Decoded:
        """The pictures of the batch that came encoded; most batches have none."""
        if all(datatype != "BYTES" for _, datatype, _ in run.segments):
            return Decoded()
        image = self._options.image
        size = PictureSize(image, short_side(get_variant(run.model).family, image[1]))
        return decode_segments(
            self._memory.input_content(run.slot),
            run.segments,
            expired,
            size,
            self._decoder,
            beat=lambda: self._send(messages.Decoding(run.batch)),
        )

    def _logits(
        self, run: messages.Run, left_out: tuple[int, ...], decoded: Decoded
    ) -> NDArray[np.float32]:
        """Logits of the whole batch, [rows, classes]; zeros where the segment is ``left_out``."""
        images = self._images(run, decoded)
        engine = self._engines[run.model]
        if not left_out:
            return self._checked(engine.run(images), len(images))
        alive = np.repeat(
            [position not in left_out for position in range(len(run.segments))],
            [rows for rows, _, _ in run.segments],
        )
        logits = np.zeros((len(images), self._options.classes), np.float32)
        logits[alive] = self._checked(engine.run(images[alive]), int(alive.sum()))
        return logits

    def _checked(self, logits: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
        expected = (rows, self._options.classes)
        if logits.shape != expected:
            raise ValueError(f"the engine gave logits {logits.shape}, expected {expected}")
        return logits

    def _images(self, run: messages.Run, decoded: Decoded) -> Images:
        """The batch's images in 0..255: as they lie there if all are UINT8; else float32 if any are."""
        image = self._options.image
        pixels = image[0] * image[1] * image[2]
        if all(datatype == "UINT8" for _, datatype, _ in run.segments):
            rows = sum(rows for rows, _, _ in run.segments)
            view = self._memory.input_view(run.slot, 0, rows * pixels, np.uint8)
            return view.reshape(rows, *image)  # type: ignore[return-value]
        parts: list[Images] = []
        offset = 0
        for position, (rows, datatype, _) in enumerate(run.segments):
            if datatype == "BYTES":
                parts.append(decoded.images[position])
                offset = decoded.ends[position]
                continue
            dtype = np.uint8 if datatype == "UINT8" else np.float32
            view = self._memory.input_view(run.slot, offset, rows * pixels, dtype)
            offset += view.nbytes
            values: Any = view.reshape(rows, *image)
            parts.append(values if datatype == "UINT8" else values * np.float32(255))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _send(self, message: messages.Message) -> None:
        self._link.send(messages.encode(message))


def _describe(device: str) -> tuple[str, dict[str, str]]:
    libraries = {"python": platform.python_version()}
    libraries |= {name: metadata.version(name) for name in ("torch", "openvino")}
    if device == "cpu":
        return cpu_name(), libraries
    import torch  # noqa: PLC0415 - takes longer than all else a CPU worker does before it is ready

    libraries["cuda"] = str(torch.version.cuda)
    return torch.cuda.get_device_name(device), libraries


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:2000]


def main() -> int:
    """Entry point: ``python -m server.workers.process``, started by the service alone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--max-batch-rows", type=int, required=True)
    parser.add_argument("--image", type=int, nargs=3, required=True)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--max-image-pixels", type=int, required=True)
    parser.add_argument("--slots", type=int, nargs=3, required=True)
    parser.add_argument("--memory-fd", type=int, required=True)
    parser.add_argument("--link-fd", type=int, required=True)
    args = parser.parse_args()
    leave_ending_to_the_service()
    options = WorkerOptions(
        device=args.device,
        threads=args.threads,
        max_batch_rows=args.max_batch_rows,
        image=tuple(args.image),
        classes=args.classes,
        max_image_pixels=args.max_image_pixels,
    )
    memory = SlotMemory(SlotLayout(*args.slots), args.memory_fd)
    with socket.socket(fileno=args.link_fd) as link:
        try:
            WorkerProcess(options, memory, link).serve()
        except (BrokenPipeError, ConnectionResetError):
            return 0  # the service is gone
    return 0


if __name__ == "__main__":
    sys.exit(main())
