"""The choice of an engine: the fastest of what is correct and allowed, remembered, never fatal."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rootmodels.calibration import Calibration, read_calibration
from rootmodels.processor import cpu_computes_bf16
from rootmodels.weights_info import weights_path
from rootserve.server.engines import choice
from rootserve.server.engines.base import Engine, EngineError, LoadSpec, Precision
from rootserve.server.engines.choice import allowed_precisions, best_times, check_logits, load_best
from rootserve.server.engines.choice_cache import Candidate, ChoiceCache

SPEC = LoadSpec("nin-root-16", weights_path("nin-root-16"), "cpu", threads=1)
UNTRAINED = LoadSpec("nin-col-4", None, "cpu", threads=1)
NOWHERE = ChoiceCache(None)
KNOWN = read_calibration(weights_path("nin-root-16"))


class Scripted:
    """Engines that give the recorded logits, and take the time they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
        self.loaded: list[tuple[str, Precision]] = []
        self.errors: dict[str, Exception] = {}
        self.offsets: dict[str, float] = {}
        self._seconds = seconds
        monkeypatch.setattr(choice, "get_loader", lambda name: lambda spec: self.load(name, spec))
        monkeypatch.setattr(choice, "best_times", self.times)

    def load(self, name: str, spec: LoadSpec) -> Engine:
        self.loaded.append((name, spec.precision))
        if error := self.errors.get(spec.precision):
            raise error
        offset = self.offsets.get(spec.precision, 0.0)

        class Loaded:
            precision = spec.precision

            def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
                return np.array(KNOWN.check_logits[: len(images)], np.float32) + np.float32(offset)

        loaded = Loaded()
        loaded.name = name  # type: ignore[attr-defined]
        return loaded  # type: ignore[return-value]

    def times(self, runs: dict[Candidate, Callable[[], object]]) -> dict[Candidate, float]:
        for run in runs.values():
            run()
        return {key: self._seconds[key.precision] for key in runs}


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    return Scripted(monkeypatch, fp32=3.0, bf16=2.0, int8=1.0)


def test_the_fastest_is_taken_and_it_is_said_why(engines: Scripted) -> None:
    chosen = load_best(SPEC, "auto", "auto", NOWHERE)
    assert (chosen.engine.name, chosen.engine.precision) == ("openvino", "int8")
    assert chosen.reason == (
        "fastest, in images/s: openvino fp32 3, openvino bf16 4, openvino int8 8"
    )


def test_what_is_asked_for_is_loaded_and_nothing_else(engines: Scripted) -> None:
    chosen = load_best(SPEC, "torch", "bf16", NOWHERE)
    assert (chosen.engine.name, chosen.engine.precision, chosen.reason) == ("torch", "bf16", "")
    assert engines.loaded == [("torch", "bf16")]
    assert load_best(SPEC, "openvino", "auto", NOWHERE).engine.precision == "int8"
    assert load_best(SPEC, "auto", "fp32", NOWHERE).engine.name == "openvino"


def test_a_precision_no_engine_has_is_refused(engines: Scripted) -> None:
    with pytest.raises(EngineError, match="openvino does not compute in fp16"):
        load_best(SPEC, "auto", "fp16", NOWHERE)


def test_wrong_logits_are_not_served(engines: Scripted) -> None:
    engines.offsets = {"int8": 2.0, "bf16": float("nan")}
    chosen = load_best(SPEC, "auto", "auto", NOWHERE)
    assert chosen.engine.precision == "fp32"
    assert "not openvino int8: its logits are off by 0." in chosen.reason
    assert (
        "not openvino bf16: it gave (16, 10) logits that are wrong or not finite" in chosen.reason
    )


def test_what_cannot_be_loaded_is_passed_over(engines: Scripted) -> None:
    engines.errors = {"int8": EngineError("no int8 here"), "bf16": RuntimeError("driver\nbug")}
    chosen = load_best(SPEC, "auto", "auto", NOWHERE)
    assert chosen.engine.precision == "fp32"
    assert chosen.reason.endswith("not openvino bf16: driver bug; not openvino int8: no int8 here")


def test_the_next_engine_is_tried_when_one_does_nothing_right(engines: Scripted) -> None:
    def load(name: str, spec: LoadSpec) -> Engine:
        if name == "openvino":
            raise EngineError("not installed")
        return Scripted.load(engines, name, spec)

    engines.load = load  # type: ignore[method-assign]
    assert load_best(SPEC, "auto", "auto", NOWHERE).engine.name == "torch"
    engines.errors = dict.fromkeys(("fp32", "bf16"), EngineError("nor this"))
    with pytest.raises(EngineError, match=r"not openvino fp32: not installed.*not torch bf16: nor"):
        load_best(SPEC, "auto", "auto", NOWHERE)


def test_untrained_models_are_computed_in_fp32(engines: Scripted) -> None:
    chosen = load_best(UNTRAINED, "openvino", "auto", NOWHERE)
    assert engines.loaded == [("openvino", "fp32")]
    assert chosen.reason.startswith("fp32 alone: nin-col-4 has no trained weights")


def known(**accuracy: float) -> Calibration:
    return replace(KNOWN, accuracy=accuracy)


@pytest.mark.parametrize(
    ("calibration", "weight_bits", "allowed"),
    [
        (None, 8, ["fp32"]),
        (known(), 8, ["fp32"]),
        (known(fp32=0.9), 8, ["fp32"]),
        (known(fp32=0.9, bf16=0.898, int8=0.8979), 8, ["fp32", "bf16", "fp16"]),
        (known(fp32=0.9, bf16=0.897, int8=0.9), 8, ["fp32", "int8"]),
        (known(fp32=0.9, int8=0.9, int8_7bit=0.88), 8, ["fp32", "int8"]),
        (known(fp32=0.9, int8=0.9, int8_7bit=0.88), 7, ["fp32"]),
        (known(fp32=0.9, int8=0.9), 7, ["fp32"]),
        (known(fp32=0.9, int8_7bit=0.899), 7, ["fp32", "int8"]),
        (
            replace(known(fp32=0.9, bf16=0.9), ranges={"conv1a": (0.0, 5000.0)}),
            8,
            ["fp32", "bf16"],
        ),
    ],
)
def test_auto_takes_what_was_measured_to_be_as_accurate(
    monkeypatch: pytest.MonkeyPatch,
    calibration: Calibration | None,
    weight_bits: int,
    allowed: list[Precision],
) -> None:
    monkeypatch.setattr(choice, "int8_weight_bits", lambda: weight_bits)
    assert allowed_precisions(calibration) == allowed


def test_a_choice_is_remembered(
    engines: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ChoiceCache(tmp_path / "new" / "folder")
    load_best(SPEC, "auto", "auto", cache)
    engines.loaded.clear()
    chosen = load_best(SPEC, "auto", "auto", cache)
    assert engines.loaded == [("openvino", "int8")]
    assert (chosen.engine.precision, chosen.reason) == ("int8", "remembered as the fastest")
    # Other circumstances: chosen anew.
    for spec, device in ((replace(SPEC, threads=2), ""), (SPEC, "another GPU")):
        load_best(spec, "auto", "auto", ChoiceCache(tmp_path / "new" / "folder", device))
        assert len(engines.loaded) > 1
        engines.loaded.clear()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    load_best(SPEC, "auto", "auto", cache)
    assert len(engines.loaded) > 1


def test_what_was_remembered_is_checked_again(engines: Scripted, tmp_path: Path) -> None:
    cache = ChoiceCache(tmp_path)
    load_best(SPEC, "auto", "auto", cache)
    engines.offsets = {"int8": 5.0}
    assert load_best(SPEC, "auto", "auto", cache).engine.precision == "bf16"


@pytest.mark.parametrize("content", ["", "{}", "[]", '"x"', '{"engine": 1}', "\x00", "\udcff"])
def test_a_damaged_cache_is_no_harm(engines: Scripted, tmp_path: Path, content: str) -> None:
    cache = ChoiceCache(tmp_path)
    load_best(SPEC, "auto", "auto", cache)
    (file,) = tmp_path.iterdir()
    file.write_text(content, errors="surrogateescape")
    assert "fastest, " in load_best(SPEC, "auto", "auto", cache).reason
    assert load_best(SPEC, "auto", "auto", cache).reason == "remembered as the fastest"


def test_a_cache_that_cannot_be_written_is_no_harm(engines: Scripted, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", Path("/proc/nowhere")):
        chosen = load_best(SPEC, "auto", "auto", ChoiceCache(folder))
        assert chosen.engine.precision == "int8"


def test_workers_that_choose_at_the_same_time_agree(engines: Scripted, tmp_path: Path) -> None:
    candidates = [Candidate("openvino", "fp32"), Candidate("openvino", "bf16")]
    cache = ChoiceCache(tmp_path)
    rates = dict(zip(candidates, (1.0, 2.0), strict=True))
    assert cache.put(SPEC, candidates, candidates[1], rates) == candidates[1]
    assert cache.put(SPEC, candidates, candidates[0], rates) == candidates[1]
    # Unless what stands is of no use to this one.
    assert cache.put(SPEC, candidates, candidates[0], {candidates[0]: 1.0}) == candidates[0]


def test_candidates_take_turns_and_no_longer_than_allowed() -> None:
    first, second = Candidate("a", "fp32"), Candidate("b", "fp32")
    now = itertools.count()
    order: list[str] = []
    runs = {first: lambda: order.append("a"), second: lambda: order.append("b")}
    assert best_times(runs, lambda: 0.01 * next(now)) == pytest.approx({first: 0.01, second: 0.01})
    assert "".join(order) == "ab" * 6
    order.clear()
    best_times(runs, lambda: 10.0 * next(now))
    assert "".join(order) == "abab"


def test_logits_may_be_rounded_and_no_more() -> None:
    exact = np.array([[10.0, -5.0], [1.0, 2.0]], np.float32)
    check_logits(exact + np.float32(0.2), exact, "bf16")
    with pytest.raises(EngineError, match=r"off by 0.02 of the largest, 0.0001 are allowed"):
        check_logits(exact + np.float32(0.2), exact, "fp32")
    with pytest.raises(EngineError, match="wrong or not finite"):
        check_logits(exact[:1], exact, "fp32")


def test_the_real_engines_agree_with_the_record(tmp_path: Path) -> None:
    chosen = load_best(SPEC, "auto", "auto", ChoiceCache(tmp_path))
    assert chosen.engine.name == "openvino"
    assert "off by" not in chosen.reason
    assert chosen.reason.startswith("fastest, in images/s: ")
    assert "openvino int8" in chosen.reason
    refused = "not openvino bf16: this processor does not compute in bf16; use precision fp32"
    assert (refused in chosen.reason) is not cpu_computes_bf16()
