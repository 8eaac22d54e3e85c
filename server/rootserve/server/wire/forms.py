"""Inference requests that differ only in their ids and images: read once, and then known by their beginning.

Callers send the same model, tensor and shape over and over. Such a message is its *head*, the same each time
but for an id behind the name of the model, and then raw contents to its end. Once a head was read and
checked, a message that has it is not decoded: what it says is known, and its images are where it ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.families import Interface
from rootserve.server.models import INPUT_NAME
from rootserve.server.pending import Datatype, Output
from rootserve.server.wire.protobuf import varint

_MOST_FORMS = 512
_MOST_HEADS_OF_A_SIZE = 4
"""Lengths of heads of messages that are equally long."""

# Field number and wire type, of ModelInferRequest: the name of the model, the id, the raw contents.
_NAME, _ID, _RAW = 0x0A, 0x1A, 0x3A
_ONE_BYTE = 0x80
"""Lengths below it take one byte."""


class Read(NamedTuple):
    """What the head says to ``interface``, against which it was checked."""

    interface: Interface
    rows: int
    datatype: Datatype
    outputs: tuple[Output, ...]


@dataclass(slots=True)
class Form:
    """What all messages with a head say: ``message`` has everything but an id and the contents."""

    message: oip.ModelInferRequest
    read: Read | None = None


class Known:
    """A message with a head that is known; in part with the attributes of a ModelInferRequest."""

    __slots__ = ("content", "form", "id")

    parameters: tuple[()] = ()

    def __init__(self, form: Form, request_id: str, content: memoryview) -> None:
        self.form = form
        self.id = request_id
        self.content = content

    @property
    def model_name(self) -> str:
        """The model it asks for."""
        name: str = self.form.message.model_name
        return name

    @property
    def model_version(self) -> str:
        """The version it asks for."""
        version: str = self.form.message.model_version
        return version

    def whole(self) -> oip.ModelInferRequest:
        """All of it, as it came."""
        message = oip.ModelInferRequest()
        message.CopyFrom(self.form.message)
        message.id = self.id
        message.raw_input_contents.append(bytes(self.content))
        return message


class Forms:
    """The heads that are known."""

    def __init__(self) -> None:
        self._forms: dict[bytes, Form] = {}
        self._lengths: dict[int, list[int]] = {}
        """Of heads, by the length of the messages without their ids."""

    def decode(self, content: bytes) -> oip.ModelInferRequest | Known:
        """The message that ``content`` is.

        Raises:
            DecodeError: if it is none.
        """
        end = name_end = _name_end(content)
        request_id = ""
        if 0 < name_end < len(content) - 1 and content[name_end] == _ID:
            length = content[name_end + 1]
            if length >= _ONE_BYTE:
                return _decode(content)
            end = name_end + 2 + length
        lengths = self._lengths.get(len(content) - (end - name_end))
        if lengths is not None:
            for length in lengths:
                place = end + length - name_end
                form = self._forms.get(content[:name_end] + content[end:place])
                if form is not None:
                    try:
                        request_id = content[name_end + 2 : end].decode()
                    except UnicodeDecodeError:
                        break
                    return Known(form, request_id, memoryview(content)[place:])
        message = _decode(content)
        if name_end:
            self._learn(message, content, name_end, end)
        return message

    def _learn(
        self, message: oip.ModelInferRequest, content: bytes, name_end: int, end: int
    ) -> None:
        """Know the head of ``message`` from now on, if it is one of those that can be known."""
        if not _is_plain(message):
            return
        size = len(message.raw_input_contents[0])
        place = len(content) - size
        before = bytes([_RAW]) + varint(size)
        head = content[:name_end] + content[end:place]
        if not head.endswith(before):
            return
        # Only if what is in front of the contents is a message by itself are they where they seem to be.
        try:
            form = _decode(head[: -len(before)])
        except DecodeError:
            return
        if form.raw_input_contents or form.id or form.model_name != message.model_name:
            return
        if len(self._forms) >= _MOST_FORMS:
            self._forms.clear()
            self._lengths.clear()
        lengths = self._lengths.setdefault(len(content) - (end - name_end), [])
        if len(head) not in lengths:
            if len(lengths) >= _MOST_HEADS_OF_A_SIZE:
                return
            lengths.append(len(head))
        self._forms[head] = Form(form)


def _is_plain(message: oip.ModelInferRequest) -> bool:
    """Whether it has one input, raw pixels, and no parameters."""
    if message.parameters or len(message.inputs) != 1 or len(message.raw_input_contents) != 1:
        return False
    tensor = message.inputs[0]
    if tensor.name != INPUT_NAME or tensor.datatype not in ("UINT8", "FP32") or tensor.parameters:
        return False
    return not any(output.parameters for output in message.outputs)


def _decode(content: bytes) -> oip.ModelInferRequest:
    message: oip.ModelInferRequest = oip.ModelInferRequest.FromString(content)
    return message


def _name_end(content: bytes) -> int:
    """Where the name of the model ends, if that is how the message begins; 0 if not."""
    if len(content) < 2 or content[0] != _NAME or content[1] >= _ONE_BYTE:
        return 0
    return 2 + content[1]
