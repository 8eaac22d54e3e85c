"""Regions of shared memory: names, bounds, and memory that is not what it was."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire import shared_memory
from rootserve.server.wire.shared_memory import Regions

SHM = Path("/dev/shm")


@pytest.fixture
def key() -> Iterator[str]:
    name = f"rootserve-test-{secrets.token_hex(8)}"
    (SHM / name).write_bytes(bytes(range(100)))
    yield name
    (SHM / name).unlink(missing_ok=True)


@pytest.fixture
def regions() -> Regions:
    return Regions(enabled=True)


def place(region: str = "r", **numbers: int) -> oip.ModelInferRequest.InferInputTensor:
    tensor = oip.ModelInferRequest.InferInputTensor(name="images")
    tensor.parameters["shared_memory_region"].string_param = region
    for name, value in numbers.items():
        tensor.parameters[f"shared_memory_{name}"].int64_param = value
    return tensor


def span(regions: Regions, **numbers: int) -> shared_memory.Span:
    found = regions.span("images", place(**numbers).parameters)
    assert found is not None
    return found


def test_a_region_is_read_and_written_where_it_says(regions: Regions, key: str) -> None:
    regions.register("r", f"/{key}", 10, 50)
    assert span(regions, offset=5, byte_size=3).read() == bytes([15, 16, 17])
    span(regions, byte_size=4).write(b"abcd")
    assert (SHM / key).read_bytes()[8:16] == b"\x08\x09abcd\x0e\x0f"
    (status,) = regions.status("r")
    assert (status.key, status.offset, status.byte_size) == (f"/{key}", 10, 50)


def test_off_nothing_is_registered_and_forgetting_does_no_harm(key: str) -> None:
    regions = Regions()
    with pytest.raises(RefusalError, match="--shared-memory system") as caught:
        regions.register("r", key, 0, 1)
    assert caught.value.reason is Reason.SHARED_MEMORY_OFF
    regions.unregister("")
    assert list(regions.status("")) == []


@pytest.mark.parametrize(
    "key", ["", "/", ".", "..", "/..", "../etc/passwd", "a/b", "//x", "x\0y", "none-" + "x" * 20]
)
def test_keys_with_a_path_and_unknown_ones_are_refused(regions: Regions, key: str) -> None:
    with pytest.raises(RefusalError, match="Unable to open shared memory region") as caught:
        regions.register("r", key, 0, 1)
    assert caught.value.reason is Reason.INVALID_REQUEST


def test_links_pipes_and_folders_are_refused(regions: Regions, key: str, tmp_path: Path) -> None:
    made = SHM / f"{key}-other"
    for make in (
        lambda: made.symlink_to(SHM / key),
        lambda: os.mkfifo(made),
        made.mkdir,
    ):
        make()
        try:
            with pytest.raises(RefusalError, match="Unable to open"):
                regions.register("r", made.name, 0, 1)
        finally:
            made.rmdir() if made.is_dir() else made.unlink()


@pytest.mark.parametrize(("offset", "size"), [(0, 0), (0, 101), (100, 1), (2**63, 2**63)])
def test_a_region_lies_within_its_file(regions: Regions, key: str, offset: int, size: int) -> None:
    with pytest.raises(RefusalError, match="failed to register shared memory region 'r'"):
        regions.register("r", key, offset, size)
    assert list(regions.status("")) == []


def test_names_are_unique_and_regions_are_counted(
    regions: Regions, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    regions.register("r", key, 0, 10)
    with pytest.raises(RefusalError, match="'r' already in manager") as caught:
        regions.register("r", key, 0, 10)
    assert caught.value.reason is Reason.ALREADY_REGISTERED
    monkeypatch.setattr(shared_memory, "_MAX_REGIONS", 1)
    with pytest.raises(RefusalError) as caught:
        regions.register("s", key, 0, 10)
    assert caught.value.reason is Reason.REGIONS_FULL


def test_descriptors_are_closed(regions: Regions, key: str) -> None:
    def descriptors() -> int:
        """Of the region alone: what earlier tests have left is closed whenever it is collected."""
        links = [Path(link) for link in Path("/proc/self/fd").iterdir()]
        return sum(link.is_symlink() and str(link.readlink()).endswith(key) for link in links)

    for number in range(20):
        regions.register(str(number), key, 0, 10)
    with pytest.raises(RefusalError):
        regions.register("too large", key, 0, 1000)
    assert descriptors() == 20
    regions.unregister("3")
    regions.unregister("")
    regions.unregister("nobody")
    assert descriptors() == 0


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"offset": 50, "byte_size": 1}, "Invalid offset for shared memory region: 'r'"),
        ({"offset": 49, "byte_size": 2}, "Invalid offset \\+ byte size for shared memory region"),
        ({"byte_size": 2**62}, "Invalid offset \\+ byte size"),
        ({"byte_size": -1}, "shared_memory_byte_size -1 came"),
        ({"offset": -1, "byte_size": 1}, "shared_memory_offset -1 came"),
        ({}, "shared_memory_byte_size None came, expected a whole number"),
    ],
)
def test_tensors_lie_within_their_region(
    regions: Regions, key: str, numbers: dict[str, int], words: str
) -> None:
    regions.register("r", key, 10, 50)
    with pytest.raises(RefusalError, match=words) as caught:
        span(regions, **numbers)
    assert caught.value.reason is Reason.INVALID_REQUEST


def test_unknown_regions_are_not_found(regions: Regions) -> None:
    with pytest.raises(RefusalError, match="Unable to find shared memory region: 'r'") as caught:
        span(regions, byte_size=1)
    assert caught.value.reason is Reason.UNKNOWN_REGION
    with pytest.raises(RefusalError, match="Unable to find system shared memory region"):
        regions.status("r")


def test_a_region_that_shrank_is_refused_and_not_made_larger(regions: Regions, key: str) -> None:
    regions.register("r", key, 0, 100)
    found = span(regions, byte_size=100)
    os.truncate(SHM / key, 40)
    with pytest.raises(RefusalError, match="has shrunk: 40 bytes are left"):
        found.read()
    with pytest.raises(RefusalError, match="has shrunk"):
        found.write(bytes(100))
    assert (SHM / key).stat().st_size == 40


def test_a_region_in_use_outlives_its_name(regions: Regions, key: str) -> None:
    regions.register("r", key, 0, 100)
    found = span(regions, byte_size=2)
    regions.unregister("r")
    assert found.read() == b"\x00\x01"
