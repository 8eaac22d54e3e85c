"""Latency files: what `rootserve latency --json` writes, with the accuracies of the variants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootserve.client.errors import InputError
from rootserve.client.files import read_document
from rootserve.client.simulation.latencies import Cell, Latencies
from rootserve.server.core.arrangement import kind_beside
from rootserve.server.core.family import Member

_PIXELS = "pixels"
EXPECTED = (
    "expected what 'rootserve latency --json' writes: {kind, model, rows, p50_s, p99_s} under 'latency' "
    "and {variant, accuracy} under 'members'"
)


@dataclass(frozen=True, slots=True)
class TableFile:
    """The variants of a family, how long their batches take, and where that was measured."""

    members: Sequence[Member]
    latencies: Latencies
    where: str = ""


def read_table(path: Path, family: str | None = None) -> TableFile:
    """Read a latency file; of several families `family` names the one that is meant.

    Raises:
        InputError: It cannot be read; the message names the row that is wrong.
    """
    return read_document(path, lambda document: parse_table(document, family), EXPECTED)


def parse_table(document: object, family: str | None = None) -> TableFile:
    """What such a document says.

    Raises:
        InputError: It is none, or a row of it is not whole.
    """
    if not isinstance(document, Mapping):
        raise InputError(f"holds no object; {EXPECTED}")
    members = [_member(number, row) for number, row in enumerate(_rows_of(document, "members"))]
    if family is not None:
        members = [each for each in members if each.variant.startswith(f"{family}-")]
        if not members:
            raise InputError(f"has no variants of {family}")
    rows = [_cell(number, row) for number, row in enumerate(_rows_of(document, "latency"))]
    if any(form == _PIXELS for _, _, form, _ in rows):
        rows = [row for row in rows if row[2] == _PIXELS]
    # Batches beside others are of the same workers; families are computed alone.
    rows = [row for row in rows if not row[0].endswith(kind_beside(""))]
    wanted = {member.variant for member in members}
    cells: dict[tuple[str, str], list[Cell]] = {}
    for kind, model, _, cell in rows:
        if model in wanted:
            cells.setdefault((kind, model), []).append(cell)
    found = {key: sorted(each) for key, each in cells.items()}
    timed = {model for _, model in found}
    if not timed:
        raise InputError(f"has no latency of any of its members; {EXPECTED}")
    server = document.get("server")
    where = str(server.get("cpu", "")) if isinstance(server, Mapping) else ""
    known = sorted((each for each in members if each.variant in timed), key=_order)
    return TableFile(tuple(known), Latencies(found), where)


def _order(member: Member) -> tuple[float, str]:
    return -member.accuracy, member.variant


def _rows_of(document: Mapping[Any, Any], key: str) -> Sequence[Any]:
    rows = document.get(key)
    if not isinstance(rows, list) or not rows:
        raise InputError(f"has no '{key}'; {EXPECTED}")
    return rows


def _member(number: int, row: Any) -> Member:
    try:
        member = Member(str(row["variant"]), float(row["accuracy"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"member {number} is {row!r:.120}; {EXPECTED}") from None
    if not 0 <= member.accuracy <= 1:
        raise InputError(f"member {number} has the accuracy {member.accuracy:g}; expected 0 to 1")
    return member


def _cell(number: int, row: Any) -> tuple[str, str, str, Cell]:
    try:
        cell = Cell(int(row["rows"]), float(row["p50_s"]), float(row["p99_s"]))
        kind, model = str(row["kind"]), str(row["model"])
        form = str(row.get("form", _PIXELS))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"row {number} of 'latency' is {row!r:.120}; {EXPECTED}") from None
    # The bound of a table with a short memory can be below its median.
    return kind, model, form, cell._replace(p99_s=max(cell.p50_s, cell.p99_s))
