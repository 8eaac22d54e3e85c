import shutil
from pathlib import Path

import pytest

from rootmodels.weights_info import PRETRAINED_DIR, WeightsError, weights_path
from rootserve.server.machine import Processors
from rootserve.server.models import (
    Models,
    ModelSelectionError,
    State,
    WorkerState,
)
from rootserve.server.options import read_settings
from rootserve.server.repository import Repository
from rootserve.server.specs import StartError, scheduler_limits, worker_specs
from rootserve.server.wire.listening import server_options
from tests.support.held import hold
from tests.support.model_files import model_of, write_small


@pytest.fixture
def models() -> Models:
    made = Repository([PRETRAINED_DIR]).find_models()
    made.select([])
    return made


def specs(models: Models, *arguments: str, cuda: int = 0) -> list[tuple[str, str, str, int]]:
    made = worker_specs(read_settings(arguments, {}), models, cuda)
    return [(spec.name, spec.device, spec.engine, spec.threads) for spec in made]


def test_auto_takes_every_gpu_else_the_cpu(models: Models) -> None:
    assert specs(models, cuda=2) == [
        ("cuda-0", "cuda:0", "auto", 0),
        ("cuda-1", "cuda:1", "auto", 0),
    ]
    assert specs(models, "--threads", "3") == [("cpu-0", "cpu", "auto", 3)]


def test_cpu_workers_share_the_processors(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "rootserve.server.specs.usable_processors", lambda: Processors(tuple(range(8)), 8)
    )
    made = specs(models, "--device", "cpu", "--cpu-workers", "4", "--engine", "torch", cuda=1)
    assert made == [(f"cpu-{index}", "cpu", "torch", 2) for index in range(4)]


@pytest.mark.parametrize(("available", "pinned"), [(8, [(0,), (1,)]), (2, [(), ()])])
def test_workers_stay_on_processors_that_are_theirs_alone(
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
    available: int,
    pinned: list[tuple[int, ...]],
) -> None:
    """A container that is given the time of two of eight processors has none of its own."""
    processors = Processors(tuple(range(8)), available)
    monkeypatch.setattr("rootserve.server.specs.usable_processors", lambda: processors)
    arguments = ("--device", "cpu", "--optimize-for", "throughput", "--threads", "1")
    made = worker_specs(read_settings(arguments, {}), models, 0)
    assert [spec.processors for spec in made[:2]] == pinned
    assert len(made) == available


def test_only_where_a_gpu_computes_is_the_service_woken_up_before_the_end_of_a_batch(
    models: Models,
) -> None:
    settings = read_settings(("--max-batch-rows", "16"), {})
    on_gpu = scheduler_limits(settings, worker_specs(settings, models, 1))
    on_cpu = scheduler_limits(settings, worker_specs(settings, models, 0))
    assert on_gpu.lead_s is not None
    assert on_cpu.lead_s is None
    assert on_gpu.max_batch_rows == on_cpu.max_batch_rows == 16


def test_workers_have_room_for_the_largest_model_they_may_be_asked_for(models: Models) -> None:
    def room(*arguments: str) -> tuple[int, int]:
        (spec,) = worker_specs(read_settings(("--device", "cpu", *arguments), {}), models, 0)
        return spec.max_pixels, spec.max_classes

    small, large = (3 * 32 * 32, 10), (3 * 224 * 224, 1000)
    assert room() == small
    assert room("--model-control", "explicit") == large
    models.select(["nin-orig", "resnet50-root-8"])
    assert room() == large


@pytest.mark.parametrize(("device", "cuda"), [("cuda", 0), ("cuda:1", 1), ("cuda:0,cuda:7", 4)])
def test_a_gpu_that_is_not_there_is_refused(models: Models, device: str, cuda: int) -> None:
    with pytest.raises(StartError, match="device: cuda"):
        specs(models, "--device", device, cuda=cuda)


def test_models_default_to_the_trained_ones(models: Models) -> None:
    served = models.served()
    assert served
    assert all(model.card.info is not None for model in served)
    assert all(model.state is State.LOADING for model in served)


def test_weights_under_another_name_are_refused(tmp_path: Path) -> None:
    shutil.copy(weights_path("nin-root-16"), tmp_path / "nin-orig.safetensors")
    with pytest.raises(WeightsError, match=r"nin-orig\.safetensors holds weights of nin-root-16"):
        Repository([tmp_path]).find_models()


def test_models_of_several_folders_are_served_side_by_side(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    write_small(second, model_of("my-net"))
    shutil.copy(weights_path("nin-root-16"), first)
    repository = Repository([first, second])
    made = repository.find_models()
    made.select([])
    assert [model.card.name for model in made.served()] == ["nin-root-16", "my-net"]
    assert repository.read("my-net").weights == weights_path("my-net", second)
    assert repository.read("nin-orig").weights is None


@pytest.mark.parametrize("name", ["my-net", "nin-root-16"])
def test_a_model_in_two_folders_is_refused_with_both(name: str, tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        write_small(folder, model_of("my-net"))
        if name != "my-net":
            weights_path("my-net", folder).unlink()
            shutil.copy(weights_path(name), folder)
    places = " and in ".join(str(weights_path(name, folder)) for folder in folders)
    with pytest.raises(WeightsError) as caught:
        Repository(folders).find_models()
    assert str(caught.value) == f"{name} is in {places}; expected it in one folder"


def test_a_folder_that_is_not_there_is_refused_beside_one_that_is(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="gone is no folder; expected one with weights"):
        Repository([PRETRAINED_DIR, tmp_path / "gone"]).find_models()


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelSelectionError, match="'nin-root-3' is not one of nin-orig"):
        Repository([PRETRAINED_DIR]).find_models().select(["nin-root-3"])


def test_a_model_is_failed_only_when_no_worker_has_it(models: Models) -> None:
    model = models.served()[0]
    models.workers["cpu-0"] = WorkerState(
        failed={model.card.name: (model.card, "no such file")}, ready=True
    )
    assert model.state is State.FAILED
    assert model.state_reason == "cpu-0: no such file"
    hold(models, "cpu-1", model.card.name)
    assert model.state is State.READY


def test_pings_every_ten_seconds_are_well_within_the_default() -> None:
    options = dict(server_options(read_settings([], {})))
    assert options["grpc.http2.min_ping_interval_without_data_ms"] <= 5000
    assert options["grpc.keepalive_permit_without_calls"] == 1
