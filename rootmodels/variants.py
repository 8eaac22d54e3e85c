"""The variant table: one frozen row of data per network, importable without torch.

Topologies after "Deep Roots: Improving CNN Efficiency with Hierarchical Filter Groups" (Ioannou et
al., CVPR 2017, arXiv 1605.06489); the published figures are those of its appendix, Table 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Family = Literal["nin"]
Topology = Literal["orig", "root", "tree", "col"]


@dataclass(frozen=True, slots=True)
class PaperFigures:
    """What the paper's Table 8 reports for a variant: top-1 accuracy, milliseconds per image."""

    accuracy: float
    cpu_ms: float
    gpu_ms: float


@dataclass(frozen=True, slots=True)
class Variant:
    """One network of a family.

    ``groups`` holds the filter groups of the layers that the family groups, in order of depth: for
    Network-in-Network these are conv2a and conv3a. ``paper`` is None where Table 8 has no row.
    """

    family: Family
    topology: Topology
    degree: int
    groups: tuple[int, ...]
    paper: PaperFigures | None

    @property
    def name(self) -> str:
        """The name it is served under: ``nin-orig``, ``nin-root-4``, ..."""
        if self.topology == "orig":
            return f"{self.family}-orig"
        return f"{self.family}-{self.topology}-{self.degree}"


NIN_VARIANTS: tuple[Variant, ...] = (
    Variant("nin", "orig", 1, (1, 1), PaperFigures(0.9211, 39.0, 0.623)),
    Variant("nin", "root", 2, (2, 1), PaperFigures(0.9209, 31.2, 0.551)),
    Variant("nin", "root", 4, (4, 2), PaperFigures(0.9202, 27.6, 0.480)),
    Variant("nin", "root", 8, (8, 4), PaperFigures(0.9215, 24.4, 0.482)),
    Variant("nin", "root", 16, (16, 8), PaperFigures(0.9167, 23.0, 0.475)),
    Variant("nin", "root", 32, (32, 16), None),
    Variant("nin", "tree", 2, (2, 4), PaperFigures(0.9185, 31.4, 0.541)),
    Variant("nin", "tree", 4, (4, 8), PaperFigures(0.9147, 29.1, 0.535)),
    Variant("nin", "tree", 8, (8, 16), PaperFigures(0.9171, 25.7, 0.500)),
    Variant("nin", "tree", 16, (16, 32), PaperFigures(0.9168, 20.6, 0.512)),
    Variant("nin", "col", 2, (2, 2), PaperFigures(0.9197, 28.8, 0.568)),
    Variant("nin", "col", 4, (4, 4), PaperFigures(0.9200, 26.1, 0.536)),
    Variant("nin", "col", 8, (8, 8), PaperFigures(0.9192, 23.0, 0.475)),
    Variant("nin", "col", 16, (16, 16), PaperFigures(0.9120, 22.8, 0.494)),
)

VARIANTS = MappingProxyType({variant.name: variant for variant in NIN_VARIANTS})


class UnknownVariantError(LookupError):
    """No variant has the given name."""


def get_variant(name: str) -> Variant:
    """The variant called ``name``.

    Raises:
        UnknownVariantError: with the names there are.
    """
    try:
        return VARIANTS[name]
    except KeyError:
        known = ", ".join(VARIANTS)
        raise UnknownVariantError(f"no variant is called {name!r}; there are: {known}") from None
