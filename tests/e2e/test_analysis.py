"""The analysis service over gRPC, with real networks."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch

from rootmodels.analysis.derived import Kind, derive
from rootmodels.analysis.layers import Stage, analysable_layers
from rootmodels.analysis.moments import Array
from rootmodels.analysis.responses import responses
from rootmodels.analysis.sums import Sums, make_plan
from rootmodels.cifar10 import read_cifar10
from rootmodels.network import Network
from rootmodels.variants import get_variant
from rootmodels.weights import load_weights, save_weights
from rootmodels.weights_info import PRETRAINED_DIR, WeightsInfo, weights_path
from rootserve.v1 import analysis_pb2 as pb
from tests.support.analysis_calls import Answer, stub
from tests.support.moments import pair_moments
from tests.support.server_process import (
    ServerProcess,
    plain_images,
    running_server,
    wait_until,
)

MODEL = "nin-root-4"
ALL_KINDS = (
    pb.MATRIX_KIND_COVARIANCE,
    pb.MATRIX_KIND_WHITENED,
    pb.MATRIX_KIND_CORRELATION,
    pb.MATRIX_KIND_MEAN,
    pb.MATRIX_KIND_SUMS,
)


@pytest.fixture(scope="module")
def server(sample_path: Path) -> Iterator[ServerProcess]:
    with running_server(
        *("--models", MODEL, "--engine", "fake", "--device", "cpu"),
        *("--datasets", f"sample={sample_path}", "--analysis-max-jobs", "1"),
        *("--analysis-max-images", "500"),
    ) as server:
        yield server


@pytest.fixture(scope="module")
def images(sample_path: Path) -> np.ndarray:
    return read_cifar10(sample_path, "test").images[:100]


def spec(**fields: object) -> pb.AnalyzeRequest:
    options = pb.DeriveOptions(results=fields.pop("results", ALL_KINDS))
    source = {} if "dataset_images" in fields else {"client_images": pb.ClientImages()}
    return pb.AnalyzeRequest(
        spec=pb.AnalysisSpec(**{"model": MODEL, "options": options, **source, **fields})
    )


def dataset(**fields: object) -> dict[str, object]:
    return {"dataset_images": pb.DatasetImages(**{"name": "sample", **fields})}


def chunk(images: np.ndarray) -> pb.AnalyzeRequest:
    rows, _, height, width = images.shape
    content = pb.ImageChunk(rows=rows, height=height, width=width, pixels=images.tobytes())
    return pb.AnalyzeRequest(images=content)


def analyze(server: ServerProcess, *requests: pb.AnalyzeRequest) -> Answer:
    return Answer(stub(server).Analyze(iter(requests), timeout=110))


def refusal(server: ServerProcess, *requests: pb.AnalyzeRequest) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        analyze(server, *requests)
    assert isinstance(caught.value, grpc.Call)
    return caught.value.code(), caught.value.details()


def direct_sums(images: np.ndarray, weights: Path = PRETRAINED_DIR) -> Sums:
    """By float64 NumPy, from what torch's own forward pass gives."""
    model, _ = load_weights(weights_path(MODEL, weights))
    module = model.fold()
    plan = make_plan(analysable_layers(module.layers))
    with torch.inference_mode():
        maps = {
            name: response.double().numpy()
            for name, response in responses(module, torch.from_numpy(images), Stage.AFTER_RELU)
        }
    return Sums(
        plan,
        len(images),
        {name: pair_moments(own, own) for name, own in maps.items()},
        {pair: pair_moments(maps[pair[0]], maps[pair[1]]) for pair in plan.pairs},
    )


def relative_error(came: Array, expected: Array) -> float:
    return float(np.linalg.norm(came - expected) / np.linalg.norm(expected))


def test_streamed_images_give_what_the_direct_computation_gives(
    server: ServerProcess, images: np.ndarray
) -> None:
    parts = [chunk(part) for part in np.split(images, [1, 3, 90])]
    answer = analyze(server, spec(), *parts)
    assert answer.kinds == ["started", "progress", "summary", "sums", "chunk"]
    assert answer.progress == sorted(answer.progress)
    assert answer.progress[-1] == answer.summary.images == len(images)
    assert len(answer.summary.pairs) == 8
    assert [layer.groups for layer in answer.started.layers] == [1, 1, 1, 4, 1, 1, 2, 1, 1]
    assert len(answer.summary.weights_sha256) == 64

    sums = direct_sums(images)
    expected = derive(sums, set(Kind))
    assert len(answer.matrices) == 2 * 8 + 9 * 2 + 9 + 8
    for matrix in expected.matrices:
        first, second = (*matrix.layers, "")[:2]
        key = (getattr(pb, f"MATRIX_KIND_{matrix.kind.name}"), first, second)
        tolerance = 1e-3 if matrix.kind is Kind.WHITENED else 1e-6
        assert relative_error(answer.matrices[key], matrix.values) < tolerance, key
    for layer, figures in zip(answer.summary.layers, expected.layers, strict=True):
        assert (layer.varying_channels, layer.rank) == (figures.varying_channels, figures.rank)
    for pair, scores in zip(answer.summary.pairs, expected.scores, strict=True):
        assert pair.samples == sums.pairs[pair.pair.first, pair.pair.second].samples
        for mine, theirs in zip(pair.scores, scores, strict=True):
            assert mine.groups == theirs.groups
            assert mine.ratio == pytest.approx(theirs.ratio, rel=1e-3)
            assert mine.energy == pytest.approx(theirs.energy, rel=1e-3)


def test_weights_with_other_classes_give_their_own_sums_and_overflow_is_refused(
    tmp_path: Path, images: np.ndarray
) -> None:
    torch.manual_seed(3)
    classes = tuple(f"kind {number}" for number in range(17))
    model = Network(get_variant(MODEL), classes=len(classes))
    info = WeightsInfo(MODEL, 0.1, 100, 1, 3, "0" * 64, {}, classes=classes)
    save_weights(weights_path(MODEL, tmp_path), model, info)
    expected = derive(direct_sums(images[:9], tmp_path), {Kind.COVARIANCE}, 1e-6)
    arguments = ("--models", MODEL, "--engine", "fake", "--device", "cpu")
    with running_server(*arguments, "--weights", str(tmp_path)) as started:
        answer = analyze(started, spec(), chunk(images[:9]))
        with torch.no_grad():
            model.body.conv2a.norm.weight *= 1e38
        save_weights(weights_path(MODEL, tmp_path), model, info)
        code, text = refusal(started, spec(), chunk(images[:9]))
    assert code is grpc.StatusCode.INVALID_ARGUMENT, text
    assert "the responses of conv2a overflow" in text
    for matrix in expected.matrices:
        came = answer.matrices[pb.MATRIX_KIND_COVARIANCE, *matrix.layers]
        assert came.shape == matrix.values.shape
        assert relative_error(came, matrix.values) < 1e-4
    assert expected.matrices[-1].values.shape[1] == len(classes)


def test_the_filter_groups_show(server: ServerProcess) -> None:
    answer = analyze(server, spec(results=[], **dataset(take=200)))
    best = {f"{p.pair.first}-{p.pair.second}": p.best_groups for p in answer.summary.pairs}
    assert best.pop("conv1c-conv2a") == 4
    assert best.pop("conv2c-conv3a") == 2
    assert set(best.values()) == {1}
    assert not answer.matrices


def test_a_split_analysis_is_merged_exactly(server: ServerProcess) -> None:
    whole = analyze(server, spec(**dataset(take=150)))
    parts = [
        analyze(server, spec(**dataset(skip=skip, take=take), results=[pb.MATRIX_KIND_SUMS]))
        for skip, take in ((100, 50), (0, 33), (33, 67))
    ]

    def requests() -> Iterator[pb.DeriveRequest]:
        yield pb.DeriveRequest(options=pb.DeriveOptions(results=ALL_KINDS))
        for part in parts:
            yield pb.DeriveRequest(sums=part.sums)
            for piece in part.chunks:
                yield pb.DeriveRequest(chunk=piece)

    merged = Answer(stub(server).Derive(requests(), timeout=60))
    assert merged.kinds == ["summary", "sums", "chunk"]
    assert merged.summary.images == merged.sums.images == 150
    assert merged.matrices.keys() == whole.matrices.keys()
    for key, matrix in merged.matrices.items():
        # The same images in other chunks: equal but for the rounding of float32 products.
        tolerance = 1e-3 if key[0] == pb.MATRIX_KIND_WHITENED else 1e-6
        assert relative_error(matrix, whole.matrices[key]) < tolerance, key


def test_the_servers_own_images_are_those_of_the_file(
    server: ServerProcess, images: np.ndarray
) -> None:
    listed = stub(server).ListDatasets(pb.ListDatasetsRequest(), timeout=10).datasets
    assert [(one.name, one.images, one.height, one.width) for one in listed] == [
        ("sample", 1000, 32, 32)
    ]
    wanted = {"layers": ["conv3c"], "results": [pb.MATRIX_KIND_MEAN]}
    streamed = analyze(server, spec(**wanted), chunk(images[20:60]))
    own = analyze(server, spec(**wanted, **dataset(skip=20, take=40)))
    assert own.started.images_total == 40
    key = (pb.MATRIX_KIND_MEAN, "conv3c", "")
    np.testing.assert_array_equal(own.matrices[key], streamed.matrices[key])
    assert not own.summary.pairs


BAD_SPECS: list[tuple[dict[str, object], grpc.StatusCode, str]] = [
    ({"model": "nin-root-5"}, grpc.StatusCode.NOT_FOUND, "'nin-root-5'; served: nin-root-4"),
    ({"layers": ["conv9z"]}, grpc.StatusCode.NOT_FOUND, "'conv9z'; there are: conv1a, conv1b"),
    (
        {"pairs": [pb.LayerPair(first="conv1a", second="pool1")]},
        grpc.StatusCode.NOT_FOUND,
        "'pool1'; there are",
    ),
    (dataset(name="imagenet"), grpc.StatusCode.NOT_FOUND, "'imagenet'; there are: sample"),
    (dataset(skip=1000), grpc.StatusCode.INVALID_ARGUMENT, "skip 1000 came, .* has 1000 images"),
    (dataset(), grpc.StatusCode.INVALID_ARGUMENT, "1000 images came, .* at most 500"),
    ({"stage": 7}, grpc.StatusCode.INVALID_ARGUMENT, "stage 7 came, expected 0 to 2"),
    ({"results": [6]}, grpc.StatusCode.INVALID_ARGUMENT, "result 6 came, expected one of"),
    (
        {"options": pb.DeriveOptions(tolerance=1.5)},
        grpc.StatusCode.INVALID_ARGUMENT,
        "tolerance 1.5 came",
    ),
    (
        {"client_images": pb.ClientImages(expected=501)},
        grpc.StatusCode.INVALID_ARGUMENT,
        "501 images came",
    ),
]


@pytest.mark.parametrize(("fields", "code", "text"), BAD_SPECS)
def test_a_bad_spec_is_refused_by_name(
    server: ServerProcess, fields: dict[str, object], code: grpc.StatusCode, text: str
) -> None:
    import re  # noqa: PLC0415

    came, details = refusal(server, spec(**fields))
    assert came is code
    assert re.search(text, details), details


def bad_images(rows: int, height: int, width: int, size: int) -> pb.AnalyzeRequest:
    content = pb.ImageChunk(rows=rows, height=height, width=width, pixels=bytes(size))
    return pb.AnalyzeRequest(images=content)


@pytest.mark.parametrize(
    ("requests", "text"),
    [
        ((), "expected a spec as the first message"),
        ((chunk(plain_images(1)),), "expected a spec as the first message"),
        ((pb.AnalyzeRequest(spec=pb.AnalysisSpec(model=MODEL)),), "no source of images came"),
        ((spec(),), "no images came, expected at least one"),
        ((spec(), spec()), "expected nothing but images after the spec"),
        ((spec(), bad_images(1, 28, 28, 2352)), "images of 28x28 pixels came, .* takes 32x32"),
        ((spec(), bad_images(2, 32, 32, 3072)), r"3072 bytes came, expected 6144: uint8 \[2, 3,"),
        ((spec(), bad_images(0, 32, 32, 0)), "0 rows came"),
        (
            (spec(), chunk(plain_images(400)), chunk(plain_images(101))),
            "501 images, 1539072 bytes, came; an analysis takes at most 500 images",
        ),
    ],
)
def test_bad_messages_are_refused(
    server: ServerProcess, requests: tuple[pb.AnalyzeRequest, ...], text: str
) -> None:
    import re  # noqa: PLC0415

    code, details = refusal(server, *requests)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert re.search(text, details), details


def test_one_plain_image_gives_no_nan(server: ServerProcess) -> None:
    answer = analyze(server, spec(), chunk(plain_images(1, 128)))
    assert all(np.isfinite(matrix).all() for matrix in answer.matrices.values())
    by_name = {layer.layer.name: layer for layer in answer.summary.layers}
    assert by_name["conv3a"].samples == 64
    assert by_name["conv3a"].rank < 64


def test_other_pairs_twice_and_with_itself(server: ServerProcess, images: np.ndarray) -> None:
    pairs = [("conv3a", "conv1a"), ("conv2b", "conv2b"), ("conv3a", "conv1a")]
    wanted = [pb.LayerPair(first=first, second=second) for first, second in pairs]
    answer = analyze(
        server, spec(pairs=wanted, results=[pb.MATRIX_KIND_WHITENED]), chunk(images[:20])
    )
    assert [(p.pair.first, p.pair.second) for p in answer.summary.pairs] == pairs[:2]
    assert answer.summary.pairs[0].samples == 20 * 32 * 32
    identity = answer.matrices[pb.MATRIX_KIND_WHITENED, "conv2b", "conv2b"]
    np.testing.assert_allclose(identity @ identity, identity, atol=1e-6)


def jobs_running(server: ServerProcess) -> bool:
    import urllib.request  # noqa: PLC0415

    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics") as page:
        text = page.read().decode()
    return "\nrootserve_analysis_jobs 1.0\n" in text


def until(enough: threading.Event, images: np.ndarray) -> Iterator[pb.AnalyzeRequest]:
    """A request that goes on until there was enough of it."""
    yield spec()
    while not enough.wait(0.05):
        yield chunk(images[:1])


def test_a_cancelled_analysis_gives_its_place_back(
    server: ServerProcess, images: np.ndarray
) -> None:
    enough = threading.Event()
    call = stub(server).Analyze(until(enough, images), timeout=100)
    assert next(call).WhichOneof("message") == "started"
    code, details = refusal(server, spec(), chunk(images[:1]))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "1 analyses are running, which is the limit" in details
    assert jobs_running(server)
    call.cancel()
    enough.set()
    wait_until(lambda: not jobs_running(server))
    assert analyze(server, spec(results=[]), chunk(images[:9])).summary.images == 9


def analysis_pid(server: ServerProcess) -> int:
    for pid in server.worker_pids():
        if "rootserve.server.analysis.launch" in Path(f"/proc/{pid}/cmdline").read_text():
            return pid
    return 0


def test_a_killed_analysis_process_costs_nothing_but_time(server: ServerProcess) -> None:
    whole = analyze(server, spec(**dataset(take=200)))
    killed = []

    def messages() -> Iterator[pb.AnalyzeResponse]:
        for message in stub(server).Analyze(iter([spec(**dataset(take=200))]), timeout=110):
            if message.WhichOneof("message") == "progress" and not killed:
                killed.append(analysis_pid(server))
                os.kill(killed[0], signal.SIGKILL)
            yield message

    again = Answer(messages())
    assert killed
    assert again.summary.images == 200
    for key, matrix in whole.matrices.items():
        np.testing.assert_allclose(again.matrices[key], matrix, atol=1e-12, rtol=1e-9)
    assert analysis_pid(server) != killed[0]


def test_the_analysis_runs_only_when_nothing_else_does(
    server: ServerProcess, images: np.ndarray
) -> None:
    analyze(server, spec(results=[]), chunk(images[:2]))
    pid = analysis_pid(server)
    assert os.sched_getscheduler(pid) == os.SCHED_IDLE
    threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_IDLE}
    # Inference is another process's, and is answered meanwhile.
    assert server.infer(MODEL, plain_images(1, 5)).shape == (1, 10)


def test_no_data_set_is_configured_and_a_shutdown_ends_an_analysis(images: np.ndarray) -> None:
    with running_server("--models", MODEL, "--engine", "fake", "--device", "cpu") as server:
        code, details = refusal(server, spec(**dataset()))
        assert code is grpc.StatusCode.NOT_FOUND
        assert "'sample'; none is configured" in details

        enough = threading.Event()
        call = stub(server).Analyze(until(enough, images), timeout=100)
        assert next(call).WhichOneof("message") == "started"
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        enough.set()
        assert server.process.wait(60) == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("sample", "'sample' is not NAME=PATH"),
        ("a=x,a=y", "the name 'a' comes twice"),
    ],
)
def test_bad_data_set_options_are_refused(value: str, text: str) -> None:
    from rootserve.server.options import OptionError, read_settings  # noqa: PLC0415

    with pytest.raises(OptionError, match=text):
        read_settings(["--datasets", value], {})


def test_a_data_set_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(
        AssertionError, match=r"datasets: data set gone: .*: no such file or folder"
    ):
        ServerProcess("--models", MODEL, "--datasets", f"gone={tmp_path / 'gone'}")
