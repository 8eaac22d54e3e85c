"""What became of a network in filter groups, as a table: each convolution, and what all of them cost."""

from __future__ import annotations

from collections.abc import Sequence

from rootmodels.model import Model
from rootmodels.roots import Rooted, total_cost


def report(model: Model, variants: Sequence[Rooted]) -> str:
    """Two tables: the groups of each convolution in ``variants``, and their cost beside that of ``model``.

    A convolution that some of the variants group has a "-" in the others, and the first one's reason.
    """
    heads = [each.title for each in variants]
    rows = [["layer", "kernel", "channels", *heads, "why not"]]
    for groupings in zip(*(each.groupings for each in variants), strict=True):
        layer = groupings[0].layer
        reasons = [
            each.reason
            if len({other.reason for other in groupings}) == 1
            else f"{head}: {each.reason}"
            for each, head in zip(groupings, heads, strict=True)
            if each.reason
        ]
        rows.append(
            [
                layer.name,
                "x".join(str(side) for side in layer.kernels),
                f"{layer.in_channels} -> {layer.out_channels}",
                *("-" if each.reason else str(each.groups) for each in groupings),
                reasons[0] if reasons else "",
            ]
        )
    totals = [["network", "parameters", "of it", "MACs", "of it"]]
    own = total_cost(model.layers)
    named = [
        (model.name, own),
        *((head, (v.params, v.macs)) for head, v in zip(heads, variants, strict=True)),
    ]
    for name, (params, macs) in named:
        totals.append(
            [name, f"{params:,}", f"{params / own[0]:.1%}", f"{macs:,}", f"{macs / own[1]:.1%}"]
        )
    words = {0, 1, 2, len(heads) + 3}
    return f"{aligned(rows, words)}\n\n{aligned(totals, {0})}"


def aligned(rows: Sequence[Sequence[str]], words: set[int]) -> str:
    """``rows`` below one another, columns in ``words`` from the left and all others from the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n in words else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
