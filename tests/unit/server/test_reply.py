import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as oip
from tritonclient.utils import deserialize_bytes_tensor

from rootserve.server.pending import Answer, Asked, Output, Timeline
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire.refuse import STATUS_CODES
from rootserve.server.wire.reply import (
    FINAL_RESPONSE,
    build_response,
    error_in_stream,
    softmax,
    write_response,
)
from tests.support.pending import pending

TIMELINE = Timeline(1, 2, 3, 10, 4, "cpu-0", "torch", "fp32", 0, "7", "3fa8b2c41d0e", 5)


def test_every_reason_has_a_code() -> None:
    assert set(STATUS_CODES) == set(Reason)


def test_the_response_is_raw_and_tells_its_timeline() -> None:
    logits = np.arange(20, dtype=np.float32)
    outputs = (Output("logits"), Output("probabilities"))
    answer = Answer(logits.tobytes(), TIMELINE)
    asked = pending(2, model="m", outputs=outputs, request_id="abc")
    response = build_response(asked, answer)
    assert (response.id, response.model_name, response.model_version) == ("abc", "m", "7")
    assert [tuple(output.shape) for output in response.outputs] == [(2, 10), (2, 10)]
    assert response.raw_output_contents[0] == logits.tobytes()
    probabilities = np.frombuffer(response.raw_output_contents[1], np.float32).reshape(2, 10)
    assert probabilities.sum(axis=1) == pytest.approx([1, 1])
    assert {name: response.parameters[name].int64_param for name in ("queue_ns", "total_ns")} == {
        "queue_ns": 1,
        "total_ns": 10,
    }
    assert response.parameters["worker"].string_param == "cpu-0"
    assert response.parameters["weights"].string_param == "3fa8b2c41d0e"
    assert response.parameters["generation"].int64_param == 5


NANOSECONDS = st.one_of(st.integers(0, 300), st.integers(0, 2**63 - 1))


@given(
    st.fixed_dictionaries(
        {
            "queue_ns": NANOSECONDS,
            "batch_wait_ns": NANOSECONDS,
            "compute_ns": NANOSECONDS,
            "total_ns": NANOSECONDS,
            "batch_rows": st.integers(1, 1024),
            "decode_ns": NANOSECONDS,
            "variant": st.sampled_from(["", "", "m-root-2"]),
        }
    ).map(lambda fields: TIMELINE._replace(**fields)),
    st.lists(
        st.tuples(st.sampled_from(["logits", "probabilities"]), st.integers(0, 20)),
        max_size=2,
    ),
    st.text(max_size=300),
    st.booleans(),
)
def test_what_is_written_is_the_response(
    timeline: Timeline, wanted: list[tuple[str, int]], request_id: str, streamed: bool
) -> None:
    logits = np.arange(20, dtype=np.float32).tobytes()
    outputs = tuple(Output(name, classes) for name, classes in wanted)
    asked = pending(2, model="m", outputs=outputs, request_id=request_id)
    answer = Answer(logits, timeline)
    expected = build_response(asked, answer)
    written = write_response(asked, answer, streamed=streamed)
    if streamed:
        expected.parameters[FINAL_RESPONSE].bool_param = True
        assert oip.ModelStreamInferResponse.FromString(written) == oip.ModelStreamInferResponse(
            infer_response=expected
        )
    else:
        assert oip.ModelInferResponse.FromString(written) == expected


def test_an_answer_of_other_weights_has_nothing_of_the_one_before() -> None:
    logits = np.zeros(10, np.float32).tobytes()
    for version, weights in (("1", "aaaaaaaaaaaa"), ("2", "bbbbbbbbbbbb"), ("1", "aaaaaaaaaaaa")):
        timeline = TIMELINE._replace(version=version, weights=weights)
        response = build_response(pending(1, model="m"), Answer(logits, timeline))
        assert response.model_version == version
        assert response.parameters["weights"].string_param == weights


def test_softmax_does_not_overflow() -> None:
    logits = np.array([1e4, 0.0, -1e4], np.float32)
    assert np.frombuffer(softmax(logits.tobytes(), 3), np.float32) == pytest.approx([1, 0, 0])


def test_classes_are_written_as_triton_writes_them_the_first_of_equals_first() -> None:
    rows = np.zeros((2, 10), np.float32)
    rows[0, 3], rows[0, 7], rows[1, 9] = 2.5, -1, 1e6
    outputs = (Output("logits", classes=2),)
    asked = pending(2, model="m", outputs=outputs)
    response = build_response(asked, Answer(rows.tobytes(), TIMELINE))
    (output,) = response.outputs
    assert (output.datatype, list(output.shape)) == ("BYTES", [2, 2])
    assert deserialize_bytes_tensor(response.raw_output_contents[0]).tolist() == [
        b"2.500000:3:d",
        b"0.000000:0:a",
        b"1000000.000000:9:j",
        b"0.000000:0:a",
    ]


def test_an_error_in_a_stream_is_small_final_and_tells_when_to_try_again() -> None:
    refusal = RefusalError(Reason.QUEUE_FULL, "\x00é" * 100_000, retry_after_s=0.25)
    message = error_in_stream(Asked("m", "id"), refusal)
    assert message.ByteSize() < 2000
    assert message.error_message.startswith("[RESOURCE_EXHAUSTED] ")
    parameters = message.infer_response.parameters
    assert message.infer_response.id == "id"
    assert parameters["triton_final_response"].bool_param
    assert parameters["retry_after_ns"].int64_param == 250_000_000
