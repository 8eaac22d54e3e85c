"""Analyses of networks that are described by files: what would be too much is refused before it begins."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from rootmodels.layer import IMAGES, Layer
from rootserve.server.analysis.jobs import AnalysisLimits
from rootserve.server.models import Models
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.repository import Repository
from rootserve.server.wire.analysis_messages import Order, parse_spec
from rootserve.server.wire.profile_messages import find_convolution
from rootserve.v1 import analysis_pb2 as pb
from tests.support.model_files import conv, model_of, simple_layers, write_small


def plan(folder: Path, layers: tuple[Layer, ...], max_bytes: int = 2**32, **more: object) -> Order:
    write_small(folder, model_of("my-net", layers, **more))
    models = Models([Repository([folder]).read("my-net")])
    models.select(["my-net"])
    spec = pb.AnalysisSpec(model="my-net", client_images=pb.ClientImages(expected=8))
    return parse_spec(spec, models, {}, AnalysisLimits(2, 100, max_bytes))


def refusal(folder: Path, layers: tuple[Layer, ...], **more: object) -> str:
    with pytest.raises(RefusalError) as caught:
        plan(folder, layers, **more)  # type: ignore[arg-type]
    assert caught.value.reason is Reason.INVALID_REQUEST
    return str(caught.value)


def chain(count: int, name: str = "conv{}") -> tuple[Layer, ...]:
    """Convolutions of one channel, one behind the other."""
    names = [IMAGES, *(name.format(number) for number in range(count))]
    convolutions = [
        conv(made, taken, 1 if number else 3, 1, 32, 1)
        for number, (taken, made) in enumerate(itertools.pairwise(names))
    ]
    end = Layer("mean", "global_avg_pool", 32, 1, 1, 1, (names[-1],))
    return *convolutions, end, Layer("head", "linear", 1, 1, 7, 1, ("mean",), bias=True)


def test_adjacent_layers_are_paired_where_they_have_a_grid(tmp_path: Path) -> None:
    assert plan(tmp_path, simple_layers()).plan.pairs == (("features.conv1", "features.conv2"),)
    first, pool, second, mean, last = simple_layers()
    # Windows of 3 of 32 pixels, two apart: 15 are left.
    apart = (first, replace(pool, kernel=3, size=15), replace(second, size=15))
    order = plan(tmp_path, (*apart, replace(mean, kernel=15), last))
    assert order.plan.pairs == ()
    assert [layer.name for layer in order.plan.layers] == ["features.conv1", "features.conv2"]


def test_sums_beyond_the_memory_for_them_are_refused(tmp_path: Path) -> None:
    size = plan(tmp_path, simple_layers())
    assert len(size.plan.layers) == 2
    told = refusal(tmp_path, simple_layers(), max_bytes=5000)
    assert "the sums of 2 layers and 1 pairs of my-net take" in told
    assert "bytes, expected at most 5000; name fewer or smaller layers" in told


def test_more_layers_than_a_process_can_be_told_of_are_refused(tmp_path: Path) -> None:
    assert len(plan(tmp_path, chain(300)).plan.pairs) == 299
    told = refusal(
        tmp_path, chain(900, "a_convolution_with_a_name_that_is_as_long_as_they_come_{}")
    )
    assert "900 layers and 899 pairs of my-net are too many for one analysis" in told


def test_a_network_without_convolutions_has_nothing_to_analyse(tmp_path: Path) -> None:
    layers = (
        Layer("mean", "global_avg_pool", 32, 3, 3, 1, (IMAGES,)),
        Layer("head", "linear", 1, 3, 7, 1, ("mean",), bias=True),
    )
    assert "my-net: it has no convolution, expected one at least" in refusal(tmp_path, layers)
    with pytest.raises(RefusalError, match="my-net has no convolution ''; it has none"):
        find_convolution(Repository([tmp_path]).read("my-net"), "")
