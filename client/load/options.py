"""What a load run is asked to do, checked before anything starts."""

import math
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from client.address import DEFAULT_ADDRESS, parse_address
from client.credentials import PLAINTEXT, Credentials
from client.errors import InputError

# One Python process sends a few thousand requests a second at best: more is a slip of the pen.
MAX_RATE = 20_000.0
MAX_CONCURRENCY = 10_000


class Distribution(StrEnum):
    """How the departures of an open loop are spread."""

    POISSON = "poisson"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """A load run. Exactly one of `concurrency` and `rate` is given.

    Args:
        model: Name of the model.
        server: HOST:PORT.
        credentials: TLS and a token, if the server wants them. A report tells only whether it
            was TLS.
        concurrency: Closed loop: this many callers, each sending when its last answer came.
        rate: Open loop: requests per second, sent whether or not earlier ones were answered.
        distribution: Spread of the open loop's departures.
        duration_s: Length of the measured window.
        warmup_s: Time under the same load before it, excluded from every figure.
        rows: Images per request.
        seed: Of the random images and of the Poisson departures.
        deadline_s: Deadline each request tells the server (`deadline_ms`); None tells none.
        timeout_s: gRPC deadline of each call, so that none waits for ever.
        priority: Request priority, 1 is the highest; None leaves it to the server.
        max_in_flight: Open loop: requests under way at once. Departures beyond it wait, and
            their waiting counts in the response time.

    Raises:
        InputError: A value is out of its range; the message names the option.
    """

    model: str
    server: str = DEFAULT_ADDRESS
    credentials: Credentials = PLAINTEXT
    concurrency: int | None = None
    rate: float | None = None
    distribution: Distribution = Distribution.POISSON
    duration_s: float = 10.0
    warmup_s: float = 2.0
    rows: int = 1
    seed: int = 0
    deadline_s: float | None = None
    timeout_s: float = 30.0
    priority: int | None = None
    max_in_flight: int = 1024

    def __post_init__(self) -> None:
        parse_address(self.server)
        if (self.concurrency is None) == (self.rate is None):
            raise InputError(
                "expected either concurrency (closed loop) or rate (open loop), and not both"
            )
        if self.distribution not in tuple(Distribution):
            raise InputError(f"distribution {self.distribution}: expected poisson or constant")
        _check("concurrency", self.concurrency, 1, MAX_CONCURRENCY)
        _check("rate", self.rate, 0.001, MAX_RATE, "requests per second")
        _check("duration", self.duration_s, 0.001, 86_400, "seconds")
        _check("warm-up", self.warmup_s, 0, 86_400, "seconds")
        _check("rows", self.rows, 1, 100_000)
        _check("seed", self.seed, 0, 2**63 - 1)
        _check("deadline", self.deadline_s, 0.001, 86_400, "seconds")
        _check("timeout", self.timeout_s, 0.001, 86_400, "seconds")
        _check("priority", self.priority, 0, 2**31 - 1)
        _check("max-in-flight", self.max_in_flight, 1, MAX_CONCURRENCY)

    @property
    def loop(self) -> str:
        """Which loop it is: "closed" or "open"."""
        return "open" if self.concurrency is None else "closed"

    def to_json(self) -> dict[str, Any]:
        """The options by name, and `loop`, ready for `json.dumps`."""
        names = [field.name for field in fields(self) if field.name != "credentials"]
        options = {name: getattr(self, name) for name in names}
        return {"loop": self.loop, "tls": self.credentials.tls, **options}


def _check(name: str, value: float | None, low: float, high: float, unit: str = "") -> None:
    if value is not None and not (math.isfinite(value) and low <= value <= high):
        raise InputError(f"{name} {value}: expected {low:,} to {high:,} {unit}".rstrip())
