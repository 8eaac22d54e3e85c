"""Addresses, pictures, data sets and messages: what is read, and how what cannot be is refused."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tritonclient.grpc import service_pb2

from rootserve.client.address import Address, parse_address
from rootserve.client.analysis.sources import local_images
from rootserve.client.dataset import count_images, iterate_images, read_dataset
from rootserve.client.errors import InputError, MalformedAnswer
from rootserve.client.images import encode_pictures, read_image
from rootserve.client.wire import build_request, decode_response


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("127.0.0.1:8001", Address("127.0.0.1", 8001), True),
        (" localhost:1 ", Address("localhost", 1), True),
        ("[::1]:65535", Address("::1", 65535), True),
        ("models.example.org:443", Address("models.example.org", 443), False),
    ],
)
def test_address(text: str, address: Address, loopback: bool) -> None:
    assert parse_address(text) == address
    assert str(address) == text.strip()
    assert address.is_loopback is loopback


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "8001", ":8001", "host:", "host:0", "host:65536", "host:-1", "host:8 001",
     "::1:8001", "http://host:8001", "host:8001/path", "host:²"],
)  # fmt: skip
def test_bad_address(text: str) -> None:
    with pytest.raises(InputError, match="expected HOST:PORT with a port from 1 to 65535"):
        parse_address(text)


@given(st.text("host01:[].-/ ²٣"))
def test_any_text_is_an_address_or_an_input_error(text: str) -> None:
    try:
        address = parse_address(text)
    except InputError:
        return
    assert parse_address(str(address)) == address


def test_a_picture_of_the_right_size_is_left_as_it_is(cat_path: Path) -> None:
    pixels = read_image(cat_path, 32)
    assert pixels.dtype == np.uint8
    with Image.open(cat_path) as picture:
        np.testing.assert_array_equal(pixels.transpose(1, 2, 0), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("name", ["wide.jpg", "tall.bmp", "small.gif", "grey.tiff", "fine.webp"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_any_size_and_format(tmp_path: Path, name: str, mode: str) -> None:
    size = {"wide.jpg": (90, 40), "tall.bmp": (20, 70), "small.gif": (5, 9)}.get(name, (64, 64))
    mode = "L" if mode == "P" and name.endswith("jpg") else mode
    Image.new(mode, size, 255).save(tmp_path / name)
    pixels = read_image(tmp_path / name, 32)
    assert pixels.shape == (3, 32, 32)
    assert pixels.flags.c_contiguous


def test_the_centred_square_is_kept(tmp_path: Path) -> None:
    picture = Image.new("RGB", (96, 32), "black")
    picture.paste("red", (32, 0, 64, 32))
    picture.save(tmp_path / "banner.png")
    pixels = read_image(tmp_path / "banner.png", 32)
    assert (pixels[0] == 255).all()
    assert (pixels[1:] == 0).all()


def test_transparency_shows_white_and_exif_turns(tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save(tmp_path / "glass.png")
    assert (read_image(tmp_path / "glass.png", 32) == 255).all()

    picture = Image.new("RGB", (32, 32), "black")
    picture.paste("white", (0, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture.save(tmp_path / "turned.png", exif=exif)
    pixels = read_image(tmp_path / "turned.png", 32)
    assert (pixels[:, :16] == 0).all()
    assert (pixels[:, 16:] == 255).all()


def test_png_and_jpeg_files_are_sent_as_they_are(tmp_path: Path, cat_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (600, 400), "red").save(photo)
    assert encode_pictures([cat_path, photo], 32) == [cat_path.read_bytes(), photo.read_bytes()]


def test_other_formats_are_encoded_anew_upright_and_on_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 40, 15))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture.save(tmp_path / "turned.webp", exif=exif, lossless=True)
    (content,) = encode_pictures([tmp_path / "turned.webp"], 32)
    with Image.open(io.BytesIO(content)) as sent:
        pixels = np.asarray(sent.convert("L"))
        assert (sent.format, sent.size) == ("PNG", (40, 30))
    assert (pixels[:15] == 255).all()
    assert (pixels[15:] == 0).all()


def test_what_a_server_would_find_too_large_is_made_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    sizes = []
    for name, limit in (("_MOST_BYTES", 300_000), ("_MOST_PIXELS", 200_000), ("_MOST_BYTES", 9**9)):
        with monkeypatch.context() as patch:
            patch.setattr(f"rootserve.client.images.{name}", limit)
            (content,) = encode_pictures([tmp_path / "noise.png"], 32)
        with Image.open(io.BytesIO(content)) as sent:
            sizes.append(sent.size)
    assert sizes == [(192, 128), (192, 128), (600, 400)]


def test_many_photos_are_sent_as_they_are(tmp_path: Path) -> None:
    """Encoded anew as PNG, sixty photos of 50 MB together became 118 MB."""
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg", quality=95)
    content = (tmp_path / "photo.jpg").read_bytes()
    assert 60 * len(content) > 48 * 2**20
    assert encode_pictures([tmp_path / "photo.jpg"] * 60, 224) == [content] * 60


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file; expected a picture"),
        (b"", "is not a picture; expected a format such as PNG or JPEG"),
        (b"notes", "is not a picture; expected a format such as PNG or JPEG"),
        (b"\x89PNG\r\n\x1a\n broken", "is not a picture"),
    ],
)
def test_what_is_no_picture_is_not_sent(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "holiday.png"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=rf"holiday\.png: {words}"):
        encode_pictures([file], 32)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n broken"])
def test_a_file_that_is_no_picture(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "holiday.png"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"holiday\.png: .*picture.* such as PNG or JPEG"):
        read_image(file, 32)


def test_a_truncated_picture(tmp_path: Path, cat_path: Path) -> None:
    file = tmp_path / "cut.png"
    file.write_bytes(cat_path.read_bytes()[:700])
    with pytest.raises(InputError, match=r"cut\.png: is damaged: image file is truncated"):
        read_image(file, 32)


def test_a_missing_picture_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png", 32)
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path, 32)


def test_the_sample(sample_path: Path) -> None:
    dataset = read_dataset(sample_path)
    assert dataset.images.shape == (1000, 3, 32, 32)
    assert dataset.images.dtype == np.uint8
    assert dataset.labels.dtype == np.int64
    assert np.bincount(dataset.labels).tolist() == [100] * 10


def png(size: tuple[int, int] = (4, 4)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "PNG")
    return file.getvalue()


def write_parquet(path: Path, pictures: list[bytes | None], labels: list[int | None]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({
        "img": pa.array([{"bytes": data, "path": "cat.png"} for data in pictures],
                        pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "label": pa.array(labels, pa.int64()),
    })  # fmt: skip
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize("folder", [".", "plain_text"])
def test_a_folder_of_parts(tmp_path: Path, folder: str) -> None:
    write_parquet(tmp_path / folder / "test-00001-of-2.parquet", [png()], [2])
    write_parquet(tmp_path / folder / "test-00000-of-2.parquet", [png(), png()], [0, 1])
    write_parquet(tmp_path / folder / "train-00000-of-1.parquet", [png()], [9])
    assert read_dataset(tmp_path).labels.tolist() == [0, 1, 2]
    assert read_dataset(tmp_path, limit=2).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("pictures", "labels", "words"),
    [
        ([], [], "holds no images"),
        ([png(), b"?"], [0, 1], "image 1 is not a picture"),
        ([None], [0], "image 0 has no bytes, only the path 'cat.png'"),
        ([png()], [None], "image 0 has no label"),
        ([png(), png((5, 4))], [0, 1], r"different sizes \(4x4, 5x4\)"),
    ],
)
def test_bad_content(
    tmp_path: Path, pictures: list[bytes | None], labels: list[int | None], words: str
) -> None:
    file = write_parquet(tmp_path / "data.parquet", pictures, labels)
    with pytest.raises(InputError, match=rf"data\.parquet: .*{words}"):
        read_dataset(file)


@pytest.mark.parametrize(
    "columns",
    [
        {"image": [b"x"], "label": [1]},
        {"img": [b"x"], "label": [1]},
        {"img": [{"path": "x"}], "label": [1]},
        {"img": [{"bytes": b"x"}], "label": ["cat"]},
        {"img": [{"bytes": "text"}], "label": [1]},
    ],
)
def test_other_columns(tmp_path: Path, columns: dict[str, list[object]]) -> None:
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    with pytest.raises(InputError, match=r"has the columns .*; expected parquet with the columns"):
        read_dataset(tmp_path / "data.parquet")


def test_a_picture_of_gigapixels_is_named_and_not_decoded(tmp_path: Path) -> None:
    content = bytearray(png())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    file = write_parquet(tmp_path / "data.parquet", [png(), bytes(content)], [0, 1])
    with pytest.raises(
        InputError, match=r"data\.parquet: image 1 .*(3600\.0|more than 179) million"
    ):
        read_dataset(file)


def test_images_may_come_without_labels(tmp_path: Path) -> None:
    table = pa.table({"img": [{"bytes": png()}] * 3})
    pq.write_table(table, tmp_path / "data.parquet")
    assert count_images(tmp_path / "data.parquet") == 3
    assert len(list(iterate_images(tmp_path / "data.parquet"))) == 3
    assert next(local_images(tmp_path / "data.parquet", 4).chunks(2)).shape == (2, 3, 4, 4)
    with pytest.raises(InputError, match="label"):
        read_dataset(tmp_path / "data.parquet")


def test_no_data_set(tmp_path: Path, cat_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        read_dataset(tmp_path / "none")
    with pytest.raises(InputError, match=r"holds neither test-\*\.parquet nor plain_text"):
        read_dataset(tmp_path)
    with pytest.raises(InputError, match=r"cat\.png: cannot be read"):
        read_dataset(cat_path)


@pytest.mark.parametrize("shape", [(3, 32, 32), (0, 3, 32, 32), (1, 32, 32, 3), (1, 1, 32, 32)])
def test_requests_want_batches_of_rgb(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="expected"):
        build_request("nin-orig", np.zeros(shape, np.uint8))


def test_requests_want_bytes_or_floats() -> None:
    with pytest.raises(InputError, match="type int64: expected uint8 or float32"):
        build_request("nin-orig", np.zeros((1, 3, 2, 2), np.int64))
    request = build_request("nin-orig", np.ones((1, 3, 2, 2), np.float32), outputs=["a", "b"])
    assert request.inputs[0].datatype == "FP32"
    assert [output.name for output in request.outputs] == ["a", "b"]
    assert len(request.raw_input_contents[0]) == 48


def test_a_transposed_view_is_sent_in_its_own_order() -> None:
    images = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3).transpose(0, 3, 1, 2)
    (data,) = build_request("nin-orig", images).raw_input_contents
    np.testing.assert_array_equal(np.frombuffer(data, np.uint8).reshape(2, 3, 4, 5), images)


@pytest.mark.parametrize(
    ("datatype", "raw", "words"),
    [
        ("FP32", [], "describes 1 outputs and brings the bytes of 0"),
        ("FP32", [b"123"], r"shape \[1, 2\] came with 3 bytes"),
        ("BYTES", [b"12345678"], "is of type BYTES"),
    ],
)
def test_answers_that_do_not_fit(datatype: str, raw: list[bytes], words: str) -> None:
    response = service_pb2.ModelInferResponse(model_name="nin-orig", raw_output_contents=raw)
    response.outputs.add(name="logits", datatype=datatype, shape=[1, 2])
    with pytest.raises(MalformedAnswer, match=words):
        decode_response(response)
