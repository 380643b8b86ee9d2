"""The trigger's data, read as text or as JSON, at most once and only when asked."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from daprfunc.errors import CallerError

_UNREAD: Final = object()
_MALFORMED: Final = "JSON is malformed: "
_read_string = msgspec.json.Decoder(str).decode
_read_tree = msgspec.json.Decoder().decode


class Payload:
    """What a caller sent.

    Its repr shows nothing of the body, which may hold secrets.

    Attributes:
        body: the bytes as they came; empty when there was no body.
        content_type: the media type that the caller named, with its parameters; empty when it named none.
    """

    __slots__ = ("_text", "_tree", "body", "content_type")

    def __init__(self, body: bytes, content_type: str = "") -> None:
        self.body = body
        self.content_type = content_type
        self._text: Any = _UNREAD
        self._tree: Any = _UNREAD

    def text(self) -> str | None:
        """What a ``str`` parameter receives, by the rule of the Dapr extension for Azure Functions.

        Returns:
            None without a body; of a JSON string, the text between its quotes; other JSON in compact form, its keys in
            order and its numbers as they were written; what is not JSON, as it came.

        Raises:
            CallerError: the body is not UTF-8, or the content type says JSON and the body is none.
        """
        if self._text is _UNREAD:
            self._text = self._read_text()
        text: str | None = self._text
        return text

    def tree(self) -> object:
        """The body as parsed JSON: dicts, lists, strings, numbers, booleans, None. Shared: do not change it.

        Raises:
            CallerError: the body is no JSON, or nests too deeply to be read.
        """
        if self._tree is _UNREAD:
            try:
                self._tree = _read_tree(self.body)
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                raise not_json(self.body, error) from None
        return self._tree

    def _read_text(self) -> str | None:
        body = self.body
        if not body:
            return None
        try:
            if body.lstrip().startswith(b'"'):
                return _read_string(body)
            # A negative indent means compact. msgspec leaves strings as they are, so decode() is the check for UTF-8.
            return msgspec.json.format(body, indent=-1).decode()
        except msgspec.DecodeError as error:
            if _says_json(self.content_type):
                raise not_json(body, error) from None
        except (ValueError, RecursionError) as error:
            raise not_json(body, error) from None
        try:
            return body.decode()
        except UnicodeDecodeError as error:
            raise CallerError(f"the payload is neither JSON nor UTF-8 text (byte {error.start})") from None


def not_json(body: bytes, error: Exception) -> CallerError:
    """Say why `body` cannot be read as JSON, by kind and position, without a word of it.

    Args:
        body: what should have been JSON.
        error: what msgspec raised over it.

    Returns:
        The error to raise.
    """
    return CallerError(f"the payload cannot be read as JSON: {_defect(body, error)}")


def _defect(body: bytes, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it nests too deeply"
    if isinstance(error, UnicodeDecodeError):
        # The position in the error counts from the start of one string in the body.
        return f"it is not UTF-8 (byte {_first_invalid_byte(body)})"
    text = str(error)
    if text.startswith(_MALFORMED):
        return text.removeprefix(_MALFORMED)
    if "truncated" in text:
        return f"it ends too early (byte {len(body)})" if body else "there is no body"
    return "a number is out of range"


def _first_invalid_byte(body: bytes) -> int:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return error.start
    return len(body)


def _says_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")
