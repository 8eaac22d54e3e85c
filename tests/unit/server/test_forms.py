"""Messages that are known by their beginning say what they say when they are decoded."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.wire.forms import Forms, Known


def message(
    content: bytes = bytes(12),
    request_id: str = "",
    model: str = "m",
    datatype: str = "UINT8",
    outputs: tuple[str, ...] = (),
    version: str = "",
) -> oip.ModelInferRequest:
    made = oip.ModelInferRequest(model_name=model, id=request_id, model_version=version)
    made.inputs.add(name="images", datatype=datatype, shape=(1, 3, 2, 2))
    for name in outputs:
        made.outputs.add(name=name)
    made.raw_input_contents.append(content)
    return made


def whole(decoded: oip.ModelInferRequest | Known) -> oip.ModelInferRequest:
    return decoded.whole() if isinstance(decoded, Known) else decoded


def test_the_second_one_alike_is_known() -> None:
    forms = Forms()
    first, second = message(bytes(12)), message(bytes(range(12)))
    assert forms.decode(first.SerializeToString()) == first
    known = forms.decode(second.SerializeToString())
    assert isinstance(known, Known)
    assert known.whole() == second
    assert (known.content, known.id, known.model_name) == (bytes(range(12)), "", "m")


def test_ids_may_differ() -> None:
    forms = Forms()
    forms.decode(message(request_id="first").SerializeToString())
    for request_id in ("", "other", "é", "x" * 127):
        asked = message(request_id=request_id)
        known = forms.decode(asked.SerializeToString())
        assert isinstance(known, Known)
        assert known.whole() == asked
    long = message(request_id="x" * 128)
    assert forms.decode(long.SerializeToString()) == long


def test_an_id_that_is_no_text_is_refused_as_ever() -> None:
    forms = Forms()
    content = message(request_id="ab").SerializeToString()
    forms.decode(content)
    assert isinstance(forms.decode(content), Known)
    with pytest.raises(DecodeError):
        forms.decode(content.replace(b"ab", b"\xff\xff"))


def test_what_says_more_than_images_is_decoded() -> None:
    with_parameter = message()
    with_parameter.parameters["priority"].int64_param = 1
    of_a_region = message()
    of_a_region.inputs[0].parameters["shared_memory_region"].string_param = "r"
    to_a_region = message(outputs=("logits",))
    to_a_region.outputs[0].parameters["shared_memory_region"].string_param = "r"
    two = message()
    two.raw_input_contents.append(b"more")
    typed = message()
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.uint_contents.extend(range(12))
    encoded = message()
    encoded.inputs[0].name = "encoded"
    for one in (with_parameter, of_a_region, to_a_region, two, typed, encoded):
        forms = Forms()
        for _ in range(3):
            assert forms.decode(one.SerializeToString()) == one


def test_contents_that_are_not_where_they_seem_to_be_are_decoded() -> None:
    """An unknown field behind them holds the same bytes: what comes there next is not the contents."""
    plain = message().SerializeToString()
    raw = plain[-14:]  # key, length and content
    field_100 = b"\xa2\x06"
    hidden = plain + field_100 + bytes([len(raw)]) + raw
    forms = Forms()
    forms.decode(hidden)
    other = hidden[:-12] + bytes([7] * 12)
    decoded = forms.decode(other)
    assert whole(decoded).raw_input_contents[0] == bytes(12)


@given(
    st.lists(
        st.builds(
            message,
            st.binary(max_size=40),
            st.text(max_size=6),
            st.sampled_from(["m", "n", "", "a" * 127, "a" * 128]),
            st.sampled_from(["UINT8", "FP32"]),
            st.sampled_from([(), ("logits",), ("probabilities", "logits")]),
            st.sampled_from(["", "1"]),
        ),
        max_size=12,
    )
)
@example([message(model="", request_id="a"), message(model="", request_id="b")])
def test_whatever_came_before_a_message_is_what_it_is(
    messages: list[oip.ModelInferRequest],
) -> None:
    forms = Forms()
    for one in (*messages, *messages):
        assert whole(forms.decode(one.SerializeToString())) == one


@given(st.binary(max_size=60), st.data())
def test_bytes_that_are_no_message_are_refused_as_ever(tail: bytes, data: st.DataObject) -> None:
    forms = Forms()
    content = message().SerializeToString()
    forms.decode(content)
    broken = content[: data.draw(st.integers(0, len(content)))] + tail
    try:
        expected = oip.ModelInferRequest.FromString(broken)
    except DecodeError:
        with pytest.raises(DecodeError):
            forms.decode(broken)
    else:
        assert whole(forms.decode(broken)) == expected
