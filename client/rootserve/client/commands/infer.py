"""`rootserve infer`: what a model sees in pictures."""

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.markup import escape

from rootserve.client.credentials import Connection
from rootserve.client.errors import InputError, ServerError
from rootserve.client.images import encode_pictures
from rootserve.client.inference import AsyncClient
from rootserve.client.tables import console, print_timeline, print_top
from rootserve.client.telling import Tell, telling
from rootserve.client.units import count, duration, percent
from rootserve.client.wire import Timeline

# Of a message of 64 MiB, what is left for pictures with room to spare.
_MOST_BYTES = 48 * 2**20
_ROW = re.compile(r"tensor encoded: row (\d+): (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to compute them, within what time; of a family, how accurate and which variants."""

    model: str
    deadline_s: float | None = None
    accuracy_floor: float | None = None
    variants: Sequence[str] = ()
    request_id: str = ""
    """By which `rootserve explain` and the server's logs name it."""


@dataclass(frozen=True, slots=True)
class Guess:
    """One class and how likely it is, 0..1."""

    index: int
    label: str
    probability: float

    def to_json(self) -> dict[str, Any]:
        """The fields by name, ready for `json.dumps`."""
        return {"class": self.label, "index": self.index, "probability": self.probability}


@dataclass(frozen=True, slots=True)
class Classified:
    """What the pictures are taken for, the likeliest classes of each first.

    Attributes:
        guesses: For each picture.
        trained: Whether the model's weights are.
        timeline: Of the request, if it was a single one.
        round_trip_s: Of all requests, one after the other.
        requests: How many there were.
        by: Variants that computed them, where a family was asked, and their accuracies.
    """

    guesses: Sequence[Sequence[Guess]]
    trained: bool
    timeline: Timeline | None
    round_trip_s: float
    requests: int = 1
    by: Mapping[str, float | None] = field(default_factory=dict)


def run(
    connection: Connection, paths: Sequence[Path], wanted: Wanted, top: int, *, as_json: bool
) -> None:
    """Classify the pictures and print the likeliest classes of each."""
    with telling(console(stderr=True), _progress(0, len(paths))) as tell:
        found = asyncio.run(_classify(connection, paths, wanted, top, tell))
    model = wanted.model
    if as_json:
        report = {
            "model": model,
            "trained": found.trained,
            "images": [
                {"file": str(path), "top": [guess.to_json() for guess in ranking]}
                for path, ranking in zip(paths, found.guesses, strict=True)
            ],
            "requests": found.requests,
            "round_trip_s": found.round_trip_s,
            "timeline": asdict(found.timeline) if found.timeline else None,
            "variants": [
                {"variant": variant, "accuracy": accuracy} for variant, accuracy in found.by.items()
            ],
        }
        print(json.dumps(report, indent=2))
        return
    screen = console()
    for path, ranking in zip(paths, found.guesses, strict=True):
        print_top(screen, str(path), [(guess.label, guess.probability) for guess in ranking])
    if not found.trained:
        screen.print(f"{model} has random weights: this says nothing of what is to be seen")
    for variant, accuracy in found.by.items():
        screen.print(f"computed by {escape(variant)}, accuracy {percent(accuracy)}")
    if found.timeline:
        print_timeline(screen, found.timeline, found.round_trip_s)
        if wanted.deadline_s is not None and found.timeline.total_s > wanted.deadline_s:
            late_s = found.timeline.total_s - wanted.deadline_s
            screen.print(f"late by {duration(late_s)}: asked within {duration(wanted.deadline_s)}")


async def _classify(
    connection: Connection, paths: Sequence[Path], wanted: Wanted, top: int, tell: Tell
) -> Classified:
    async with AsyncClient(connection.server, credentials=connection.credentials) as client:
        model = await client.model(wanted.model)
        most_rows = (await client.server_info()).max_batch_rows
        pictures = encode_pictures(paths, model.image_size)
        answers = []
        start_s = time.perf_counter()
        parts = _parts([len(each) for each in pictures], most_rows)
        for part in parts:
            tell(_progress(part.start, len(paths)))
            try:
                answer = await client.infer_encoded(
                    wanted.model,
                    pictures[part],
                    outputs=["probabilities"],
                    deadline_s=wanted.deadline_s,
                    accuracy_floor=wanted.accuracy_floor,
                    variants=wanted.variants,
                    request_id=wanted.request_id,
                )
            except ServerError as error:
                raise _named(error, paths[part]) from None
            answers.append(answer)
        round_trip_s = time.perf_counter() - start_s
    guesses = []
    for probabilities in (row for answer in answers for row in answer.probabilities):
        best = (-probabilities).argsort(kind="stable")[:top]
        guesses.append(
            [Guess(int(n), _label(model.classes, int(n)), float(probabilities[n])) for n in best]
        )
    timeline = answers[0].timeline if len(answers) == 1 else None
    by = {answer.variant: answer.accuracy for answer in answers if answer.variant}
    return Classified(guesses, model.trained, timeline, round_trip_s, len(answers), by)


def _progress(done: int, pictures: int) -> str:
    return f"classifying: {count(done)} of {count(pictures)} done"


def _parts(lengths: Sequence[int], most_rows: int) -> list[slice]:
    """As few stretches of the pictures as fit messages and the server's largest request."""
    parts: list[slice] = []
    start = size = 0
    for n, length in enumerate(lengths):
        if n > start and (n - start >= most_rows or size + length > _MOST_BYTES):
            parts.append(slice(start, n))
            start, size = n, 0
        size += length
    return [*parts, slice(start, len(lengths))]


def _named(error: ServerError, paths: Sequence[Path]) -> InputError | ServerError:
    """The error with the file's name, if the server found a picture at fault."""
    found = _ROW.search(error.details)
    if error.code != "INVALID_ARGUMENT" or found is None or int(found[1]) >= len(paths):
        return error
    return InputError(f"{paths[int(found[1])]}: {found[2]}")


def _label(classes: Sequence[str], index: int) -> str:
    return classes[index] if index < len(classes) else f"class {index}"
