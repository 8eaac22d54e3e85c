"""Every way the input `encoded` can be wrong at the door, and the ways in which it is right."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as oip
from tritonclient.utils import serialize_byte_tensor

from rootmodels.cost import network_cost
from rootmodels.variants import get_variant
from rootserve.server.models import ModelCard
from rootserve.server.pending import Pending
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire.infer import parse_request
from rootserve.server.wire.parse_outputs import RequestLimits
from rootserve.server.workers import encoding

VARIANT = get_variant("nin-root-16")
CARD = ModelCard(VARIANT, network_cost(VARIANT), weights=None, info=None)
JPEG = encoding.JPEG_SIGNATURE + b"picture"
PNG = encoding.PNG_SIGNATURE + b"another one"


def message(*files: bytes, shape: tuple[int, ...] | None = None) -> oip.ModelInferRequest:
    made = oip.ModelInferRequest(model_name="nin-root-16")
    made.inputs.add(name="encoded", datatype="BYTES", shape=shape or (len(files),))
    made.raw_input_contents.append(encoding.join(files))
    return made


def parse(made: oip.ModelInferRequest) -> Pending:
    limits = RequestLimits(max_rows=4, priority_levels=3, default_priority=2, max_image_bytes=1000)
    return parse_request(made, CARD, limits, arrived_s=10.0, timeout_s=None)


@given(files=st.lists(st.binary(max_size=50), max_size=8))
def test_files_are_laid_as_tritonclient_lays_them(files: list[bytes]) -> None:
    theirs = serialize_byte_tensor(np.array(files, np.object_))
    content = encoding.join(files)
    assert content == (theirs.item() if theirs.size else b"")
    spans = encoding.spans(content, 0, len(content))
    assert [content[start:end] for start, end in spans] == files


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_files_are_taken_as_they_are(shape: tuple[int, ...]) -> None:
    part = parse(message(JPEG, PNG, shape=shape))
    assert (part.request.rows, part.datatype, part.content) == (
        2,
        "BYTES",
        encoding.join([JPEG, PNG]),
    )


def test_typed_contents_give_the_same_as_raw_ones() -> None:
    typed = message(JPEG, PNG)
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.bytes_contents.extend([JPEG, PNG])
    given, raw = parse(typed), parse(message(JPEG, PNG))
    assert (given.datatype, given.content) == (raw.datatype, raw.content)


@pytest.mark.parametrize("first", ["images", "encoded"])
def test_images_count_where_both_inputs_come_as_from_perf_analyzer(first: str) -> None:
    made = oip.ModelInferRequest(model_name="nin-root-16")
    for name in sorted(["images", "encoded"], reverse=first == "images"):
        if name == "images":
            made.inputs.add(name=name, datatype="UINT8", shape=(1, 3, 32, 32))
            made.raw_input_contents.append(b"7" * 3072)
        else:
            made.inputs.add(name=name, datatype="BYTES", shape=(1, 1))
            made.raw_input_contents.append(encoding.join([b"no picture"]))
    assert parse(made).content == b"7" * 3072


def change(**values: object) -> Callable[[oip.ModelInferRequest], None]:
    def make(made: oip.ModelInferRequest) -> None:
        tensor = made.inputs[0]
        if "shape" in values:
            del tensor.shape[:]
            tensor.shape.extend(values["shape"])
        if "datatype" in values:
            tensor.datatype = values["datatype"]
        if "raw" in values:
            made.raw_input_contents[:] = values["raw"]
        if "typed" in values:
            tensor.contents.bytes_contents.extend(values["typed"])

    return make


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (change(datatype="UINT8"), ["'UINT8' came", "expected BYTES"]),
        (change(shape=(2, 3, 32, 32)), ["[2, 3, 32, 32]", "[rows] or [rows, 1]"]),
        (change(shape=(2, 2)), ["[2, 2]", "[rows] or [rows, 1]"]),
        (change(shape=()), ["[]", "[rows] or [rows, 1]"]),
        (change(shape=(0,)), ["0 rows came", "1 to 4"]),
        (change(shape=(5,)), ["5 rows came", "1 to 4"]),
        (change(shape=(1,)), ["more elements came than the 1"]),
        (change(shape=(3,)), ["fewer elements came than the 3"]),
        (change(raw=[b""]), ["fewer elements came than the 2"]),
        (change(raw=[], typed=[]), ["no data came", "bytes_contents for BYTES"]),
        (change(typed=[JPEG]), ["both raw_input_contents and typed contents"]),
        (change(raw=[b"", b""]), ["2 entries", "expected one per input: 1"]),
        (change(raw=[encoding.join([JPEG, b""])]), ["row 1: no bytes came", "JPEG or PNG"]),
        (change(raw=[encoding.join([b"", JPEG])]), ["row 0: no bytes came", "JPEG or PNG"]),
        (change(raw=[encoding.join([b"GIF89a..", PNG])]), ["row 0", "47 49 46", "JPEG or PNG"]),
        (change(raw=[encoding.join([PNG])[:-1]]), ["row 0", "says 19 bytes, but 18 are left"]),
        (change(raw=[encoding.join([PNG]) + b"xy"]), ["row 1", "2 bytes are left for its length"]),
        (
            change(raw=[struct.pack("<I", 2**32 - 1) + PNG]),
            ["row 0", "says 4294967295 bytes, but 19 are left"],
        ),
        (
            change(raw=[encoding.join([JPEG, PNG + b"." * 1000])]),
            ["row 1: 1019 bytes came", "at most 1000"],
        ),
    ],
)
def test_what_is_wrong_is_named(
    make: Callable[[oip.ModelInferRequest], None], words: list[str]
) -> None:
    made = message(JPEG, PNG)
    make(made)
    with pytest.raises(RefusalError) as caught:
        parse(made)
    assert caught.value.reason is Reason.INVALID_REQUEST
    for word in ["encoded", *words] if "entries" not in words[0] else words:
        assert word in caught.value.message


def test_millions_of_elements_are_not_counted_to_the_end() -> None:
    elements = encoding.join([JPEG]) * 1_000_000
    made = message(JPEG)
    made.raw_input_contents[:] = [elements]
    with pytest.raises(RefusalError, match="more elements came than the 1"):
        parse(made)
