"""One reading of pictures everywhere: every kind of file, with the same pixels on both sides of the wire."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from rootmodels.cost import network_cost
from rootmodels.image_folder import read_image_folder
from rootmodels.parquet_images import ParquetImages
from rootmodels.variants import FAMILIES, get_variant
from rootmodels.weights_info import WeightsInfo
from rootserve.client.catalog import read_model
from rootserve.client.dataset import read_dataset
from rootserve.client.images import encode_pictures, read_image
from rootserve.server.models import Model, ModelCard
from rootserve.server.wire.catalog import model_message
from rootserve.server.workers.pictures import decode_picture

Pixels = NDArray[np.uint8]
SIDE = 32
RAMP = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 63
CLEAR = int(RAMP[3, 5])
UPSIDE_DOWN = Image.Exif()
UPSIDE_DOWN[0x0112] = 3


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def wide_colour(clear: tuple[int, int, int]) -> bytes:
    """A PNG of 48 bits per pixel with a transparent colour, which Pillow cannot write."""
    pixels = np.repeat(RAMP[:, :, None], 3, axis=2).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)
    parts = [
        (b"IHDR", header),
        (b"tRNS", struct.pack(">3H", *clear)),
        (b"IDAT", zlib.compress(rows)),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in (*parts, (b"IEND", b"")))


def file_of(picture: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def grey(values: NDArray[np.generic]) -> Pixels:
    return np.repeat(values.astype(np.uint8)[None], 3, axis=0)


def scene() -> Image.Image:
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    return Image.fromarray(np.stack([8 * x, 8 * y, 4 * (x + y)], axis=-1).astype(np.uint8))


def glass() -> Image.Image:
    picture = scene().convert("RGBA")
    picture.putalpha(0)
    picture.paste((1, 2, 3, 255), (0, 0, SIDE, SIDE // 2))
    return picture


COLOURS: Pixels = np.asarray(scene()).transpose(2, 0, 1)
ON_WHITE = np.full_like(COLOURS, 255)
ON_WHITE[:, : SIDE // 2] = np.array([1, 2, 3])[:, None, None]
CUT = grey(RAMP >> 8)
WITH_CLEAR = grey(np.where(CLEAR == RAMP, 255, RAMP >> 8))
# Cut to 8 bits, all its neighbours of the same upper byte are clear too.
WITH_CLEAR_COLOUR = grey(np.where(RAMP >> 8 == CLEAR >> 8, 255, RAMP >> 8))

KINDS: dict[str, tuple[bytes, Pixels]] = {
    "colour.png": (file_of(scene(), "PNG"), COLOURS),
    "grey.png": (file_of(scene().convert("L"), "PNG"), grey(np.asarray(scene().convert("L")))),
    "turned.png": (file_of(scene(), "PNG", exif=UPSIDE_DOWN), COLOURS[:, ::-1, ::-1]),
    "turned.tiff": (file_of(scene(), "TIFF", exif=UPSIDE_DOWN), COLOURS[:, ::-1, ::-1]),
    "turned.webp": (
        file_of(scene(), "WEBP", lossless=True, exif=UPSIDE_DOWN),
        COLOURS[:, ::-1, ::-1],
    ),
    "glass.png": (file_of(glass(), "PNG"), ON_WHITE),
    "glass.tiff": (file_of(glass(), "TIFF"), ON_WHITE),
    "glass.webp": (file_of(glass(), "WEBP", lossless=True), ON_WHITE),
    "sixteen.png": (file_of(Image.fromarray(RAMP), "PNG"), CUT),
    "sixteen.tiff": (file_of(Image.fromarray(RAMP), "TIFF"), CUT),
    "sixteen-clear.png": (file_of(Image.fromarray(RAMP), "PNG", transparency=CLEAR), WITH_CLEAR),
    "wide-clear.png": (wide_colour((CLEAR, CLEAR, CLEAR)), WITH_CLEAR_COLOUR),
}


def served(name: str, content: bytes, folder: Path) -> Pixels:
    return decode_picture(content, SIDE, SIDE, 10**6)


def inferred(name: str, content: bytes, folder: Path) -> Pixels:
    (folder / name).write_bytes(content)
    return served(name, encode_pictures([folder / name], SIDE)[0], folder)


def analysed(name: str, content: bytes, folder: Path) -> Pixels:
    (folder / name).write_bytes(content)
    return read_image(folder / name, SIDE)


def trained(name: str, content: bytes, folder: Path) -> Pixels:
    for split in ("train", "val"):
        for kind in ("cat", "dog"):
            (folder / split / kind).mkdir(parents=True)
            (folder / split / kind / name).write_bytes(content)
    return read_image_folder(folder, "val", SIDE).images[1]


def parquet_of(content: bytes, folder: Path) -> Path:
    path = folder / "test-0.parquet"
    pq.write_table(pa.table({"img": [{"bytes": content}], "label": [0]}), path)
    return path


def in_the_servers_parquet(name: str, content: bytes, folder: Path) -> Pixels:
    return ParquetImages(parquet_of(content, folder)).read(0, 1)[0]


def in_the_clients_parquet(name: str, content: bytes, folder: Path) -> Pixels:
    return read_dataset(parquet_of(content, folder)).images[0]


READERS = [served, inferred, analysed, trained, in_the_servers_parquet, in_the_clients_parquet]


@pytest.mark.parametrize(
    ("read", "name"),
    # Serving takes JPEG and PNG files; infer encodes others anew.
    [(read, name) for read in READERS for name in KINDS if read is not served or "png" in name],
)
def test_every_reader_sees_the_same(
    read: Callable[[str, bytes, Path], Pixels], name: str, tmp_path: Path
) -> None:
    content, expected = KINDS[name]
    np.testing.assert_array_equal(read(name, content, tmp_path), expected)


def told_by_the_catalogue(name: str, side: int) -> int:
    """What a client learns of a model whose weights are for images of ``side`` pixels."""
    info = WeightsInfo(name, None, 0, 0, 0, "", {}, image_size=side)
    variant = get_variant(name)
    card = ModelCard(variant, network_cost(variant, side), None, info)
    return read_model(model_message(Model(card, {}))).short_side


@pytest.mark.parametrize("size", [(90, 61), (61, 90), (40, 40), (700, 500)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(("family", "side"), [("nin", 32), ("resnet50", 56)])
def test_the_client_crops_and_resizes_as_the_server(
    size: tuple[int, int], kind: str, family: str, side: int, tmp_path: Path
) -> None:
    content = file_of(scene().resize(size, Image.Resampling.BICUBIC), kind)
    (tmp_path / "picture").write_bytes(content)
    shorter = told_by_the_catalogue(f"{family}-orig", side)
    assert shorter == FAMILIES[family].short_side(side)
    ours = read_image(tmp_path / "picture", side, shorter)
    np.testing.assert_array_equal(ours, decode_picture(content, side, shorter, 10**6))
    if family == "nin":
        np.testing.assert_array_equal(ours, trained("picture.jpg", content, tmp_path))


@pytest.mark.parametrize("mode", ["I", "F"])
@pytest.mark.parametrize(
    "read", [analysed, trained, in_the_servers_parquet, in_the_clients_parquet]
)
def test_values_of_32_bits_are_refused_and_not_cut_off(
    read: Callable[[str, bytes, Path], Pixels], mode: str, tmp_path: Path
) -> None:
    content = file_of(Image.fromarray(RAMP.astype(np.int32)).convert(mode), "TIFF")
    with pytest.raises(Exception, match="has 32 bits per value; expected 8 or 16"):
        read("deep.tiff", content, tmp_path)
