"""The document of a choice, from measuring to JSON, table and page; docs/choose.md explains its keys.

Its keys are the names of these fields, and what is read again is checked against their types.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from rootserve.client.errors import InputError
from rootserve.client.files import read_document, write_text
from rootserve.client.load.report import Step

SCHEMA = "rootserve.choice/1"
SCHEMA_VERSION = 1
_EXPECTED = f"expected what 'rootserve choose --json' writes, schema {SCHEMA}"

Place = Literal["set", "near", "dominated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What is known of one variant; None where nothing tells it.

    Attributes:
        name: Of the model.
        accuracy: Top-1, 0..1.
        accuracy_source: Where that comes from.
        accuracy_images: How many images it was measured on, if it was measured now.
        weights_bytes: What its parameters take in the precision that it is computed in.
        batch_rows: Rows that a batch of it has at most.
        compute_ms: The server's own time per image, in batches of `compute_rows`: the median of the turns.
        callers_requests_per_s: What 16 callers got who each waited for the answer.
        limit: The likeliest highest rate that holds the objective, in requests per second.
        low: The limit is above this with 97.5 %.
        high: It is below this with 97.5 %.
        held: The highest rate that was tried, held, and is not above the limit.
        lowest_missed: The lowest that was tried, missed, and is not below the limit.
        complete: Whether the search ended by itself, and not for want of time.
        client_limited: Whether a run that missed did so because the client was too slow.
        place: In the Pareto set; or "near" it, if the uncertainty of the rates alone keeps it out; or
            "dominated" by another that is at least as good in both.
        dominated_by: The most accurate of those that dominate it.
        note: Why something is missing.
        steps: The runs of the search; of each, `level` is its place among all that were made.
    """

    name: str
    family: str
    topology: str
    params: int
    flops: int
    engine: str | None = None
    precision: str | None = None
    accuracy: float | None = None
    accuracy_source: str | None = None
    accuracy_images: int | None = None
    weights_bytes: int | None = None
    batch_rows: int | None = None
    compute_ms: float | None = None
    compute_rows: int | None = None
    callers_requests_per_s: float | None = None
    limit: float | None = None
    low: float | None = None
    high: float | None = None
    held: float | None = None
    lowest_missed: float | None = None
    complete: bool = False
    client_limited: bool = False
    place: Place | None = None
    dominated_by: str | None = None
    note: str | None = None
    steps: Sequence[Step] = ()

    @property
    def rate(self) -> float | None:
        """The highest rate that holds the objective as far as is known, in requests per second."""
        return self.limit if self.limit is not None else self.held

    @property
    def least(self) -> float | None:
        """The rate that it holds with 97.5 %; without an interval, the one that it was seen to hold."""
        return self.low if self.low is not None else self.held


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was measured of all variants, and what follows.

    Attributes:
        p99_s: The objective for the 99th percentile, in seconds.
        rows: Images of each request.
        rate: The rate asked for, in requests per second; None if none was.
        started_at: ISO 8601, UTC.
        took_s: How long the measurement took.
        budget_s: How long it might take.
        complete: Whether every search ended by itself.
        interrupted: Whether the user ended it.
        recommendation: What follows, in words.
        command: The command line, without secrets; None when a program ran it.
        server: What the server told of itself.
        client: Version and machine of the client.
    """

    schema: str = SCHEMA
    schema_version: int = SCHEMA_VERSION
    p99_s: float
    rows: int
    rate: float | None = None
    started_at: str
    took_s: float
    budget_s: float
    complete: bool
    interrupted: bool
    recommendation: str
    variants: Sequence[Variant]
    command: str | None = None
    server: Mapping[str, Any] = field(default_factory=dict)
    client: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The document, ready for `json.dumps`."""
        document: dict[str, Any] = msgspec.to_builtins(self, str_keys=True)
        return document

    @classmethod
    def from_json(cls, document: object) -> Self:
        """The choice in a document of this version.

        Raises:
            InputError: It is no such document; the message names what is missing or of another kind.
        """
        if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
            schema = document.get("schema") if isinstance(document, Mapping) else None
            raise InputError(f"has the schema {schema!r}; {_EXPECTED}")
        try:
            return msgspec.convert(document, cls)
        except msgspec.ValidationError as error:
            raise InputError(f"is not whole: {error}; {_EXPECTED}") from None


def read_choice(path: Path) -> Choice:
    """Read a choice.

    Raises:
        InputError: The file cannot be read, or holds no choice.
    """
    return read_document(path, Choice.from_json, _EXPECTED)


def write_choice(choice: Choice, path: Path) -> None:
    """Write a choice.

    Raises:
        InputError: The file cannot be written.
    """
    write_text(json.dumps(choice.to_json(), indent=2, allow_nan=False) + "\n", path)
