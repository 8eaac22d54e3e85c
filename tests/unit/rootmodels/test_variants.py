import subprocess
import sys

import pytest

from rootmodels.families.nin import NIN
from rootmodels.variants import UnknownVariantError, get_variant


def test_the_names_of_the_family() -> None:
    assert [variant.name for variant in NIN.variants] == [
        "nin-orig",
        *(f"nin-root-{degree}" for degree in (2, 4, 8, 16, 32)),
        *(f"nin-tree-{degree}" for degree in (2, 4, 8, 16)),
        *(f"nin-col-{degree}" for degree in (2, 4, 8, 16)),
    ]


@pytest.mark.parametrize("variant", NIN.variants, ids=lambda variant: variant.name)
def test_groups_follow_the_topology(variant) -> None:
    g = variant.degree
    expected = {
        "orig": (1, 1),
        "root": (g, max(1, g // 2)),
        "tree": (g, 2 * g),
        "col": (g, g),
    }
    assert variant.groups == expected[variant.topology]


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownVariantError, match=r"'nin-root-3'; there are: nin-orig, nin-root-2"):
        get_variant("nin-root-3")


def test_table_cost_and_metadata_are_read_without_torch() -> None:
    program = (
        "import sys; import rootmodels.cost, rootmodels.layers, rootmodels.weights_info;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
