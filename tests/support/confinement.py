"""Surroundings in which a service may be put: another user, a read-only root, nothing to write to."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPORT_PATH = os.pathsep.join(str(ROOT / part) for part in ("", "client", "proto", "server"))
"""As PYTHONPATH: what an editable installation puts there."""

# Nothing can be written but in the folder $1, no capability is left.
CONFINED = r"""
set -e
folder=$1 uid=$2
shift 2
mount -t tmpfs -o mode=1777 tmpfs "$folder"
@SHOW@
mount -o bind,remount,ro /
cd "$folder"
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups \
    --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
"""


def confined_to(folder: Path, uid: int) -> list[str]:
    """What a command is put behind: user ``uid``, without capabilities, can write into ``folder`` alone.

    An interpreter or a checkout in a home folder, which the service's user may not enter, is shown to it
    in an empty one.
    """
    needed = {str(Path(path).resolve()) for path in (sys.base_prefix, sys.prefix, ROOT)}
    closed = {path: way for path in needed if (way := closed_folder(Path(path)))}
    aside = {path: f'"$folder/{number}"' for number, path in enumerate(closed)}
    lines = [f'mkdir {place} && mount --bind "{path}" {place}' for path, place in aside.items()]
    lines += [f'mount -t tmpfs -o mode=755 tmpfs "{way}"' for way in set(closed.values())]
    lines += [
        f'mkdir -p "{path}" && mount --bind {place} "{path}"' for path, place in aside.items()
    ]
    script = CONFINED.replace("@SHOW@", "\n".join(lines))
    return ["unshare", "--mount", "bash", "-c", script, "bash", str(folder), str(uid)]


def closed_folder(path: Path) -> Path | None:
    """The first folder on the way to ``path`` that others may not enter."""
    way = reversed(path.parents)
    return next((folder for folder in way if not folder.stat().st_mode & stat.S_IXOTH), None)


def can_be_confined() -> bool:
    if os.geteuid() != 0 or not shutil.which("setpriv") or not shutil.which("unshare"):
        return False
    test = ["unshare", "--mount", "mount", "-o", "bind,remount,ro", "/"]
    return subprocess.run(test, capture_output=True, check=False).returncode == 0


NEEDS_CONFINEMENT = pytest.mark.skipif(
    not can_be_confined(), reason="only root can give the service another user and a read-only root"
)
