"""The ``daprfunc`` command."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from daprfunc import __version__, logs, report
from daprfunc.errors import DaprFuncError, SettingsError
from daprfunc.reloader import Reloader
from daprfunc.settings import PROTOCOLS, Settings, process_environment, read_settings

if TYPE_CHECKING:
    from daprfunc.assembly import Assembly

F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger(__name__)

_FAILED = 1
_USAGE = 2
_INTERRUPTED = 130
_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


def _app_dir(command: F) -> F:
    return click.argument("app_dir", default=".", type=_DIRECTORY)(command)


def _text(name: str, help_text: str, metavar: str = "TEXT") -> Callable[[F], F]:
    return click.option(name, metavar=metavar, help=help_text)


def _examples(*lines: str) -> str:
    """Return an epilog whose lines click leaves as they are, which a line with a backspace asks for."""
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def _port(name: str, help_text: str) -> Callable[[F], F]:
    return _text(name, help_text, "PORT")


class _Commands(click.Group):
    """Turns errors into lines on standard error and an exit status, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DaprFuncError as error:
            if error.__cause__ is not None:
                log.debug("the error that follows, and where it came from", exc_info=True)
            _say(*str(error).splitlines())
            ctx.exit(_USAGE if isinstance(error, SettingsError) else _FAILED)
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise  # click knows what to do with these.
        except Exception as error:
            log.debug("the error that follows, and where it came from", exc_info=True)
            _say(
                f"unexpected {type(error).__name__}: {error}; this is a defect of daprfunc, please report it with what "
                "`daprfunc start --log-level debug` says"
            )
            ctx.exit(_FAILED)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_examples(
        "daprfunc start                               the app here, beside a sidecar that runs",
        "daprfunc start --resources-path components   with an embedded sidecar, no Dapr needed",
        "dapr run --app-id my-app --app-port 3001 --app-protocol grpc -- daprfunc start",
        "daprfunc invoke RetrieveSecret --data '{}'   call a function of a running app",
        "daprfunc check my-app                        say all that is wrong with an app",
    ),
)
@click.version_option(__version__, prog_name="daprfunc")
def main() -> None:
    """Run Azure Functions apps written in Python on Dapr."""


@main.command(
    epilog=_examples(
        "daprfunc start",
        "daprfunc start my-app --app-port 8080 --dapr-grpc-port 50001",
        "daprfunc start my-app --resources-path my-app/components --reload",
    )
)
@_app_dir
@_port("--app-port", "Port to listen on; 0 takes a free one.  [DAPR_APP_PORT, APP_PORT; default 3001]")
@_text("--app-address", "Address to listen on.  [APP_CHANNEL_ADDRESS; default 127.0.0.1]", "HOST")
@_text("--app-protocol", f"What the sidecar speaks to us: {', '.join(PROTOCOLS)}.", "NAME")
@_text("--app-tls-cert-file", "Certificate (PEM) for the app's port, for --app-protocol https or grpcs.", "FILE")
@_text("--app-tls-key-file", "Private key (PEM) for the app's port.", "FILE")
@click.option(
    "--resources-path",
    type=_DIRECTORY,
    metavar="DIR",
    help="Components for an embedded sidecar, for development without Dapr.",
)
@click.option("--reload", is_flag=True, help="Start the app anew when a file of it changes, for development.")
@_text("--dapr-grpc-endpoint", "The sidecar's gRPC API.  [DAPR_GRPC_ENDPOINT; default 127.0.0.1:50001]", "ENDPOINT")
@_port("--dapr-grpc-port", "The sidecar's gRPC port on this machine.  [DAPR_GRPC_PORT]")
@_text("--log-level", "trace, debug, information, warning, error, critical or none.  [DAPR_LOG_LEVEL]", "LEVEL")
@_text("--log-format", "text or json.  [DAPR_LOG_FORMAT; default text]", "FORMAT")
@_text("--max-body-size", "Largest request body, such as 512Ki.  [DAPR_MAX_BODY_SIZE; default 4Mi]", "SIZE")
@_text("--max-concurrency", "Invocations in flight at most.  [DAPR_APP_MAX_CONCURRENCY; default 1000]", "N")
@_text("--drain-timeout", "Seconds to finish after SIGTERM.  [DAPR_GRACEFUL_SHUTDOWN_SECONDS; default 30]", "SECONDS")
@_text("--secret-ttl", "Seconds for which a secret may be given again; 0 always reads it.  [default 0]", "SECONDS")
@click.option("--mask-secrets", is_flag=True, default=None, help="Mask secret values in the app's own log and errors.")
def start(app_dir: Path, reload: bool, **flags: object) -> None:
    """Serve an app until SIGTERM or SIGINT.

    The app is the one in APP_DIR (default: this directory).
    Most options have a twin in the environment or in the app's settings files; the README has them all.
    """
    if reload:
        sys.exit(_reloader(app_dir, flags).run())
    from daprfunc import host  # noqa: PLC0415 (it imports all that runs; --help need not wait for it)

    if isinstance(sys.stdout, io.TextIOWrapper):
        # What functions print is to be seen when they print it, beside the log, and not when a buffer is full.
        sys.stdout.reconfigure(line_buffering=True)
    sys.exit(host.run(_settings(app_dir, flags)))


@main.command("list")
@_app_dir
@click.option("--json", "as_json", is_flag=True, help="Print JSON, stable for tools.")
def list_functions(app_dir: Path, as_json: bool) -> None:
    """List functions, triggers, routes and bindings.

    The app is the one in APP_DIR (default: this directory). The exit status is 1 if no function of it can be called.
    """
    assembly = _inspect(app_dir)
    if as_json:
        click.echo(report.as_json(assembly))
    else:
        _say_warnings(assembly)
        assembly.require_functions()
        _say_problems(assembly)
        click.echo(report.table(assembly.dispatcher))
    if not assembly.dispatcher.plans:
        sys.exit(_FAILED)


@main.command()
@_app_dir
def check(app_dir: Path) -> None:
    """Say all that is wrong with an app, a line each.

    Loads the app in APP_DIR (default: this directory) without serving it. The exit status is 1 if any function of it
    does not load.
    """
    assembly = _inspect(app_dir)
    _say_warnings(assembly)
    assembly.require_functions()
    _say_problems(assembly)
    click.echo(report.summary(assembly))
    if assembly.dispatcher.broken:
        sys.exit(_FAILED)


@main.command(
    epilog=_examples(
        "daprfunc invoke RetrieveSecret",
        "daprfunc invoke CreateOrder --data '{\"id\": 1}' --app-protocol grpc",
    )
)
@click.argument("method")
@click.option("--data", default="", help="The payload, usually JSON; @FILE reads a file, @- standard input.")
@_port("--app-port", "The app's port.  [DAPR_APP_PORT, APP_PORT; default 3001]")
@_text("--app-address", "The app's address.  [APP_CHANNEL_ADDRESS; default 127.0.0.1]", "HOST")
@click.option("--app-protocol", type=click.Choice(["http", "grpc"]), default="http", show_default=True)
@click.option("--timeout", type=click.FloatRange(min=0.1), default=60.0, show_default=True, help="Seconds to wait.")
def invoke(method: str, data: str, app_protocol: str, timeout: float, **flags: object) -> None:
    """Call METHOD of an app that runs, as the sidecar would.

    The status goes to standard error, the body to standard output. The exit status is 1 unless the function answered.
    """
    from daprfunc import caller  # noqa: PLC0415

    settings = _settings(Path(), flags)
    outcome = caller.CALLS[app_protocol](settings, method, _data(data), timeout)
    click.echo(outcome.status, err=True)
    if outcome.body:
        sys.stdout.buffer.write(outcome.body + b"\n")
        sys.stdout.flush()
    if not outcome.ok:
        sys.exit(_FAILED)


def _reloader(app_dir: Path, flags: dict[str, object]) -> Reloader:
    options = [(f"--{name.replace('_', '-')}", value) for name, value in flags.items() if value is not None]
    texts = [text for name, value in options for text in ([name] if value is True else [name, str(value)])]
    command = [sys.executable, "-m", "daprfunc", "start", str(app_dir), *texts]
    resources = flags["resources_path"]
    directories = [app_dir, *([resources] if isinstance(resources, Path) else [])]
    return Reloader(command, directories, lambda line: click.echo(f"reload: {line}", err=True))


def _inspect(app_dir: Path) -> Assembly:
    from daprfunc import host  # noqa: PLC0415

    # What the app prints while it is imported is no part of our output, which a tool may read.
    with contextlib.redirect_stdout(sys.stderr):
        return host.inspect(_settings(app_dir, {}))


def _say_warnings(assembly: Assembly) -> None:
    for warning in assembly.warnings:
        click.echo(f"warning: {warning}", err=True)


def _say_problems(assembly: Assembly) -> None:
    _say(*map(str, assembly.problems()))


def _say(*errors: str) -> None:
    """Print what is wrong; as lines of the log where that is JSON, so that whoever collects it gets them as well."""
    for error in errors:
        if logs.is_json():
            log.error("%s", error)
        else:
            click.echo(f"error: {error}", err=True)


def _data(text: str) -> bytes:
    if not text.startswith("@"):
        return text.encode()
    try:
        return sys.stdin.buffer.read() if text == "@-" else Path(text[1:]).read_bytes()
    except OSError as error:
        raise click.UsageError(f"--data {text}: {error.strerror}") from None


def _settings(app_dir: Path, flags: dict[str, object]) -> Settings:
    return read_settings(app_dir, flags, process_environment())
