"""One worker as the service sees it: its process, its link and its slots."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rootserve.server.core.scheduler import Batch
from rootserve.server.engines.base import PrecisionSetting
from rootserve.server.models import ModelCard
from rootserve.server.pending import Pending
from rootserve.server.workers import encoding, messages
from rootserve.server.workers.child import environment
from rootserve.server.workers.memory import SlotLayout, SlotMemory

_log = logging.getLogger(__name__)

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker is: it can hold ``slots`` batches.

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
        on_run: Callable[[WorkerHandle, Batch], None],
    ) -> None:
        self.spec = spec
        self._on_message = on_message
        self._on_end = on_end
        self._on_run = on_run
        self._process: subprocess.Popen[bytes] | None = None
        self._slots: dict[int, int] = {}
        self._free_slots = list(range(spec.slots))
        self._encoded: set[int] = set()
        self._ended = False

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid if self._process else 0

    @property
    def is_busy(self) -> bool:
        """Whether it has a batch."""
        return bool(self._slots)

    def start(self) -> None:
        """Start the process; it says Started when it runs."""
        layout = self.spec.layout()
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link.setblocking(False)
        try:
            self._memory, memory_fd = SlotMemory.create(layout)
        except BaseException:
            self._link.close()
            theirs.close()
            raise
        try:
            # Popen spawns with vfork: gRPC's fork handlers, which must not run here, do not.
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                self._command(layout, memory_fd, theirs.fileno()),
                pass_fds=(memory_fd, theirs.fileno()),
                env=environment(self.spec.threads),
                stdin=subprocess.DEVNULL,
                # In a group of its own: a Ctrl-C at the terminal is the service's to handle.
                start_new_session=True,
            )
            asyncio.get_running_loop().add_reader(self._link, self._on_readable)
        except BaseException:
            self.kill()
            self._release()
            raise
        finally:
            os.close(memory_fd)
            theirs.close()

    def load(self, card: ModelCard, *, behind: bool = False) -> None:
        """Tell it to load a model; ``behind``, while it goes on computing."""
        weights = None if card.weights is None else str(card.weights)
        sha256 = card.weights_sha256
        engine, precision = self.spec.engine, self.spec.precision
        classes = len(card.classes)
        self._send(
            messages.Load(
                card.name, weights, sha256, engine, precision, card.image, classes, behind
            )
        )

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
        self._send(messages.Run(batch.id, batch.model, slot, tuple(segments)))

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
        if self._process is not None:
            self._process.kill()

    async def stop(self, patience_s: float = 5.0) -> None:
        """Close the link, which ends an idle worker; kill it if it has not ended in time."""
        self._end(tell=False)
        if self._process is None:
            return
        try:
            await asyncio.to_thread(self._process.wait, patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
            await self.wait()

    async def wait(self) -> int:
        """Wait for the process's end; its exit status, negative for a signal."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait)

    def _command(self, layout: SlotLayout, memory_fd: int, link_fd: int) -> list[str]:
        spec = self.spec
        command = [sys.executable, "-P", "-m", "rootserve.server.workers.process"]
        command += ["--device", spec.device, "--threads", str(spec.threads)]
        command += ["--max-batch-rows", str(spec.max_batch_rows)]
        command += ["--max-picture-pixels", str(spec.max_picture_pixels)]
        sizes = (layout.slots, layout.input_bytes, layout.output_bytes)
        command += ["--slots", *map(str, sizes)]
        if spec.processors:
            command += ["--processors", *map(str, spec.processors)]
        if spec.cache is not None:
            command += ["--cache", str(spec.cache)]
        return [*command, "--memory-fd", str(memory_fd), "--link-fd", str(link_fd)]

    def _send(self, message: messages.Message) -> None:
        try:
            self._link.send(messages.encode(message))
        except OSError:
            # A worker that cannot be told is of no use. Its end is read from the link, which tells
            # on_end, and what it had is computed elsewhere.
            self.kill()

    def _on_readable(self) -> None:
        try:
            self._read()
        except ConnectionResetError:
            # It died with a message unread. What it said before still comes, then the end; nobody
            # calls again for it, because the loop takes the reset for the end.
            while not self._ended:
                self._read()

    def _read(self) -> None:
        """Take one datagram from the link, if there is one."""
        try:
            datagram = self._link.recv(messages.MAX_BYTES)
        except BlockingIOError:
            return
        if not datagram:
            self._end(tell=True)
            return
        try:
            self._on_message(self, messages.decode(datagram))
        except Exception:  # noqa: BLE001 - whatever it is
            # Whoever waits for this worker must not wait for ever.
            fields = {"worker": self.spec.name, "pid": self.pid}
            _log.exception(
                "worker %s: a message could not be handled", self.spec.name, extra=fields
            )
            self.kill()

    def _end(self, *, tell: bool) -> None:
        if self._ended:
            return
        self._ended = True
        asyncio.get_running_loop().remove_reader(self._link)
        self._release()
        if tell:
            self._on_end(self)

    def _release(self) -> None:
        self._link.close()
        self._memory.close()
