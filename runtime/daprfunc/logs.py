"""The process's log: one handler on the root logger, lines of text or JSON that know their invocation.

Logging is synchronous to one stream. It costs an invocation nothing but setting :data:`current`: the handler reads it
when there is a record to write. The runtime's own loggers are called ``daprfunc.*``; everything else is the user's.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter, OrderedDict, defaultdict
from contextlib import suppress
from contextvars import ContextVar
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_TEXT_LEVELS = {"WARNING": "WARN", "CRITICAL": "CRIT"}
_CONTINUATION = "\n    "
_Key = TypeVar("_Key")


class InvocationLog(Protocol):
    """What a log line says of the invocation during which it was written. Any object with these attributes will do."""

    @property
    def invocation_id(self) -> str:
        """The id that ``func.Context`` shows the user."""

    @property
    def function_name(self) -> str:
        """The function that runs."""

    @property
    def trace_id(self) -> str:
        """The trace id of the caller's ``traceparent``, 32 hexadecimal digits; empty if there is none."""


current: ContextVar[InvocationLog | None] = ContextVar("daprfunc.invocation", default=None)
"""The invocation that runs in this context. Tasks inherit it; a thread sees it when run in a copied context."""


class SecretMask:
    """Replaces secret values by ``***`` in the text that is about to be logged.

    It knows the last `limit` distinct values that it was told, as they are and as JSON and ``repr`` escape them, since
    that is how they most often end up in a message. It does not know parts of a value nor other encodings of it.

    Args:
        limit: how many distinct values are remembered; the one longest not seen is forgotten first.
    """

    MIN_LENGTH = 4
    """Shorter values are not masked: ``1`` or ``yes`` would tear unrelated text apart and then be guessed from it."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._forms: OrderedDict[str, frozenset[str]] = OrderedDict()
        # Counted, so that forgetting one value leaves another masked that has the same form; lengths by how a form
        # begins, so that a line costs the same however many values there are.
        self._uses: Counter[str] = Counter()
        self._lengths: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self._lock = Lock()

    def remember(self, values: Iterable[str]) -> None:
        """Mask `values` from now on. Any thread may call this."""
        with self._lock:
            for value in values:
                if value in self._forms:
                    self._forms.move_to_end(value)
                elif len(value) >= self.MIN_LENGTH:
                    self._add(value)

    def mask(self, text: str) -> str:
        """Return `text` with each stretch of remembered values replaced by ``***``. Any thread may call this."""
        with self._lock:
            spans = self._spans(text)
        for start, end in reversed(spans):
            text = f"{text[:start]}***{text[end:]}"
        return text

    def _spans(self, text: str) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        for position in range(len(text) - self.MIN_LENGTH + 1):
            lengths = self._lengths.get(text[position : position + self.MIN_LENGTH])
            if not lengths:
                continue
            reach = max((position + n for n in lengths if text[position : position + n] in self._uses), default=0)
            if reach and spans and position <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(spans[-1][1], reach))
            elif reach:
                spans.append((position, reach))
        return spans

    def _add(self, value: str) -> None:
        escaped = (json.dumps(value), json.dumps(value, ensure_ascii=False), repr(value))
        self._forms[value] = frozenset((value, *(form[1:-1] for form in escaped)))
        for form in self._forms[value]:
            self._uses[form] += 1
            self._lengths[form[: self.MIN_LENGTH]][len(form)] += 1
        if len(self._forms) > self._limit:
            self._forget()

    def _forget(self) -> None:
        _, forms = self._forms.popitem(last=False)
        for form in forms:
            prefix = form[: self.MIN_LENGTH]
            _decrease(self._uses, form)
            _decrease(self._lengths[prefix], len(form))
            if not self._lengths[prefix]:
                del self._lengths[prefix]


def _decrease(counts: Counter[_Key], key: _Key) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


class Levels:
    """Which records are written, by host.json's categories.

    ``Function`` covers what is logged while any function runs, ``Function.<name>`` (or ``Function.<name>.User``, as
    the .NET host calls it) while that one does, ``Host`` the runtime itself, and any other category the Python logger
    of that name. Where no category applies, `default` does. Case counts in a Python logger's name only.

    Args:
        default: a level in :mod:`logging`'s numbers, as all of these are.
        categories: category -> level.

    Attributes:
        runtime: the level of the runtime's own loggers.
        loggers: Python logger -> its level.
        lowest: the level below which nothing of the user's is written.
    """

    def __init__(self, default: int, categories: Mapping[str, int]) -> None:
        azure = {category.lower(): level for category, level in categories.items()}
        self._default = default
        self._functions = azure.get("function", default)
        # Sorted, so that Function.<name>.User comes after Function.<name> and wins.
        self._by_function = {
            category.removeprefix("function.").removesuffix(".user"): level
            for category, level in sorted(azure.items())
            if category.startswith("function.")
        }
        self.runtime = azure.get("host", default)
        self.loggers = {
            category: level
            for category, level in categories.items()
            if category.lower().split(".")[0] not in ("function", "host")
        }
        self.lowest = min(default, self._functions, *self._by_function.values())

    def admits(self, record: logging.LogRecord) -> bool:
        """Whether a record that its logger let pass is to be written."""
        if _is_under(record.name, "daprfunc"):
            return record.levelno >= self.runtime
        if any(_is_under(record.name, logger) for logger in self.loggers):
            return True  # that logger's own level has decided
        invocation = current.get()
        if invocation is None:
            return record.levelno >= self._default
        return record.levelno >= self._by_function.get(invocation.function_name.lower(), self._functions)


class TextFormatter(logging.Formatter):
    """Formats ``2026-11-23T10:00:00.123Z INFO  [function invocation-id] logger message``; brackets in invocations only.

    A line that goes on is indented and control characters are escaped, so that no message can pose as another line.
    """

    def __init__(self, mask: SecretMask | None) -> None:
        super().__init__()
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line and its indented continuations, without the last line end."""
        text = "\n".join(filter(None, (_message(record), _exception_text(self, record))))
        if self._mask:
            text = self._mask.mask(text)
        level = _TEXT_LEVELS.get(record.levelname, record.levelname)
        invocation = current.get()
        stamp = f" [{_harmless(invocation.function_name)} {invocation.invocation_id}]" if invocation else ""
        return f"{_time(record)} {level:<5}{stamp} {_harmless(record.name)} {_harmless(text)}"


class JsonFormatter(logging.Formatter):
    """Formats one JSON object a line: time, level, logger, message; function, invocationId, traceId and exception."""

    def __init__(self, mask: SecretMask | None) -> None:
        super().__init__()
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON; what there is nothing to say of is left out."""
        mask = self._mask.mask if self._mask else str
        invocation = current.get()
        fields = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": mask(_message(record)),
            "function": invocation.function_name if invocation else "",
            "invocationId": invocation.invocation_id if invocation else "",
            "traceId": invocation.trace_id if invocation else "",
            "exception": mask(_exception_text(self, record)),
        }
        given = {name: text for name, text in fields.items() if text or name == "message"}
        try:
            return msgspec.json.encode(given).decode()
        except UnicodeEncodeError:  # a lone surrogate: JSON as such can say it, UTF-8 cannot
            return json.dumps(given)


class LogHandler(logging.Handler):
    """Writes what `levels` admit. Nothing that goes wrong here is raised into the code that logs.

    Args:
        stream: where to.
        levels: what.
        formatter: how.
        mask: hides values from all handlers, the app's own ones as well; None hides nothing.
    """

    def __init__(
        self, stream: TextIO, levels: Levels, formatter: logging.Formatter, mask: SecretMask | None = None
    ) -> None:
        super().__init__()
        self._stream = stream
        self._levels = levels
        self._mask = mask
        self._replaced: dict[str, int] = {}
        self._replaced_factory: Callable[..., logging.LogRecord] | None = None
        self.addFilter(levels.admits)
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; a stream that is closed, full or gone loses it."""
        with suppress(Exception):  # to lose a line is better than to fail an invocation over it
            line = self.format(record) + "\n"
            try:
                self._stream.write(line)
            except UnicodeEncodeError:
                self._stream.write(line.encode("ascii", "backslashreplace").decode())
            self._stream.flush()

    def install(self) -> None:
        """Put this handler on the root logger and set the loggers' levels."""
        levels = {"": self._levels.lowest, "daprfunc": self._levels.runtime, **self._levels.loggers}
        for name, level in levels.items():
            logger = logging.getLogger(name)
            self._replaced[name] = logger.level
            logger.setLevel(level)
        logging.getLogger().addHandler(self)
        if self._mask:
            self._replaced_factory = logging.getLogRecordFactory()
            logging.setLogRecordFactory(_masked(self._replaced_factory, self._mask))

    def keep(self) -> bool:
        """Make the runtime's own lines come out even where the app's code has configured logging anew.

        ``dictConfig`` switches off the loggers that are there and replaces the root logger's handlers, as
        ``basicConfig(force=True)`` does. What the app logs is then written as its configuration says.

        Returns:
            Whether the root logger still has this handler.
        """
        for name, logger in logging.Logger.manager.loggerDict.items():
            if _is_under(name, "daprfunc") and isinstance(logger, logging.Logger):
                logger.disabled = False
        kept = self in logging.getLogger().handlers
        if not kept:
            runtime = logging.getLogger("daprfunc")
            runtime.setLevel(self._levels.runtime)
            runtime.addHandler(self)
            runtime.propagate = False
        return kept

    def uninstall(self) -> None:
        """Take this handler off and give the loggers back the levels they had."""
        if self._replaced_factory:
            logging.setLogRecordFactory(self._replaced_factory)
        logging.getLogger().removeHandler(self)
        runtime = logging.getLogger("daprfunc")
        runtime.removeHandler(self)
        runtime.propagate = True
        for name, level in self._replaced.items():
            logging.getLogger(name).setLevel(level)


def configure(
    *,
    level: int = logging.INFO,
    levels: Mapping[str, int] | None = None,
    log_format: Literal["text", "json"] = "text",
    stream: TextIO | None = None,
    mask: SecretMask | None = None,
) -> LogHandler:
    """Set up the logging of this process; a second call replaces what the first one set.

    The handler must sit on the root logger before the user's code is imported: ``logging.basicConfig()`` there then
    finds a handler and adds none, so no line is written twice.

    Args:
        level: the level where no category applies, in :mod:`logging`'s numbers.
        levels: host.json's ``logging.logLevel``, category -> level, see :class:`Levels`.
        log_format: see :class:`TextFormatter` and :class:`JsonFormatter`.
        stream: where to write; standard error if None.
        mask: hides the values it remembers in messages and exception texts, whichever handler writes them.

    Returns:
        The handler, for those who want to uninstall it again.
    """
    for other in _installed():
        other.uninstall()
    formatter = JsonFormatter(mask) if log_format == "json" else TextFormatter(mask)
    handler = LogHandler(stream or sys.stderr, Levels(level, levels or {}), formatter, mask)
    handler.install()
    return handler


def is_json() -> bool:
    """Whether the process's log is set up, and written as JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in _installed())


def _installed() -> list[LogHandler]:
    """Our handlers, where :meth:`LogHandler.install` and :meth:`LogHandler.keep` put them."""
    handlers = [*logging.getLogger().handlers, *logging.getLogger("daprfunc").handlers]
    return [handler for handler in dict.fromkeys(handlers) if isinstance(handler, LogHandler)]


def _masked(make: Callable[..., logging.LogRecord], mask: SecretMask) -> Callable[..., logging.LogRecord]:
    """Make records whose texts are masked from the start: the app's own handlers do not know of masks."""
    formatter = logging.Formatter()

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = make(*args, **kwargs)
        with suppress(Exception):  # (a message that cannot be made text shows nothing)
            made.msg, made.args = mask.mask(_message(made)), None
        if made.exc_info and made.exc_info[0]:
            made.exc_text = mask.mask(formatter.formatException(made.exc_info))
        if made.stack_info:
            made.stack_info = mask.mask(made.stack_info)
        return made

    return record


def _is_under(name: str, logger: str) -> bool:
    return name == logger or name.startswith(logger + ".")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:
        return f"{record.msg} (its arguments do not fit: {type(error).__name__})"


def _exception_text(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    # record.exc_text is another handler's copy; it is left alone because ours may be masked.
    exception = formatter.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
    return "\n".join(filter(None, (exception, record.stack_info)))


def _time(record: logging.LogRecord) -> str:
    milliseconds = int(record.created * 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(milliseconds // 1000))}.{milliseconds % 1000:03}Z"


def _harmless(text: str) -> str:
    if text.isprintable():
        return text
    return _CONTINUATION.join(map(_escape_controls, text.splitlines()))


def _escape_controls(line: str) -> str:
    return "".join(c if c.isprintable() or c.isspace() else c.encode("unicode_escape").decode() for c in line)
