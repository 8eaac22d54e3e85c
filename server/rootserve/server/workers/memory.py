"""Memory that the service and one worker share: a few slots, each with room for one batch.

The memory is anonymous (memfd): it has no name that could be left behind, and is gone with the last
of the two processes, however they end.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """Sizes in bytes. A slot is its input and then its output; ``slots`` follow one another."""

    slots: int
    input_bytes: int
    output_bytes: int

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot, a multiple of a cache line."""
        return -(-(self.input_bytes + self.output_bytes) // 64) * 64

    @property
    def total_bytes(self) -> int:
        """Bytes of all slots."""
        return self.slots * self.slot_bytes


class SlotMemory:
    """The slots, mapped into this process."""

    def __init__(self, layout: SlotLayout, fd: int) -> None:
        self.layout = layout
        self._map = mmap.mmap(fd, layout.total_bytes)

    @staticmethod
    def create(layout: SlotLayout) -> tuple[SlotMemory, int]:
        """New memory, and its file descriptor to be inherited by the worker and then closed."""
        fd = os.memfd_create("rootserve-slots")
        try:
            os.ftruncate(fd, layout.total_bytes)
            return SlotMemory(layout, fd), fd
        except BaseException:
            os.close(fd)
            raise

    def write_input(self, slot: int, parts: Sequence[bytes | memoryview]) -> None:
        """Lay ``parts`` one behind the other into the slot's input."""
        position = slot * self.layout.slot_bytes
        end = position + self.layout.input_bytes
        for part in parts:
            if position + len(part) > end:
                raise ValueError(f"a batch of {sum(map(len, parts))} bytes does not fit its slot")
            self._map[position : position + len(part)] = part
            position += len(part)

    def input_content(self, slot: int) -> memoryview:
        """The bytes of the slot's input, without a copy."""
        start = slot * self.layout.slot_bytes
        return memoryview(self._map)[start : start + self.layout.input_bytes]

    def trim_input(self, slot: int, kept: int) -> None:
        """Give the memory of the slot's input but for the first ``kept`` bytes back to the system."""
        start = slot * self.layout.slot_bytes
        first = -(-(start + kept) // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (start + self.layout.input_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if first < last:
            self._map.madvise(mmap.MADV_REMOVE, first, last - first)

    def input_view(self, slot: int, offset: int, count: int, dtype: type) -> NDArray[np.generic]:
        """``count`` values of the slot's input from byte ``offset``, without a copy."""
        start = slot * self.layout.slot_bytes + offset
        return np.frombuffer(self._map, dtype, count, start)

    def write_output(self, slot: int, values: NDArray[np.generic]) -> None:
        """Put ``values`` into the slot's output."""
        content = values.tobytes()
        if len(content) > self.layout.output_bytes:
            raise ValueError(f"an output of {len(content)} bytes does not fit its slot")
        start = slot * self.layout.slot_bytes + self.layout.input_bytes
        self._map[start : start + len(content)] = content

    def read_output(self, slot: int, length: int) -> bytes:
        """The first ``length`` bytes of the slot's output."""
        start = slot * self.layout.slot_bytes + self.layout.input_bytes
        return self._map[start : start + length]

    def close(self) -> None:
        """Unmap the memory."""
        self._map.close()
