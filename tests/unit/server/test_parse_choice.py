"""What a request may ask of the variant that computes it, each way to ask wrongly, and whose share it is."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from tritonclient.grpc import service_pb2 as oip

from rootmodels.cost import network_cost
from rootmodels.variants import get_variant
from rootmodels.weights_info import WeightsInfo
from rootserve.server.families import VirtualModel, virtual_model
from rootserve.server.models import Model, ModelCard, Models
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire.callers import set_token_name, share_of
from rootserve.server.wire.infer import parse_request
from rootserve.server.wire.parse_choice import Wanted, parse_choice
from rootserve.server.wire.parse_outputs import RequestLimits

ACCURACIES = {"nin-orig": 0.9026, "nin-root-4": 0.902, "nin-root-16": 0.8983, "nin-col-2": None}
LIMITS = RequestLimits(max_rows=8, priority_levels=3, default_priority=2)


def card(name: str, accuracy: float | None) -> ModelCard:
    variant = get_variant(name)
    info = WeightsInfo(name, accuracy, 10_000, 1, 0, "", {})
    return ModelCard(variant, network_cost(variant), None, info)


@pytest.fixture
def models() -> Models:
    made = Models([card(*item) for item in ACCURACIES.items()])
    made.select(ACCURACIES)
    return made


@pytest.fixture
def family(models: Models) -> VirtualModel:
    found = virtual_model(models, "nin-auto")
    assert found is not None
    return found


def message(name: str = "nin-auto", **parameters: Any) -> oip.ModelInferRequest:
    made = oip.ModelInferRequest(model_name=name)
    made.inputs.add(name="images", datatype="UINT8", shape=(1, 3, 32, 32))
    made.raw_input_contents.append(bytes(3072))
    fields = {bool: "bool_param", str: "string_param", int: "int64_param", float: "double_param"}
    for key, value in parameters.items():
        setattr(made.parameters[key], fields[type(value)], value)
    return made


def refused(model: Model | VirtualModel, **parameters: Any) -> str:
    with pytest.raises(RefusalError) as caught:
        parse_choice(message(**parameters), model)
    assert caught.value.reason is Reason.INVALID_REQUEST
    return caught.value.message


def test_all_variants_without_a_word_of_them(family: VirtualModel) -> None:
    assert parse_choice(message(), family) == Wanted(0.0, frozenset())


def test_a_floor_and_variants_are_taken(family: VirtualModel) -> None:
    asked = message(accuracy_floor=0.9, variants=" nin-root-4,nin-orig,,nin-orig")
    assert parse_choice(asked, family) == Wanted(0.9, frozenset({"nin-orig", "nin-root-4"}))
    assert parse_choice(message(accuracy_floor=0), family).floor == 0.0
    assert parse_choice(message(accuracy_floor=0.9026), family).floor == 0.9026


def test_a_floor_above_what_is_served_names_the_highest_there_is(family: VirtualModel) -> None:
    words = "0.91 came, expected at most 0.9026, the highest that is served (nin-orig)"
    assert refused(family, accuracy_floor=0.91) == f"parameter accuracy_floor: {words}"
    among = refused(family, accuracy_floor=0.9, variants="nin-root-16")
    assert "at most 0.8983, the highest that is served of the variants nin-root-16" in among


@pytest.mark.parametrize(
    ("floor", "words"),
    [
        ("high", "'high' came, expected a number from 0 to 1"),
        ("0.9", "'0.9' came, expected a number"),
        (True, "True came, expected a number"),
        (math.nan, "nan came, expected a number"),
        (math.inf, "inf came, expected a number from 0 to 1"),
        (90.0, "90.0 came, expected a number from 0 to 1"),
        (-0.1, "-0.1 came, expected a number from 0 to 1"),
        (2, "2 came, expected a number from 0 to 1"),
    ],
)
def test_a_floor_is_a_number_from_0_to_1(family: VirtualModel, floor: object, words: str) -> None:
    assert f"parameter accuracy_floor: {words}" in refused(family, accuracy_floor=floor)


def test_a_floor_without_a_value_is_none(family: VirtualModel) -> None:
    asked = message()
    asked.parameters["accuracy_floor"].SetInParent()
    with pytest.raises(RefusalError, match="None came, expected a number"):
        parse_choice(asked, family)


@pytest.mark.parametrize(
    ("variants", "words"),
    [
        ("nin-orig,nin-root-32", "'nin-root-32' came, which nin-auto does not choose from"),
        ("nin-col-2", "'nin-col-2' came"),  # served, and of no known accuracy
        ("resnet50-orig", "'resnet50-orig' came"),
        ("", "'' came"),
        (" , ", "' , ' came"),
        (5, "5 came"),
        ("x" * 1000, f"'{'x' * 79} came"),
    ],
)
def test_variants_are_some_of_those_there_are(
    family: VirtualModel, variants: object, words: str
) -> None:
    text = refused(family, variants=variants)
    assert words in text
    assert "expected some of nin-orig, nin-root-4, nin-root-16, with commas between" in text


def test_of_a_single_variant_a_floor_is_held_to_its_own_accuracy(models: Models) -> None:
    single = models["nin-root-4"]
    assert parse_choice(message(accuracy_floor=0.9), single).floor == 0.9
    assert "0.95 came, but nin-root-4 has 0.902" in refused(single, accuracy_floor=0.95)
    unknown = models["nin-col-2"]
    assert "0.1 came, but nin-col-2 has no known accuracy" in refused(unknown, accuracy_floor=0.1)
    assert "came for nin-root-4, expected it for a family" in refused(single, variants="nin-orig")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("deadline_ms", -1, "-1 came, expected a number that is not negative"),
        ("deadline_ms", -0.5, "-0.5 came"),
        ("deadline_ms", math.nan, "nan came"),
        ("deadline_ms", math.inf, "inf came"),
        ("deadline_ms", "soon", "'soon' came"),
        (
            "deadline_ms",
            1_764_485_167_000,
            "1764485167000 came, expected at most 86400000, counted",
        ),
        ("deadline_ms", 1e300, "1e+300 came, expected at most 86400000, counted from the arrival"),
        ("timeout", -1, "-1 came, expected a number that is not negative"),
    ],
)
def test_a_deadline_is_counted_from_the_arrival(
    family: VirtualModel, name: str, value: object, words: str
) -> None:
    with pytest.raises(RefusalError) as caught:
        parse_request(message(**{name: value}), family, LIMITS, arrived_s=10.0, timeout_s=None)
    assert f"parameter {name}: {words}" in caught.value.message


def test_the_request_is_checked_against_the_family_and_keeps_what_is_wanted(
    family: VirtualModel,
) -> None:
    wanted = Wanted(0.9, frozenset({"nin-orig"}))
    asked = message(deadline_ms=50)
    made = parse_request(asked, family, LIMITS, 10.0, None, wanted=wanted, caller="alice")
    request = made.request
    assert (request.model, request.floor, request.allowed) == ("nin-auto", 0.9, wanted.allowed)
    assert (request.caller, request.deadline_s) == ("alice", pytest.approx(10.05))
    assert made.classes == family.classes
    asked.inputs[0].shape[2] = 64
    with pytest.raises(RefusalError, match=r"expected \[rows, 3, 32, 32\] for nin-auto"):
        parse_request(asked, family, LIMITS, 10.0, None)


def test_whose_share_it_is_says_the_metadata_or_else_the_token() -> None:
    context = SimpleNamespace(invocation_metadata=lambda: (("x-caller", "a" * 1000), ("x", "y")))
    set_token_name("token")
    try:
        assert share_of(context, "") == "token"
        assert share_of(context, "x-other") == "token"
        assert share_of(context, "x-caller") == "a" * 128
    finally:
        set_token_name("")
    assert share_of(SimpleNamespace(invocation_metadata=lambda: None), "x-caller") == ""
