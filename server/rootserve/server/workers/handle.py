"""One worker as the service sees it: its process, its link and its slots."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rootserve.server.core.scheduler import Batch
from rootserve.server.engines.base import PrecisionSetting
from rootserve.server.models import ModelCard
from rootserve.server.pending import Pending
from rootserve.server.workers import encoding, messages
from rootserve.server.workers.child_process import ChildProcess
from rootserve.server.workers.memory import SlotLayout, SlotMemory

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker is: it can hold ``slots`` batches, and computes ``lanes`` of them side by side at most.

    Its models have up to ``max_pixels`` values per image and ``max_classes`` logits. A picture that comes
    encoded has at most ``max_picture_bytes``, and ``max_picture_pixels`` when it is decoded.
    """

    name: str
    device: str
    engine: str
    precision: PrecisionSetting
    threads: int
    max_batch_rows: int
    max_pixels: int
    max_classes: int
    slots: int
    max_picture_bytes: int
    max_picture_pixels: int
    processors: tuple[int, ...] = ()
    """Those it stays on; none lets it use every one."""
    cache: Path | None = None
    """Where choices of engines are remembered."""
    lanes: int = 1

    @property
    def raw_bytes(self) -> int:
        """Bytes of a full batch of float32 images."""
        return self.max_batch_rows * self.max_pixels * _FLOAT_BYTES

    def has_room_for(self, card: ModelCard) -> bool:
        """Whether a full batch of the model fits a slot."""
        return card.pixels <= self.max_pixels and len(card.classes) <= self.max_classes

    def layout(self) -> SlotLayout:
        """Slots that fit a full batch of float32 images of the largest model, or of the largest pictures.

        That is a lot of room, but memory into which nothing was laid takes none.
        """
        picture_bytes = encoding.LENGTH_BYTES + self.max_picture_bytes
        return SlotLayout(
            slots=self.slots,
            input_bytes=max(self.raw_bytes, self.max_batch_rows * picture_bytes),
            output_bytes=self.max_batch_rows * self.max_classes * _FLOAT_BYTES,
        )


class WorkerHandle:
    """A running worker.

    ``on_message`` gets what it says, ``on_run`` each batch before it is handed over; ``on_end`` is called
    once when it ended.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        on_message: Callable[[WorkerHandle, messages.Message], None],
        on_end: Callable[[WorkerHandle], None],
        on_run: Callable[[WorkerHandle, Batch], None] = lambda handle, batch: None,
    ) -> None:
        self.spec = spec
        self._on_message = on_message
        self._on_end = on_end
        self._on_run = on_run
        self._process: ChildProcess
        self._slots: dict[int, int] = {}
        self._free_slots = list(range(spec.slots))
        self._encoded: set[int] = set()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def is_busy(self) -> bool:
        """Whether it has a batch."""
        return bool(self._slots)

    def start(self) -> None:
        """Start the process; it says Started when it runs.

        Raises:
            OSError: It cannot be started; nothing is left of it.
        """
        self._memory, memory_fd = SlotMemory.create(self.spec.layout())
        try:
            self._process = ChildProcess(
                f"worker {self.spec.name}",
                self._command(memory_fd),
                self.spec.threads,
                lambda datagram: self._on_message(self, messages.decode(datagram)),
                self._ended,
                [memory_fd],
            )
        except BaseException:
            self._memory.close()
            raise
        finally:
            os.close(memory_fd)

    def load(self, card: ModelCard, *, behind: bool = False) -> None:
        """Tell it to load a model; ``behind``, while it goes on computing."""
        weights = None if card.weights is None else str(card.weights)
        sha256 = card.weights_sha256
        engine, precision = self.spec.engine, self.spec.precision
        shape = card.image, len(card.classes), card.family.short_side(card.image[1])
        self._send(messages.Load(card.name, weights, sha256, engine, precision, *shape, behind))

    def swap(self, model: str) -> None:
        """Tell it to compute ``model`` with what it loaded behind."""
        self._send(messages.Swap(model))

    def discard(self, model: str, *, running: bool = False) -> None:
        """Tell it to forget what it loaded behind; ``running``, also what computes ``model``."""
        self._send(messages.Discard(model, running))

    def run(self, batch: Batch, requests: Sequence[Pending]) -> None:
        """Hand it ``batch``, whose requests are ``requests``."""
        self._on_run(self, batch)
        slot = self._slots[batch.id] = self._free_slots.pop()
        segments = []
        for pending in requests:
            deadline_s = pending.request.deadline_s
            deadline_ns = 0 if deadline_s == math.inf else max(1, int(deadline_s * 1e9))
            segments.append((pending.request.rows, pending.datatype, deadline_ns))
            if pending.datatype == "BYTES":
                self._encoded.add(slot)
        self._memory.write_input(slot, [pending.content for pending in requests])
        self._send(messages.Run(batch.id, batch.model, slot, tuple(segments), batch.beside))

    def take_output(self, batch: int, values: int) -> bytes:
        """The first ``values`` logits of a batch that is done, float32; frees its slot."""
        return self._memory.read_output(self._free(batch), values * _FLOAT_BYTES)

    def drop_output(self, batch: int) -> None:
        """Free the slot of a batch that failed."""
        self._free(batch)

    def _free(self, batch: int) -> int:
        """Take the slot of ``batch`` back; what pictures took of it beyond raw images is given up."""
        slot = self._slots.pop(batch)
        if slot in self._encoded:
            self._encoded.remove(slot)
            self._memory.trim_input(slot, self.spec.raw_bytes)
        self._free_slots.append(slot)
        return slot

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()

    async def stop(self, patience_s: float = 5.0) -> None:
        """Close the link, which ends an idle worker; kill it if it has not ended in time."""
        self._memory.close()
        await self._process.stop(patience_s)

    async def wait(self) -> int:
        """Wait for the process's end; its exit status, negative for a signal."""
        return await self._process.wait()

    def _command(self, memory_fd: int) -> list[str]:
        spec, layout = self.spec, self.spec.layout()
        command = ["rootserve.server.workers.process", "--memory-fd", str(memory_fd)]
        command += ["--device", spec.device, "--threads", str(spec.threads)]
        command += ["--lanes", str(spec.lanes), "--max-batch-rows", str(spec.max_batch_rows)]
        command += ["--max-picture-pixels", str(spec.max_picture_pixels)]
        sizes = (layout.slots, layout.input_bytes, layout.output_bytes)
        command += ["--slots", *map(str, sizes)]
        if spec.processors:
            command += ["--processors", *map(str, spec.processors)]
        if spec.cache is not None:
            command += ["--cache", str(spec.cache)]
        return command

    def _send(self, message: messages.Message) -> None:
        self._process.send(messages.encode(message))

    def _ended(self) -> None:
        self._memory.close()
        self._on_end(self)
