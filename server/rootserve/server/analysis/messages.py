"""What the service and an analysis process tell each other: JSON datagrams; arrays lie in memory.

Each request is answered by exactly one reply before the next one is sent, but for Begin and End, which
have none. Begin comes with the file descriptor of the job's memory: one slot, whose input holds the
images or sums that go there and whose output the sums or matrices that come back.
"""

from __future__ import annotations

import json
from dataclasses import astuple
from typing import Literal

from rootmodels.analysis.sums import LayerShape, Plan
from rootserve.server.datagram import MAX_BYTES, Codec, JsonMessage
from rootserve.server.engines.base import Precision

_ROOM = 1 << 13
"""Of a Begin, what is not layers and pairs: the path of a file is the longest."""

_Layer = tuple[str, int, int, int, int]
_Quartiles = tuple[int, int, int]


class Begin(JsonMessage, frozen=True):
    """To the process: a job. ``weights`` is None for a model without trained ones."""

    job: int
    model: str
    weights: str | None
    stage: str
    layers: tuple[_Layer, ...]
    pairs: tuple[tuple[str, str], ...]
    input_bytes: int
    output_bytes: int

    @property
    def plan(self) -> Plan:
        """What the job looks at."""
        layers = tuple(LayerShape(*layer) for layer in self.layers)
        return Plan(layers, tuple((first, second) for first, second in self.pairs))


def fits_a_message(plan: Plan) -> bool:
    """Whether a process can be told of ``plan`` in one datagram, with room for the rest of a Begin."""
    names = json.dumps([[astuple(layer) for layer in plan.layers], plan.pairs])
    return len(names) <= MAX_BYTES - _ROOM


class End(JsonMessage, frozen=True):
    """To the process: forget a job."""

    job: int


class Images(JsonMessage, frozen=True):
    """To the process: sum the uint8 images [rows, 3, height, width] in the input; answer Summed."""

    job: int
    rows: int
    height: int
    width: int


class DatasetImages(JsonMessage, frozen=True):
    """To the process: sum images ``start`` to ``start + rows`` of a data set; answer Summed.

    They are ``height`` x ``width`` pixels.
    """

    job: int
    path: str
    start: int
    rows: int
    height: int
    width: int


class Derive(JsonMessage, frozen=True):
    """To the process: derive from the sums in the input; answer Derived."""

    job: int
    kinds: tuple[str, ...]
    tolerance: float


class Profile(JsonMessage, frozen=True):
    """To the process: time the layers of the job's model on an engine that can tell; answer Profiled."""

    job: int
    engine: str
    precision: Precision
    rows: int
    image: tuple[int, int, int]


class Filters(JsonMessage, frozen=True):
    """To the process: put the weights of a layer of the job's model into the output; answer Filtered."""

    job: int
    layer: str


class Summed(JsonMessage, frozen=True):
    """From the process: the sums of one chunk are in the output."""

    job: int
    weights_sha256: str


class Derived(JsonMessage, frozen=True):
    """From the process: ``length`` bytes in the output, see :mod:`rootserve.server.analysis.derived`."""

    job: int
    length: int


class Profiled(JsonMessage, frozen=True):
    """From the process: quartiles in ns, see :class:`rootserve.server.engines.profiling.LayerTimes`."""

    job: int
    layers: dict[str, _Quartiles]
    computed_in: dict[str, str]
    other: _Quartiles
    total: _Quartiles
    runs: int


class Filtered(JsonMessage, frozen=True):
    """From the process: the weights are in the output, float32, ``length`` bytes."""

    job: int
    length: int
    weights_sha256: str


Fault = Literal["request", "weights", "installation", "service"]


class Failed(JsonMessage, frozen=True):
    """From the process: an exception, in one line. ``fault`` is what has to change before it succeeds.

    What was asked, or is in a data set; the weights that are on disk; or the service itself.
    """

    job: int
    error: str
    fault: Fault


Request = Begin | End | Images | DatasetImages | Derive | Profile | Filters
Reply = Summed | Derived | Profiled | Filtered | Failed
Message = Request | Reply

_codec: Codec[Message] = Codec(Message)
encode = _codec.encode
decode = _codec.decode
