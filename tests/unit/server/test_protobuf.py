"""What is written by hand is what protobuf writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.wire.protobuf import delimited, varint

_INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
_BORDERS = [
    sign * (1 << 7 * count) + off for count in range(9) for sign in (1, -1) for off in (-1, 0, 1)
]


def _written(value: int) -> bytes:
    """As protobuf writes it, behind the field's key."""
    content: bytes = oip.InferParameter(int64_param=value).SerializeToString()
    return content[1:]


@pytest.mark.parametrize("value", _BORDERS)
def test_numbers_next_to_where_one_more_byte_is_needed(value: int) -> None:
    assert varint(value) == _written(value)


@given(_INT64)
def test_any_number(value: int) -> None:
    assert varint(value) == _written(value)


@given(st.binary(max_size=300))
def test_a_field_of_bytes(content: bytes) -> None:
    message = oip.ModelInferRequest(raw_input_contents=[content])
    assert delimited(7, content) == message.SerializeToString()
