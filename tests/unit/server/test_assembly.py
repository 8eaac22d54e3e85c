"""Encoded pictures among raw images in a slot."""

import io

import numpy as np
from PIL import Image

from rootserve.server.datagram import MAX_BYTES
from rootserve.server.workers import messages
from rootserve.server.workers.assembly import PictureSize, decode_segments
from rootserve.server.workers.encoding import join
from rootserve.server.workers.pictures import Decoder

SIZE = PictureSize((3, 4, 4), 4)
RAW = 3 * 4 * 4


def picture(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), value).save(file, "PNG")
    return file.getvalue()


def decode(slot: bytes, segments: tuple[messages.Segment, ...], skipped: tuple[int, ...] = ()):
    decoder = Decoder(threads=2, max_pixels=100)
    return decode_segments(memoryview(slot), segments, skipped, SIZE, decoder, beat=lambda: None)


def test_pictures_are_found_behind_raw_images_of_both_kinds() -> None:
    files = join([picture(1), picture(2)])
    slot = bytes(2 * RAW) + files + bytes(4 * RAW) + join([picture(3)]) + bytes(100)
    segments = ((2, "UINT8", 0), (2, "BYTES", 0), (1, "FP32", 0), (1, "BYTES", 0))
    decoded = decode(slot, segments)
    assert [image.max() for image in decoded.images[1]] == [1, 2]
    assert decoded.images[3].shape == (1, 3, 4, 4)
    assert decoded.images[3].max() == 3
    assert decoded.ends == {1: 2 * RAW + len(files), 3: len(slot) - 100}
    assert decoded.refused == ()
    assert decoded.decode_ns > 0


def test_the_first_bad_picture_of_a_request_is_named() -> None:
    slot = join([picture(1), b"bad", b"worse", picture(4)])
    decoded = decode(slot, ((3, "BYTES", 0), (1, "BYTES", 0)))
    assert decoded.refused == (
        (0, "row 1: the picture is damaged: its header is none of a JPEG or PNG file"),
    )
    assert decoded.images[1].max() == 4


def test_what_is_skipped_is_not_decoded() -> None:
    decoded = decode(join([b"bad", picture(2)]), ((1, "BYTES", 0), (1, "BYTES", 0)), skipped=(0,))
    assert decoded.refused == ()
    assert decoded.images[1].max() == 2


def test_as_many_refusals_as_a_batch_can_have_fit_a_datagram() -> None:
    rows = 1024
    decoded = decode(join([b"bad"] * rows), ((1, "BYTES", 0),) * rows)
    assert len(decoded.refused) == rows
    done = messages.Done(2**53, 10**18, 10**18, (), decoded.refused, 10**9)
    assert len(messages.encode(done)) < MAX_BYTES / 2


def test_it_says_that_it_is_at_work(monkeypatch) -> None:
    monkeypatch.setattr("rootserve.server.workers.assembly._BEAT_NS", -1)
    beats = []
    slot = join([picture(1), picture(2)])
    decoder = Decoder(threads=1, max_pixels=100)
    decode_segments(
        memoryview(slot), ((2, "BYTES", 0),), (), SIZE, decoder, lambda: beats.append(1)
    )
    assert len(beats) == 2
    assert np.all(beats)
