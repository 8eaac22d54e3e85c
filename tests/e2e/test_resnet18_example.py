"""The example that goes the whole way with a network of torchvision's, on a handful of images."""

import subprocess
import sys
from pathlib import Path

from rootmodels.calibration import read_calibration
from rootmodels.model_file import read_model
from rootmodels.weights_info import weights_path

SCRIPT = Path(__file__).parents[2] / "examples/resnet18/run.py"


def test_it_leaves_trained_networks_their_table_and_their_covariance(
    tmp_path: Path, sample_path: Path
) -> None:
    command = [sys.executable, SCRIPT, "--data", sample_path, "--out", tmp_path, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    folder = tmp_path / "weights"
    original, variant = (read_model(weights_path(each, folder)) for each in ("r18", "r18-root-16"))
    assert (original.accuracy is not None, original.test_images) == (True, 32)
    assert (variant.family, variant.topology, variant.degree) == ("r18", "root", 16)
    groups = {layer.name: layer.groups for layer in variant.layers if layer.groups > 1}
    assert groups["layer1.0.conv1"] == 16
    assert groups["layer4.1.conv1"] == 2
    assert variant.provenance["recipe"]["teacher"].startswith("r18, 0.")
    assert read_calibration(weights_path("r18", folder)).accuracy["fp32"] >= 0
    assert "all 2 files are as accurate as their metadata says" in done.stdout
    table = (tmp_path / "table8.md").read_text()
    assert "| `r18-root-16` | 25,072,650 | 8,476,362 |" in table
    assert (tmp_path / "table8.png").stat().st_size > 10_000
    for name in ("r18", "r18-root-16"):
        assert (tmp_path / "covariance" / name / "covariance.npz").exists()
        assert (tmp_path / "covariance" / name / "conv1-layer1.0.conv1.png").exists()
    assert "all of it in" in done.stdout
