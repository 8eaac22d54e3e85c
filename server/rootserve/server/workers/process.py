"""A worker process: loads models and computes batches, until its service is gone.

Batches alone come one after the other; with several lanes, others are computed side by side, each in a thread
that waits for what the engine's own threads compute.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rootmodels.processor import cpu_name
from rootmodels.weights_info import WeightsError, file_sha256
from rootserve.server.datagram import MAX_BYTES
from rootserve.server.engines.base import Images, LoadSpec
from rootserve.server.engines.choice import load_best
from rootserve.server.engines.choice_cache import ChoiceCache
from rootserve.server.machine import cpu_count
from rootserve.server.workers import messages
from rootserve.server.workers.assembly import Decoded, PictureSize, decode_segments
from rootserve.server.workers.child import leave_ending_to_the_service
from rootserve.server.workers.loaded import LoadedModel
from rootserve.server.workers.memory import SlotLayout, SlotMemory
from rootserve.server.workers.pictures import Decoder

_LONGEST_REASON = 2000


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker is told on its command line.

    ``max_picture_pixels`` is the size of the largest picture that is decoded; ``lanes`` are the batches that
    are computed side by side at most.
    """

    device: str
    threads: int
    max_batch_rows: int
    max_picture_pixels: int
    cache: Path | None = None
    lanes: int = 1


class WorkerProcess:
    """The loop of one worker."""

    def __init__(self, options: WorkerOptions, memory: SlotMemory, link: socket.socket) -> None:
        self._options = options
        self._memory = memory
        self._link = link
        self._decoder = Decoder(options.threads or cpu_count(), options.max_picture_pixels)
        self._choices: ChoiceCache
        self._models: dict[str, LoadedModel] = {}
        self._behind: dict[str, LoadedModel] = {}
        self._turn = threading.Lock()
        """Of the lane that takes the next message."""
        self._over = False
        """Whether there are no more."""

    def serve(self) -> None:
        """Obey messages until the other end is closed.

        Raises:
            BrokenPipeError, ConnectionResetError: if it is gone in the middle.
        """
        device_name, libraries = _describe(self._options.device)
        self._choices = ChoiceCache(self._options.cache, device_name)
        self._send(messages.Started(device_name, libraries))
        for number in range(1, self._options.lanes):
            threading.Thread(target=self._lane, name=f"lane {number}", daemon=True).start()
        self._obey()

    def _lane(self) -> None:
        try:
            self._obey()
        except BaseException as error:  # noqa: BLE001 - the process ends, as of the first lane
            if self._over or isinstance(error, BrokenPipeError | ConnectionResetError):
                return  # the service is gone, as the first lane sees as well
            traceback.print_exc()
            os._exit(1)

    def _obey(self) -> None:
        """Compute batches side by side, whichever come next, until there are no more messages."""
        while (beside := self._next_beside()) is not None:
            self._send(self._run(*beside))

    def _next_beside(self) -> tuple[messages.Run, LoadedModel] | None:
        """Obey messages in their order up to a batch beside others; None when there are no more messages.

        Then the next ones are for another lane. What they swap is not for this batch.
        """
        with self._turn:
            while not self._over:
                datagram = self._link.recv(MAX_BYTES)
                if not datagram:
                    self._over = True
                    break
                message = messages.decode(datagram)
                if not isinstance(message, messages.Run):
                    self._manage(message)
                    continue
                model = self._models[message.model]
                if message.beside:
                    return message, model
                # Alone: whatever comes waits until it is done.
                self._send(self._run(message, model))
        return None

    def _manage(self, message: messages.Message) -> None:
        match message:
            case messages.Load(behind=True) as load:
                threading.Thread(target=self._load_behind, args=[load], daemon=True).start()
            case messages.Load() as load:
                self._send(self._load(load, self._models))
            case messages.Swap(model):
                self._models[model] = self._behind.pop(model)
            case messages.Discard(model, running):
                self._behind.pop(model, None)
                if running:
                    self._models.pop(model, None)
            case other:
                raise AssertionError(f"a worker is not told {other}")

    def _load_behind(self, load: messages.Load) -> None:
        # A datagram is sent as a whole: the loop may send as well.
        self._send(self._load(load, self._behind))

    def _load(
        self, load: messages.Load, models: dict[str, LoadedModel]
    ) -> messages.Loaded | messages.LoadFailed:
        began = time.monotonic()
        weights = None if load.weights is None else Path(load.weights)
        options = self._options
        spec = LoadSpec(load.model, weights, options.device, options.threads)
        try:
            check_sha256(weights, load.weights_sha256)
            chosen = load_best(spec, load.engine, load.precision, self._choices)
            engine = chosen.engine
            model = LoadedModel(engine, load.image, load.classes, load.short_side)
            check_sha256(weights, load.weights_sha256)  # nor was it replaced while it was read
            threads = (options.threads or cpu_count()) if options.device == "cpu" else None
            warm = model.warm_up(options.max_batch_rows, threads)
        except Exception as error:  # noqa: BLE001 - whatever it is, the service must be told
            return messages.LoadFailed(load.model, _one_line(error))
        models[load.model] = model
        seconds = time.monotonic() - began
        reason = chosen.reason[:_LONGEST_REASON]
        return messages.Loaded(
            load.model,
            engine.name,
            engine.precision,
            seconds,
            tuple(warm.latency),
            reason,
            streams=model.streams if options.lanes > 1 else 1,
            speed_up=warm.speed_up,
        )

    def _run(self, run: messages.Run, model: LoadedModel) -> messages.Done | messages.Failed:
        began_ns = time.monotonic_ns()
        expired = tuple(
            position
            for position, (_, _, deadline_ns) in enumerate(run.segments)
            if 0 < deadline_ns <= began_ns
        )
        try:
            decoded = self._decode(run, expired, model)
            left_out = (*expired, *(position for position, _ in decoded.refused))
            if len(left_out) < len(run.segments):
                self._memory.write_output(run.slot, self._logits(run, left_out, decoded, model))
        except Exception as error:  # noqa: BLE001 - a failing model must not take the worker along
            return messages.Failed(run.batch, _one_line(error))
        ended_ns = time.monotonic_ns()
        return messages.Done(
            run.batch, began_ns, ended_ns, expired, decoded.refused, decoded.decode_ns
        )

    def _decode(self, run: messages.Run, expired: tuple[int, ...], model: LoadedModel) -> Decoded:
        """The pictures of the batch that came encoded; most batches have none."""
        if all(datatype != "BYTES" for _, datatype, _ in run.segments):
            return Decoded()
        size = PictureSize(model.image, model.short_side)
        return decode_segments(
            self._memory.input_content(run.slot),
            run.segments,
            expired,
            size,
            self._decoder,
            beat=lambda: self._send(messages.Decoding(run.batch)),
        )

    def _logits(
        self,
        run: messages.Run,
        left_out: tuple[int, ...],
        decoded: Decoded,
        model: LoadedModel,
    ) -> NDArray[np.float32]:
        """Logits of the whole batch, [rows, classes]; zeros where the segment is ``left_out``."""
        images = self._images(run, model.image, decoded)
        if not left_out:
            return model.run(images, beside=run.beside)
        alive = np.repeat(
            [position not in left_out for position in range(len(run.segments))],
            [rows for rows, _, _ in run.segments],
        )
        logits = np.zeros((len(images), model.classes), np.float32)
        logits[alive] = model.run(images[alive], beside=run.beside)
        return logits

    def _images(self, run: messages.Run, image: tuple[int, int, int], decoded: Decoded) -> Images:
        """The batch's images in 0..255, as uint8 or float32: as they lie there if all are UINT8."""
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
            values = view.reshape(rows, *image)
            parts.append(values if datatype == "UINT8" else values * np.float32(255))  # type: ignore[arg-type, operator]
        # As float32 if any of them is.
        return parts[0] if len(parts) == 1 else np.concatenate(parts)  # type: ignore[return-value]

    def _send(self, message: messages.Message) -> None:
        self._link.send(messages.encode(message))


def check_sha256(weights: Path | None, expected: str) -> None:
    """Refuse a file that is not the one that is served: workers must not compute different things.

    Raises:
        WeightsError: if it has another hash.
    """
    if weights is not None and (found := file_sha256(weights)) != expected:
        raise WeightsError(
            f"{weights} was replaced: its SHA-256 begins with {found[:12]}, that of what is served with "
            f"{expected[:12]}; load the model again, or restart the service"
        )


def _describe(device: str) -> tuple[str, dict[str, str]]:
    libraries = {"python": platform.python_version()}
    for name in ("torch", "openvino"):
        with suppress(metadata.PackageNotFoundError):  # a GPU machine may do without OpenVINO
            libraries[name] = metadata.version(name)
    if device == "cpu":
        return cpu_name(), libraries
    import torch  # noqa: PLC0415 - takes longer than all else a CPU worker does before it is ready

    libraries["cuda"] = str(torch.version.cuda)
    return torch.cuda.get_device_name(device), libraries


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:2000]


def main() -> int:
    """Entry point: ``python -m rootserve.server.workers.process``, started by the service alone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--processors", type=int, nargs="+")
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--max-batch-rows", type=int, required=True)
    parser.add_argument("--max-picture-pixels", type=int, required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--slots", type=int, nargs=3, required=True)
    parser.add_argument("--memory-fd", type=int, required=True)
    parser.add_argument("--link-fd", type=int, required=True)
    args = parser.parse_args()
    leave_ending_to_the_service()
    if args.processors:
        os.sched_setaffinity(0, args.processors)  # of every thread that this one starts
    options = WorkerOptions(
        args.device,
        args.threads,
        args.max_batch_rows,
        args.max_picture_pixels,
        args.cache,
        args.lanes,
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
