from __future__ import annotations

import asyncio
import contextvars
import io
import json
import logging
import logging.config
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from daprfunc import logs
from daprfunc.logs import LogHandler, SecretMask, configure

LogFormat = Literal["text", "json"]


@dataclass(frozen=True)
class Running:
    invocation_id: str = "id-1"
    function_name: str = "Pay"
    trace_id: str = "0af7651916cd43dd8448eb211c80319c"


class Log:
    """What a configured process wrote."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def configure(self, log_format: LogFormat = "text", **settings: Any) -> LogHandler:
        # pytest puts handlers of its own on the root logger when a test begins.
        logging.getLogger().handlers[:] = [h for h in logging.getLogger().handlers if isinstance(h, LogHandler)]
        return configure(log_format=log_format, **{"stream": self.stream, **settings})

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    @property
    def messages(self) -> list[str]:
        return [line.split(maxsplit=2)[2] for line in self.lines]

    @property
    def objects(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.stream.getvalue().split("\n")[:-1]]


@pytest.fixture
def log() -> Iterator[Log]:
    yield Log()
    for handler in [*logging.getLogger().handlers, *logging.getLogger("daprfunc").handlers]:
        if isinstance(handler, LogHandler):
            handler.uninstall()


@pytest.fixture
def running() -> Iterator[Running]:
    token = logs.current.set(Running())
    yield Running()
    logs.current.reset(token)


def test_a_text_line_inside_an_invocation(log: Log, running: Running) -> None:
    log.configure()
    logging.info("Hello %s", "world")
    logging.getLogger("shop.cart").warning("full")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO  \[Pay id-1\] root Hello world", log.lines[0])
    assert log.lines[1].endswith("Z WARN  [Pay id-1] shop.cart full")


def test_a_text_line_outside_of_invocations(log: Log) -> None:
    log.configure()
    logging.getLogger("daprfunc.host").error("no sidecar")
    assert log.messages == ["daprfunc.host no sidecar"]


@pytest.mark.parametrize(
    ("created", "expected"),
    [(0.0, "1970-01-01T00:00:00.000Z"), (1795449600.9996, "2026-11-23T16:00:00.999Z")],
)
def test_time_is_utc_to_the_millisecond(log: Log, created: float, expected: str) -> None:
    handler = log.configure()
    handler.emit(logging.makeLogRecord({"name": "x", "created": created, "levelname": "INFO", "msg": "x"}))
    assert log.lines[0].split()[0] == expected


def test_a_json_line_says_everything(log: Log, running: Running) -> None:
    log.configure("json")
    try:
        raise ValueError("wrong\nnumber")
    except ValueError:
        logging.exception("two\nlines")
    (line,) = log.objects
    assert line.pop("time").endswith("Z")
    exception = line.pop("exception")
    assert exception.startswith("Traceback")
    assert exception.endswith("ValueError: wrong\nnumber")
    assert line == {
        "level": "ERROR",
        "logger": "root",
        "message": "two\nlines",
        "function": "Pay",
        "invocationId": "id-1",
        "traceId": "0af7651916cd43dd8448eb211c80319c",
    }


def test_a_json_line_leaves_out_what_there_is_not(log: Log) -> None:
    log.configure("json")
    logging.info("")
    assert [set(line) for line in log.objects] == [{"time", "level", "logger", "message"}]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("one\ntwo", ["root one", "    two"]),
        ("one\r\n2026-11-23T10:00:00.123Z INFO  posing", ["root one", "    2026-11-23T10:00:00.123Z INFO  posing"]),
        ("one\rtwo", ["root one", "    two"]),
        ("one\u2028two\x85three", ["root one", "    two", "    three"]),
        ("a\ttab\u3000and \x1b[2K\x08\x00\u202e", ["root a\ttab\u3000and \\x1b[2K\\x08\\x00\\u202e"]),
        ("Grüße \U0001f600", ["root Grüße \U0001f600"]),
    ],
)
def test_no_message_can_pose_as_another_line(log: Log, message: str, expected: list[str]) -> None:
    log.configure()
    logging.info(message)
    first, *others = log.lines
    assert [first.split(maxsplit=2)[2], *others] == expected


def test_an_exception_is_indented_below_its_message(log: Log) -> None:
    log.configure()
    try:
        raise ValueError("wrong number")
    except ValueError:
        logging.exception("failed")
    assert log.lines[0].endswith("root failed")
    assert log.lines[1] == "    Traceback (most recent call last):"
    assert log.lines[-1] == "    ValueError: wrong number"


def test_stack_info_is_shown(log: Log) -> None:
    log.configure()
    logging.info("here", stack_info=True)
    assert log.lines[1].startswith("    Stack")


def test_the_users_info_is_seen_by_default_and_once(log: Log) -> None:
    log.configure()
    logging.basicConfig(level=logging.ERROR)
    logging.info("seen")
    logging.debug("not seen")
    assert log.messages == ["root seen"]


def test_configuring_again_replaces(log: Log) -> None:
    log.configure(level=logging.DEBUG, levels={"shop": logging.ERROR})
    log.configure(level=logging.WARNING)
    logging.info("not seen")
    logging.getLogger("shop").warning("seen once")
    assert log.messages == ["shop seen once"]


def test_uninstalling_gives_the_levels_back(log: Log) -> None:
    names = ["", "daprfunc", "shop"]
    before = [logging.getLogger(name).level for name in names]
    handler = log.configure(level=logging.ERROR, levels={"shop": logging.DEBUG})
    assert [logging.getLogger(name).level for name in names] == [logging.ERROR, logging.ERROR, logging.DEBUG]
    handler.uninstall()
    assert [logging.getLogger(name).level for name in names] == before
    assert logging.getLogger().handlers == []


LEVELS = [
    # default, categories, logger, inside which function, lowest level seen
    ("WARNING", {}, "root", None, "WARNING"),
    ("WARNING", {}, "root", "Pay", "WARNING"),
    ("WARNING", {}, "daprfunc.host", None, "WARNING"),
    ("WARNING", {"Function": "DEBUG"}, "root", "Pay", "DEBUG"),
    ("WARNING", {"Function": "DEBUG"}, "root", None, "WARNING"),
    ("WARNING", {"Function": "DEBUG"}, "daprfunc.host", "Pay", "WARNING"),
    ("INFO", {"Function": "ERROR"}, "azure.core", "Pay", "ERROR"),
    ("INFO", {"Function.Pay": "DEBUG"}, "root", "Pay", "DEBUG"),
    ("INFO", {"function.pay": "DEBUG"}, "root", "Pay", "DEBUG"),
    ("INFO", {"Function.Pay": "DEBUG"}, "root", "Refund", "INFO"),
    ("INFO", {"Function.Pay.User": "DEBUG", "Function.Pay": "ERROR"}, "root", "Pay", "DEBUG"),
    ("INFO", {"Function": "ERROR", "Function.Pay": "WARNING"}, "root", "Pay", "WARNING"),
    ("INFO", {"Host": "DEBUG"}, "daprfunc.sidecar.client", None, "DEBUG"),
    ("INFO", {"Host": "ERROR"}, "daprfunc.host", "Pay", "ERROR"),
    ("INFO", {"Host": "DEBUG"}, "daprfunctions", None, "INFO"),
    ("INFO", {"azure.core": "ERROR"}, "azure.core.pipeline", "Pay", "ERROR"),
    ("INFO", {"azure.core": "DEBUG"}, "azure.core.pipeline", None, "DEBUG"),
    ("INFO", {"azure.core": "ERROR"}, "azure.corelib", None, "INFO"),
]


@pytest.mark.parametrize(("default", "categories", "logger", "function", "lowest"), LEVELS)
def test_levels_by_category(
    log: Log, default: str, categories: dict[str, str], logger: str, function: str | None, lowest: str
) -> None:
    numbers = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}
    levels = {category: numbers[level] for category, level in categories.items()}
    log.configure("json", level=numbers[default], levels=levels)

    def write() -> None:
        if function:
            logs.current.set(Running(function_name=function))
        for number in numbers.values():
            logging.getLogger(logger).log(number, "text")

    contextvars.copy_context().run(write)
    assert [line["level"] for line in log.objects] == [name for name in numbers if numbers[name] >= numbers[lowest]]


def test_a_level_above_all_silences(log: Log) -> None:
    log.configure(level=60)
    logging.critical("not seen")
    assert log.lines == []


def test_each_invocation_stamps_its_own_lines_in_tasks_and_threads(log: Log) -> None:
    log.configure("json")

    async def invoke(invocation_id: str) -> None:
        logs.current.set(Running(invocation_id))
        await asyncio.sleep(0)  # the other one starts now
        logging.info("task %s", invocation_id)
        await asyncio.to_thread(logging.info, "thread %s", invocation_id)

    async def invoke_both() -> None:
        await asyncio.gather(invoke("a"), invoke("b"))

    asyncio.run(invoke_both())
    assert {(line["invocationId"], line["message"]) for line in log.objects} == {
        ("a", "task a"),
        ("a", "thread a"),
        ("b", "task b"),
        ("b", "thread b"),
    }


class Broken(io.StringIO):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(), BlockingIOError(), OSError("disk full"), RuntimeError()])
def test_a_stream_that_fails_never_fails_the_code_that_logs(
    log: Log, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(stream=Broken(error))
    logging.info("lost")
    assert capsys.readouterr() == ("", "")


def test_a_closed_stream_never_fails_the_code_that_logs(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure()
    log.stream.close()
    logging.info("lost")
    logging.shutdown()
    assert capsys.readouterr() == ("", "")


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("message", "arguments", "expected"),
    [
        ("%d apples", ("many",), "root %d apples (its arguments do not fit: TypeError)"),
        ("%s", (Unprintable(),), "root %s (its arguments do not fit: RuntimeError)"),
    ],
)
def test_arguments_that_do_not_fit(
    log: Log, capsys: pytest.CaptureFixture[str], message: str, arguments: tuple[object, ...], expected: str
) -> None:
    log.configure()
    logging.info(message, *arguments)
    assert log.messages == [expected]
    assert capsys.readouterr() == ("", "")


def test_a_message_that_cannot_be_shown_is_lost_and_nothing_else(log: Log) -> None:
    log.configure()
    logging.info(Unprintable())
    logging.info("next")
    assert log.messages == ["root next"]


def test_text_that_the_stream_or_utf8_cannot_encode(log: Log) -> None:
    raw = io.BytesIO()
    log.configure(stream=io.TextIOWrapper(raw, encoding="ascii"))
    logging.info("Grüße")
    assert raw.getvalue().endswith(b"root Gr\\xfc\\xdfe\n")
    log.configure("json")
    logging.info("half \ud83d")
    assert log.objects[0]["message"] == "half \ud83d"


def test_standard_error_is_the_default(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(stream=None)
    logging.info("hello")
    assert capsys.readouterr().err.endswith("root hello\n")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_remembered_secrets_are_masked_in_messages_and_exceptions(
    log: Log, log_format: Literal["text", "json"]
) -> None:
    mask = SecretMask()
    mask.remember(['pa"ss\nword\u00e9'])
    log.configure(log_format, mask=mask)
    secret = {"key": 'pa"ss\nword\u00e9'}
    try:
        raise KeyError(secret["key"])
    except KeyError:
        logging.exception("got %s, %s, %s and %r", secret["key"], json.dumps(secret), secret, secret["key"])
    written = log.stream.getvalue()
    assert 'pa"' not in written
    assert "word" not in written
    assert written.count("***") == 5


MASKED = [
    (["abcd"], "abcd", "***"),
    (["abcd"], "x abcd y abcd", "x *** y ***"),
    (["abcd"], "abc", "abc"),
    (["abc"], "abc", "abc"),
    (["abcd", "abcdefgh"], "abcdefgh", "***"),
    (["abcdef", "defghi"], "xabcdefghix", "x***x"),
    (["abcd", "efgh"], "abcdefgh", "***"),
    (["aaaa"], "aaaaaaaaaa.", "***."),
    (["a.c*d"], "abccd a.c*d", "abccd ***"),
    (["\U0001f600\U0001f600\U0001f600\U0001f600"], "\\ud83d\\ude00" * 4, "***"),
    ([], "abcd", "abcd"),
    (["abcd"], "", ""),
]


@pytest.mark.parametrize(("values", "text", "expected"), MASKED)
def test_masking(values: list[str], text: str, expected: str) -> None:
    mask = SecretMask()
    mask.remember(values)
    assert mask.mask(text) == expected


def test_the_mask_is_bounded_and_forgets_what_it_has_not_seen_for_longest() -> None:
    mask = SecretMask(limit=3)
    mask.remember(["value-1", "value-2", "value-3"])
    mask.remember(["value-1", "value-4"])
    assert mask.mask("value-1 value-2 value-3 value-4") == "*** value-2 *** ***"


def test_forgetting_a_value_leaves_another_masked_that_looks_like_its_escaped_form() -> None:
    mask = SecretMask(limit=2)
    mask.remember(['say "x"', 'say \\"x\\"', "value-3"])
    assert mask.mask('say "x" say \\"x\\"') == 'say "x" ***'


def test_a_forgotten_value_leaves_nothing_behind() -> None:
    mask = SecretMask(limit=1)
    mask.remember(["value-1"])
    empty_but_for_one = {name: len(held) for name, held in vars(mask).items() if hasattr(held, "__len__")}
    mask.remember(['other "value"', "number-3"])
    assert {name: len(held) for name, held in vars(mask).items() if hasattr(held, "__len__")} == empty_but_for_one


def test_a_mask_may_be_used_by_threads_while_it_learns() -> None:
    mask = SecretMask(limit=50)
    mask.remember(["always-there"])
    failures: list[str] = []

    def read() -> None:
        failures.extend(text for _ in range(2000) if (text := mask.mask("always-there")) != "***")

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(2000):
        mask.remember(["always-there", f"always-{number}"])
    reader.join()
    assert failures == []


def test_a_mask_does_not_show_what_it_knows() -> None:
    mask = SecretMask()
    mask.remember(["s3cret"])
    assert "s3cret" not in repr(mask)


@pytest.fixture
def app_stream() -> Iterator[io.StringIO]:
    """What the app's own handler writes, once the app has configured logging anew with it."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    enabled = [each for each in logging.Logger.manager.loggerDict.values() if not getattr(each, "disabled", True)]
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    for each in enabled:
        each.disabled = False  # type: ignore[union-attr]


def configure_as_dict(stream: io.StringIO) -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "handlers": {"own": {"class": "logging.StreamHandler", "stream": stream}},
            "root": {"handlers": ["own"], "level": "INFO"},
        }
    )


def configure_by_force(stream: io.StringIO) -> None:
    logging.basicConfig(stream=stream, level=logging.INFO, format="%(message)s", force=True)


@pytest.mark.parametrize("reconfigure", [configure_as_dict, configure_by_force])
def test_the_runtimes_lines_survive_what_the_app_does_to_logging(
    log: Log, app_stream: io.StringIO, reconfigure: Callable[[io.StringIO], None]
) -> None:
    handler = log.configure()
    runtime = logging.getLogger("daprfunc.any")
    reconfigure(app_stream)
    assert not handler.keep()
    runtime.info("ready")
    logging.getLogger("app").info("hello")
    assert log.messages == ["daprfunc.any ready"]
    assert app_stream.getvalue() == "hello\n"
    handler.uninstall()
    assert logging.getLogger("daprfunc").propagate
    assert logging.getLogger("daprfunc").handlers == []


def test_an_app_that_leaves_logging_alone_has_its_lines_written_once(log: Log) -> None:
    assert log.configure().keep()
    logging.getLogger("daprfunc.any").info("ready")
    assert len(log.lines) == 1


@pytest.mark.parametrize("reconfigure", [configure_as_dict, configure_by_force])
def test_the_apps_own_handlers_write_masked_text(
    log: Log, app_stream: io.StringIO, reconfigure: Callable[[io.StringIO], None]
) -> None:
    mask = SecretMask()
    mask.remember(["pass-word"])
    handler = log.configure(mask=mask)
    reconfigure(app_stream)
    app = logging.getLogger(f"app.{reconfigure.__name__}")  # (dictConfig switches off those that are there)
    app.info("it is %s", "pass-word", stack_info=True)
    try:
        raise ValueError("pass-word")
    except ValueError:
        app.exception("failed with pass-word")
    assert "it is ***" in app_stream.getvalue()
    assert "ValueError: ***" in app_stream.getvalue()
    assert "pass-word" not in app_stream.getvalue()
    handler.uninstall()
    app.warning("it is %s", "pass-word")
    assert app_stream.getvalue().endswith("it is pass-word\n")
