"""The variant table: one frozen row of data per network, importable without torch.

Topologies after "Deep Roots: Improving CNN Efficiency with Hierarchical Filter Groups" (Ioannou et
al., CVPR 2017, arXiv 1605.06489). The published figures are those of its appendix, Table 8, and of its
tables of ResNet-50.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Family = Literal["nin", "resnet50"]
Topology = Literal["orig", "root", "tree", "col"]
StridePlacement = Literal["1x1", "3x3"]


@dataclass(frozen=True, slots=True)
class PaperFigures:
    """What the paper reports for a variant: top-1 and perhaps top-5 accuracy, milliseconds per image."""

    accuracy: float
    cpu_ms: float
    gpu_ms: float
    top5: float | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """One network of a family.

    ``groups`` holds the filter groups of the layers that the family groups, in order of depth: conv2a and
    conv3a of Network-in-Network, the 3x3 convolutions of the stages res2 to res5 of ResNet-50. ``paper`` is
    None where the paper reports nothing.
    """

    family: Family
    topology: Topology
    degree: int
    groups: tuple[int, ...]
    paper: PaperFigures | None
    stride_on: StridePlacement | None = None
    """ResNet-50 alone: which convolution of a stage's first bottleneck halves the maps."""

    @property
    def name(self) -> str:
        """The name it is served under: ``nin-orig``, ``nin-root-4``, ..."""
        if self.stride_on == "3x3":
            return f"{self.family}-v1.5"
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


def _resnet50(degree: int, paper: PaperFigures) -> Variant:
    """A row of ResNet-50: root topologies alone, the degree halved from stage to stage."""
    groups = tuple(max(1, degree // 2**stage) for stage in range(4))
    return Variant(
        "resnet50", "orig" if degree == 1 else "root", degree, groups, paper, stride_on="1x1"
    )


RESNET50_VARIANTS: tuple[Variant, ...] = (
    _resnet50(1, PaperFigures(0.7299, 621.0, 11.65, top5=0.9157)),
    _resnet50(2, PaperFigures(0.7271, 520.4, 11.08, top5=0.9121)),
    _resnet50(4, PaperFigures(0.7339, 565.6, 11.33, top5=0.9181)),
    _resnet50(8, PaperFigures(0.7337, 519.3, 10.71, top5=0.9183)),
    _resnet50(16, PaperFigures(0.7324, 478.8, 10.14, top5=0.9176)),
    _resnet50(32, PaperFigures(0.7292, 469.2, 10.07, top5=0.9147)),
    _resnet50(64, PaperFigures(0.7319, 425.7, 10.17, top5=0.9153)),
    # Not in the paper: where torchvision and most published weights have the stride.
    Variant("resnet50", "orig", 1, (1, 1, 1, 1), None, stride_on="3x3"),
)

VARIANTS = MappingProxyType({variant.name: variant for variant in NIN_VARIANTS + RESNET50_VARIANTS})


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
