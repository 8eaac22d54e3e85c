"""What a load run is asked to do, checked before anything starts."""

import math
from dataclasses import dataclass, fields
from typing import Any

from rootserve.client.address import DEFAULT_ADDRESS, parse_address
from rootserve.client.credentials import PLAINTEXT, Credentials
from rootserve.client.defaults import DURATION_S, MAX_IN_FLIGHT, MAX_TRIALS, TIMEOUT_S, WARMUP_S
from rootserve.client.errors import InputError
from rootserve.client.load.arrivals import MAX_RATE, Arrivals, Distribution, Ramp, Steps
from rootserve.client.load.mix import Mix, mix_of
from rootserve.client.load.trace import Trace

MAX_CONCURRENCY = 10_000
MAX_PROCESSES = 64
# Each window keeps its own histograms.
_MOST_TRIALS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """A load run. Exactly one of `concurrency` and `rate` is given.

    Args:
        model: Name of the model, or a mix of several.
        server: HOST:PORT, or several separated by commas, asked in turn.
        credentials: TLS and a token, if the server wants them. A report tells only whether it
            was TLS.
        concurrency: Closed loop: this many callers, each sending when its last answer came.
        rate: Open loop: requests per second, sent whether or not earlier ones were answered; or
            a ramp, steps, or a trace to replay.
        distribution: Spread of the open loop's departures.
        duration_s: Length of the measured window; with `stable_within`, of each of them.
        warmup_s: Time under the same load before it, excluded from every figure.
        rows: Images per request.
        seed: Of the random images, the mixes and the Poisson departures.
        deadline_s: Deadline each request tells the server (`deadline_ms`); None, and infinity in a
            mix, tell none.
        accuracy_floor: Of a family asked as one model: the least accuracy, 0..1, that each request
            asks for; None, and 0 in a mix, ask for none.
        variants: Of such a family: those that may answer; all when empty.
        timeout_s: gRPC deadline of each call, so that none waits for ever.
        priority: Request priority, 1 is the highest; None leaves it to the server.
        max_in_flight: Open loop: requests under way at once. Departures beyond it wait, and
            their waiting counts in the response time.
        streaming: Send over ModelStreamInfer instead of ModelInfer.
        processes: How many client processes share the load. They are spawned: a program that asks
            for more than one needs the usual guard, `if __name__ == "__main__"`.
        stable_within: Measure window after window until throughput and p99 of three in a row lie
            within this share of their mean; None measures one window.
        max_trials: The most windows to measure then.

    Raises:
        InputError: A value is out of its range; the message names the option.
    """

    model: str | Mix[str]
    server: str = DEFAULT_ADDRESS
    credentials: Credentials = PLAINTEXT
    concurrency: int | None = None
    rate: Arrivals | None = None
    distribution: Distribution = Distribution.POISSON
    duration_s: float = DURATION_S
    warmup_s: float = WARMUP_S
    rows: int | Mix[int] = 1
    seed: int = 0
    deadline_s: float | Mix[float] | None = None
    accuracy_floor: float | Mix[float] | None = None
    variants: tuple[str, ...] = ()
    timeout_s: float = TIMEOUT_S
    priority: int | Mix[int] | None = None
    max_in_flight: int = MAX_IN_FLIGHT
    streaming: bool = False
    processes: int = 1
    stable_within: float | None = None
    max_trials: int = MAX_TRIALS

    def __post_init__(self) -> None:
        for server in self.servers:
            parse_address(server)
        if (self.concurrency is None) == (self.rate is None):
            raise InputError(
                "expected either concurrency (closed loop) or rate (open loop), and not both"
            )
        if self.distribution not in tuple(Distribution):
            raise InputError(f"distribution {self.distribution}: expected poisson or constant")
        _check("concurrency", self.concurrency, 1, MAX_CONCURRENCY)
        if self.rate is None or isinstance(self.rate, int | float):
            _check("rate", self.rate, 0.001, MAX_RATE, "requests per second")
        _check("duration", self.duration_s, 0.001, 86_400, "seconds")
        _check("warm-up", self.warmup_s, 0, 86_400, "seconds")
        _check("rows", self.rows, 1, 100_000)
        _check("seed", self.seed, 0, 2**63 - 1)
        self._check_deadline()
        _check("accuracy-floor", self.accuracy_floor, 0, 1)
        _check("timeout", self.timeout_s, 0.001, 86_400, "seconds")
        _check("priority", self.priority, 0, 2**31 - 1)
        _check("max-in-flight", self.max_in_flight, 1, MAX_CONCURRENCY)
        _check("processes", self.processes, 1, MAX_PROCESSES)
        _check("max-trials", self.max_trials, 3, _MOST_TRIALS)
        self._check_stable()

    def _check_deadline(self) -> None:
        for one in _values(self.deadline_s):
            if one != math.inf or not isinstance(self.deadline_s, Mix):
                _check("deadline", one, 0.001, 86_400, "seconds")

    def _check_stable(self) -> None:
        if self.concurrency is not None and self.concurrency < self.processes:
            raise InputError(
                f"processes {self.processes}: expected at most one for each of the "
                f"{self.concurrency} callers"
            )
        if self.stable_within is None:
            return
        _check("stable", self.stable_within, 0.001, 1)
        if isinstance(self.rate, Ramp | Steps | Trace):
            raise InputError(
                "stable: a rate that changes never becomes stable; expected a steady rate "
                "or a concurrency"
            )

    @property
    def loop(self) -> str:
        """Which loop it is: "closed" or "open"."""
        return "open" if self.concurrency is None else "closed"

    @property
    def servers(self) -> tuple[str, ...]:
        """All addresses."""
        return tuple(part.strip() for part in self.server.split(","))

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models asked, those of a trace included."""
        names = dict.fromkeys(mix_of(self.model).values)
        if isinstance(self.rate, Trace):
            names |= dict.fromkeys(entry.model for entry in self.rate.entries if entry.model)
        return tuple(names)

    @property
    def has_deadlines(self) -> bool:
        """Whether any request has one."""
        if isinstance(self.rate, Trace) and any(each.deadline_s for each in self.rate.entries):
            return True
        return any(each not in {None, math.inf} for each in _values(self.deadline_s))

    @property
    def has_floors(self) -> bool:
        """Whether any request asks for an accuracy at least."""
        if isinstance(self.rate, Trace) and any(each.accuracy_floor for each in self.rate.entries):
            return True
        return any(_values(self.accuracy_floor))

    @property
    def longest_s(self) -> float:
        """Warm-up and all windows."""
        windows = 1 if self.stable_within is None else self.max_trials
        return self.warmup_s + windows * self.duration_s

    @property
    def label(self) -> str:
        """The load in a few words."""
        if self.concurrency is not None:
            return f"{self.concurrency} caller{'s' if self.concurrency > 1 else ''}"
        if isinstance(self.rate, Trace):
            return f"replay of {self.rate}"
        return f"{self.rate:g}/s" if isinstance(self.rate, int | float) else f"{self.rate}/s"

    def to_json(self) -> dict[str, Any]:
        """The options by name, and `loop`, ready for `json.dumps`."""
        names = [field.name for field in fields(self) if field.name != "credentials"]
        options = {name: getattr(self, name) for name in names}
        for name, value in options.items():
            if isinstance(value, Mix | Ramp | Steps | Trace):
                options[name] = str(value)
        options["variants"] = list(self.variants)
        if isinstance(self.rate, Trace):
            # It tells every departure itself.
            options["distribution"] = None
        return {"loop": self.loop, "tls": self.credentials.tls, **options}


def _values(value: float | Mix[int] | Mix[float] | None) -> tuple[float | None, ...]:
    return value.values if isinstance(value, Mix) else (value,)


def _check(
    name: str,
    value: float | Mix[int] | Mix[float] | None,
    low: float,
    high: float,
    unit: str = "",
) -> None:
    for one in _values(value):
        if one is not None and not (math.isfinite(one) and low <= one <= high):
            raise InputError(f"{name} {one}: expected {low:,} to {high:,} {unit}".rstrip())
