"""Trace files: when requests departed once, and of which kind, to be replayed."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from rootserve.client.errors import InputError

_COLUMNS = ("at_s", "model", "rows", "priority", "deadline_ms", "accuracy_floor", "variants")
_EXPECTED = f"expected CSV with a header of {', '.join(_COLUMNS)} (only at_s is needed)"
# Columns that hold no numbers.
_WORDS = ("model", "variants")
_MOST = 10_000_000


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """One departure, in seconds since the start; None where the run's options hold."""

    at_s: float
    model: str | None = None
    rows: int | None = None
    priority: int | None = None
    deadline_s: float | None = None
    accuracy_floor: float | None = None
    variants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """Departures in the order of their instants, and the file they are from."""

    path: str
    entries: tuple[TraceEntry, ...]

    @property
    def length_s(self) -> float:
        """From the start until just after the last departure."""
        # To the next millisecond: a window that ended at the last one would not contain it.
        return math.floor(self.entries[-1].at_s * 1000 + 1) / 1000

    def __str__(self) -> str:
        return self.path


def read_trace(path: Path) -> Trace:
    """Read a trace file, with the byte order mark that spreadsheets write or without.

    Raises:
        InputError: It cannot be read; the message names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return Trace(str(path), tuple(_entries(path, file.read().splitlines())))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {_EXPECTED}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no text; {_EXPECTED}") from None


def _entries(path: Path, lines: list[str]) -> list[TraceEntry]:
    reader = csv.DictReader(lines)
    columns = [name.strip() for name in reader.fieldnames or ()]
    if "at_s" not in columns or not set(columns) <= set(_COLUMNS):
        raise InputError(f"{path}: its first line is '{','.join(columns)[:80]}'; {_EXPECTED}")
    reader.fieldnames = columns
    entries: list[TraceEntry] = []
    for row in reader:
        try:
            entry = _entry(row)
        except (TypeError, ValueError):
            raise InputError(
                f"{path}, line {reader.line_num}: expected numbers of at least 0 (1 for rows), "
                "whole ones for rows and priority, and up to 1 for accuracy_floor, in "
                f"{', '.join(name for name in columns if name not in _WORDS)}"
            ) from None
        if entries and entry.at_s < entries[-1].at_s:
            raise InputError(
                f"{path}, line {reader.line_num}: at_s {entry.at_s:g} comes after "
                f"{entries[-1].at_s:g}; expected instants that do not go back"
            )
        entries.append(entry)
        if len(entries) > _MOST:
            raise InputError(f"{path}: expected at most {_MOST:,} departures")
    if not entries:
        raise InputError(f"{path}: has no departures; {_EXPECTED}")
    return entries


def _entry(row: dict[str, str | None]) -> TraceEntry:
    def number(name: str, low: float, high: float, *, whole: bool = False) -> float | None:
        text = (row.get(name) or "").strip()
        if not text:
            return None
        value = float(text)
        if not low <= value <= high or (whole and value != int(value)):
            raise ValueError
        return value

    at_s = number("at_s", 0, 86_400)
    if at_s is None or None in row:
        raise ValueError
    rows = number("rows", 1, 100_000, whole=True)
    priority = number("priority", 0, 2**31 - 1, whole=True)
    deadline_ms = number("deadline_ms", 1, 86_400_000)
    variants = (name.strip() for name in (row.get("variants") or "").split(","))
    return TraceEntry(
        at_s=at_s,
        model=(row.get("model") or "").strip() or None,
        rows=None if rows is None else int(rows),
        priority=None if priority is None else int(priority),
        deadline_s=None if deadline_ms is None else deadline_ms / 1000,
        accuracy_floor=number("accuracy_floor", 0, 1),
        variants=tuple(name for name in variants if name),
    )
