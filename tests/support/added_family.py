"""Installed packages that add a family, for this process and those it starts; gone afterwards."""

import importlib
import os
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rootmodels import variants

EXAMPLE = Path(__file__).parents[2] / "examples" / "vgg11"


def install(folder: Path, distribution: str, points: Mapping[str, str], code: str = "") -> None:
    """What an installer leaves in ``folder`` of a distribution with the module ``code``."""
    module = distribution.replace("-", "_")
    information = folder / f"{module}-0.1.0.dist-info"
    information.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1.0\n"
    (information / "METADATA").write_text(metadata)
    lines = [f"{name} = {value}" for name, value in points.items()]
    (information / "entry_points.txt").write_text("\n".join([f"[{variants.GROUP}]", *lines, ""]))
    if code:
        (folder / f"{module}.py").write_text(code)


def install_example(folder: Path) -> None:
    """The example of the documentation, as its own pyproject.toml says."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    install(folder, project["name"], project["entry-points"][variants.GROUP])
    shutil.copy(EXAMPLE / "vgg11.py", folder)


@contextmanager
def on_the_path(folder: Path) -> Iterator[None]:
    """Have Python look into ``folder``, here and in processes that are started."""
    before, modules = os.environ.get("PYTHONPATH"), set(sys.modules)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), before]))
    _forget()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]
        _forget()


def _forget() -> None:
    importlib.invalidate_caches()
    variants._families.cache_clear()
    variants._variants.cache_clear()
