"""What a user asks of `rootserve analyze`, beside the analysis itself."""

from dataclasses import dataclass, field
from pathlib import Path

from rootserve.client.analysis.style import Style
from rootserve.client.errors import InputError


@dataclass(frozen=True, slots=True)
class Images:
    """Which images to analyse.

    Args:
        data: Where they are on this side, or None.
        dataset: Name under which the server has them, or None; one of the two is given.
        number: How many; None takes all.
        skip: How many to leave out from the beginning.

    Raises:
        InputError: Neither a path nor a name is given, or both.
    """

    data: Path | None = None
    dataset: str | None = None
    number: int | None = None
    skip: int = 0

    def __post_init__(self) -> None:
        if (self.data is None) == (self.dataset is None):
            found = "neither --data nor" if self.data is None else "both --data and"
            raise InputError(
                f"{found} --dataset: expected --data PATH for images of your own, "
                "or --dataset NAME for images the server has"
            )


@dataclass(frozen=True, slots=True)
class Output:
    """Where results go, and in what form.

    Args:
        folder: For files.
        pictures: Whether to draw.
        groups: Blocks to outline and to give the scores of, instead of the network's own groups.
        as_json: Print JSON instead of tables.
        style: In what form pictures are.
        own_scales: Whether each pair has a colour scale of its own where several are drawn.
    """

    folder: Path
    pictures: bool = True
    groups: int | None = None
    as_json: bool = False
    style: Style = field(default_factory=Style)
    own_scales: bool = False
