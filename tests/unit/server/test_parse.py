"""Every way a ModelInfer message can be wrong, without a server."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as oip

from rootmodels.cost import network_cost
from rootmodels.variants import get_variant
from rootserve.server.models import ModelCard, Models
from rootserve.server.pending import Output, Pending
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire.find import find_model
from rootserve.server.wire.infer import parse_request
from rootserve.server.wire.parse_outputs import RequestLimits

VARIANT = get_variant("nin-root-16")
CARD = ModelCard(VARIANT, network_cost(VARIANT), weights=None, info=None)


def message(
    rows: int = 2, datatype: str = "UINT8", raw: bytes | None = None
) -> oip.ModelInferRequest:
    made = oip.ModelInferRequest(model_name="nin-root-16")
    made.inputs.add(name="images", datatype=datatype, shape=(rows, 3, 32, 32))
    size = 1 if datatype == "UINT8" else 4
    made.raw_input_contents.append(bytes(rows * 3072 * size) if raw is None else raw)
    return made


def parse(made: oip.ModelInferRequest, timeout_s: float | None = None) -> Pending:
    limits = RequestLimits(max_rows=8, priority_levels=3, default_priority=2)
    return parse_request(made, CARD, limits, arrived_s=10.0, timeout_s=timeout_s)


@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
def test_a_good_request_keeps_its_rows_and_bytes(datatype: str) -> None:
    parsed = parse(message(3, datatype))
    assert (parsed.request.rows, parsed.datatype) == (3, datatype)
    assert len(parsed.content) == 3 * 3072 * (1 if datatype == "UINT8" else 4)
    assert parsed.outputs == (Output("logits"),)
    assert parsed.request.deadline_s == math.inf


def test_typed_contents_give_the_same_bytes_as_raw_ones() -> None:
    values = np.random.default_rng(0).integers(0, 256, 3072, dtype=np.uint8)
    typed = message(1)
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.uint_contents.extend(values.tolist())
    assert parse(typed).content == values.tobytes()

    floats = (values / 255).astype(np.float32)
    typed = message(1, "FP32")
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.fp32_contents.extend(floats.tolist())
    assert parse(typed).content == floats.tobytes()


def no_input(made: oip.ModelInferRequest) -> None:
    del made.inputs[:]


def two_inputs(made: oip.ModelInferRequest) -> None:
    made.inputs.add(name="more")


def the_same_input_twice(made: oip.ModelInferRequest) -> None:
    made.inputs.add(name="images")


def unknown_tensor(made: oip.ModelInferRequest) -> None:
    made.inputs[0].name = "pixels"


def wrong_datatype(made: oip.ModelInferRequest) -> None:
    made.inputs[0].datatype = "INT64"


def shape(*dims: int) -> Callable[[oip.ModelInferRequest], None]:
    def change(made: oip.ModelInferRequest) -> None:
        del made.inputs[0].shape[:]
        made.inputs[0].shape.extend(dims)

    return change


def truncated(made: oip.ModelInferRequest) -> None:
    made.raw_input_contents[0] = made.raw_input_contents[0][:-1]


def two_raw(made: oip.ModelInferRequest) -> None:
    made.raw_input_contents.append(b"")


def raw_and_typed(made: oip.ModelInferRequest) -> None:
    made.inputs[0].contents.uint_contents.append(1)


def no_data(made: oip.ModelInferRequest) -> None:
    del made.raw_input_contents[:]


def typed_out_of_range(made: oip.ModelInferRequest) -> None:
    del made.raw_input_contents[:]
    made.inputs[0].contents.uint_contents.extend([256] * 6144)


def typed_of_another_kind(made: oip.ModelInferRequest) -> None:
    del made.raw_input_contents[:]
    made.inputs[0].contents.fp32_contents.extend([0.0] * 6144)


def unknown_output(made: oip.ModelInferRequest) -> None:
    made.outputs.add(name="classes")


def floats(value: float) -> Callable[[oip.ModelInferRequest], None]:
    def change(made: oip.ModelInferRequest) -> None:
        values = np.full(6144, 0.5, np.float32)
        values[7] = value
        made.inputs[0].datatype = "FP32"
        made.raw_input_contents[0] = values.tobytes()

    return change


def parameter(name: str, **value: object) -> Callable[[oip.ModelInferRequest], None]:
    def change(made: oip.ModelInferRequest) -> None:
        made.parameters[name].CopyFrom(oip.InferParameter(**value))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (no_input, ["inputs", "none came", "'images'"]),
        (two_inputs, ["'more' is unknown", "'images' or 'encoded'"]),
        (the_same_input_twice, ["'images', 'images' came", "expected one"]),
        (unknown_tensor, ["'pixels'", "'images'"]),
        (wrong_datatype, ["images", "'INT64'", "UINT8", "FP32"]),
        (shape(2, 3, 32), ["images", "[2, 3, 32]", "[rows, 3, 32, 32]"]),
        (shape(2, 32, 32, 3), ["[2, 32, 32, 3]", "[rows, 3, 32, 32]"]),
        (shape(), ["[]", "[rows, 3, 32, 32]"]),
        (shape(0, 3, 32, 32), ["0 rows came", "1 to 8"]),
        (shape(-1, 3, 32, 32), ["-1 rows came", "1 to 8"]),
        (shape(9, 3, 32, 32), ["9 rows came", "1 to 8"]),
        (shape(2**62, 3, 32, 32), ["rows came", "1 to 8"]),
        (truncated, ["images", "6143 bytes came", "expected 6144", "UINT8"]),
        (two_raw, ["raw_input_contents", "2 entries"]),
        (raw_and_typed, ["both raw_input_contents and typed contents"]),
        (no_data, ["no data came", "raw_input_contents or uint_contents"]),
        (typed_out_of_range, ["value 256 came", "0..255"]),
        (typed_of_another_kind, ["fp32_contents came", "uint_contents for UINT8"]),
        (unknown_output, ["'classes'", "logits or probabilities"]),
        (floats(math.nan), ["1 values are NaN", "0..1"]),
        (floats(math.inf), ["inf came", "0..1"]),
        (floats(255.0), ["values from 0.5 to 255 came", "0..1"]),
        (floats(-1.0), ["values from -1 to 0.5 came", "0..1"]),
        (parameter("deadline_ms", string_param="soon"), ["deadline_ms", "'soon'"]),
        (parameter("timeout", int64_param=-5), ["timeout", "-5", "not negative"]),
        (parameter("timeout", double_param=math.nan), ["timeout", "nan"]),
        (parameter("deadline_ms", bool_param=True), ["deadline_ms", "True"]),
        (parameter("priority", int64_param=4), ["priority", "4 came", "1, the highest, to 3"]),
        (parameter("priority", double_param=1.5), ["priority", "1.5 came", "whole number"]),
        (parameter("priority", int64_param=-1), ["priority", "-1 came", "not negative"]),
    ],
)
def test_a_bad_request_is_refused_with_what_came_and_what_was_expected(
    change: Callable[[oip.ModelInferRequest], None], words: list[str]
) -> None:
    made = message()
    change(made)
    with pytest.raises(RefusalError) as caught:
        parse(made)
    assert caught.value.reason is Reason.INVALID_REQUEST
    for word in words:
        assert word in caught.value.message


def test_unknown_parameters_are_ignored() -> None:
    made = message()
    made.parameters["triton_enable_empty_final_response"].bool_param = True
    made.parameters["accuracy_floor"].double_param = 0.5
    assert parse(made).request.rows == 2


def test_the_soonest_deadline_wins_and_zero_means_none() -> None:
    made = message()
    made.parameters["timeout"].int64_param = 500_000
    made.parameters["deadline_ms"].double_param = 250.0
    assert parse(made, timeout_s=1.0).request.deadline_s == pytest.approx(10.25)
    assert parse(made, timeout_s=0.1).request.deadline_s == pytest.approx(10.1)
    made.parameters["deadline_ms"].double_param = 86_400_000
    assert parse(made, timeout_s=9e9).request.deadline_s == pytest.approx(10.5)
    made.parameters["deadline_ms"].int64_param = 0
    assert parse(made).request.deadline_s == pytest.approx(10.5)


def test_priorities_and_their_default() -> None:
    made = message()
    assert parse(made).request.priority == 2
    made.parameters["priority"].uint64_param = 0
    assert parse(made).request.priority == 2
    made.parameters["priority"].int64_param = 1
    assert parse(made).request.priority == 1


def test_outputs_come_in_the_order_they_were_asked_for() -> None:
    made = message()
    made.outputs.add(name="probabilities")
    made.outputs.add(name="logits")
    assert parse(made).outputs == (Output("probabilities"), Output("logits"))


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [
        ("nope", "", "no model is called 'nope'; served: nin-root-16"),
        ("nin-orig", "", "known but not served is 'nin-orig'; served: nin-root-16"),
        ("nin-root-16", "2", "has no version '2'"),
    ],
)
def test_a_model_that_is_not_there(name: str, version: str, words: str) -> None:
    orig = get_variant("nin-orig")
    models = Models([CARD, ModelCard(orig, network_cost(orig), None, None)])
    models.select(["nin-root-16"])
    with pytest.raises(RefusalError, match=words) as caught:
        find_model(models, name, version)
    assert caught.value.reason is Reason.UNKNOWN_MODEL
    assert find_model(models, "nin-root-16", "1").card.variant is CARD.variant
