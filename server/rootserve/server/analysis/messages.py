"""What the service and an analysis process tell each other: JSON datagrams; arrays lie in memory.

Each request is answered by exactly one reply before the next one is sent, but for Begin and End, which
have none. Begin comes with the file descriptor of the job's memory: one slot, whose input holds the
images or sums that go there and whose output the sums or matrices that come back.
"""

from __future__ import annotations

import json
from dataclasses import asdict, astuple, dataclass
from typing import Literal

from rootmodels.analysis.sums import LayerShape, Plan
from rootserve.server.engines.base import Precision

MAX_BYTES = 1 << 17
_ROOM = 1 << 13
"""Of a Begin, what is not layers and pairs: the path of a file is the longest."""

_Layer = tuple[str, int, int, int, int]
_Quartiles = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Begin:
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


@dataclass(frozen=True, slots=True)
class End:
    """To the process: forget a job."""

    job: int


@dataclass(frozen=True, slots=True)
class Images:
    """To the process: sum the uint8 images [rows, 3, height, width] in the input; answer Summed."""

    job: int
    rows: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class DatasetImages:
    """To the process: sum images ``start`` to ``start + rows`` of a data set; answer Summed.

    They are ``height`` x ``width`` pixels.
    """

    job: int
    path: str
    start: int
    rows: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Derive:
    """To the process: derive from the sums in the input; answer Derived."""

    job: int
    kinds: tuple[str, ...]
    tolerance: float


@dataclass(frozen=True, slots=True)
class Profile:
    """To the process: time the layers of the job's model on an engine that can tell; answer Profiled."""

    job: int
    engine: str
    precision: Precision
    rows: int
    image: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Filters:
    """To the process: put the weights of a layer of the job's model into the output; answer Filtered."""

    job: int
    layer: str


@dataclass(frozen=True, slots=True)
class Summed:
    """From the process: the sums of one chunk are in the output."""

    job: int
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Derived:
    """From the process: ``length`` bytes in the output, see :mod:`rootserve.server.analysis.derived`."""

    job: int
    length: int


@dataclass(frozen=True, slots=True)
class Profiled:
    """From the process: quartiles in ns, see :class:`rootserve.server.engines.profiling.LayerTimes`."""

    job: int
    layers: dict[str, _Quartiles]
    computed_in: dict[str, str]
    other: _Quartiles
    total: _Quartiles
    runs: int


@dataclass(frozen=True, slots=True)
class Filtered:
    """From the process: the weights are in the output, float32, ``length`` bytes."""

    job: int
    length: int
    weights_sha256: str


Fault = Literal["request", "weights", "installation", "service"]


@dataclass(frozen=True, slots=True)
class Failed:
    """From the process: an exception, in one line. ``fault`` is what has to change before it succeeds.

    What was asked, or is in a data set; the weights that are on disk; or the service itself.
    """

    job: int
    error: str
    fault: Fault


Request = Begin | End | Images | DatasetImages | Derive | Profile | Filters
Reply = Summed | Derived | Profiled | Filtered | Failed
Message = Request | Reply

_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (
        Begin,
        End,
        Images,
        DatasetImages,
        Derive,
        Profile,
        Filters,
        Summed,
        Derived,
        Profiled,
        Filtered,
        Failed,
    )
}


def encode(message: Message) -> bytes:
    """One datagram."""
    return json.dumps({"kind": type(message).__name__, **asdict(message)}).encode()


def decode(datagram: bytes) -> Message:
    """The message in ``datagram``, which :func:`encode` made. Sequences come back as lists."""
    content = json.loads(datagram)
    return _KINDS[content.pop("kind")](**content)
