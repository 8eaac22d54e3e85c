"""Which file is which version of a model, and which of them is read."""

import shutil
from pathlib import Path

import pytest

from rootmodels.weights_info import WeightsError, file_sha256, weights_path
from rootserve.server.repository import LATEST, Repository
from tests.support.model_files import model_of, write_small

MODEL = "nin-root-16"


def put(folder: Path, version: int | None, of: str = MODEL) -> Path:
    """The weights of ``of`` as a version of the model; flat if None."""
    parent = folder if version is None else folder / MODEL / str(version)
    parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(weights_path(of), parent / f"{MODEL}.safetensors"))


def test_a_flat_file_is_version_1_and_the_highest_is_the_latest(tmp_path: Path) -> None:
    flat, tenth, second = put(tmp_path, None), put(tmp_path, 10), put(tmp_path, 2)
    repository = Repository([tmp_path])
    assert repository.versions(MODEL) == {1: flat, 2: second, 10: tenth}
    card = repository.read(MODEL)
    assert (card.version, card.weights, card.is_pinned) == ("10", tenth, False)
    assert card.weights_sha256 == file_sha256(tenth)


def test_a_version_that_is_asked_for_goes_before_one_that_is_pinned(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        put(tmp_path, version)
    repository = Repository([tmp_path], {MODEL: 2})
    found = {wish: repository.read(MODEL, wish) for wish in (None, 1, LATEST)}
    assert {wish: (card.version, card.is_pinned) for wish, card in found.items()} == {
        None: ("2", True),
        1: ("1", True),
        LATEST: ("3", False),
    }


def test_folders_that_are_no_version_or_have_no_file_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, 2)
    for name in ("3", "02", "0", "old", "-1"):
        (tmp_path / MODEL / name).mkdir()
    for name in ("02", "0", "old", "-1"):
        shutil.copy(weights_path(MODEL), tmp_path / MODEL / name)
    assert list(Repository([tmp_path]).versions(MODEL)) == [2]


def test_two_files_of_one_version_are_refused(tmp_path: Path) -> None:
    flat, first = put(tmp_path, None), put(tmp_path, 1)
    with pytest.raises(WeightsError) as caught:
        Repository([tmp_path]).read(MODEL)
    assert str(caught.value) == f"{flat} and {first} are both version 1 of {MODEL}; expected one"


def test_a_version_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    put(tmp_path, None)
    put(tmp_path, 4)
    with pytest.raises(WeightsError, match=r"has no version 3 of nin-root-16; there are 1, 4$"):
        Repository([tmp_path]).read(MODEL, 3)
    with pytest.raises(WeightsError, match=r"has no version 3 of nin-orig; there is none$"):
        Repository([tmp_path], {"nin-orig": 3}).find_models()


def test_a_pin_of_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="versions: there is no model 'nin-orgi' in"):
        Repository([tmp_path], {"nin-orgi": 1}).find_models()


def test_a_model_file_in_a_folder_of_versions_is_a_model(tmp_path: Path) -> None:
    folder = tmp_path / "my-net" / "3"
    folder.mkdir(parents=True)
    write_small(folder, model_of("my-net"))
    models = Repository([tmp_path]).find_models()
    assert models["my-net"].card.version == "3"
    assert Repository([tmp_path]).has("my-net")
    assert not Repository([tmp_path]).has("../my-net")


def test_a_version_of_another_variant_is_refused(tmp_path: Path) -> None:
    put(tmp_path, 2, of="nin-orig")
    with pytest.raises(WeightsError, match=r"2/nin-root-16\.safetensors holds weights of nin-orig"):
        Repository([tmp_path]).read(MODEL)
