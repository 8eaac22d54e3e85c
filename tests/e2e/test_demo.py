"""`make demo` runs, and its picture in the README shows what it prints, but for figures and processor."""

import re
import subprocess
import sys
from html import unescape
from pathlib import Path

from tests.support.server_process import PATIENCE_S

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "figures" / "demo.svg"
# As `make demo`, with loads of a moment.
PROGRAM = """
import sys
sys.path.insert(0, "examples")
import demo
demo.LOAD_S = 0.3
sys.exit(demo.main())
"""


def lines(picture: Path) -> list[str]:
    """The lines of the picture, without what differs from run to run and from machine to machine."""
    words = re.findall(r"<text[^>]*>([^<]*)</text>", picture.read_text())
    text = unescape(" ".join(words)).replace("\xa0", " ")
    text = re.sub(r"\d+(?:[.,]\d+)*", "N", text)
    text = re.sub(r"\b(?:int8|intN|bf16|bfN|fp32|fpN)\b( and \w+)*", "PRECISION", text)
    text = re.sub(r"\n[^\n]*, N processors,", "\n PROCESSOR, N processors,", text)
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_picture_of_the_demo_is_what_it_prints(tmp_path: Path) -> None:
    made = tmp_path / "demo.svg"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--svg", made],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = lines(PICTURE)
    assert lines(made) == shown
    assert "variant params MACs accuracy images/s pN pN speed-up FLOPs ratio" in shown
