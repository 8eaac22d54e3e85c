"""Families as one model: who is a member, who may be chosen from, and what the scheduler is told of it."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from rootmodels.cost import network_cost
from rootmodels.model import Model as ModelContent
from rootmodels.variants import get_variant
from rootmodels.weights_info import WeightsInfo
from rootserve.server.core.family import Member
from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Limits, Scheduler
from rootserve.server.families import (
    family_name,
    find,
    virtual_model,
    virtual_models,
    warn_of_taken_names,
    with_families,
)
from rootserve.server.members import Members
from rootserve.server.models import Model, ModelCard, Models, State, WorkerState
from rootserve.server.observers.metrics_state import ServerView, StateCollector
from rootserve.server.repository import Repository
from tests.support.held import hold
from tests.support.model_files import model_of, write_small

NAMES = ("nin-orig", "nin-root-4", "nin-root-16")
ACCURACIES = dict(zip(NAMES, (0.9026, 0.902, 0.8983), strict=True))


def card(name: str, accuracy: float | None, **more: object) -> ModelCard:
    """A variant's, with weights of that accuracy."""
    variant = get_variant(name)
    info = WeightsInfo(name, accuracy, 10_000, 1, 0, "", {})
    return ModelCard(variant, network_cost(variant), None, dataclasses.replace(info, **more))  # type: ignore[arg-type]


def file_card(folder: Path, content: ModelContent) -> ModelCard:
    """That of a model file."""
    write_small(folder, content)
    return Repository([folder]).read(content.name)


def served(*cards: ModelCard) -> Models:
    models = Models(cards)
    models.select([one.name for one in cards])
    return models


@pytest.fixture
def models() -> Models:
    return served(*(card(name, ACCURACIES[name]) for name in NAMES))


def members(models: Models, name: str = "nin-auto") -> list[str]:
    found = virtual_model(models, name)
    return [] if found is None else [member.card.name for member in found.members]


def test_a_family_is_one_model_with_its_served_variants_of_known_accuracy(models: Models) -> None:
    (family,) = virtual_models(models)
    assert (family.name, family.family) == ("nin-auto", "nin")
    assert members(models) == list(NAMES)
    assert (family.image, family.accuracy, len(family.classes)) == ((3, 32, 32), 0.9026, 10)
    models["nin-orig"].served = False
    assert members(models) == list(NAMES[1:])
    models["nin-root-4"].served = False
    assert virtual_models(models) == []
    assert find(models, "nin-auto") is None
    assert isinstance(find(models, "nin-orig"), Model)


def test_what_nobody_measured_or_takes_other_images_is_no_member() -> None:
    models = served(
        card("nin-orig", 0.9),
        card("nin-root-4", None),
        card("nin-root-16", 0.89, image_size=64),
        card("nin-root-8", 0.88, classes=("one", "two")),
        card("nin-col-2", 0.87),
    )
    assert members(models) == ["nin-orig", "nin-col-2"]


def test_its_state_is_the_best_of_its_members(models: Models) -> None:
    (family,) = virtual_models(models)
    models.workers["w"] = WorkerState()
    assert (family.state, family.takes_requests) == (State.LOADING, False)
    models.workers["w"].trouble = "the worker died"
    assert (family.state, family.is_ready) == (State.FAILED, False)
    assert "nin-orig: w: the worker died; nin-root-4: w:" in family.state_reason
    hold(models, "w", "nin-root-4")
    assert (family.state, family.is_ready, family.state_reason) == (State.READY, True, "")
    assert family.engine == ""  # not the same of all
    hold(models, "w", *NAMES)
    assert (family.engine, family.precision) == ("fake", "fp32")


def test_files_are_a_family_by_their_family_or_the_original_they_tell(tmp_path: Path) -> None:
    original = model_of("mine")
    rooted = model_of("mine-root-2", family="mine", topology="root", degree=2)
    told = model_of("mine-by-hand", provenance={"rooted": "mine.safetensors"})
    models = served(*(file_card(tmp_path, one) for one in (original, rooted, told)))
    assert members(models, "mine-auto") == ["mine", "mine-root-2", "mine-by-hand"]
    for strange in ("../mine.safetensors", "", 7, None, "UPPER.safetensors", "mine"):
        alone = file_card(tmp_path, model_of("alone", provenance={"rooted": strange}))
        assert family_name(alone) == "alone"


def test_a_model_of_that_name_goes_before_the_family(
    models: Models, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    models.add(file_card(tmp_path, model_of("nin-auto")))
    assert virtual_models(models) == []
    assert isinstance(find(models, "nin-auto"), Model)
    warn_of_taken_names(models)
    assert "nin-auto is the name of a model file" in caplog.text


def test_a_family_among_the_models_to_serve_stands_for_its_trained_variants() -> None:
    cards = [card("nin-orig", 0.9), card("nin-root-4", None), card("nin-root-16", 0.8)]
    models = Models(cards)
    assert list(with_families(models, ["nin-auto"])) == ["nin-orig", "nin-root-16"]
    assert list(with_families(models, ["nin-root-4"])) == ["nin-root-4"]
    assert list(with_families(models, ["vgg-auto", "-auto"])) == ["vgg-auto", "-auto"]


class FakeScheduler(Scheduler):
    """Notes what it is told of families."""

    def __init__(self) -> None:
        super().__init__(Limits())
        self.told: list[tuple[str, list[str]]] = []

    def family_served(self, name: str, members: object) -> None:
        assert isinstance(members, tuple)
        self.told.append((name, [member.variant for member in members]))
        super().family_served(name, members)

    def family_gone(self, name: str) -> tuple[Request, ...]:
        self.told.append((name, []))
        return super().family_gone(name)


def request(**more: object) -> Request:
    return Request(1, "nin-auto", 1, 0.0, **more)  # type: ignore[arg-type]


def test_the_scheduler_is_told_of_what_has_changed_and_of_nothing_else(models: Models) -> None:
    scheduler = FakeScheduler()
    known = Members(models, scheduler)
    hold(models, "w", *NAMES)
    assert known.update() == ()
    assert known.update() == ()
    assert scheduler.told == [("nin-auto", list(NAMES))]
    assert known.variants("nin-auto") == list(NAMES)
    del models.workers["w"].held["nin-root-16"]
    models.workers["w"].failed["nin-root-16"] = models["nin-root-16"].card, "no memory"
    known.update()
    assert scheduler.told[1:] == [("nin-auto", list(NAMES[:2]))]


def test_one_that_is_served_no_more_stays_until_what_needs_it_is_answered(models: Models) -> None:
    scheduler = FakeScheduler()
    known = Members(models, scheduler)
    hold(models, "w", *NAMES)
    known.update()
    models["nin-orig"].served, models["nin-orig"].retiring = False, True
    known.update()
    assert known.variants("nin-auto") == list(NAMES)
    pinned = request(allowed=frozenset({"nin-orig"}))
    assert known.may_compute(pinned)
    assert not known.may_compute(pinned, but="nin-orig")
    assert not known.may_compute(request(floor=0.9025), but="nin-orig")
    assert known.may_compute(request(floor=0.902), but="nin-orig")
    models["nin-orig"].retiring = False
    known.update()
    assert not known.may_compute(pinned)
    assert known.may_compute(request(floor=0.902))


def test_a_family_is_kept_for_what_waits_until_no_variant_is_left(models: Models) -> None:
    scheduler = FakeScheduler()
    known = Members(models, scheduler)
    hold(models, "w", *NAMES)
    known.update()
    scheduler.offer(request(), 0.0)
    for name in NAMES[:2]:
        models[name].served = False
    assert known.update() == ()
    assert virtual_models(models) == []
    assert known.variants("nin-auto") == [NAMES[2]]
    models[NAMES[2]].served = False
    assert known.update() == (request(),)
    assert scheduler.told[-1] == ("nin-auto", [])


@pytest.mark.parametrize(
    "change",
    [lambda model: setattr(model, "served", False), lambda model: None],
    ids=["unloaded", "served"],
)
def test_a_single_variant_is_computed_as_long_as_it_is_known(
    models: Models, change: Callable[[Model], None]
) -> None:
    change(models["nin-orig"])
    known = Members(models, FakeScheduler())
    assert known.may_compute(Request(1, "nin-orig", 1, 0.0))


def test_metrics_tell_the_backlog_of_a_family_beside_those_of_its_variants(models: Models) -> None:
    scheduler = Scheduler(Limits(max_batch_rows=8, max_queue_rows=64))
    scheduler.family_served("nin-auto", [Member(name, ACCURACIES[name]) for name in NAMES])
    scheduler.worker_ready("w", NAMES)
    for name in NAMES:
        scheduler.model_measured(name, ((1, 0.1), (8, 0.8)))
    scheduler.offer(Request(1, "nin-auto", 4, 0.0, math.inf, 1), 0.0)
    collector = StateCollector(ServerView("1", models, scheduler, list))
    told = {
        sample.labels["model"]: sample.value
        for family in collector.collect()
        for sample in family.samples
        if sample.name == "rootserve_backlog_seconds"
    }
    assert told == {**dict.fromkeys(NAMES, 0.0), "nin-auto": pytest.approx(0.4)}
