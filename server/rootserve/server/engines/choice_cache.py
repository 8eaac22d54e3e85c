"""Choices of an engine, remembered in a folder; a file that cannot be read or written is as good as none."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rootserve.server.engines.base import LoadSpec, Precision
from rootserve.server.engines.circumstances import circumstances, digest


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to compute a model."""

    engine: str
    precision: Precision

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}"


class ChoiceCache:
    """Choices by their circumstances: machine, device, threads, versions, weights and candidates.

    ``folder`` is made when it is needed; with None, nothing is remembered. ``device_name`` tells apart what
    has the same number.
    """

    def __init__(self, folder: Path | None, device_name: str = "") -> None:
        self._folder = folder
        self._device_name = device_name

    def get(self, spec: LoadSpec, candidates: Sequence[Candidate]) -> Candidate | None:
        """What was chosen of ``candidates`` before, if anything."""
        return self._read(self._key(spec, candidates), candidates)

    def _read(self, key: dict[str, object], candidates: Sequence[Candidate]) -> Candidate | None:
        if self._folder is None:
            return None
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            content = json.loads(self._path(key).read_text())
            found = Candidate(content["engine"], content["precision"])
            if content["key"] == key and found in candidates:
                return found
        return None

    def put(
        self,
        spec: LoadSpec,
        candidates: Sequence[Candidate],
        choice: Candidate,
        rates: Mapping[Candidate, float],
    ) -> Candidate:
        """Remember ``choice`` and the images/s behind it, unless another one stands; the one that does."""
        key = self._key(spec, candidates)
        standing = self._read(key, [candidate for candidate in candidates if candidate in rates])
        if self._folder is None or standing:
            return standing or choice
        figures = {str(candidate): round(rate, 1) for candidate, rate in rates.items()}
        content = {"key": key, **asdict(choice), "images_per_s": figures}
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._path(key)
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps(content, indent=1) + "\n")
            partial.replace(path)
        return choice

    def _key(self, spec: LoadSpec, candidates: Sequence[Candidate]) -> dict[str, object]:
        names = [str(candidate) for candidate in candidates]
        return {**circumstances(spec, self._device_name), "candidates": names}

    def _path(self, key: dict[str, object]) -> Path:
        assert self._folder is not None
        return self._folder / f"engine-{digest(key)}.json"
