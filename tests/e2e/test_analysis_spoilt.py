"""Data sets and weights that are spoilt: one line that names the file, and the row where there is one."""

import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rootmodels.network import Network
from rootmodels.variants import get_variant
from rootmodels.weights import save_weights
from rootmodels.weights_info import WeightsInfo, weights_path
from rootserve.v1 import analysis_pb2 as pb
from tests.support.analysis_calls import Answer, stub
from tests.support.server_process import ServerProcess, running_server

MODEL = "nin-root-4"


def analyze(server: ServerProcess) -> Answer:
    """Of all images of the data set."""
    spec = pb.AnalysisSpec(
        model=MODEL,
        options=pb.DeriveOptions(),
        dataset_images=pb.DatasetImages(name="sample"),
    )
    return Answer(stub(server).Analyze(iter([pb.AnalyzeRequest(spec=spec)]), timeout=110))


def refusal(server: ServerProcess) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        analyze(server)
    assert isinstance(caught.value, grpc.Call)
    return caught.value.code(), caught.value.details()


def parquet(path: Path, pictures: list[bytes]) -> Path:
    cells = [{"bytes": content, "path": ""} for content in pictures]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"img": pa.array(cells, kind)})
    pq.write_table(table, path)
    return path


def picture(height: int = 32, width: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (10, 20, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def strings(path: Path) -> None:
    pq.write_table(pa.table({"img": [{"bytes": "text", "path": ""}] * 8}), path)


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(56)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Path, Path]]:
    """A server, its data set and its folder with weights, to be replaced while it runs."""
    folder = tmp_path_factory.mktemp("hostile")
    data = parquet(folder / "data.parquet", [picture()] * 8)
    shutil.copy(weights_path(MODEL), folder)
    with running_server(
        *("--models", MODEL, "--engine", "fake", "--device", "cpu"),
        *("--weights", str(folder), "--datasets", f"sample={data}"),
    ) as server:
        yield server, data, folder


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (Path.unlink, r"data\.parquet: no such file or folder"),
        (lambda path: path.write_bytes(b"PAR1"), r"data\.parquet: cannot be read \("),
        (strings, r"data\.parquet: has the columns img \(struct<bytes: string"),
        (damaged, r"data\.parquet: cannot be read from image 0 on \("),
        (
            lambda path: parquet(path, [picture()] * 3),
            r"data\.parquet: holds 3 images, expected at least 8",
        ),
        (
            lambda path: parquet(path, [picture()] * 7 + [picture(4000, 4000)]),
            r"data\.parquet: image 7 is \(4000, 4000\), expected 32x32",
        ),
        (
            lambda path: parquet(path, [picture(4000, 4000)] * 8),
            r"data\.parquet: image 0 has 4000 x 4000 pixels",
        ),
        (
            lambda path: parquet(path, [picture(16, 16)] * 8),
            r"images of .*data\.parquet are \(16, 16\), expected 32x32 as when the service started",
        ),
        (
            lambda path: parquet(path, [picture()] * 7 + [b"no picture"]),
            r"data\.parquet: image 7 is not a picture",
        ),
        (
            lambda path: parquet(path, [picture()] * 7 + [b""]),
            r"data\.parquet: image 7 has no bytes",
        ),
    ],
    ids=[
        *("gone", "cut", "strings", "damaged", "fewer", "larger", "all larger", "smaller"),
        *("no picture", "empty"),
    ],
)
def test_a_data_set_that_was_spoilt_is_one_line_that_names_the_file_and_the_row(
    hostile: tuple[ServerProcess, Path, Path], spoil: Callable[[Path], object], words: str
) -> None:
    server, data, _ = hostile
    parquet(data, [picture()] * 8)
    spoil(data)
    try:
        code, details = refusal(server)
    finally:
        parquet(data, [picture()] * 8)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert re.search(words, details)
    assert len(details.splitlines()) == 1
    assert analyze(server).summary.images == 8


def other_images(path: Path) -> None:
    model = Network(get_variant(MODEL), 64, 10)
    save_weights(path, model, WeightsInfo(MODEL, None, 0, 0, 0, "", {}, image_size=64))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (Path.unlink, "cannot be read: No such file"),
        (lambda path: path.write_bytes(b"nothing"), "is not a readable safetensors file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "is not a readable safetensors"),
        (other_images, "was replaced by weights for other images: conv1a would be"),
    ],
    ids=["gone", "nothing", "cut", "other images"],
)
def test_weights_that_were_spoilt_are_a_failed_precondition_that_names_the_file(
    hostile: tuple[ServerProcess, Path, Path], spoil: Callable[[Path], object], words: str
) -> None:
    server, _, folder = hostile
    path = weights_path(MODEL, folder)
    spoil(path)
    try:
        code, details = refusal(server)
    finally:
        path.unlink(missing_ok=True)
        shutil.copy(weights_path(MODEL), folder)
    assert code is grpc.StatusCode.FAILED_PRECONDITION, details
    assert words in details
    assert str(path) in details
    assert len(details.splitlines()) == 1
    assert analyze(server).summary.images == 8


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b"PAR1"), ": cannot be read ("),
        (lambda path: parquet(path, []), "holds no images"),
        (lambda path: parquet(path, [b"no picture"]), "image 0 is not a picture"),
        (lambda path: parquet(path, [picture(1100, 1000)]), "expected at most 1 million"),
        (strings, "expected parquet with the column img"),
    ],
    ids=["cut", "no images", "no picture", "too large", "strings"],
)
def test_a_data_set_that_cannot_be_used_ends_the_start_in_one_line(
    tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    make(tmp_path / "data.parquet")
    with pytest.raises(AssertionError, match="the server did not start") as caught:
        ServerProcess(
            *("--models", MODEL, "--datasets", f"sample={tmp_path / 'data.parquet'}"),
            *("--max-image-megapixels", "1"),
        )
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith("rootserve-server: error: datasets: data set sample: ")
    assert str(tmp_path / "data.parquet") in line
    assert words in line
