"""Builds the container images and prints their sizes, where docker has an engine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Tag -> further arguments of docker build.
IMAGES = {"daprfunc": ("--target", "runtime"), "functionapp": ()}


def main() -> int:
    reason = no_engine()
    if reason:
        print(f"no image was built: {reason}. Run this where docker is; `make size` works anywhere.", file=sys.stderr)
        return 0
    for tag, arguments in IMAGES.items():
        command = ["docker", "build", "-f", str(ROOT / "deploy" / "Dockerfile"), "-t", tag, *arguments, str(ROOT)]
        if subprocess.run(command, check=False).returncode:
            print(f"docker build of {tag} failed, see above", file=sys.stderr)
            return 1
    for tag in IMAGES:
        size = docker("image", "inspect", "--format", "{{.Size}}", tag)
        print(f"{tag}: {int(size.stdout) / 1_000_000:.0f} MB")
    return 0


def no_engine() -> str:
    """Why docker cannot build here; "" if it can."""
    if shutil.which("docker") is None:
        return "there is no docker on the PATH"
    engine = docker("info", "--format", "{{.ServerVersion}}")
    return "" if engine.returncode == 0 else f"docker has no engine here ({last_line(engine.stderr)})"


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


if __name__ == "__main__":
    sys.exit(main())
