"""The builder of the servers, without building one: a stand-in for Go tells what it was asked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e import build
from tests.e2e.build import BuildError, Program, main, version

GO = """#!{python}
import sys
from pathlib import Path
if sys.argv[1] == "env":
    print("go{version}")
elif "{error}":
    sys.exit("{error}")
else:
    Path(sys.argv[sys.argv.index("-o") + 1]).write_text(" ".join(sys.argv[1:]))
    print("a package")
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """A program of a module that needs Go 1.20, in a cache of its own."""
    module = tmp_path / "go" / "server"
    module.mkdir(parents=True)
    (module / "go.mod").write_text("module server\n\ngo 1.20\n\nrequire example.test/server v1.2.3\n")
    (module / "go.sum").write_text("example.test/server v1.2.3 h1:...\n")
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(build, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(build, "BIN", tmp_path / "cache" / "bin")
    stamped = ("server.version", "example.test/server")
    return Program("server", module="server", package="example.test/server/cmd", tags="some", stamped=stamped)


def put_go_on_path(directory: Path, monkeypatch: pytest.MonkeyPatch, version: str = "1.26.8", error: str = "") -> None:
    go = directory / "path" / "go"
    go.parent.mkdir(exist_ok=True)
    go.write_text(GO.format(python=sys.executable, version=version, error=error))
    go.chmod(0o755)
    monkeypatch.setenv("PATH", str(go.parent))


def test_builds_once(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_go_on_path(tmp_path, monkeypatch)
    build.build(program)
    asked = program.binary.read_text()
    assert asked.startswith("build -v -o ")
    assert asked.endswith(" -tags some -ldflags -s -w -X server.version=1.2.3 example.test/server/cmd")
    put_go_on_path(tmp_path, monkeypatch, error="asked again")
    build.build(program)
    assert "up to date" in capsys.readouterr().out


@pytest.mark.parametrize("changed", ["go.mod", "go.sum"])
def test_builds_again_when_a_pin_changes(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    put_go_on_path(tmp_path, monkeypatch)
    build.build(program)
    with (program.directory / changed).open("a") as file:
        file.write("// changed\n")
    assert not program.is_built()


def test_failure_shows_what_go_said(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_go_on_path(tmp_path, monkeypatch, error="missing go.sum entry")
    with pytest.raises(BuildError, match=r"missing go\.sum entry\nserver: go build failed in .*, see above"):
        build.build(program)
    assert not program.is_built()


def test_an_old_go_is_passed_over(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_go_on_path(tmp_path, monkeypatch, version="1.19.9")
    own = tmp_path / "cache" / "go" / "bin" / "go"
    own.parent.mkdir(parents=True)
    own.write_text(GO.format(python=sys.executable, version="1.20.1", error=""))
    own.chmod(0o755)
    assert build.find_go(program) == str(own)


def test_unknown_target_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dapr"]) == main([]) == 2
    assert "daprd|kube" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "numbers"), [("go1.26.8", (1, 26, 8)), ("1.24.0", (1, 24, 0)), ("go1.27rc1", (1, 27)), ("", ())]
)
def test_version(text: str, numbers: tuple[int, ...]) -> None:
    assert version(text) == numbers
