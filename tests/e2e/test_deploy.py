"""What deploy/ tells docker to run, run here: there may be no docker, but there is the command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import Process, clean_environment, free_port

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
EXAMPLE = ROOT / "examples" / "retrieve-secret-v2"


def instruction(name: str) -> list[str]:
    """The exec form that follows `name`."""
    found = re.search(rf"^\s*{name} (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert found, name
    command: list[str] = json.loads(found[1])
    return command


def test_the_container_starts_and_its_health_check_tells() -> None:
    (program,) = instruction("ENTRYPOINT")
    command = [
        argument.replace("/app", str(EXAMPLE)) if argument == "/app" else argument for argument in start_command()
    ]
    environment = {"DAPR_APP_PORT": str(free_port()), "APP_API_TOKEN": "token"}
    with Process(program, [Path(sys.executable).with_name(program), *command], env=environment) as app:
        app.wait_for_output('"message":"ready: 1 function')
        assert health_check(environment) == 0
        assert app.stop() == 0
    assert health_check(environment) == 1


def start_command() -> list[str]:
    """The last CMD: the first is the health check's."""
    command: list[str] = json.loads(re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[-1])
    return command


def health_check(environment: dict[str, str]) -> int:
    python, *arguments = instruction("CMD")
    assert python == "python"
    return subprocess.run(
        [sys.executable, *arguments], env=clean_environment(environment), capture_output=True, check=False
    ).returncode


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    dockerfile = DOCKERFILE.replace("${APP_DIR}", "examples/retrieve-secret-v2")
    copied = [path for line in re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile, re.MULTILINE) for path in line.split()]
    assert "runtime" in copied
    for path in copied:
        assert (ROOT / path).exists(), path
        assert f"!{path.split('/')[0]}" in ignored, path


def run_image(path: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment({"PATH": path})
    return subprocess.run(
        [sys.executable, DEPLOY / "image.py"], env=environment, capture_output=True, text=True, check=False
    )


def test_image_says_that_there_is_no_docker(tmp_path: Path) -> None:
    done = run_image(str(tmp_path))
    assert done.returncode == 0
    assert done.stderr.startswith("no image was built: there is no docker on the PATH.")


DOCKER = """#!{python}
import sys
if sys.argv[1] == "info":
    sys.exit({info!r})
if sys.argv[1] == "build":
    sys.exit({build!r})
print(62_000_000)
"""


@pytest.mark.parametrize(
    ("info", "build", "status", "told"),
    [
        ("Cannot connect to the Docker daemon", 0, 0, "no image was built: docker has no engine here (Cannot connect"),
        (0, 0, 0, "daprfunc: 62 MB"),
        (0, 1, 1, "docker build of daprfunc failed"),
    ],
)
def test_image(tmp_path: Path, info: int | str, build: int, status: int, told: str) -> None:
    docker = tmp_path / "docker"
    docker.write_text(DOCKER.format(python=sys.executable, info=info, build=build))
    docker.chmod(0o755)
    done = run_image(f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == status
    assert told in done.stdout + done.stderr
