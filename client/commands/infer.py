"""`rootserve infer`: what a model sees in pictures."""

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from client.credentials import Connection
from client.errors import InputError, ServerError
from client.images import encode_pictures
from client.inference import Client
from client.tables import console, print_timeline, print_top
from client.wire import Timeline

_ROW = re.compile(r"tensor encoded: row (\d+): (.*)", re.DOTALL)


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
    """What the pictures are taken for, the likeliest classes of each first."""

    guesses: Sequence[Sequence[Guess]]
    trained: bool
    timeline: Timeline | None
    round_trip_s: float


def run(
    connection: Connection, paths: Sequence[Path], model: str, top: int, *, as_json: bool
) -> None:
    """Classify the pictures in one request and print the likeliest classes of each."""
    found = asyncio.run(_classify(connection, paths, model, top))
    if as_json:
        report = {
            "model": model,
            "trained": found.trained,
            "images": [
                {"file": str(path), "top": [guess.to_json() for guess in ranking]}
                for path, ranking in zip(paths, found.guesses, strict=True)
            ],
            "round_trip_s": found.round_trip_s,
            "timeline": asdict(found.timeline) if found.timeline else None,
        }
        print(json.dumps(report, indent=2))
        return
    screen = console()
    for path, ranking in zip(paths, found.guesses, strict=True):
        print_top(screen, str(path), [(guess.label, guess.probability) for guess in ranking])
    if not found.trained:
        screen.print(f"{model} has random weights: this says nothing of what is to be seen")
    if found.timeline:
        print_timeline(screen, found.timeline, found.round_trip_s)


async def _classify(
    connection: Connection, paths: Sequence[Path], name: str, top: int
) -> Classified:
    async with Client(connection.server, credentials=connection.credentials) as client:
        model = await client.model(name)
        pictures = encode_pictures(paths, model.image_size)
        start_s = time.perf_counter()
        try:
            answer = await client.infer_encoded(name, pictures, outputs=["probabilities"])
        except ServerError as error:
            raise _named(error, paths) from None
        round_trip_s = time.perf_counter() - start_s
    guesses = []
    for probabilities in answer.probabilities:
        best = (-probabilities).argsort(kind="stable")[:top]
        guesses.append(
            [Guess(int(n), _label(model.classes, int(n)), float(probabilities[n])) for n in best]
        )
    return Classified(guesses, model.trained, answer.timeline, round_trip_s)


def _named(error: ServerError, paths: Sequence[Path]) -> InputError | ServerError:
    """The error with the file's name, if the server found a picture at fault."""
    found = _ROW.search(error.details)
    if error.code != "INVALID_ARGUMENT" or found is None or int(found[1]) >= len(paths):
        return error
    return InputError(f"{paths[int(found[1])]}: {found[2]}")


def _label(classes: Sequence[str], index: int) -> str:
    return classes[index] if index < len(classes) else f"class {index}"
