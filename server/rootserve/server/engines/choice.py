"""Which engine and precision compute a model on this machine: measured, checked and remembered.

Only what keeps the accuracy takes part: fp32, and each precision in which these very weights were measured to
be as accurate (``python -m rootserve.server.calibrate``). Each candidate has to give the recorded logits of a
few real images; the fastest of those that do is taken (docs/adr/0009-engines-and-precision.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rootmodels.calibration import Calibration, accuracy_key
from rootmodels.check_images import check_images
from rootmodels.processor import int8_weight_bits
from rootserve.server.engines.base import Engine, EngineError, LoadSpec, Precision, PrecisionSetting
from rootserve.server.engines.choice_cache import Candidate, ChoiceCache
from rootserve.server.engines.registry import ENGINES, get_loader, preferred_engines

ALLOWED_LOSS = 0.002
"""Accuracy that "auto" gives up at most: 20 images of 10,000, about what two training runs differ by."""

TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 0.01, "bf16": 0.03, "int8": 0.06}
"""Largest error of a logit, as a share of the largest logit: at least twice what correct engines show
(docs/engines.md), and far below what one shows that computes something else."""

_CHECKED_IMAGES = 16
_TIMED_ROWS = 8
_ROUNDS = 5
_LONGEST_S = 0.5
"""Of timing, for all candidates of a model together; each is timed once at least."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A loaded engine, and in one line why this one; "" where there was nothing to choose."""

    engine: Engine
    reason: str


def load_best(
    spec: LoadSpec, engine: str, precision: PrecisionSetting, cache: ChoiceCache
) -> Chosen:
    """Load ``spec`` with ``engine`` and ``precision``, of which each may be "auto".

    Raises:
        EngineError: if nothing that is allowed computes the model correctly.
        WeightsError: if the weights cannot be used.
    """
    calibration, note = _calibration(spec) if precision == "auto" else (None, "")
    precisions = [precision] if precision != "auto" else allowed_precisions(calibration)
    refusals: list[str] = []
    for name in preferred_engines(spec.device) if engine == "auto" else (engine,):
        able = [Candidate(name, one) for one in precisions if one in ENGINES[name].precisions]
        if not able:
            refusals.append(f"{name} does not compute in {' or '.join(precisions)}")
            continue
        if engine != "auto" and len(able) == 1:
            return Chosen(_load(spec, able[0]), note)
        trial = _Trial(spec, calibration, refusals)
        chosen = trial.remembered(able, cache) or trial.fastest(able, cache)
        if chosen:
            return replace(chosen, reason="; ".join(filter(None, [chosen.reason, note, *refusals])))
    raise EngineError("; ".join(refusals))


def allowed_precisions(calibration: Calibration | None) -> list[Precision]:
    """What "auto" may take: fp32, and what was measured to lose less than ALLOWED_LOSS against it.

    fp16 where bf16 is, which rounds more coarsely, if no response is beyond its range.
    """
    allowed: list[Precision] = ["fp32"]
    if calibration is None:
        return allowed
    accuracy = calibration.accuracy
    least = accuracy.get("fp32", 1.0) - ALLOWED_LOSS
    rounded: tuple[Precision, ...] = ("bf16", "int8")
    bits = int8_weight_bits()
    allowed += [one for one in rounded if accuracy.get(accuracy_key(one, bits), 0.0) >= least]
    largest = max((abs(bound) for pair in calibration.ranges.values() for bound in pair), default=0)
    if "bf16" in allowed and largest < float(np.finfo(np.float16).max) / 16:
        allowed.append("fp16")
    return allowed


class _Trial:
    """Candidates of one model are loaded, checked and timed. ``refusals`` gets why one is out."""

    def __init__(
        self, spec: LoadSpec, calibration: Calibration | None, refusals: list[str]
    ) -> None:
        self._spec = spec
        self._calibration = calibration
        self._refusals = refusals
        self._images = check_images(spec.image_size(), _CHECKED_IMAGES)

    def remembered(self, candidates: Sequence[Candidate], cache: ChoiceCache) -> Chosen | None:
        """What was chosen before under the same circumstances, if it still computes correctly."""
        found = cache.get(self._spec, candidates) if len(candidates) > 1 else None
        engine = self._try(found) if found else None
        return Chosen(engine, "remembered as the fastest") if engine else None

    def fastest(self, candidates: Sequence[Candidate], cache: ChoiceCache) -> Chosen | None:
        """The fastest that computes correctly; None if none does."""
        tried = {candidate: self._try(candidate) for candidate in candidates}
        engines = {candidate: engine for candidate, engine in tried.items() if engine}
        if len(engines) < 2:
            return next((Chosen(engine, "") for engine in engines.values()), None)
        images = self._images[:_TIMED_ROWS]
        seconds = best_times({key: _runner(engine, images) for key, engine in engines.items()})
        rates = {key: len(images) / took for key, took in seconds.items()}
        best = max(rates, key=rates.__getitem__)
        # Another worker may have been quicker: all of them should answer alike.
        best = cache.put(self._spec, candidates, best, rates)
        figures = ", ".join(f"{key} {rate:,.0f}" for key, rate in rates.items())
        return Chosen(engines[best], f"fastest, in images/s: {figures}")

    def _try(self, candidate: Candidate) -> Engine | None:
        try:
            engine = _load(self._spec, candidate)
            if self._calibration is not None and self._calibration.check_logits:
                expected = np.array(self._calibration.check_logits[:_CHECKED_IMAGES], np.float32)
                check_logits(engine.run(self._images), expected, candidate.precision)
        except (EngineError, ImportError, RuntimeError) as error:
            self._refusals.append(f"not {candidate}: {' '.join(str(error).split())}")
            return None
        return engine


def check_logits(
    logits: NDArray[np.float32], expected: NDArray[np.float32], precision: Precision
) -> None:
    """Refuse logits that are further from those of the fp32 module than rounding explains.

    Raises:
        EngineError: saying how far.
    """
    if logits.shape != expected.shape or not np.isfinite(logits).all():
        raise EngineError(f"it gave {logits.shape} logits that are wrong or not finite")
    error = float(np.abs(logits - expected).max() / np.abs(expected).max())
    if error > TOLERANCES[precision]:
        raise EngineError(
            f"its logits are off by {error:.2g} of the largest, {TOLERANCES[precision]:g} are allowed"
        )


def best_times(
    runs: Mapping[Candidate, Callable[[], object]], clock: Callable[[], float] = time.perf_counter
) -> dict[Candidate, float]:
    """Shortest seconds of each of ``runs``, which take turns."""
    best = dict.fromkeys(runs, float("inf"))
    for run in runs.values():
        run()  # the first one allocates
    began = clock()
    for _ in range(_ROUNDS):
        for key, run in runs.items():
            start = clock()
            run()
            best[key] = min(best[key], clock() - start)
        if clock() - began > _LONGEST_S:
            break
    return best


def _runner(engine: Engine, images: NDArray[np.uint8]) -> Callable[[], object]:
    return lambda: engine.run(images)


def _load(spec: LoadSpec, candidate: Candidate) -> Engine:
    return get_loader(candidate.engine)(replace(spec, precision=candidate.precision))


def _calibration(spec: LoadSpec) -> tuple[Calibration | None, str]:
    try:
        return spec.calibration(), ""
    except EngineError as error:
        return None, f"fp32 alone: {error}"
