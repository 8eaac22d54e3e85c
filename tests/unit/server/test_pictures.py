"""Every kind of JPEG and PNG file as a network takes it, and every way one can be bad."""

import io
import struct
import zlib
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rootmodels.variants import FAMILIES
from rootserve.server.workers.pictures import Decoder, PictureError, decode_picture

MEGAPIXEL = 1_000_000


def scene(width: int, height: int) -> Image.Image:
    """A smooth picture of which no two corners look alike."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    x, y = x / width, y / height
    channels = [255 * x, 255 * y, 127 + 127 * np.sin(5 * x + 3 * y)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def decode(content: bytes, size: int = 32, max_pixels: int = MEGAPIXEL) -> NDArray[np.uint8]:
    return decode_picture(content, size, size, max_pixels)


def evaluated(picture: Image.Image, size: int, shorter: int) -> NDArray[np.uint8]:
    """Resize(shorter) and CenterCrop(size), step by step as torchvision does it with Pillow."""
    width, height = picture.size
    short = min(width, height)
    resized = picture.resize(
        (int(shorter * width / short), int(shorter * height / short)), Image.Resampling.BILINEAR
    )
    left, top = round((resized.width - size) / 2), round((resized.height - size) / 2)
    cropped = resized.crop((left, top, left + size, top + size))
    return np.asarray(cropped.convert("RGB")).transpose(2, 0, 1)


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def test_a_png_of_the_size_wanted_is_left_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert (decode(encoded(Image.fromarray(pixels))) == pixels.transpose(2, 0, 1)).all()


@pytest.mark.parametrize(
    "size", [(500, 375), (375, 500), (333, 222), (224, 224), (100, 80), (1, 1), (1000, 7)]
)
@pytest.mark.parametrize(("side", "shorter"), [(224, 256), (32, 32)])
def test_it_is_what_torchvision_evaluates_with(
    size: tuple[int, int], side: int, shorter: int
) -> None:
    picture = scene(*size)
    ours = decode_picture(encoded(picture), side, shorter, MEGAPIXEL)
    assert difference(ours, evaluated(picture, side, shorter)) <= 1


def test_imagenet_is_cropped_out_of_256_and_small_images_are_not_cropped() -> None:
    assert FAMILIES["resnet50"].short_side(224) == 256
    assert FAMILIES["resnet50"].short_side(160) == 182
    assert FAMILIES["nin"].short_side(32) == 32


def test_the_crop_is_a_fact_of_the_family_and_not_of_its_name() -> None:
    other = replace(FAMILIES["resnet50"], crop=Fraction(1))
    assert other.short_side(224) == 224


@pytest.mark.parametrize("options", [{"quality": 92}, {"quality": 92, "progressive": True}])
def test_a_large_jpeg_decoded_at_a_fraction_is_as_good_as_whole(options: dict[str, Any]) -> None:
    picture = scene(1000, 800)
    content = encoded(picture, "JPEG", **options)
    assert difference(decode_picture(content, 32, 32, MEGAPIXEL), evaluated(picture, 32, 32)) <= 5
    whole = evaluated(Image.open(io.BytesIO(content)), 224, 256)
    assert difference(decode_picture(content, 224, 256, MEGAPIXEL), whole) == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_upright(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = Image.open(io.BytesIO(encoded(scene(90, 61), kind, exif=exif)))
    content = file.fp.getvalue() if file.fp else b""  # type: ignore[attr-defined]
    expected = evaluated(ImageOps.exif_transpose(file).convert("RGB"), 32, 32)
    assert difference(decode(content), expected) <= 1


def test_exif_that_cannot_be_read_is_ignored() -> None:
    broken = encoded(scene(32, 32), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff junk")
    assert difference(decode(broken), decode(encoded(scene(32, 32)))) == 0


def test_grey_is_grey_in_all_channels() -> None:
    grey = scene(32, 32).convert("L")
    for kind in ("PNG", "JPEG"):
        red, green, blue = decode(encoded(grey, kind))
        assert (red == green).all()
        assert (red == blue).all()
        assert difference(red[None], np.asarray(grey)[None]) <= 4


def test_one_bit_is_black_and_white() -> None:
    dots = Image.fromarray(np.eye(32, dtype=bool))
    assert (decode(encoded(dots))[1] == 255 * np.eye(32)).all()


def test_sixteen_bits_are_cut_to_eight_and_not_off() -> None:
    values = np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64
    assert (decode(encoded(Image.fromarray(values)))[2] == values >> 8).all()


def test_sixteen_bit_colour() -> None:
    # Pillow cannot write such a file: 2 x 1 pixels of 48 bits.
    row = b"\0" + struct.pack(">6H", 0xFFFF, 0x8000, 0, 0x1234, 0, 0xFFFF)
    pixels = decode_picture(png((2, 1), 16, 2, zlib.compress(row)), 1, 1, MEGAPIXEL)
    assert pixels.shape == (3, 1, 1)
    wide = decode_picture(png((1, 1), 16, 2, zlib.compress(row[:7])), 1, 1, MEGAPIXEL)
    assert wide[:, 0, 0].tolist() == [0xFF, 0x80, 0]


def test_cmyk_is_converted() -> None:
    picture = decode(encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=95))
    assert difference(picture[:, :1, :1], np.array([255, 0, 0], np.uint8)[:, None, None]) <= 6


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_white(mode: str) -> None:
    picture = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 16, 32))
    picture.putpixel((20, 0), (0, 0, 0, 128))
    pixels = decode(encoded(picture.convert(mode)))
    assert pixels[:, 5, 5].tolist() == [0, 0, 0]
    assert pixels[:, 5, 25].tolist() == [255, 255, 255]
    assert 126 <= pixels[0, 0, 20] <= 128


def test_a_palette_and_its_transparent_colour() -> None:
    picture = Image.new("P", (32, 32), 0)
    picture.putpalette([200, 10, 10, 0, 0, 255])
    picture.paste(1, (0, 0, 16, 32))
    pixels = decode(encoded(picture))
    assert pixels[:, 0, 0].tolist() == [0, 0, 255]
    assert pixels[:, 0, 31].tolist() == [200, 10, 10]
    assert decode(encoded(picture, transparency=0))[:, 0, 31].tolist() == [255, 255, 255]


def png(size: tuple[int, int], bits: int, colour: int, data: bytes) -> bytes:
    """A PNG file of these chunks, whatever is in them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def many_scans() -> bytes:
    content = encoded(scene(64, 64), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * 300 + content[-2:]


BAD = {
    "truncated JPEG": (
        encoded(scene(300, 200), "JPEG")[:-700],
        "is damaged: image file is truncated",
    ),
    "truncated PNG": (encoded(scene(300, 200))[:-700], "is damaged: image file is truncated"),
    "JPEG header alone": (encoded(scene(300, 200), "JPEG")[:200], "is damaged"),
    "PNG signature alone": (b"\x89PNG\r\n\x1a\n", "is damaged: its header"),
    "JPEG signature alone": (b"\xff\xd8\xff", "is damaged: its header"),
    "no picture": (b"GIF89a" + bytes(100), "is damaged: its header is none of a JPEG or PNG"),
    "no bytes": (b"", "is damaged: its header"),
    "too many pixels": (encoded(Image.new("1", (1001, 1000))), "1001 x 1000 pixels, 1.0 million"),
    "a bomb": (
        png((50_000, 50_000), 8, 2, zlib.compress(bytes(1000))),
        "has 50000 x 50000 pixels, 2500.0 million; expected at most 1 million",
    ),
    "no pixels": (png((0, 0), 8, 2, zlib.compress(b"")), "is damaged"),
    "less data than pixels": (png((100, 100), 8, 2, zlib.compress(bytes(9))), "is damaged"),
    "data that is none": (png((10, 10), 8, 2, b"no zlib stream"), "is damaged"),
    "text that unpacks to more than it may": (
        encoded(scene(9, 9)).replace(
            b"IDAT", b"zTXtk\0\0" + zlib.compress(bytes(50_000_000)) + b"IDAT", 1
        ),
        "is damaged",
    ),
    "hundreds of scans": (many_scans(), "scans; expected at most 200"),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD.keys())
def test_a_bad_picture_tells_what_is_wrong_with_it(content: bytes, words: str) -> None:
    with pytest.raises(PictureError) as caught:
        decode(content)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_long_thin_picture_takes_no_memory() -> None:
    thin = encoded(Image.new("L", (900_000, 1), 7))
    assert (decode_picture(thin, 224, 256, MEGAPIXEL) == 7).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_bad_ones_cost_the_others_nothing(threads: int) -> None:
    contents = [encoded(Image.new("L", (40, 40), value)) for value in range(9)]
    contents[4] = contents[4][:-30]
    results = list(Decoder(threads, MEGAPIXEL).decode(contents, 32, 32))
    assert isinstance(results[4], PictureError)
    assert [int(r.max()) for r in results if not isinstance(r, PictureError)] == [
        value for value in range(9) if value != 4
    ]
