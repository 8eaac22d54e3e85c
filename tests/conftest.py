"""What all tests share: a test's tier follows from its folder."""

import os
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import rootserve.server.engines  # noqa: F401 - before a test imports openvino, which would report it to its makers
from tests.support.time_limit import time_limit

# Where a failure must mean that the change is at fault, the examples are the same every time.
# No example has a time limit: machines differ, and are shared.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
settings.register_profile("ci", deadline=None, derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

TIERS = frozenset({"unit", "models", "integration", "e2e", "ops", "gpu", "compiled"})
ASKED_FOR = {
    "gpu": "need a CUDA device",
    "compiled": "need a C compiler, and compile the scheduler's core",
}
ROOT = Path(__file__).parent.parent

# A shell that starts a command in the background has it ignore SIGINT, and with it all that it starts:
# then nothing here could be interrupted, which several tests do.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        tier = item.path.relative_to(ROOT / "tests").parts[0]
        if tier not in TIERS:
            raise pytest.UsageError(f"{item.path} belongs to no tier; expected {sorted(TIERS)}")
        item.add_marker(getattr(pytest.mark, tier))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    def tell(line: str) -> None:
        item.add_report_section("call", "time limit", line)

    with time_limit(tell):
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def _cache() -> Iterator[None]:
    """Servers remember their choices of engines for this session only."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ROOTSERVE_CACHE"] = folder
        yield
        del os.environ["ROOTSERVE_CACHE"]


@pytest.fixture(scope="session")
def sample_path() -> Path:
    """1,000 CIFAR-10 test images, the first 100 of each class."""
    return ROOT / "examples" / "cifar10-sample.parquet"


@pytest.fixture(scope="session")
def cat_path() -> Path:
    """A 32x32 picture of a cat, the first image of the CIFAR-10 test set."""
    return ROOT / "examples" / "images" / "cat.png"


def pytest_addoption(parser: pytest.Parser) -> None:
    for tier, what in ASKED_FOR.items():
        parser.addoption(f"--{tier}", action="store_true", help=f"also run the tests that {what}")


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [
        f"{tier} tier: " + ("on" if config.getoption(f"--{tier}") else f"off, --{tier} turns it on")
        for tier in ASKED_FOR
    ]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What is not asked for is not collected, as the header says; what is, is never skipped."""
    for tier in ASKED_FOR:
        if collection_path == ROOT / "tests" / tier and not config.getoption(f"--{tier}"):
            return True
    return None
