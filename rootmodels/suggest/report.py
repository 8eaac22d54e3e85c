"""What is suggested, as tables: for each convolution the energy kept, and what the networks cost."""

from __future__ import annotations

from collections.abc import Sequence

from rootmodels.roots import indivisible, total_cost
from rootmodels.roots_report import aligned
from rootmodels.suggest.finding import WAYS, Finding
from rootmodels.suggest.study import Study


def report(study: Study, findings: Sequence[Finding]) -> str:
    """Two tables: the energy that each convolution keeps, and parameters and MACs beside the original's."""
    model = study.source.model
    rows = [["layer", "kernel", "channels", "groups", *WAYS, "why not"]]
    for layer in model.layers:
        if layer.name not in study.reasons:
            continue
        head = [
            layer.name,
            "x".join(str(side) for side in layer.kernels),
            f"{layer.in_channels} -> {layer.out_channels}",
        ]
        if reason := study.reasons[layer.name]:
            rows.append([*head, "-", *("-" for _ in WAYS), reason])
            continue
        for each in findings:
            kept = each.kept.get(layer.name)
            cells = [f"{kept.fitted[way]:.1%}" for way in WAYS] if kept else ["-" for _ in WAYS]
            rows.append([*head, str(each.degree), *cells, indivisible(layer, each.degree)])
            head = ["", "", ""]
    totals = [["network", "parameters", "of it", "MACs", "of it"]]
    own = total_cost(model.layers)
    networks = [(model.name, model.layers)]
    networks += [(f"suggest-{each.degree}", each.layers) for each in findings]
    for name, layers in networks:
        params, macs = total_cost(layers)
        totals.append(
            [name, f"{params:,}", f"{params / own[0]:.1%}", f"{macs:,}", f"{macs / own[1]:.1%}"]
        )
    return f"{aligned(rows, {0, 1, 2, 7})}\n\n{aligned(totals, {0})}"


def notes(study: Study) -> list[str]:
    """What should be known before any of it is believed."""
    told = []
    if study.source.model.accuracy is None:
        told.append(
            f"nobody has measured how accurate {study.source.model.name} is: what is suggested for a network "
            "that nobody has trained follows its random weights"
        )
    for piece in study.pieces:
        values = piece.energy.channels * piece.energy.window
        if study.samples[piece.name] < 4 * values:
            told.append(
                f"{piece.name}: {study.samples[piece.name]} samples of {values} values came, expected "
                f"{4 * values} or more for a covariance to rely on: more --images"
            )
    return told
