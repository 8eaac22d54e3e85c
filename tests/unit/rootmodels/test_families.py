"""Families: what they are held to, and those that installed packages add."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rootmodels.families.nin import NIN
from rootmodels.families.resnet50 import RESNET50
from rootmodels.family import Family, FamilyError, Variant
from rootmodels.layer import IMAGES, Layer, check_graph
from rootmodels.variants import FAMILIES, VARIANTS, UnknownVariantError, get_variant
from tests.support.added_family import install, on_the_path

Install = Callable[..., None]
TINY = """
from dataclasses import replace
from rootmodels.families.nin import NIN
from rootmodels.family import Family, Variant

def family(name="tiny", *variants):
    variants = variants or (Variant(name, "orig", 1, (1, 1)), Variant(name, "root", 2, (2, 1)))
    return replace(NIN, name=name, variants=variants)
"""


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Install]:
    """Install packages, each with one entry point ``extra``, of which the test then knows."""
    with ExitStack() as stack:

        def add(*packages: tuple[str, str], code: str = TINY) -> None:
            for distribution, value in packages:
                module = distribution.replace("-", "_")
                install(tmp_path, distribution, {"extra": f"{module}:{value}"}, code)
            stack.enter_context(on_the_path(tmp_path))

        yield add


def test_a_function_that_returns_a_family_will_do(installed: Install) -> None:
    installed(("their-nets", "family"))
    assert list(FAMILIES) == ["nin", "resnet50", "tiny"]
    assert list(VARIANTS)[-2:] == ["tiny-orig", "tiny-root-2"]
    assert get_variant("tiny-root-2").groups == (2, 1)
    with pytest.raises(UnknownVariantError, match=r"there are: nin-orig, .*, tiny-root-2$"):
        get_variant("tiny-root-4")


def test_a_family_itself_will_do(installed: Install) -> None:
    installed(("their-nets", "TINY"), code=TINY + "\nTINY = family()")
    assert len(VARIANTS) == len(NIN.variants) + len(RESNET50.variants) + 2


def test_nothing_is_left_of_a_package_that_is_gone() -> None:
    assert (list(FAMILIES), len(VARIANTS)) == (["nin", "resnet50"], 22)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("other = 1", "AttributeError: module 'their_nets' has no attribute 'family'"),
        ("family = 3", "TypeError: it is 3, expected a rootmodels.family.Family"),
        ("def family(): return None", "TypeError: it is None, expected a rootmodels.family.Family"),
        (
            TINY.replace('"orig", 1, (1, 1)', '"orig", 1, (1,)'),
            "ValueError: not enough values to unpack",
        ),
        (
            TINY.replace("(2, 1)", "(7, 1)"),
            "FamilyError: tiny-root-2 for images of 32 pixels: layer 'conv2a' has groups 7, expected 1",
        ),
    ],
)
def test_a_family_that_cannot_be_used_is_named_with_its_package(
    installed: Install, code: str, words: str
) -> None:
    installed(("their-nets", "family"), code=code)
    where = "their-nets 0.1.0, entry point 'extra = their_nets:family' of rootmodels.families"
    with pytest.raises(FamilyError) as caught:
        get_variant("nin-orig")
    assert str(caught.value).startswith(f"{where}: its family cannot be used: {words}")


def test_two_families_of_one_name_are_refused(installed: Install) -> None:
    installed(("a-nets", "family"), ("b-nets", "family"))
    with pytest.raises(
        FamilyError, match=r"^b-nets .*: a family 'tiny' is there already, of a-nets "
    ):
        list(VARIANTS)


def test_a_name_of_this_package_is_taken(installed: Install) -> None:
    installed(("their-nets", "family"), code=TINY.replace('"tiny"', '"nin"'))
    with pytest.raises(
        FamilyError, match="a family 'nin' is there already, of rootmodels; expected"
    ):
        list(FAMILIES)


def test_two_variants_of_one_name_are_refused(installed: Install) -> None:
    code = TINY + 'clash = family("nin-root", Variant("nin-root", "orig", 1, (1, 1), revision="2"))'
    installed(("their-nets", "clash"), code=code)
    with pytest.raises(FamilyError, match="a variant 'nin-root-2' is there already, of rootmodels"):
        list(FAMILIES)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "Nin/5"}, "family 'Nin/5': expected a name of small letters"),
        ({"image_size": 8}, "expected images of 16 to 1024 pixels, got 8"),
        ({"std": (1.0, 0.0, 1.0)}, "expected a std above 0"),
        ({"classes": ()}, "expected classes that have names"),
        ({"crop": 2}, "expected a crop above 0 and up to 1, got 2"),
        ({"variants": ()}, "expected variants"),
        ({"variants": NIN.variants[:1] * 2}, "different names of its variants, got .*nin-orig"),
        ({"name": "other"}, "family 'other': expected no variant 'nin-orig'"),
        ({"variants": (Variant("nin", "star", 1, (1, 1)),)}, "nin-star-1: topology 'star'"),  # type: ignore[arg-type]
    ],
)
def test_a_family_is_held_to_its_contract(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(FamilyError, match=words):
        replace(NIN, **changes)


@pytest.mark.parametrize("family", [NIN, RESNET50], ids=lambda family: family.name)
@pytest.mark.parametrize("size", [16, 31, 32, 61, 97, 224])
def test_the_layers_of_families_fit_for_every_size(family: Family, size: int) -> None:
    for variant in family.variants:
        assert family.network(variant, size, 7)[-1].out_channels == 7


CONV = Layer("a", "conv", 3, 3, 8, 32, (IMAGES,), padding=1, path="a")
MEAN = Layer("m", "global_avg_pool", 32, 8, 8, 1, ("a",))
LAST = Layer("l", "linear", 1, 8, 5, 1, ("m",), path="l")
POOL = Layer("p", "max_pool", 3, 8, 8, 16, ("a",), stride=2, ceil=True)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([], "the last layer is 'images'"),
        ([CONV, MEAN], "the last layer is 'm', expected .* of 5"),
        ([CONV], "the last layer is 'a'"),
        ([CONV, CONV], "'a' takes .* expected a name of its own"),
        ([MEAN], r"'m' takes \('a',\), expected a name of its own and 1 of images"),
        ([replace(CONV, kind="add")], "expected a name of its own and 2 of"),
        ([replace(CONV, path="")], "has no path"),
        ([CONV, replace(LAST, inputs=("a",))], "'l' is linear, expected a linear layer after"),
        ([CONV, MEAN, replace(POOL, inputs=("m",))], "'p' is max_pool, expected a linear"),
        ([replace(CONV, in_channels=4)], "'a' has in_channels 4, expected 3"),
        ([replace(CONV, groups=2)], "'a' has groups 2, expected 1"),
        ([replace(CONV, stride=2)], "'a' has size 32, expected 16"),
        ([CONV, replace(POOL, ceil=False)], "'p' has size 16, expected 15"),
        ([CONV, replace(POOL, out_channels=9)], "'p' has out_channels 9, expected 8"),
        ([CONV, POOL, Layer("s", "add", 1, 8, 8, 32, ("a", "p"))], r"'s' has inputs \(8, 32\)"),
        ([replace(CONV, kernel=41, size=-6)], "nothing left of the image"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers: list[Layer], words: str) -> None:
    check_graph([CONV, MEAN, LAST], 32, 5)
    with pytest.raises(ValueError, match=words):
        check_graph(layers, 32, 5)
