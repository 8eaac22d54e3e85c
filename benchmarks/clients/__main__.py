"""Starts servers, runs clients of others against them, and tells in Markdown what works.

benchmarks/clients/setup DIR
python -m benchmarks.clients --environments DIR [--write docs/clients.md]
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.clients import cat, running
from benchmarks.clients.catalog import CLIENTS
from benchmarks.clients.running import Outcome
from benchmarks.server_process import SERVER_COMMAND, serving

_SERVER = ("--models", cat.MODEL, "--shared-memory", "system", "--model-control", "explicit")


def main() -> None:
    """Print the table and the transcripts; exit status 1 if a client found a fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--environments", type=Path, required=True, help="the folder that setup has filled"
    )
    parser.add_argument("--only", default="", help="a pattern of the names of clients")
    parser.add_argument(
        "--write", type=Path, help="a page whose table and transcripts are replaced"
    )
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    chosen = [one for one in CLIENTS if re.search(options.only, one.name)]
    command = [*SERVER_COMMAND, *_SERVER]
    with (
        tempfile.TemporaryDirectory(prefix="clients-") as folder,
        serving(command) as first,
        serving(command) as second,
    ):
        write_picture(Path(folder))
        places = {"address": first.address, "other": second.address, "work": folder}
        for client in chosen:
            absent = running.missing(client, options.environments)
            if absent is not None:
                print(f"{client.name}: not run, there is no {absent}", file=sys.stderr)
                continue
            outcomes.append(running.run(client, options.environments, places))
            told = outcomes[-1].fault or "works"
            print(f"{client.name} {outcomes[-1].version}: {told}", file=sys.stderr, flush=True)
    parts = {"table": table(outcomes), "transcripts": transcripts(outcomes)}
    print("\n\n".join(parts.values()))
    if options.write is not None:
        replace(options.write, parts)
    sys.exit(any(outcome.fault for outcome in outcomes))


def write_picture(folder: Path) -> None:
    """The cat as ``data/images``, for perf_analyzer, and in the request ``cat.json``, for grpcurl."""
    pixels = cat.pixels()
    (folder / "data").mkdir()
    (folder / "data" / "images").write_bytes(pixels.tobytes())
    request = {
        "model_name": cat.MODEL,
        "id": "a-1",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": pixels.shape}],
        "raw_input_contents": [base64.b64encode(pixels.tobytes()).decode()],
    }
    (folder / "cat.json").write_text(json.dumps(request))


def table(outcomes: Sequence[Outcome]) -> str:
    """A row for each client."""
    rows = ["| client | version | what was called | outcome |", "|---|---|---|---|"]
    for one in outcomes:
        outcome = "works" if one.fault is None else f"does not: {one.fault}".replace("|", "\\|")
        rows.append(f"| {one.client.name} | {one.version} | {one.client.called} | {outcome} |")
    return "\n".join(rows)


def transcripts(outcomes: Sequence[Outcome]) -> str:
    """Commands and what they printed, client by client."""
    parts = [f"### {one.client.name}\n\n```\n{one.transcript}\n```" for one in outcomes]
    return "\n\n".join(parts)


def replace(page: Path, parts: dict[str, str]) -> None:
    """Put each of ``parts`` between the marks that bear its name.

    Raises:
        ValueError: if ``page`` does not have both marks of a part, once.
    """
    text = page.read_text()
    for name, content in parts.items():
        marks = re.compile(f"(<!-- {name}: [^>]* -->\n).*?(\n<!-- end of {name} -->)", re.DOTALL)
        text, found = marks.subn(lambda match, new=content: f"{match[1]}\n{new}\n{match[2]}", text)
        if found != 1:
            raise ValueError(f"{page}: {found} pairs of marks of {name!r}, expected 1")
    page.write_text(text)


if __name__ == "__main__":
    main()
