import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as oip

from server.core.reasons import Reason
from server.dispatcher import Answer
from server.observers.events import Timeline
from server.wire.reply import STATUS_CODES, build_response, softmax

TIMELINE = Timeline(1, 2, 3, 10, 4, "cpu-0", "torch", "fp32")


def test_every_reason_has_a_code() -> None:
    assert set(STATUS_CODES) == set(Reason)


def test_the_response_is_raw_and_tells_its_timeline() -> None:
    logits = np.arange(20, dtype=np.float32)
    request = oip.ModelInferRequest(model_name="m", id="abc")
    response = build_response(
        request, ("logits", "probabilities"), Answer(logits.tobytes(), TIMELINE), 10
    )
    assert (response.id, response.model_name, response.model_version) == ("abc", "m", "1")
    assert [tuple(output.shape) for output in response.outputs] == [(2, 10), (2, 10)]
    assert response.raw_output_contents[0] == logits.tobytes()
    probabilities = np.frombuffer(response.raw_output_contents[1], np.float32).reshape(2, 10)
    assert probabilities.sum(axis=1) == pytest.approx([1, 1])
    assert {name: response.parameters[name].int64_param for name in ("queue_ns", "total_ns")} == {
        "queue_ns": 1,
        "total_ns": 10,
    }
    assert response.parameters["worker"].string_param == "cpu-0"


def test_softmax_does_not_overflow() -> None:
    logits = np.array([1e4, 0.0, -1e4], np.float32)
    assert np.frombuffer(softmax(logits.tobytes(), 3), np.float32) == pytest.approx([1, 0, 0])
