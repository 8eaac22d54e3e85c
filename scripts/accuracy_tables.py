"""Write the tables of accuracies in README.md and docs/accuracy.md: ``python scripts/accuracy_tables.py``.

They come from the metadata of the shipped weights and from docs/figures/served-accuracy.json, which
benchmarks/served_accuracy.py writes. ``--check`` writes nothing, and ends with status 1 if a table is stale.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rootmodels.cost import network_cost
from rootmodels.family import Variant
from rootmodels.variants import FAMILIES, get_variant
from rootmodels.weights_info import WeightsInfo, read_info, weights_path, with_weights

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
ACCURACY = ROOT / "docs" / "accuracy.md"
SERVED = ROOT / "docs" / "figures" / "served-accuracy.json"


def shipped() -> dict[str, WeightsInfo]:
    """Metadata of the weights that are there, by variant."""
    return {name: read_info(weights_path(name)) for name in with_weights()}


def variants() -> tuple[Variant, ...]:
    """All of the family whose weights are shipped, the one without groups first."""
    return FAMILIES[get_variant(with_weights()[0]).family].variants


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def models_table(infos: dict[str, WeightsInfo]) -> str:
    """What each variant is and costs, and its accuracy."""
    head = ["model", "g2, g3", "parameters", "MACs", "FLOPs ratio"]
    head += ["accuracy in the paper", "shipped weights"]
    orig = network_cost(variants()[0]).flops_paper
    rows = []
    for variant in variants():
        name, cost = variant.name, network_cost(variant)
        row = [f"`{name}`", ", ".join(map(str, variant.groups)), f"{cost.params:,}"]
        row += [f"{cost.macs:,}", f"{orig / cost.flops_paper:.2f}", paper_accuracy(variant)]
        rows.append([*row, f"{infos[name].accuracy:.4f}" if name in infos else "-"])
    return table(head, rows)


def accuracy_table(infos: dict[str, WeightsInfo]) -> str:
    """What each variant reached, and at what expense."""
    head = ["variant", "paper", "ours", "difference", "seeds", "epochs", "began with"]
    head += ["hardware", "minutes"]
    rows = []
    for variant in variants():
        name = variant.name
        row = [f"`{name}`", paper_accuracy(variant)]
        info = infos.get(name)
        if info is None:
            rows.append([*row, "not trained", *["-"] * 6])
            continue
        difference = f"{info.accuracy - variant.paper.accuracy:+.4f}" if variant.paper else "-"
        row += [f"{info.accuracy:.4f}", difference, seeds(info), str(info.epochs), beginning(info)]
        rows.append([*row, info.hardware or "-", minutes(info.seconds)])
    return table(head, rows)


def minutes(seconds: float) -> str:
    """Wall time; one that is shared by variants trained side by side is short."""
    if not seconds:
        return "-"
    return f"{seconds / 60:.0f}" if seconds >= 60 else f"{seconds / 60:.1f}"


def paper_accuracy(variant: Variant) -> str:
    """Accuracy in the paper's Table 8."""
    return f"{variant.paper.accuracy:.4f}" if variant.paper else "-"


def seeds(info: WeightsInfo) -> str:
    """How many seeds were tried, with mean and standard deviation where they are several."""
    values = list(info.seed_accuracies.values())
    if len(values) < 2:
        return "1"
    return f"{len(values)}: {statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def beginning(info: WeightsInfo) -> str:
    """What the training began with."""
    before = info.continued_from
    if not before:
        return "random weights"
    owner = "its own" if before.get("variant", info.variant) == info.variant else before["variant"]
    return f"{owner}, {before['epochs']} epochs, {before['accuracy']:.4f}"


def served_table() -> str:
    """Accuracy through the service, one column for each engine and precision."""
    rows = json.loads(SERVED.read_text())["rows"]
    columns = list(dict.fromkeys((row["engine"], row["precision"]) for row in rows))
    found = {(row["model"], row["engine"], row["precision"]): row for row in rows}
    fp32 = {row["model"]: row["fp32"] for row in rows}
    lines = []
    for model, reference in fp32.items():
        cells = [found.get((model, *column)) for column in columns]
        told = [
            f"{row['accuracy']:.4f} ({row['accuracy'] - reference:+.4f})" if row else "-"
            for row in cells
        ]
        lines.append([f"`{model}`", f"{reference:.4f}", *told])
    return table(["model", "network in fp32", *map(" ".join, columns)], lines)


def with_section(
    text: str, name: str, body: str, writer: str = "scripts/accuracy_tables.py"
) -> str:
    """``text`` with ``body`` between the comments that begin and end the section ``name``."""
    before, begin, rest = text.partition(f"<!-- {name}: written by {writer} -->")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    if not (begin and end):
        raise ValueError(f"the section {name!r} is not there")
    return f"{before}{begin}\n\n{body}\n\n{end}{after}"


def documents() -> dict[Path, str]:
    """The documents as they should be."""
    infos = shipped()
    accuracy = with_section(ACCURACY.read_text(), "accuracies", accuracy_table(infos))
    return {
        README: with_section(README.read_text(), "models", models_table(infos)),
        ACCURACY: with_section(accuracy, "served", served_table()),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, say what is stale")
    args = parser.parse_args(arguments)
    stale = {path: text for path, text in documents().items() if path.read_text() != text}
    for path, text in stale.items():
        if args.check:
            print(f"{path.relative_to(ROOT)} is not current: run scripts/accuracy_tables.py")
        else:
            path.write_text(text)
            print(f"{path.relative_to(ROOT)} is written")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
