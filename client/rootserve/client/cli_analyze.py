"""The arguments of `rootserve analyze`; what its commands do is in `rootserve.client.commands.analyze`."""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from rootserve.client.analysis.options import Images, Output
from rootserve.client.analysis.style import Style, drawing
from rootserve.client.arguments import AsJson, ModelName
from rootserve.client.connecting import connecting
from rootserve.client.credentials import Connection
from rootserve.client.errors import InputError
from rootserve.client.help import CommandGroup

_USAGE = 2
_MISSED = 1

app = typer.Typer(
    cls=CommandGroup,
    help="See inside a network: covariance between its layers, what each one costs, its filters.",
    rich_markup_mode=None,
)

Data = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Send the images of this parquet file or folder (column img), "
        "or the pictures in this folder.",
    ),
]
DatasetName = Annotated[
    str | None,
    typer.Option("--dataset", metavar="NAME", help="Use images the server has by this name."),
]
Number = Annotated[
    int | None,
    typer.Option("--images", metavar="N", min=1, help="How many images [default: all]."),
]
Skip = Annotated[
    int, typer.Option(metavar="N", min=0, help="Images to leave out from the beginning.")
]
Pairs = Annotated[
    str,
    typer.Option(metavar="all|A-B,...", help="Pairs of layers; all means every two adjacent ones."),
]
BeforeRelu = Annotated[
    bool, typer.Option("--before-relu", help="Take responses before the ReLU, not after it.")
]
Groups = Annotated[
    int | None,
    typer.Option(
        metavar="G",
        min=2,
        help="Outline G blocks and give their scores [default: the layer's own filter groups].",
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        metavar="T",
        help="Whitening takes eigenvalues up to this share of the largest as zero [default: 1e-6].",
    ),
]
Sums = Annotated[bool, typer.Option("--sums", help="Also write sums.npz, which 'merge' takes.")]
Pictures = Annotated[bool, typer.Option(help="Whether to draw pictures.")]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="auto|HOST:PORT",
        help="Compute on the machines of this Ray cluster, without a server (extra 'ray'): "
        "--data is a folder or a pattern of files that all of them see.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="With --ray: folder of MODEL.safetensors [default: shipped]."),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda",
        help="With --ray: what computes; auto takes GPUs where the cluster has any.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="With --ray: go on from what an earlier command left in DIR."),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results.")]


@app.callback(invoke_without_command=True)
def _analyze(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(_USAGE)


@app.command()
@connecting
@drawing
def covariance(  # noqa: PLR0913, PLR0917 - one per option of the command
    model: ModelName,
    out: Out,
    pairs: Pairs = "all",
    data: Data = None,
    dataset: DatasetName = None,
    images: Number = None,
    skip: Skip = 0,
    before_relu: BeforeRelu = False,
    groups: Groups = None,
    tolerance: Tolerance = None,
    sums: Sums = False,
    pictures: Pictures = True,
    as_json: AsJson = False,
    ray: Ray = None,
    weights: Weights = None,
    device: Device = "auto",
    resume: Resume = False,
    *,
    style: Style,
    connection: Connection,
) -> None:
    """Covariance between layers, and its block structure.

    Writes DIR/covariance.npz, DIR/scores.json and pictures. Ctrl-C cancels the analysis. With --ray, exit
    code 1 means that files could not be read and were left out.
    """
    from rootserve.client.analysis.service import COVARIANCE_RESULTS, Request  # noqa: PLC0415
    from rootserve.client.commands.analyze import run_covariance  # noqa: PLC0415

    request = Request(
        model=model,
        pairs=_parse_pairs(pairs),
        before_relu=before_relu,
        results=(*COVARIANCE_RESULTS, "sums") if sums else COVARIANCE_RESULTS,
        tolerance=tolerance,
    )
    output = Output(out, pictures, groups, as_json, style)
    if ray is not None:
        _check_for_ray(data, dataset, images, skip, device)
        from rootserve.client.commands.analyze_ray import (  # noqa: PLC0415
            Place,
            run_covariance_on_ray,
        )

        assert data is not None
        place = Place(ray, weights, device, resume)
        if not run_covariance_on_ray(place, request, data, output):
            raise typer.Exit(_MISSED)
        return
    if weights is not None or resume or device != "auto":
        raise InputError("--weights, --resume and --device: expected them with --ray alone")
    run_covariance(connection, request, Images(data, dataset, images, skip), output)


@app.command()
@connecting
@drawing
def correlation(  # noqa: PLR0913, PLR0917 - one per option of the command
    model: ModelName,
    out: Out,
    layers: Annotated[str, typer.Option(metavar="all|A,...", help="Which layers.")] = "all",
    data: Data = None,
    dataset: DatasetName = None,
    images: Number = None,
    skip: Skip = 0,
    before_relu: BeforeRelu = False,
    pictures: Pictures = True,
    as_json: AsJson = False,
    *,
    style: Style,
    connection: Connection,
) -> None:
    """Correlation within layers.

    Writes DIR/correlation.npz and a picture. Ctrl-C cancels the analysis.
    """
    from rootserve.client.analysis.service import CORRELATION_RESULTS, Request  # noqa: PLC0415
    from rootserve.client.commands.analyze import run_correlation  # noqa: PLC0415

    request = Request(
        model=model,
        layers=() if layers == "all" else _parse_names("--layers", layers),
        before_relu=before_relu,
        results=CORRELATION_RESULTS,
    )
    chosen = Images(data, dataset, images, skip)
    run_correlation(
        connection, request, chosen, Output(out, pictures, as_json=as_json, style=style)
    )


@app.command()
@connecting
@drawing
def figures(  # noqa: PLR0913, PLR0917 - one per option of the command
    models: Annotated[
        str, typer.Option(metavar="A,B,...", help="Models of one family; see 'models'.")
    ],
    out: Out,
    data: Data = None,
    dataset: DatasetName = None,
    images: Number = None,
    skip: Skip = 0,
    before_relu: BeforeRelu = False,
    redraw: Annotated[
        bool,
        typer.Option("--redraw", help="Draw what DIR holds once more, without a server."),
    ] = False,
    as_json: AsJson = False,
    *,
    style: Style,
    connection: Connection,
) -> None:
    """All pictures of several models.

    Writes into DIR/MODEL what 'covariance' does, and into DIR pictures of the models side by side.
    """
    from rootserve.client.analysis.service import Request  # noqa: PLC0415
    from rootserve.client.commands.analyze import redraw_figures, run_figures  # noqa: PLC0415

    names = _parse_names("--models", models)
    output = Output(out, as_json=as_json, style=style)
    if redraw:
        if data is not None or dataset is not None:
            raise InputError("--redraw with images: expected neither --data nor --dataset")
        redraw_figures(names, output)
        return
    requests = [Request(model=name, before_relu=before_relu) for name in names]
    run_figures(connection, requests, Images(data, dataset, images, skip), output)


@app.command()
@connecting
@drawing
def merge(  # noqa: PLR0913 - one per option of the command
    parts: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders with sums.npz, or such files.")
    ],
    out: Out,
    groups: Groups = None,
    sums: Sums = False,
    pictures: Pictures = True,
    as_json: AsJson = False,
    *,
    style: Style,
    connection: Connection,
) -> None:
    """Join analyses of different images into one.

    Takes what 'covariance --sums' wrote for the same model and layers. The result is that of one
    analysis of all images; the server computes it.
    """
    from rootserve.client.analysis.service import COVARIANCE_RESULTS  # noqa: PLC0415
    from rootserve.client.commands.analyze import run_merge  # noqa: PLC0415

    results = (*COVARIANCE_RESULTS, "sums") if sums else COVARIANCE_RESULTS
    run_merge(connection, parts, Output(out, pictures, groups, as_json, style), results)


@app.command()
@connecting
@drawing
def profile(  # noqa: PLR0913 - one per option of the command
    model: ModelName,
    against: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Compare with this model, layer by layer."),
    ] = None,
    measure: Annotated[
        bool, typer.Option(help="Whether to measure how long the server takes for each layer.")
    ] = True,
    rows: Annotated[
        int, typer.Option(metavar="N", min=1, help="Images of the batch that is measured.")
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Write profile.json and a picture there."),
    ] = None,
    as_json: AsJson = False,
    *,
    style: Style,
    connection: Connection,
) -> None:
    """What each layer costs: parameters, MACs and time.

    Any model the server knows will do, loaded or not. Times are medians on the engine that serves; the server
    measures when it has nothing else to do.
    """
    from rootserve.client.commands.analyze_layers import run_profile  # noqa: PLC0415

    run_profile(
        connection,
        model,
        against,
        measure=measure,
        rows=rows,
        out=out,
        style=style,
        as_json=as_json,
    )


@app.command()
@connecting
@drawing
def filters(
    model: ModelName,
    out: Out,
    layer: Annotated[
        str, typer.Option(metavar="NAME", help="A convolution [default: the first one].")
    ] = "",
    *,
    style: Style,
    connection: Connection,
) -> None:
    """The filters of a convolution as a picture.

    Writes DIR/filters-LAYER.npy and a picture. Filters of three channels are in colour, ordered by channel
    and marked by the filter groups that follow.
    """
    from rootserve.client.commands.analyze_layers import run_filters  # noqa: PLC0415

    run_filters(connection, model, layer, out, style)


@app.command()
@connecting
def datasets(as_json: AsJson = False, *, connection: Connection) -> None:
    """List the images that the server has.

    Their names are what --dataset takes.
    """
    from rootserve.client.commands.analyze import run_datasets  # noqa: PLC0415

    run_datasets(connection, as_json=as_json)


def _check_for_ray(
    data: Path | None, dataset: str | None, images: int | None, skip: int, device: str
) -> None:
    """Refuse what a cluster cannot do, before anything is imported that may be missing.

    Raises:
        InputError: saying what was expected.
    """
    if data is None or dataset is not None or images is not None or skip:
        raise InputError(
            "--ray: expected --data FOLDER-OR-PATTERN, and neither --dataset, --images nor --skip: all "
            "images of the files are taken"
        )
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device '{device}': expected auto, cpu or cuda")
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "--ray: Ray is not installed; expected its extra, as in pip install 'rootserve[ray]'"
        )


def _parse_pairs(text: str) -> list[tuple[str, str]]:
    if text == "all":
        return []
    pairs = []
    for part in text.split(","):
        first, dash, second = (word.strip() for word in part.partition("-"))
        if not (first and dash and second) or "-" in second:
            raise InputError(
                f"--pairs: '{part}' is no pair; expected all, or pairs such as conv1c-conv2a "
                "with commas between them"
            )
        pairs.append((first, second))
    return pairs


def _parse_names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise InputError(f"{option} '{text}': expected different names with commas between them")
    return names
