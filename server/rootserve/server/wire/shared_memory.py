"""System shared memory: regions under /dev/shm that callers on this machine register, read and written by us.

They are read and written through their file descriptors and never mapped: whoever made a region may
shrink it at any moment, and touching what is gone from a mapping would end the process.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire.words import quote

_FOLDER = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory is on Linux
_KEY = re.compile(r"/?[^/\0]{1,255}")
_LONGEST_NAME = 255
_MAX_REGIONS = 256
"""Each of them holds a file descriptor."""

REGION = "shared_memory_region"
_OFFSET = "shared_memory_offset"
_BYTE_SIZE = "shared_memory_byte_size"


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a file under /dev/shm; closed when nobody holds it any more."""

    name: str
    key: str
    offset: int
    byte_size: int
    fd: int

    def __del__(self) -> None:
        os.close(self.fd)


class Span(NamedTuple):
    """``size`` bytes of ``region`` from ``offset``, as a tensor of a request names them."""

    region: Region
    offset: int
    size: int

    @property
    def region_name(self) -> str:
        """Of the region, as the caller registered it."""
        return self.region.name

    def read(self) -> bytes:
        """The bytes.

        Raises:
            RefusalError: if the region has shrunk.
        """
        content = os.pread(self.region.fd, self.size, self.region.offset + self.offset)
        if len(content) < self.size:
            raise self._shrunk(len(content))
        return content

    def write(self, content: bytes) -> None:
        """Lay ``content`` at the beginning.

        Raises:
            RefusalError: if the region has shrunk: writing would make it grow.
        """
        start = self.region.offset + self.offset
        there = os.fstat(self.region.fd).st_size - start
        if there < len(content):
            raise self._shrunk(max(0, there))
        os.pwrite(self.region.fd, content, start)

    def _shrunk(self, there: int) -> RefusalError:
        text = (
            f"shared memory region {quote(self.region.name)} has shrunk: {there} bytes are left at "
            f"offset {self.offset}, expected {self.size}"
        )
        return RefusalError(Reason.INVALID_REQUEST, text)


class Regions:
    """The regions that are registered; none can be unless ``enabled``. Refusals have Triton's words."""

    def __init__(self, *, enabled: bool = False) -> None:
        self.enabled = enabled
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Take the part of ``key`` from ``offset`` as the region ``name``.

        Raises:
            RefusalError: if it cannot be.
        """
        if not self.enabled:
            text = "shared memory is not enabled; start the server with --shared-memory system"
            raise RefusalError(Reason.SHARED_MEMORY_OFF, text)
        if not 1 <= len(name) <= _LONGEST_NAME:
            raise _invalid(
                f"region name {quote(name)} has {len(name)} characters, expected 1 to {_LONGEST_NAME}"
            )
        if name in self._regions:
            text = f"shared memory region {quote(name)} already in manager"
            raise RefusalError(Reason.ALREADY_REGISTERED, text)
        if len(self._regions) >= _MAX_REGIONS:
            text = f"{_MAX_REGIONS} shared memory regions are registered, no more are taken"
            raise RefusalError(Reason.REGIONS_FULL, text)
        if not _KEY.fullmatch(key) or key.strip("/") in ("", ".", ".."):
            raise _invalid(
                f"Unable to open shared memory region: {quote(key)}; expected a name in /dev/shm "
                "without a path"
            )
        fd = _open(key)
        region = Region(name, key, offset, byte_size, fd)  # closes it, from here on
        size = os.fstat(fd).st_size
        if byte_size < 1 or offset + byte_size > size:
            raise _invalid(
                f"failed to register shared memory region {quote(name)}: invalid args: {byte_size} "
                f"bytes at offset {offset} came, the region has {size}"
            )
        self._regions[name] = region

    def unregister(self, name: str) -> None:
        """Forget the region ``name``, if there is one; all of them for ""."""
        if name:
            self._regions.pop(name, None)
        else:
            self._regions.clear()

    def status(self, name: str) -> Iterator[Region]:
        """The region ``name``, or all of them for "".

        Raises:
            RefusalError: UNKNOWN_REGION.
        """
        if name and name not in self._regions:
            text = f"Unable to find system shared memory region: {quote(name)}"
            raise RefusalError(Reason.UNKNOWN_REGION, text)
        return iter([self._regions[name]] if name else list(self._regions.values()))

    def span(self, tensor: str, parameters: Mapping[str, Any]) -> Span | None:
        """Where the parameters of ``tensor`` say that its content is, or goes; None if they do not.

        Raises:
            RefusalError: if there is no such place.
        """
        if not parameters or REGION not in parameters:
            return None
        name = parameters[REGION].string_param
        region = self._regions.get(name)
        if region is None:
            text = f"Unable to find shared memory region: {quote(name)}"
            raise RefusalError(Reason.UNKNOWN_REGION, text)
        offset = _whole_number(tensor, parameters, _OFFSET, default=0)
        size = _whole_number(tensor, parameters, _BYTE_SIZE, default=None)
        if offset >= region.byte_size:
            raise _invalid(
                f"Invalid offset for shared memory region: {quote(name)}: {offset} came for {tensor}, "
                f"the region has {region.byte_size} bytes"
            )
        if offset + size > region.byte_size:
            raise _invalid(
                f"Invalid offset + byte size for shared memory region: {quote(name)}: {offset} and "
                f"{size} came for {tensor}, the region has {region.byte_size} bytes"
            )
        return Span(region, offset, size)


def _open(key: str) -> int:
    """A descriptor of the file ``key`` under /dev/shm, which is neither followed nor waited for.

    Raises:
        RefusalError: if it cannot be opened, or is not plain memory.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(_FOLDER / key.removeprefix("/"), flags)
    except OSError as error:
        text = f"Unable to open shared memory region: {quote(key)}: {error.strerror}"
        raise _invalid(text) from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _invalid(f"Unable to open shared memory region: {quote(key)}: not a regular file")
    return fd


def _whole_number(
    tensor: str, parameters: Mapping[str, Any], name: str, default: int | None
) -> int:
    if name not in parameters and default is not None:
        return default
    choice = parameters[name].WhichOneof("parameter_choice") if name in parameters else None
    value = getattr(parameters[name], choice) if choice else None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        came = quote(value) if isinstance(value, str) else value
        raise _invalid(f"tensor {tensor}: {name} {came} came, expected a whole number")
    return value


def _invalid(text: str) -> RefusalError:
    return RefusalError(Reason.INVALID_REQUEST, text)
