"""The requests of a load run, serialised before it starts so that sending costs little."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rootserve.client.channel import MAX_MESSAGE_BYTES
from rootserve.client.errors import InputError
from rootserve.client.load.mix import Mix, mix_of
from rootserve.client.load.options import LoadOptions
from rootserve.client.load.trace import Trace
from rootserve.client.wire import build_request

POOL_SIZE = 64
# Large pictures get a smaller pool rather than the machine's memory.
POOL_BYTES = 128 * 1024 * 1024
_MOST_POOL_BYTES = 4 * POOL_BYTES
_ENVELOPE_BYTES = 64 * 1024
# Draws from the mixes, after which they come again.
_DRAWS = 4096

Images = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Kind:
    """What distinguishes one request from another, but for its images."""

    model: str
    rows: int
    priority: int | None = None
    deadline_s: float | None = None
    accuracy_floor: float | None = None
    variants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The kind of each request of a run: request `n` has kind `order[n % len(order)]`.

    `accuracies` are those of the models, 0..1, as far as they are known: of answers that do not tell theirs.
    """

    kinds: tuple[Kind, ...]
    order: tuple[int, ...]
    accuracies: Mapping[str, float] = field(default_factory=dict)

    def kind_of(self, n: int) -> int:
        """Index of the kind of request `n`, counted from 0 over all processes."""
        return self.order[n % len(self.order)]


def plan_for(options: LoadOptions) -> Plan:
    """The plan of a run. The same seed makes the same one, however many processes share it."""
    trace = options.rate.entries if isinstance(options.rate, Trace) else None
    # Those that come later are drawn later: the same seed goes on making the same requests.
    mixes: tuple[Mix[str] | Mix[int] | Mix[float] | None, ...] = (
        mix_of(options.model),
        mix_of(options.rows),
        None if options.priority is None else mix_of(options.priority),
        None if options.deadline_s is None else mix_of(options.deadline_s),
        None if options.accuracy_floor is None else mix_of(options.accuracy_floor),
    )
    fixed = all(mix is None or len(mix.values) == 1 for mix in mixes)
    count = len(trace) if trace else 1 if fixed else _DRAWS
    random = np.random.default_rng(options.seed)
    drawn: Iterable[tuple[Any, ...]] = zip(
        *([None] * count if mix is None else mix.draw(count, random) for mix in mixes),
        [options.variants] * count,
        strict=True,
    )
    wanted = [Kind(*values) for values in drawn]
    if trace:
        wanted = [
            Kind(
                entry.model or kind.model,
                entry.rows or kind.rows,
                kind.priority if entry.priority is None else entry.priority,
                entry.deadline_s or kind.deadline_s,
                kind.accuracy_floor if entry.accuracy_floor is None else entry.accuracy_floor,
                entry.variants or kind.variants,
            )
            for entry, kind in zip(trace, wanted, strict=True)
        ]
    wanted = [_plain(kind) for kind in wanted]
    kinds = {kind: n for n, kind in enumerate(dict.fromkeys(wanted))}
    return Plan(tuple(kinds), tuple(kinds[kind] for kind in wanted))


def _plain(kind: Kind) -> Kind:
    """The same without a deadline that never comes, and without a floor that all are above."""
    if kind.deadline_s != math.inf and kind.accuracy_floor != 0:
        return kind
    deadline_s = None if kind.deadline_s == math.inf else kind.deadline_s
    return replace(kind, deadline_s=deadline_s, accuracy_floor=kind.accuracy_floor or None)


def random_images(count: int, size: int, seed: int) -> Images:
    """Random images uint8 [count, 3, size, size], the same for the same seed."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 3, size, size), np.uint8)


def images_needed(plan: Plan, model: str, image_bytes: int) -> int:
    """How many distinct images the pool of a plan wants for a model."""
    rows = max(kind.rows for kind in plan.kinds if kind.model == model)
    total = sum(kind.rows for kind in plan.kinds) * image_bytes
    return rows * _pool_size(total)


class RequestPool:
    """Serialised requests: of each kind up to 64, with images taken one after the other.

    When there are fewer images than the pool needs they come again from the first.

    Raises:
        InputError: The images have another shape, there are none, a request passes 64 MiB, or all
            kinds together need more than 512 MiB.
    """

    def __init__(self, plan: Plan, images: Mapping[str, Images]) -> None:
        """A pool for a plan; `images` has for each model uint8 [N, 3, H, W]."""
        self._plan = plan
        total = sum(_request_bytes(kind, images[kind.model]) for kind in plan.kinds)
        if total > _MOST_POOL_BYTES:
            raise InputError(
                f"{len(plan.kinds):,} kinds of requests need {total / 2**20:,.0f} MiB: expected "
                f"up to {_MOST_POOL_BYTES / 2**20:,.0f}; give fewer different rows"
            )
        count = _pool_size(total)
        self._bodies = [_serialized(kind, images[kind.model], count) for kind in plan.kinds]

    def body(self, n: int) -> tuple[bytes, int]:
        """Request `n` of the run and the index of its kind."""
        kind = self._plan.kind_of(n)
        bodies = self._bodies[kind]
        return bodies[n % len(bodies)], kind

    def __len__(self) -> int:
        return sum(map(len, self._bodies))


def _request_bytes(kind: Kind, images: Images) -> int:
    if images.ndim != 4 or len(images) == 0:
        raise InputError(f"images of shape {list(images.shape)}: expected [N, 3, H, W], N >= 1")
    image_bytes = images[0].nbytes
    if kind.rows * image_bytes + _ENVELOPE_BYTES > MAX_MESSAGE_BYTES:
        most = (MAX_MESSAGE_BYTES - _ENVELOPE_BYTES) // image_bytes
        raise InputError(
            f"rows {kind.rows}: a request may have 64 MiB, which is {most:,} images of this size"
        )
    return kind.rows * int(image_bytes)


def _serialized(kind: Kind, images: Images, count: int) -> Sequence[bytes]:
    bodies = []
    for n in range(count):
        picked = np.arange(n * kind.rows, (n + 1) * kind.rows) % len(images)
        request = build_request(
            kind.model,
            images[picked],
            priority=kind.priority,
            deadline_s=kind.deadline_s,
            accuracy_floor=kind.accuracy_floor,
            variants=kind.variants,
        )
        bodies.append(bytes(request.SerializeToString()))
    return bodies


def _pool_size(kinds_bytes: int) -> int:
    return max(1, min(POOL_SIZE, POOL_BYTES // kinds_bytes))
