"""Compressed messages: told from others, and unpacked no further than the limit."""

import gzip
import tracemalloc
import zlib

import pytest
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire.receiving import is_packed, unpack


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_what_grpc_packs_is_unpacked(pack) -> None:
    packed = pack(b"message")
    assert is_packed(packed)
    assert unpack(packed, 7) == b"message"


@pytest.mark.parametrize("content", [b"", b"\x78", b"\n\x01m", oip.ModelInferRequest(id="x")])
def test_messages_are_not_taken_for_packed_ones(content) -> None:
    assert not is_packed(content if isinstance(content, bytes) else content.SerializeToString())


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_unpacking_stops_at_the_limit(pack) -> None:
    packed = pack(bytes(2**26))
    tracemalloc.start()
    with pytest.raises(RefusalError, match="more than 1000 bytes came, compressed to") as caught:
        unpack(packed, 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.reason is Reason.MESSAGE_TOO_LARGE
    assert peak < 2**20


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(b"message", mtime=0)[:-9], "cut off"),
        (gzip.compress(b"message", mtime=0)[:-8] + bytes(8), "is damaged"),
        (b"\x1f\x8b\x08" + b"\xff" * 40, "is damaged"),
    ],
)
def test_damage_is_the_callers(content: bytes, words: str) -> None:
    with pytest.raises(RefusalError, match=words) as caught:
        unpack(content, 1000)
    assert caught.value.reason is Reason.INVALID_REQUEST
