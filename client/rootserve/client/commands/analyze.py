"""`rootserve analyze`: what a network's layers have to do with each other, as matrices and pictures."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from rootserve.client.analysis import files
from rootserve.client.analysis.options import Images, Output
from rootserve.client.analysis.progress import ProgressBar
from rootserve.client.analysis.report import print_datasets, print_layers, print_pairs, to_json
from rootserve.client.analysis.results import Analysis
from rootserve.client.analysis.service import Dataset, Request, analyze, derive, list_datasets
from rootserve.client.analysis.sources import LocalImages, ServerImages, local_images
from rootserve.client.credentials import Connection
from rootserve.client.errors import InputError, Interrupted
from rootserve.client.inference import AsyncClient
from rootserve.client.tables import console


def run_covariance(
    connection: Connection, request: Request, images: Images, output: Output
) -> None:
    """Analyse pairs of layers; write matrices, scores and pictures; print the scores."""
    files.prepare_folder(output.folder)
    analysis = _ask(connection, request, images, output.groups)
    write_covariance(analysis, output)
    print_covariance([analysis], output)


def run_correlation(
    connection: Connection, request: Request, images: Images, output: Output
) -> None:
    """Analyse layers for themselves; write their correlations and a picture; print their ranks."""
    files.prepare_folder(output.folder)
    analysis = _ask(connection, request, images)
    with files.writing(output.folder):
        files.write_matrices(analysis, output.folder / files.CORRELATION_FILE)
        if output.pictures:
            _draw_correlation(analysis, output)
    if output.as_json:
        print(json.dumps(to_json(analysis), indent=2))
        return
    screen = console()
    print_layers(screen, analysis)
    screen.print(f"results in {output.folder}", markup=False, soft_wrap=True)


def run_figures(
    connection: Connection, requests: Sequence[Request], images: Images, output: Output
) -> None:
    """Analyse networks one after the other, each into a folder of its own, and draw them together."""
    for request in requests:
        files.prepare_folder(output.folder / request.model)
    analyses = []
    for request in requests:
        analysis = _ask(connection, request, images, output.groups)
        # Written at once: what is done is kept if a later one fails.
        write_covariance(analysis, _below(output, request.model))
        analyses.append(analysis)
    _draw_together(analyses, output)
    print_covariance(analyses, output)


def redraw_figures(models: Sequence[str], output: Output) -> None:
    """Draw what `run_figures` left in the folder once more, without a server."""
    analyses = [files.read_analysis(output.folder / model) for model in models]
    for model, analysis in zip(models, analyses, strict=True):
        with files.writing(output.folder):
            _draw(analysis, _below(output, model))
    _draw_together(analyses, output)
    print_covariance(analyses, output)


def run_merge(
    connection: Connection, parts: Sequence[Path], output: Output, results: tuple[str, ...]
) -> None:
    """Merge the sums of several analyses of one network, and go on as if they had been one."""
    sums = [files.read_sums(part) for part in parts]
    files.prepare_folder(output.folder)

    async def call() -> Analysis:
        async with AsyncClient(connection.server, credentials=connection.credentials) as client:
            return await derive(client, sums, results=results)

    analysis = asyncio.run(call())
    write_covariance(analysis, output)
    print_covariance([analysis], output)


def run_datasets(connection: Connection, *, as_json: bool) -> None:
    """Print the data sets that the server has."""

    async def call() -> list[Dataset]:
        async with AsyncClient(connection.server, credentials=connection.credentials) as client:
            return await list_datasets(client)

    datasets = asyncio.run(call())
    if as_json:
        print(json.dumps([asdict(dataset) for dataset in datasets], indent=2))
    else:
        print_datasets(console(), datasets)


def _ask(
    connection: Connection, request: Request, images: Images, groups: int | None = None
) -> Analysis:
    async def call() -> Analysis:
        async with AsyncClient(connection.server, credentials=connection.credentials) as client:
            source = await _open(images, client, request.model)
            with ProgressBar(console(stderr=True), request.model, groups) as bar:
                return await analyze(client, request, source, bar)

    try:
        return asyncio.run(call())
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; the analysis of {request.model} was cancelled on the server"
        ) from None


async def _open(images: Images, client: AsyncClient, model: str) -> LocalImages | ServerImages:
    if images.data is None:
        assert images.dataset is not None
        return ServerImages(images.dataset, images.skip, images.number)
    entry = await client.model(model)
    return local_images(
        images.data,
        entry.image_size,
        shorter=entry.short_side,
        skip=images.skip,
        take=images.number,
    )


def _below(output: Output, folder: str) -> Output:
    return replace(output, folder=output.folder / folder)


def write_covariance(analysis: Analysis, output: Output) -> None:
    """Write matrices, scores, sums if there are any, and pictures into the folder of `output`.

    Raises:
        InputError: Something cannot be written there.
    """
    with files.writing(output.folder):
        files.write_matrices(analysis, output.folder / files.COVARIANCE_FILE)
        files.write_scores(analysis, output.folder / files.SCORES_FILE)
        if analysis.sums is not None:
            files.write_sums(analysis.sums, output.folder / files.SUMS_FILE)
        if output.pictures:
            _draw(analysis, output)


def _draw(analysis: Analysis, output: Output) -> None:
    # Imported where pictures are drawn: matplotlib takes a second.
    from rootserve.client.analysis import figures  # noqa: PLC0415

    with _drawing(f"drawing {analysis.model}"):
        for pair in analysis.pairs:
            figure = figures.pair_figure(analysis, pair, output.groups)
            figures.save(figure, output.folder, pair.name, output.style)
        if len(analysis.pairs) > 1:
            figure = figures.pairs_figure(analysis, output.groups)
            figures.save(figure, output.folder, "whitened", output.style)
    _draw_correlation(analysis, output)


def _draw_correlation(analysis: Analysis, output: Output) -> None:
    from rootserve.client.analysis import figures  # noqa: PLC0415 - see above

    with _drawing(f"drawing {analysis.model}"):
        figure = figures.correlation_figure(analysis)
        figures.save(figure, output.folder, "correlation", output.style)


def _draw_together(analyses: Sequence[Analysis], output: Output) -> None:
    from rootserve.client.analysis import figures  # noqa: PLC0415 - see above

    out = output.folder
    names = [[pair.name for pair in analysis.pairs] for analysis in analyses]
    for analysis, own in zip(analyses, names, strict=True):
        if own != names[0]:
            raise InputError(
                f"{analysis.model} has other pairs of layers than {analyses[0].model}: "
                f"expected models of one family; each one's own pictures are in {out}"
            )
    with files.writing(out), _drawing("drawing all together"):
        figures.save(figures.networks_figure(analyses), out, "whitened", output.style)
        for name in names[0]:
            if figures.has_groups(analyses, name):
                figure = figures.pair_of_networks_figure(analyses, name)
                figures.save(figure, out, name, output.style)


@contextmanager
def _drawing(words: str) -> Iterator[None]:
    screen = console(stderr=True)
    if screen.is_terminal:
        with screen.status(words):
            yield
    else:
        yield


def print_covariance(analyses: Sequence[Analysis], output: Output) -> None:
    """Print the scores as tables or JSON, and where the results are."""
    if output.as_json:
        content = [to_json(analysis) for analysis in analyses]
        print(json.dumps(content[0] if len(content) == 1 else content, indent=2))
        return
    screen = console()
    for analysis in analyses:
        print_pairs(screen, analysis, output.groups)
    screen.print(f"results in {output.folder}", markup=False, soft_wrap=True)
