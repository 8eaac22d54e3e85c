"""All families and their variants by name: those of this package, and those that installed packages add.

A package adds a family by an entry point of the group ``rootmodels.families``: a
:class:`rootmodels.family.Family`, or a function that returns one. It is found when a name is looked up first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import TypeVar

from rootmodels.families.nin import NIN
from rootmodels.families.resnet50 import RESNET50
from rootmodels.family import Family, FamilyError, Variant

GROUP = "rootmodels.families"

_T = TypeVar("_T")


class UnknownVariantError(LookupError):
    """No variant has the given name."""


def get_variant(name: str) -> Variant:
    """The variant called ``name``.

    Raises:
        UnknownVariantError: with the names there are.
        FamilyError: if an installed family cannot be used.
    """
    try:
        return VARIANTS[name]
    except KeyError:
        known = ", ".join(VARIANTS)
        raise UnknownVariantError(f"no variant is called {name!r}; there are: {known}") from None


def family_of(variant: Variant) -> Family:
    """What ``variant`` is one of: a family that is known by its name, or that of a file.

    Raises:
        FamilyError: if an installed family cannot be used.
    """
    return variant.home or FAMILIES[variant.family]


@functools.cache
def _families() -> dict[str, Family]:
    """By name, in the order they are listed; cached, so that packages are searched once."""
    found: dict[str, Family] = {}
    sources: dict[tuple[str, str], str] = {}
    own = ((family, "rootmodels") for family in (NIN, RESNET50))
    for family, source in (*own, *_installed()):
        names = [("family", family.name), *(("variant", one.name) for one in family.variants)]
        for what, name in names:
            if (what, name) in sources:
                raise FamilyError(
                    f"{source}: a {what} {name!r} is there already, of {sources[what, name]}; "
                    "expected another name"
                )
        sources |= dict.fromkeys(names, source)
        found[family.name] = family
    return found


@functools.cache
def _variants() -> dict[str, Variant]:
    return {one.name: one for family in _families().values() for one in family.variants}


def _installed() -> Iterator[tuple[Family, str]]:
    """The families of other packages, each with where it is from, in words.

    Raises:
        FamilyError: naming the distribution and the entry point.
    """
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        owner = f"{point.dist.name} {point.dist.version}" if point.dist else "a package"
        source = f"{owner}, entry point '{point.name} = {point.value}' of {GROUP}"
        try:
            given = point.load()
            family = given() if callable(given) else given
            if not isinstance(family, Family):
                raise TypeError(f"it is {family!r}, expected a rootmodels.family.Family")
            for variant in family.variants:
                family.network(variant)
        except Exception as error:
            text = f"{source}: its family cannot be used: {type(error).__name__}: {error}"
            raise FamilyError(text) from error
        yield family, source


class _Collected(Mapping[str, _T]):
    """What ``collect`` gives, asked for when somebody looks."""

    def __init__(self, collect: Callable[[], dict[str, _T]]) -> None:
        self._collect = collect

    def __getitem__(self, name: str) -> _T:
        return self._collect()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._collect())

    def __len__(self) -> int:
        return len(self._collect())


FAMILIES: Mapping[str, Family] = _Collected(_families)
"""Looking into it raises FamilyError if an installed family cannot be used."""

VARIANTS: Mapping[str, Variant] = _Collected(_variants)
"""As FAMILIES."""
