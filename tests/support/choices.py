"""Choices that were never measured, told the figures."""

from typing import Any

from rootserve.client.choice.document import Choice, Variant
from rootserve.client.choice.pareto import placed, recommend

# Fourteen variants that stand as close together as real ones.
FAMILY = {
    "orig": (0.9026, 320), "root-2": (0.9033, 350), "root-4": (0.9020, 512), "root-8": (0.9019, 560),
    "root-16": (0.8983, 600), "root-32": (0.8981, 610), "tree-2": (0.9007, 380), "tree-4": (0.8973, 490),
    "tree-8": (0.8966, 570), "tree-16": (0.8973, 605), "col-2": (0.9002, 390), "col-4": (0.8979, 500),
    "col-8": (0.8959, 555), "col-16": (0.8946, 595),
}  # fmt: skip


def variant(
    name: str, accuracy: float | None = 0.9, rate: float | None = 100.0, **changes: Any
) -> Variant:
    """One whose rate is known to a twentieth."""
    known: dict[str, Any] = {
        "name": name, "family": "nin", "topology": name.split("-", maxsplit=1)[0], "params": 966_986,
        "flops": 222_487_946, "engine": "openvino", "precision": "bf16", "accuracy": accuracy,
        "accuracy_source": "the server's catalogue", "weights_bytes": 1_933_972, "batch_rows": 16,
        "compute_ms": 1.2345, "compute_rows": 16, "complete": True,
    }  # fmt: skip
    if rate is not None:
        known |= {"limit": rate, "low": 0.95 * rate, "high": 1.06 * rate, "held": 0.98 * rate}
    return Variant(**known | changes)


def choice(variants: list[Variant], **changes: Any) -> Choice:
    """What follows of them."""
    found = placed(variants)
    rate = changes.get("rate")
    known: dict[str, Any] = {
        "p99_s": 0.05, "rows": 1, "started_at": "2026-01-02T03:04:05+00:00", "took_s": 490.0,
        "budget_s": 504.0, "complete": all(each.complete for each in found), "interrupted": False,
        "recommendation": recommend(found, 0.05, rate), "variants": tuple(found),
        "command": "rootserve choose --slo-p99-ms 50", "server": {"cpu": "Abacus", "libraries": {}},
        "client": {"version": "1.2.3"},
    }  # fmt: skip
    return Choice(**known | changes)


def family() -> list[Variant]:
    """All fourteen."""
    return [variant(f"nin-{name}", *figures) for name, figures in FAMILY.items()]
