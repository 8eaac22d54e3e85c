"""Sums of single shards on disk, by what they are of; and all of them merged in one fixed tree."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootmodels.analysis.sums import Plan, Sums, merge_sums
from rootmodels.weights_info import being_written

_SUFFIX = ".sums"
_FORMAT = 1
"""Changes when sums of the same shard would be others."""


@dataclass(frozen=True, slots=True)
class Subject:
    """All that sums depend on beside the images: two analyses with the same have the same partial sums.

    Attributes:
        model: Its name.
        weights_sha256: Of its weights file.
        plan: What is summed.
        stage: Where responses are taken.
        device: What kind of device computes, cpu or cuda.
        frame: Size and shorter side of pictures, in pixels.
        versions: Of what computes.
    """

    model: str
    weights_sha256: str
    plan: Plan
    stage: str
    device: str
    frame: tuple[int, int]
    versions: tuple[str, ...]

    def key(self, shard_sha256: str) -> str:
        """What the sums of a shard are kept under, 64 hexadecimal digits."""
        layers = [(one.name, one.channels, one.height, one.width) for one in self.plan.layers]
        told: list[Any] = [_FORMAT, shard_sha256, self.weights_sha256, layers, self.plan.pairs]
        told += [self.stage, self.device, self.frame, self.versions]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


class Folder:
    """Partial sums in a folder, a file each, by their keys. One that is damaged is not used."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self._path = path
        self._plan = plan

    def keys(self) -> set[str]:
        """Of which there are sums."""
        return {file.stem for file in self._path.glob(f"*{_SUFFIX}")}

    def has(self, key: str) -> bool:
        """Whether there are sums of ``key`` that can be used; those that were damaged are removed."""
        if self._file(key).exists():
            if self._read(key) is not None:
                return True
            self._file(key).unlink()
        return False

    def write(self, key: str, data: bytes) -> None:
        """Keep the sums ``data``, which ``Sums.to_bytes`` gave, all or nothing."""
        self._path.mkdir(parents=True, exist_ok=True)
        partial = being_written(self._file(key))
        with partial.open("wb") as file:
            file.write(hashlib.sha256(data).digest())
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._file(key))

    def merged(self, keys: Iterable[str]) -> Sums:
        """The sums of all ``keys``, each as often as it comes; the same for any order of them, to the bit.

        Holds as many at a time as the tree is high.

        Raises:
            OSError: if one cannot be read any more.
        """
        heights: list[tuple[int, Sums]] = []
        for key in sorted(keys):
            data = self._read(key)
            if data is None:
                raise OSError(f"{self._file(key)} is damaged or gone; start again with --resume")
            heights.append((0, Sums.from_bytes(self._plan, data)))
            while len(heights) > 1 and heights[-1][0] == heights[-2][0]:
                height, second = heights.pop()
                heights[-1] = (height + 1, heights[-1][1].merge(second))
        total = Sums.zero(self._plan)
        for _, sums in reversed(heights):
            total = merge_sums([sums, total])
        return total

    def clear(self) -> None:
        """Remove all sums, with those a killed process left half written, and the folder if that was all."""
        for pattern in (f"*{_SUFFIX}", "*.partial"):
            for file in self._path.glob(pattern):
                file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._path.rmdir()

    def _file(self, key: str) -> Path:
        return self._path / f"{key}{_SUFFIX}"

    def _read(self, key: str) -> bytes | None:
        """The sums of ``key``; None if they are not there, or not whole."""
        try:
            content = self._file(key).read_bytes()
        except OSError:
            return None
        digest, data = content[:32], content[32:]
        whole = len(data) == Sums.byte_size(self._plan) and hashlib.sha256(data).digest() == digest
        return data if whole else None
