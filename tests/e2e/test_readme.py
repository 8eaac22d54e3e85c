"""The README's tritonclient program, run as it stands against a real server."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.server_process import running_server

ROOT = Path(__file__).parents[2]


def test_the_tritonclient_program_sees_a_cat() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    with running_server("--device", "cpu", "--models", "nin-root-4") as server:
        program = program.replace("127.0.0.1:8001", server.address)
        command = [sys.executable, "-W", "error", "-c", program]
        result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.stdout.startswith("3\n"), result.stdout + result.stderr
    assert "int64_param" in result.stdout
