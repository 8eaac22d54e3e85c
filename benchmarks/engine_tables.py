"""The tables of docs/engines.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.rounds import ratios, spread
from rootmodels.calibration import read_calibration
from rootmodels.cost import network_cost
from rootmodels.variants import get_variant
from rootmodels.weights_info import weights_path, with_weights

Rates = Mapping[tuple[str, str, str, int], list[float]]
"""Images/s per round, by engine, precision, variant and rows."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def engines_table(rates: Rates, rows: Sequence[int]) -> str:
    """Images/s by engine and precision, one table per variant, and int8 against what is next to it."""
    blocks = []
    for variant in dict.fromkeys(key[2] for key in rates):
        kinds = dict.fromkeys(key[:2] for key in rates if key[2] == variant)
        lines = [
            [*kind, *(spread(rates[*kind, variant, count]) for count in rows)] for kind in kinds
        ]
        head = ["engine", "precision", *(f"{n} row{'s' if n > 1 else ''}" for n in rows)]
        blocks.append(f"`{variant}`, images/s: median (quartiles)\n\n{table(head, lines)}")
    return "\n\n".join([*blocks, _gains(rates, rows)])


def _gains(rates: Rates, rows: Sequence[int]) -> str:
    lines = []
    for variant in dict.fromkeys(key[2] for key in rates):
        has_bf16 = ("openvino", "bf16", variant, rows[0]) in rates
        for above, below in (("bf16", "fp32"), ("int8", "bf16" if has_bf16 else "fp32")):
            pairs = [
                (
                    rates.get(("openvino", above, variant, n)),
                    rates.get(("openvino", below, variant, n)),
                )
                for n in rows
            ]
            cells = [spread(ratios(a, b), 2) for a, b in pairs if a and b]
            if cells:
                lines.append([variant, f"{above} / {below}", *cells])
    head = ["openvino", "ratio", *(f"{n} row{'s' if n > 1 else ''}" for n in rows)]
    return f"Ratios within a round: median (quartiles)\n\n{table(head, lines)}" if lines else ""


def variants_table(rates: Rates) -> str:
    """Speed-up of each variant over orig, by precision, beside its FLOPs ratio and the paper's."""
    orig = get_variant("nin-orig")
    base = network_cost(orig).macs
    kinds = list(dict.fromkeys(key[:2] for key in rates))
    rows = next(iter(rates))[3]
    lines = []
    for name in dict.fromkeys(key[2] for key in rates):
        variant = get_variant(name)
        paper = "-"
        if variant.paper and orig.paper:
            paper = f"{orig.paper.cpu_ms / variant.paper.cpu_ms:.2f}"
        cells = [f"`{name}`", f"{base / network_cost(variant).macs:.2f}", paper]
        for kind in kinds:
            found = rates[*kind, name, rows]
            cells += [spread(ratios(found, rates[*kind, "nin-orig", rows]), 2)]
        cells.append(spread(rates[*kinds[-1], name, rows]))
        lines.append(cells)
    head = ["model", "FLOPs ratio", "paper's CPU", *(precision for _, precision in kinds)]
    head.append(f"{kinds[-1][1]}, images/s")
    return (
        f"Speed-up over `nin-orig`, batches of {rows}: median (quartiles)\n\n{table(head, lines)}"
    )


def accuracy_table() -> str:
    """Accuracy by precision of the shipped weights, as ``rootserve.server.calibrate`` measured it."""
    found = [read_calibration(weights_path(name)) for name in with_weights()]
    precisions = list(dict.fromkeys(key for measured in found for key in measured.accuracy))
    lines = [
        [f"`{one.variant}`", *(f"{one.accuracy[key]:.4f}" for key in precisions)] for one in found
    ]
    count = found[0].test_images
    names = {"int8_7bit": "int8, weights of 7 bits"}
    head = ["shipped weights", *(names.get(key, key) for key in precisions)]
    return f"Accuracy over {count:,} test images\n\n{table(head, lines)}"


def write_section(page: Path, name: str, text: str) -> None:
    """Put ``text`` between the marks of ``name`` in ``page``.

    Raises:
        ValueError: if the page has no such marks.
    """
    begin, end = f"<!-- {name}: written by benchmarks -->", f"<!-- end of {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    content, count = pattern.subn(lambda _: f"{begin}\n\n{text}\n\n{end}", page.read_text())
    if count != 1:
        raise ValueError(f"{page} has not one section {begin} ... {end}")
    page.write_text(content)
