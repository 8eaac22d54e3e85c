"""A real browser for tests: Debian's chromium, or another by one of its names."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any, Literal

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The page under test is shown in a frame of the wanted width, because a window has a least one;
# the frame's neighbour measures it once it is loaded and writes down what it found.
_FRAME = """<!doctype html><meta charset="utf-8"><title>frame</title>
<style>body{margin:0}iframe{border:0;width:%(width)dpx;height:%(height)dpx}</style>
<iframe src="%(page)s"></iframe><pre id="found"></pre><script>
document.querySelector("iframe").addEventListener("load", event => {
  const inside = event.target.contentDocument, root = inside.documentElement;
  const shown = [...inside.querySelectorAll("svg")].filter(svg => svg.getClientRects().length);
  document.getElementById("found").textContent = JSON.stringify({
    title: inside.title,
    overflow: root.scrollWidth - root.clientWidth,
    height: root.scrollHeight,
    background: getComputedStyle(inside.body).backgroundColor,
    drawings: shown.map(svg => {
      const box = svg.getBoundingClientRect();
      const marks = [...svg.querySelectorAll("path.line, rect.fill, circle.mark")];
      const texts = [...svg.querySelectorAll("text")].map(text => text.getBoundingClientRect());
      const names = [...svg.querySelectorAll("text.name")].map(text => {
        const size = text.getBoundingClientRect(), inset = 2;  // what letters leave of their box
        return [text.textContent, size.left, size.top + inset, size.right, size.bottom - inset];
      });
      const covered = names.flatMap((a, n) => names.slice(n + 1).filter(b =>
        a[1] < b[3] && b[1] < a[3] && a[2] < b[4] && b[2] < a[4]).map(b => [a[0], b[0]]));
      return {
        covered,
        name: svg.getAttribute("aria-label"), width: box.width, height: box.height,
        marks: marks.filter(mark => { const size = mark.getBoundingClientRect();
          return size.width > 0 || size.height > 0; }).length,
        letters: Math.min(...texts.map(text => text.height)),
        outside: Math.max(0, ...texts.map(text => Math.max(box.left - text.left,
          text.right - box.right))),
      };
    }),
  });
});
</script>"""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the browser made of a page: `console` holds its complaints."""

    console: list[str]
    title: str
    overflow: float
    height: float
    background: str
    drawings: list[dict[str, Any]]


def find_browser() -> str:
    """The browser's command; skips the test where there is none."""
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip(f"no browser: none of {', '.join(_NAMES)} is installed")


def show(page: Path, width: int, scheme: Literal["light", "dark"], picture: Path) -> Shown:
    """Load the page at a width in pixels and a colour scheme, and take a picture of it."""
    frame = picture.with_suffix(".html")
    frame.write_text(_FRAME % {"width": width, "height": 7000, "page": page.as_uri()})
    command = [
        find_browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--disable-dev-shm-usage", "--no-first-run", "--allow-file-access-from-files",
        f"--user-data-dir={picture.with_suffix('.profile')}", "--enable-logging=stderr",
        f"--window-size={max(width, 600)},7000",
        f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
    ]  # fmt: skip
    run = subprocess.run(  # noqa: PLW1510 - its log is worth more than its status
        [*command, "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=90
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', run.stdout, re.DOTALL)
    assert found is not None, run.stderr
    assert found[1], run.stderr
    subprocess.run(
        [*command, f"--screenshot={picture}", frame.as_uri()],
        capture_output=True, timeout=90, check=True,
    )  # fmt: skip
    complaints = [line for line in run.stderr.splitlines() if ":CONSOLE" in line]
    return Shown(console=complaints, **json.loads(unescape(found[1])))
