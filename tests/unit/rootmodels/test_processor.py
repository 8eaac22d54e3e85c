"""What processors compute well, told from lists of instruction sets like the kernel's."""

import subprocess
import sys
from pathlib import Path

import pytest

from rootmodels import processor

# Abridged. Of each kind one: an older server, a desktop, a hybrid laptop, newer servers, an ARM server.
HASWELL = "flags\t\t: fpu sse4_1 avx f16c avx2 bmi2 fma"
SKYLAKE_SERVER = f"{HASWELL} avx512f avx512dq avx512bw avx512vl"
CASCADE_LAKE = f"{SKYLAKE_SERVER} avx512_vnni"
ALDER_LAKE = f"{HASWELL} avx_vnni"
GENOA = f"{CASCADE_LAKE} avx512_bf16"
SAPPHIRE_RAPIDS = f"{GENOA} avx_vnni amx_bf16 amx_int8 avx512_fp16"
GRAVITON_2 = "Features\t: fp asimd asimddp"
GRAVITON_3 = f"{GRAVITON_2} sve i8mm bf16"


class Machine:
    """A processor and what libraries are told of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch = monkeypatch
        self._file = folder / "cpuinfo"
        monkeypatch.setattr(processor, "_CPUINFO", self._file)
        for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
            monkeypatch.delenv(name, raising=False)

    def is_a(self, features: str) -> None:
        other = "processor\t: 0\nflags_of_another_kind: x\n"
        self._file.write_text(f"{other}{features}\npower management:\n\n{features}\n")
        arm = features.startswith("Features")
        self._patch.setattr("platform.machine", lambda: "aarch64" if arm else "x86_64")

    def is_held_to(self, **limits: str) -> None:
        for name, value in limits.items():
            self._patch.setenv(name, value)

    @property
    def does(self) -> tuple[bool, int]:
        return processor.cpu_computes_bf16(), processor.int8_weight_bits()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("features", "bf16", "weight_bits"),
    [
        (HASWELL, False, 7),
        (SKYLAKE_SERVER, False, 7),
        (CASCADE_LAKE, False, 8),
        (ALDER_LAKE, False, 8),
        (GENOA, True, 8),
        (SAPPHIRE_RAPIDS, True, 8),
        (GRAVITON_2, False, 8),
        (GRAVITON_3, True, 8),
        ("", False, 7),
    ],
)
def test_what_processors_do(machine: Machine, features: str, bf16: bool, weight_bits: int) -> None:
    machine.is_a(features)
    assert machine.does == (bf16, weight_bits)


@pytest.mark.parametrize(
    ("limit", "bf16", "weight_bits"),
    [
        ("SSE41", False, 7),
        ("avx2", False, 7),
        ("AVX2", False, 7),
        ("AVX2_VNNI", False, 8),
        ("AVX512_CORE", False, 7),
        ("AVX512_CORE_VNNI", False, 8),
        ("AVX512_CORE_BF16", True, 8),
        ("AVX512_CORE_AMX", True, 8),
        ("ALL", True, 8),
        ("no such word", True, 8),
        ("", True, 8),
    ],
)
def test_a_limit_takes_away_what_is_above_it(
    machine: Machine, limit: str, bf16: bool, weight_bits: int
) -> None:
    machine.is_a(SAPPHIRE_RAPIDS)
    machine.is_held_to(ONEDNN_MAX_CPU_ISA=limit)
    assert machine.does == (bf16, weight_bits)
    machine.is_a(HASWELL)
    assert machine.does == (False, 7)  # a limit gives nothing


def test_the_newer_name_of_the_limit_counts(machine: Machine) -> None:
    machine.is_a(GENOA)
    machine.is_held_to(DNNL_MAX_CPU_ISA="AVX2")
    assert machine.does == (False, 7)
    machine.is_held_to(ONEDNN_MAX_CPU_ISA="AVX512_CORE_VNNI")
    assert machine.does == (False, 8)


def test_it_is_told_without_torch() -> None:
    program = (
        "import sys; from rootmodels.processor import cpu_computes_bf16, cpu_features;"
        "cpu_computes_bf16(); assert cpu_features(); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
