"""What this processor is and computes well, told without torch: which precisions are fast and right on it.

torch and OpenVINO compute convolutions with oneDNN, which the variable ONEDNN_MAX_CPU_ISA holds to older
instruction sets. Where it is set, a processor has less here than the kernel lists.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")

_LIMIT_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""The first that is set counts, as for oneDNN itself."""

_LIMITED = frozenset({"avx_vnni", "avx512_vnni", "avx512_bf16"})
"""Features that a limit can take away and that are asked for here."""

_LEFT: Mapping[str, frozenset[str]] = {
    "sse41": frozenset(),
    "avx": frozenset(),
    "avx2": frozenset(),
    "avx2_vnni": frozenset({"avx_vnni"}),
    "avx2_vnni_2": frozenset({"avx_vnni"}),
    "avx512_core": frozenset(),
    "avx512_core_vnni": frozenset({"avx512_vnni"}),
}
"""By limit, in oneDNN's words, which of them are left; any other word limits none of them."""


def cpu_name() -> str:
    """The processor as Linux names it, or its kind."""
    return next(_told("model name"), platform.machine())


def instruction_set_limit() -> str:
    """The instruction set that oneDNN is held to, in its words; "" for none."""
    return next(filter(None, map(os.environ.get, _LIMIT_VARIABLES)), "").lower()


def cpu_features() -> frozenset[str]:
    """Instruction sets, in the kernel's words, that oneDNN may use."""
    # x86 has "flags", ARM "Features"; all processors of a machine list the same.
    listed = frozenset(next(_told("flags", "Features"), "").split())
    return listed - (_LIMITED - _LEFT.get(instruction_set_limit(), _LIMITED))


def cpu_computes_bf16() -> bool:
    """Whether products of bf16 numbers are instructions.

    Elsewhere libraries refuse bf16, or compute it by way of fp32, several times slower than fp32 itself.
    """
    return bool(cpu_features() & {"avx512_bf16", "bf16"})


def int8_weight_bits() -> int:
    """Bits of a weight with which products of 8-bit numbers are added exactly: 8 or 7.

    An x86 processor without VNNI adds two products with 16 bits before it goes on with 32, and 8-bit weights
    overflow those: 2 * 255 * 127 > 32767 > 2 * 255 * 63.
    """
    exact = platform.machine() != "x86_64" or cpu_features() & {"avx_vnni", "avx512_vnni"}
    return 8 if exact else 7


def _told(*keys: str) -> Iterator[str]:
    """What the kernel says under one of ``keys``, of each processor."""
    for line in _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []:
        key, _, value = line.partition(":")
        if key.strip() in keys:
            yield value.strip()
