"""`rootserve analyze` against a fake server: files, tables, pictures, cancellation, bad input."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import grpc
import numpy as np
import pytest
from PIL import Image

from rootserve.client.dataset import read_dataset
from rootserve.v1 import analysis_pb2 as pb
from tests.integration.client.conftest import signalled
from tests.integration.client.fake_analysis import DEAD, FakeAnalysis, matrix

Rootserve = Callable[..., tuple[int, str, str]]
PAIR = "conv1c-conv2a"


@pytest.fixture
def server() -> Iterator[FakeAnalysis]:
    with FakeAnalysis() as started:
        yield started


@pytest.fixture
def analyze(
    rootserve: Rootserve, server: FakeAnalysis, sample_path: Path, tmp_path: Path
) -> Rootserve:
    """`rootserve analyze COMMAND` for nin-orig with 900 images, into `tmp_path/out`."""

    def run(command: str, *arguments: object) -> tuple[int, str, str]:
        return rootserve(
            "analyze", command, "--data", sample_path, "--images", 900,
            "--out", tmp_path / "out", "--server", server.address, *arguments,
        )  # fmt: skip

    return run


def test_covariance_writes_what_scripts_read(
    analyze: Rootserve, server: FakeAnalysis, sample_path: Path, tmp_path: Path
) -> None:
    code, _, err = analyze("covariance", "-m", "nin-orig", "--no-pictures")
    assert code == 0, err
    with np.load(tmp_path / "out" / "covariance.npz") as arrays:
        assert arrays[f"samples/{PAIR}"] == 900 * 64
        np.testing.assert_array_equal(arrays[f"covariance/{PAIR}"], matrix("conv1c", "conv2a"))
        np.testing.assert_array_equal(arrays[f"whitened/{PAIR}"], matrix("conv1c", "conv2a"))
        np.testing.assert_array_equal(arrays["correlation/conv2a"], matrix("conv2a", "conv2a"))
        np.testing.assert_array_equal(arrays["mean/conv1c"], np.arange(96.0))
        assert (arrays["rank/conv1c"], arrays["groups/conv2a"]) == (94, 16)
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert set(scores) == {PAIR, "conv2a-conv2b"}
    assert scores[PAIR]["16"]["ratio"] == pytest.approx(2.6)
    assert scores[PAIR]["4"]["energy"] == 0.25
    assert scores[PAIR]["96"]["ratio"] is None  # infinity is no JSON
    assert not list(tmp_path.glob("out/*.png"))
    # Everything that was sent is what the file holds, in order.
    (spec,) = server.specs
    assert (spec.model, spec.client_images.expected) == ("nin-orig", 900)
    assert spec.stage == pb.RESPONSE_STAGE_AFTER_RELU
    assert len(server.images) > 1
    sent = np.concatenate(server.images)
    np.testing.assert_array_equal(sent, read_dataset(sample_path, 900).images)


def test_covariance_prints_ranks_and_scores(analyze: Rootserve) -> None:
    _, out, _ = analyze("covariance", "-m", "nin-orig", "--no-pictures", "--images", 5)
    text = " ".join(out.split())
    assert "nin-orig, 5 images, responses after ReLU, 1.50 s in the server" in text
    assert "conv1c-conv2a 94, 192 16 16 2.60 6%" in text
    assert "conv2a-conv2b 192, 192 16 1 - -" in text
    assert "g = 2 g = 4 g = 8 g = 16" in text
    assert "conv1c: rank 94 of 96 channels; 1 never vary" in text
    assert "\x1b" not in out
    table = [line for line in out.splitlines() if not line.startswith("results in")]
    assert max(map(len, table)) <= 80


def test_covariance_json(analyze: Rootserve) -> None:
    code, out, err = analyze("covariance", "-m", "nin-orig", "--no-pictures", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["images"] == 900
    assert report["before_relu"] is False
    assert report["layers"][0] == {
        "name": "conv1c", "channels": 96, "height": 8, "width": 8, "groups": 1,
        "samples": 57_600, "varying": 95, "rank": 94,
    }  # fmt: skip
    assert report["pairs"][0]["pair"] == PAIR
    assert (report["pairs"][0]["groups"], report["pairs"][0]["best_groups"]) == (16, 16)


def test_covariance_passes_its_options_on(analyze: Rootserve, server: FakeAnalysis) -> None:
    code, out, _ = analyze(
        "covariance", "-m", "nin-orig", "--pairs", "conv2a-conv2b, conv1c-conv2a", "--before-relu",
        "--tolerance", 0, "--groups", 8, "--skip", 100, "--no-pictures",
    )  # fmt: skip
    assert code == 0
    (spec,) = server.specs
    assert [(pair.first, pair.second) for pair in spec.pairs] == [
        ("conv2a", "conv2b"), ("conv1c", "conv2a"),
    ]  # fmt: skip
    assert spec.stage == pb.RESPONSE_STAGE_BEFORE_RELU
    assert spec.options.HasField("tolerance")
    assert spec.options.tolerance == 0.0
    assert "conv1c-conv2a 94, 192 16 8 1.80 12%" in " ".join(out.split())
    assert "responses before ReLU" in out


def test_images_of_the_server(rootserve: Rootserve, server: FakeAnalysis, tmp_path: Path) -> None:
    code, _, _ = rootserve(
        "analyze", "covariance", "-m", "nin-orig", "--dataset", "cifar10", "--skip", 5,
        "--images", 7, "--no-pictures", "--out", tmp_path, "--server", server.address,
    )  # fmt: skip
    assert code == 0
    source = server.specs[0].dataset_images
    assert (source.name, source.skip, source.take) == ("cifar10", 5, 7)
    assert server.images == []


def test_a_folder_of_pictures(
    rootserve: Rootserve, server: FakeAnalysis, cat_path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(cat_path, folder / "b.png")
    Image.new("RGB", (50, 40), "red").save(folder / "a.jpg")
    (folder / "notes.txt").write_text("no picture")
    code, _, _ = rootserve(
        "analyze", "covariance", "-m", "nin-orig", "--data", folder, "--no-pictures",
        "--out", tmp_path, "--server", server.address,
    )  # fmt: skip
    assert code == 0
    sent = np.concatenate(server.images)
    assert sent.shape == (2, 3, 32, 32)
    assert sent[0, 0].min() > 200  # the red one, by name the first


def test_covariance_draws(analyze: Rootserve, tmp_path: Path) -> None:
    assert analyze("covariance", "-m", "nin-orig")[0] == 0
    names = {path.name for path in tmp_path.glob("out/*.png")}
    assert names == {f"{PAIR}.png", "conv2a-conv2b.png", "whitened.png", "correlation.png"}
    for name in names:
        with Image.open(tmp_path / "out" / name) as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(10**6)) > 100


def test_correlation(analyze: Rootserve, server: FakeAnalysis, tmp_path: Path) -> None:
    code, out, err = analyze("correlation", "-m", "nin-orig", "--layers", "conv2a, conv1c")
    assert code == 0, err
    assert list(server.specs[0].layers) == ["conv2a", "conv1c"]
    assert "conv1c 8x8 1 96 95 94" in " ".join(out.split())
    with np.load(tmp_path / "out" / "correlation.npz") as arrays:
        assert arrays["correlation/conv1c"].shape == (96, 96)
        assert arrays["correlation/conv1c"][DEAD, DEAD] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "correlation.npz", "correlation.png",
    }  # fmt: skip


def test_figures_of_several_models(analyze: Rootserve, tmp_path: Path) -> None:
    code, out, err = analyze("figures", "--models", "nin-orig,nin-root-4")
    assert code == 0, err
    assert "nin-root-4, 900 images" in out
    made = {str(path.relative_to(tmp_path / "out")) for path in tmp_path.rglob("*.png")}
    own = {f"{PAIR}.png", "conv2a-conv2b.png", "whitened.png", "correlation.png"}
    # Together: all pairs, and those with filter groups, here one.
    assert made == {"whitened.png", f"{PAIR}.png"} | {
        f"{model}/{name}" for model in ("nin-orig", "nin-root-4") for name in own
    }


def test_figures_are_drawn_again_without_a_server(
    analyze: Rootserve, rootserve: Rootserve, nobody: str, tmp_path: Path
) -> None:
    analyze("figures", "--models", "nin-orig,nin-root-4")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    for path in before:
        path.unlink()
    code, out, err = rootserve(
        "analyze", "figures", "--models", "nin-orig,nin-root-4", "--redraw",
        "--out", tmp_path / "out", "--server", nobody,
    )  # fmt: skip
    assert code == 0, err
    assert "nin-root-4, 900 images" in out
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == before


def test_figures_for_a_paper(analyze: Rootserve, tmp_path: Path) -> None:
    covariance = ("covariance", "-m", "nin-orig", "--pairs", PAIR)
    assert analyze(*covariance, "--format", "svg", "--size", "6.5")[0] == 0
    drawn = ElementTree.parse(tmp_path / "out" / f"{PAIR}.svg").getroot()
    assert drawn.attrib["width"] == "468pt"
    words = " ".join("".join(text.itertext()) for text in drawn.iter() if text.tag.endswith("text"))
    assert "nin-orig" in words, "words stay words"
    assert analyze(*covariance, "--format", "pdf")[0] == 0
    first = (tmp_path / "out" / f"{PAIR}.pdf").read_bytes()
    assert first.startswith(b"%PDF")
    assert analyze(*covariance, "--format", "pdf")[0] == 0
    assert (tmp_path / "out" / f"{PAIR}.pdf").read_bytes() == first, "the same, byte for byte"
    assert not list(tmp_path.rglob("*.png"))
    assert analyze(*covariance, "--size", "4x3", "--dpi", "200")[0] == 0
    with Image.open(tmp_path / "out" / f"{PAIR}.png") as picture:
        assert picture.size == (800, 600)


def test_sums_are_kept_and_merged(
    analyze: Rootserve, rootserve: Rootserve, server: FakeAnalysis, tmp_path: Path
) -> None:
    for n in range(2):
        arguments = ("--sums", "--no-pictures", "--images", 50 + n, "--out", tmp_path / str(n))
        assert analyze("covariance", "-m", "nin-orig", *arguments)[0] == 0
    assert pb.MATRIX_KIND_SUMS in server.specs[0].options.results
    code, out, err = rootserve(
        "analyze", "merge", tmp_path / "0", tmp_path / "1" / "sums.npz", "--no-pictures",
        "--out", tmp_path / "all", "--server", server.address,
    )  # fmt: skip
    assert code == 0, err
    assert "nin-orig, 101 images" in out
    assert [part.images for part in server.sums] == [50, 51]
    # Each part with one scatter matrix and three means; no result that could be derived from them.
    assert server.sums_chunks == 2 * (1 + 3)
    assert (tmp_path / "all" / "covariance.npz").exists()


def test_data_sets_of_the_server(rootserve: Rootserve, server: FakeAnalysis) -> None:
    code, out, err = rootserve("analyze", "datasets", "--server", server.address)
    assert code == 0, err
    assert out.split() == ["data", "set", "images", "size", "cifar10", "10,000", "32x32"]
    _, out, _ = rootserve("analyze", "datasets", "--json", "--server", server.address)
    assert json.loads(out) == [{"name": "cifar10", "images": 10_000, "height": 32, "width": 32}]


def test_ctrl_c_cancels_the_analysis(
    server: FakeAnalysis, sample_path: Path, tmp_path: Path
) -> None:
    server.hangs = True
    code, out, err = signalled(
        signal.SIGINT, server.begun.is_set,
        "analyze", "covariance", "-m", "nin-orig", "--data", sample_path, "--images", 900,
        "--out", tmp_path / "out", "--server", server.address,
    )  # fmt: skip
    assert (code, out) == (130, "")
    assert err.endswith(
        "rootserve: interrupted; the analysis of nin-orig was cancelled on the server\n"
    )
    assert server.cancelled.wait(20)


COVARIANCE = ("covariance", "-m", "nin-orig")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*COVARIANCE, "--pairs", "conv1c"), ["'conv1c' is no pair", "conv1c-conv2a"]),
        ((*COVARIANCE, "--pairs", "a-b,"), ["'' is no pair"]),
        ((*COVARIANCE, "--pairs", "a-b-c"), ["'a-b-c' is no pair"]),
        ((*COVARIANCE, "--dataset", "cifar10"), ["both --data and --dataset"]),
        ((*COVARIANCE, "--images", 0), ["--images", "greater than or equal to 1"]),
        ((*COVARIANCE, "--images", 1001), ["holds 1,000 images; expected 1,001"]),
        ((*COVARIANCE, "--skip", 500), ["holds 1,000 images; expected 900 after the first 500"]),
        ((*COVARIANCE, "--groups", 1), ["--groups", "greater than or equal to 2"]),
        ((*COVARIANCE, "--groups", 5), ["--groups 5", "divisor", "conv1c-conv2a (96 and 192"]),
        ((*COVARIANCE, "--data", "/nowhere"), ["/nowhere: no such file or folder"]),
        ((*COVARIANCE, "--data", "docs/adr"), ["docs/adr: holds neither", "nor pictures"]),
        ((*COVARIANCE, "--out", "/proc/results"), ["/proc/results: results cannot be written"]),
        ((*COVARIANCE, "--out", "README.md"), ["README.md: results cannot be written"]),
        (("correlation", "-m", "nin-orig", "--layers", "a,,b"), ["--layers 'a,,b'"]),
        (("figures", "--models", "nin-orig,nin-orig"), ["--models 'nin-orig,nin-orig'"]),
        (("figures", "--models", "nin-orig", "--redraw"), ["--redraw with images"]),
        ((*COVARIANCE, "--size", "6,5"), ["--size '6,5': expected a width in inches"]),
        ((*COVARIANCE, "--size", "0.1"), ["--size '0.1'", "each of 1 to 100"]),
        ((*COVARIANCE, "--size", "4xnan"), ["--size '4xnan'"]),
        ((*COVARIANCE, "--dpi", 10), ["--dpi", "30"]),
        ((*COVARIANCE, "--format", "gif"), ["--format", "'png', 'svg', 'pdf'"]),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    analyze: Rootserve, server: FakeAnalysis, arguments: tuple[object, ...], words: list[str]
) -> None:
    code, out, err = analyze(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("rootserve: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err
    assert server.images == []


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no such file"),
        ({"covariance.npz": b"?"}, "covariance.npz: not a file of results"),
    ],
)
def test_redraw_says_what_is_missing(
    rootserve: Rootserve, tmp_path: Path, files: dict[str, bytes], words: str
) -> None:
    (tmp_path / "nin-orig").mkdir()
    for name, content in files.items():
        (tmp_path / "nin-orig" / name).write_bytes(content)
    code, _, err = rootserve(
        "analyze", "figures", "--models", "nin-orig", "--redraw", "--out", tmp_path
    )
    assert code == 2
    assert words in err


def test_merge_says_what_is_no_sums_file(
    analyze: Rootserve, rootserve: Rootserve, nobody: str, tmp_path: Path
) -> None:
    analyze("covariance", "-m", "nin-orig", "--no-pictures")
    arguments = ("--out", tmp_path / "all", "--server", nobody)
    code, _, err = rootserve("analyze", "merge", tmp_path / "out", *arguments)
    assert code == 2
    assert "sums.npz: no such file" in err
    code, _, err = rootserve("analyze", "merge", tmp_path / "out/covariance.npz", *arguments)
    assert code == 2
    assert "covariance.npz: holds no sums; expected what --sums wrote" in err


def test_the_servers_refusal_is_passed_on(analyze: Rootserve, server: FakeAnalysis) -> None:
    server.refusal = (grpc.StatusCode.NOT_FOUND, "no layer 'conv9'; nin-orig has conv1a, conv1b")
    code, _, err = analyze(*COVARIANCE)
    assert code == 3
    assert err == "rootserve: NOT_FOUND: no layer 'conv9'; nin-orig has conv1a, conv1b\n"


def test_an_unknown_model_is_refused_before_images_are_sent(
    analyze: Rootserve, server: FakeAnalysis
) -> None:
    code, _, err = analyze("covariance", "-m", "resnet")
    assert code == 3
    assert "no model 'resnet'; the server knows nin-orig" in err
    assert server.specs == []


def test_no_empty_folder_stays_behind(
    rootserve: Rootserve, server: FakeAnalysis, sample_path: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    for out in (tmp_path / "new" / "deep", there, there / "below"):
        arguments = ("--data", sample_path, "--out", out, "--server", server.address)
        assert rootserve("analyze", "covariance", "-m", "resnet", *arguments)[0] == 3
        assert rootserve("analyze", "figures", "--models", "a,b", *arguments)[0] == 3
    # What was there before is not ours to take away.
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert not list(there.iterdir())


def test_an_unreachable_server(rootserve: Rootserve, nobody: str, sample_path: Path) -> None:
    code, _, err = rootserve(
        "analyze", *COVARIANCE, "--data", sample_path, "--out", "/tmp", "--server", nobody
    )
    assert code == 3
    assert f"no gRPC server answers at {nobody}" in err


def without_summary(message: pb.AnalyzeResponse) -> pb.AnalyzeResponse | None:
    return None if message.WhichOneof("message") == "summary" else message


def without_beginnings(message: pb.AnalyzeResponse) -> pb.AnalyzeResponse | None:
    return None if message.chunk.offset == 0 and message.chunk.data else message


def without_ends(message: pb.AnalyzeResponse) -> pb.AnalyzeResponse | None:
    return None if message.chunk.offset else message


def of_unknown_kind(message: pb.AnalyzeResponse) -> pb.AnalyzeResponse:
    if message.WhichOneof("message") == "chunk":
        message.chunk.kind = 99
    return message


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_summary, "without a summary"),
        (without_beginnings, "does not follow 0 elements"),
        (without_ends, "5000 of 9216 elements came"),
        (of_unknown_kind, "kind 99"),
    ],
)
def test_an_answer_with_a_gap_is_no_result(
    analyze: Rootserve,
    server: FakeAnalysis,
    tmp_path: Path,
    damage: Callable[..., object],
    words: str,
) -> None:
    server.damage = damage
    code, _, err = analyze(*COVARIANCE)
    assert code == 3
    assert words in err
    assert not (tmp_path / "out").exists()


def test_a_damaged_picture_ends_the_analysis(
    rootserve: Rootserve, server: FakeAnalysis, cat_path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(cat_path, folder / "a.png")
    (folder / "b.png").write_bytes(b"no picture")
    code, _, err = rootserve(
        "analyze", *COVARIANCE, "--data", folder, "--out", tmp_path / "out",
        "--server", server.address,
    )  # fmt: skip
    assert code == 2
    assert "b.png: is not a picture" in err
    assert server.cancelled.wait(20)
