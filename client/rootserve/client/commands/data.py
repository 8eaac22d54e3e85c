"""`rootserve data`: brings a data set to where `--data` finds it."""

from pathlib import Path
from typing import NamedTuple

from rootserve.client.errors import InputError
from rootserve.client.tables import console
from rootserve.client.units import count
from rootserve.pictures import DataError
from rootserve.pictures.parquet import find_files, row_count


class DataSet(NamedTuple):
    """A data set of the Hugging Face hub in parquet."""

    repository: str
    files: dict[str, tuple[str, int]]
    """Of each split, the file and how many images it holds."""


DATA_SETS = {
    "cifar10": DataSet(
        "uoft-cs/cifar10",
        {
            "train": ("plain_text/train-00000-of-00001.parquet", 50_000),
            "test": ("plain_text/test-00000-of-00001.parquet", 10_000),
        },
    )
}


def run(name: str, out: Path) -> None:
    """Have every split of the data set in ``out``, checked; what is there already stays.

    Raises:
        InputError: There is no such data set, it cannot be had, or what is there is something else.
    """
    data_set = DATA_SETS.get(name)
    if data_set is None:
        raise InputError(f"data set '{name}': expected {' or '.join(DATA_SETS)}")
    for split, (file, images) in data_set.files.items():
        try:
            found = find_files(out, split, labels=True)
        except DataError:
            _fetch(data_set, file, out)
            found = find_files(out, split, labels=True)
        try:
            there = sum(row_count(path, labels=True) for path in found)
        except DataError as error:
            raise InputError(str(error)) from None
        if there != images:
            raise InputError(
                f"{out}: {split} has {count(there)} images; expected {count(images)} of {name}"
            )
        console().print(
            f"{split}: {count(there)} images in {', '.join(map(str, found))}",
            markup=False,
            soft_wrap=True,
        )


def _fetch(data_set: DataSet, file: str, out: Path) -> None:
    by_hand = (
        f"or get {file} of the data set {data_set.repository} from the Hugging Face hub by other means, "
        f"and put it into {out}"
    )
    try:
        # Of the extra "data", which nothing else needs.
        from huggingface_hub import hf_hub_download  # noqa: PLC0415
    except ImportError:
        raise InputError(
            f"{out / file} is not there: to fetch it, pip install 'rootserve[data]', {by_hand}"
        ) from None
    console(stderr=True).print(
        f"fetching {file} of {data_set.repository}", markup=False, soft_wrap=True
    )
    try:
        hf_hub_download(data_set.repository, file, repo_type="dataset", local_dir=out)
    except Exception as error:  # noqa: BLE001 - whatever the network, the hub or the disk has against it
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{file} cannot be fetched ({type(error).__name__}: {reason}); try again, {by_hand}"
        ) from None
