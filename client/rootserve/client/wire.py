"""The Open Inference Protocol's messages to and from numpy."""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from rootserve.client.errors import InputError, MalformedAnswer
from rootserve.client.stages import TOLD

INPUT_NAME = "images"
ENCODED_NAME = "encoded"
METHOD = "/inference.GRPCInferenceService/ModelInfer"
STREAM_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"

_DATATYPES = {"FP32": "<f4", "FP64": "<f8", "UINT8": "|u1", "INT32": "<i4", "INT64": "<i8"}
_NS = 1e-9
_PARAMETERS = [(stage.name, stage.parameter or "") for stage in TOLD]


@dataclass(frozen=True, slots=True)
class Timeline:
    """Where the server spent a request's time, as the server measured it, in seconds.

    `decode_s` is the part of `compute_s` in which pictures that came as files were decoded. `weights` are the
    first digits of the SHA-256 of the weights that computed it, `generation` how often the model had been
    loaded by then; "" and 0 from a server that does not tell.
    """

    queue_s: float
    batch_wait_s: float
    compute_s: float
    total_s: float
    batch_rows: int
    worker: str
    engine: str
    precision: str
    decode_s: float = 0.0
    weights: str = ""
    generation: int = 0

    @property
    def rest_s(self) -> float:
        """What none of the named stages took: hand-over and reply."""
        named_s: float = sum(getattr(self, f"{one.name}_s") for one in TOLD if one.within is None)
        return max(0.0, self.total_s - named_s)


class Chosen(NamedTuple):
    """Which variant of a family computed an answer: fields as in `Answer`, None for what is not told."""

    variant: str
    accuracy: float | None = None
    predicted_s: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer: its outputs by name, each [N, ...], and its timeline where it gave one.

    `version` is that of the model's weights. Of a family, `variant` is the one that computed it, `accuracy`
    that one's, 0..1, and `predicted_s` how long the computation was expected to take at most; None for a
    variant that was asked for by its name.
    """

    model: str
    outputs: Mapping[str, NDArray[Any]]
    timeline: Timeline | None
    version: str = ""
    variant: str | None = None
    accuracy: float | None = None
    predicted_s: float | None = None

    @property
    def logits(self) -> NDArray[np.float32]:
        """Output `logits`, float32 [N, classes]."""
        return self._output("logits")

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Output `probabilities`, float32 [N, classes]; only if the request asked for it."""
        return self._output("probabilities")

    def _output(self, name: str) -> NDArray[np.float32]:
        try:
            return self.outputs[name]
        except KeyError:
            raise MalformedAnswer(
                f"the answer of {self.model} has no output '{name}', only {sorted(self.outputs)}"
            ) from None


def build_request(  # noqa: PLR0913 - what a request may say
    model: str,
    images: NDArray[np.uint8] | NDArray[np.float32],
    *,
    outputs: Sequence[str] = (),
    priority: int | None = None,
    deadline_s: float | None = None,
    accuracy_floor: float | None = None,
    variants: Sequence[str] = (),
    request_id: str = "",
) -> service_pb2.ModelInferRequest:
    """Build a ModelInferRequest for images [N, 3, H, W].

    Args:
        model: Name of the model.
        images: RGB, uint8 0..255 or float32 0..1.
        outputs: Names of the outputs wanted; the server's default (`logits`) when empty.
        priority: 1 is the highest; None leaves it to the server.
        deadline_s: Time the server has for it, sent in whole milliseconds, at least one.
        accuracy_floor: The least accuracy, 0..1, of the variant that computes it.
        variants: Of a family, the variants that may compute it; all when empty.
        request_id: What the server calls it in logs, traces and explanations.

    Raises:
        InputError: The images have another shape or type.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise InputError(f"images of shape {list(images.shape)}: expected [N, 3, H, W], N >= 1")
    if images.dtype not in (np.uint8, np.float32):
        raise InputError(f"images of type {images.dtype}: expected uint8 or float32")
    tensor = service_pb2.ModelInferRequest.InferInputTensor(
        name=INPUT_NAME,
        datatype="UINT8" if images.dtype == np.uint8 else "FP32",
        shape=images.shape,
    )
    content = np.ascontiguousarray(images).tobytes()
    wanted = _Wanted(priority, deadline_s, accuracy_floor, variants, request_id)
    return _request(model, tensor, content, outputs, wanted)


def build_encoded_request(  # noqa: PLR0913 - as above
    model: str,
    pictures: Sequence[bytes],
    *,
    outputs: Sequence[str] = (),
    priority: int | None = None,
    deadline_s: float | None = None,
    accuracy_floor: float | None = None,
    variants: Sequence[str] = (),
    request_id: str = "",
) -> service_pb2.ModelInferRequest:
    """Build a ModelInferRequest for JPEG and PNG files, which the server decodes.

    Args:
        model: Name of the model.
        pictures: What is in each file.
        outputs: As for `build_request`.
        priority: As for `build_request`.
        deadline_s: As for `build_request`.
        accuracy_floor: As for `build_request`.
        variants: As for `build_request`.
        request_id: As for `build_request`.

    Raises:
        InputError: There are no pictures.
    """
    if not pictures:
        raise InputError("no pictures: expected at least one")
    tensor = service_pb2.ModelInferRequest.InferInputTensor(
        name=ENCODED_NAME, datatype="BYTES", shape=[len(pictures)]
    )
    # As the protocol lays out BYTES: the length of each element before it.
    content = b"".join(part for one in pictures for part in (struct.pack("<I", len(one)), one))
    wanted = _Wanted(priority, deadline_s, accuracy_floor, variants, request_id)
    return _request(model, tensor, content, outputs, wanted)


class _Wanted(NamedTuple):
    """What a request says besides its images."""

    priority: int | None
    deadline_s: float | None
    accuracy_floor: float | None
    variants: Sequence[str]
    request_id: str


def _request(
    model: str,
    tensor: service_pb2.ModelInferRequest.InferInputTensor,
    content: bytes,
    outputs: Sequence[str],
    wanted: _Wanted,
) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(
        model_name=model,
        id=wanted.request_id,
        inputs=[tensor],
        outputs=[
            service_pb2.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs
        ],
        raw_input_contents=[content],
    )
    if wanted.priority is not None:
        request.parameters["priority"].int64_param = wanted.priority
    if wanted.deadline_s is not None:
        request.parameters["deadline_ms"].int64_param = max(1, round(wanted.deadline_s * 1000))
    if wanted.accuracy_floor is not None:
        request.parameters["accuracy_floor"].double_param = wanted.accuracy_floor
    if wanted.variants:
        request.parameters["variants"].string_param = ",".join(wanted.variants)
    return request


def decode_response(response: service_pb2.ModelInferResponse) -> Answer:
    """Read a ModelInferResponse.

    Raises:
        MalformedAnswer: Its tensors and bytes do not fit together.
    """
    # Each access of the repeated field copies the bytes of its items: taken once.
    raw = list(response.raw_output_contents)
    if len(raw) != len(response.outputs):
        raise MalformedAnswer(
            f"the answer of {response.model_name} describes {len(response.outputs)} outputs "
            f"and brings the bytes of {len(raw)}"
        )
    outputs = {
        tensor.name: _decode_tensor(tensor, data)
        for tensor, data in zip(response.outputs, raw, strict=True)
    }
    chosen = read_chosen(response) or (None, None, None)
    timeline = read_timeline(response)
    return Answer(response.model_name, outputs, timeline, response.model_version, *chosen)


def _decode_tensor(
    tensor: service_pb2.ModelInferResponse.InferOutputTensor, data: bytes
) -> NDArray[Any]:
    if tensor.datatype not in _DATATYPES:
        raise MalformedAnswer(
            f"output '{tensor.name}' is of type {tensor.datatype}: expected one of "
            f"{', '.join(_DATATYPES)}"
        )
    dtype = np.dtype(_DATATYPES[tensor.datatype])
    shape = tuple(tensor.shape)
    if math.prod(shape) * dtype.itemsize != len(data):
        raise MalformedAnswer(
            f"output '{tensor.name}' of type {tensor.datatype} and shape {list(shape)} "
            f"came with {len(data)} bytes"
        )
    return np.frombuffer(data, dtype).reshape(shape)


def read_chosen(response: service_pb2.ModelInferResponse) -> Chosen | None:
    """Read which variant of a family computed the answer; None where the server told none."""
    parameters = response.parameters
    if "variant" not in parameters:
        return None
    return Chosen(
        parameters["variant"].string_param,
        parameters["accuracy"].double_param if "accuracy" in parameters else None,
        parameters["predicted_ns"].int64_param * _NS if "predicted_ns" in parameters else None,
    )


def read_timeline(response: service_pb2.ModelInferResponse) -> Timeline | None:
    """Read the server's timeline from the parameters; None when the server sent none."""
    parameters = response.parameters
    if "total_ns" not in parameters:
        return None
    return Timeline(
        **{f"{name}_s": parameters[key].int64_param * _NS for name, key in _PARAMETERS},
        total_s=parameters["total_ns"].int64_param * _NS,
        batch_rows=parameters["batch_rows"].int64_param,
        worker=parameters["worker"].string_param,
        engine=parameters["engine"].string_param,
        precision=parameters["precision"].string_param,
        weights=parameters["weights"].string_param,
        generation=parameters["generation"].int64_param,
    )
