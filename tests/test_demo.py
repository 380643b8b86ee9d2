"""`make demo`, as far as it is Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def demo(examples: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("DAPR", "APP_"))}
    command = [sys.executable, str(examples / "demo.py")]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=50)


def test_the_demo_shows_the_secret_and_ends_well() -> None:
    for secrets in EXAMPLES.glob("*/secrets.json"):
        secrets.chmod(0o644)  # as in a fresh clone
    done = demo(EXAMPLES)
    assert done.returncode == 0, done.stdout + done.stderr
    for model in ("v2", "v1"):
        assert f"examples/retrieve-secret-{model}/" in done.stdout
    assert len(re.findall(r"The store holds my-secret = abcd$", done.stdout, re.MULTILINE)) == 4
    assert done.stdout.count('    ["my-secret"]') == 4
    assert done.stdout.count("It ended with exit status 0.") == 2
    assert done.stderr == ""
    assert not re.search(r" (WARN|ERROR|CRIT) ", done.stdout)


def test_the_demo_fails_when_the_secret_is_another(tmp_path: Path) -> None:
    examples = tmp_path / "examples"
    shutil.copytree(EXAMPLES, examples)
    for model in ("v1", "v2"):
        (examples / f"retrieve-secret-{model}" / "secrets.json").write_text('{"your-secret": "abcd"}')
    done = demo(examples)
    assert done.returncode == 1
    assert "FAILED: the reply over http" in done.stdout
