"""Every other endpoint: the implementation of `client.get`, `post`, `delete` and `stream`.

A request has a query and a body; the response is JSON, bytes or a stream of events.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import IO, TYPE_CHECKING, Any, cast

from ..client import EVENT_STREAM, OpenAIClient, send
from ..codec import decoder, encode, is_list, is_mapping, object_members
from ..errors import ConfigError, DeserializeError, JSONValue, OpenAIError
from ..exchange import Exchange
from ..redaction import without_traceback
from ..replies import error_event, error_in_reply, not_json, parsed, reply_json, unusable
from ..settings import checked_path, with_query
from ..sse import ERROR_NAMES, EventDecoder
from ..stream import ResponseStream, interrupted

if TYPE_CHECKING:
    from typing import TypeAlias

    from ..client import AnswerT

    _Upload: TypeAlias = (
        str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | tuple[Any, ...]
    )

_ANYTHING = "application/json, */*"


def asked(
    client: OpenAIClient,
    method: str,
    path: str,
    query: Mapping[str, Any] | None,
    into: type[AnswerT] | None,
    body: Any = None,
    files: Mapping[str, Any] | None = None,
) -> AnswerT:
    """Send a request, and return the response as `client.get` and `client.post` describe it."""
    content, content_type = _content(body, files)
    path = with_query(checked_path(path), query_text(query))
    read = None if into is None else decoder(into)
    try:
        exchange = send(client, method, path, content, accept=_ANYTHING, content_type=content_type)
        answer: AnswerT = _answer_in(exchange, read)
        return answer
    except OpenAIError as error:
        raise without_traceback(error) from error.__cause__


def _answer_in(exchange: Exchange, read: Callable[[Any], Any] | None) -> Any:
    """The value in a response, converted by `read` if a class was given."""
    content = exchange.read()
    value = answer_value(exchange, content)
    if read is None:
        return value
    if isinstance(value, bytes):
        raise not_json(exchange, content)
    try:
        return read(value)
    except DeserializeError as error:
        raise unusable(exchange, content, str(error), path=error.path) from None


def streamed(
    client: OpenAIClient, path: str, query: Mapping[str, Any] | None, body: Any
) -> EventStream:
    """Send a request, and return its events as `client.stream` describes them."""
    found = object_members(body)
    if found is not None:
        body = {"stream": True, **found}
    content, _ = _content(body, None)
    path = with_query(checked_path(path), query_text(query))
    try:
        return EventStream(send(client, "POST", path, content, accept=EVENT_STREAM))
    except OpenAIError as error:
        raise without_traceback(error) from error.__cause__


def answer_value(exchange: Exchange, content: bytes) -> Any:
    """The body of any response: its JSON, bytes if it is of another type, None if it is empty.

    A type such as application/octet-stream gives bytes even if they are JSON, so that the
    result for a file does not depend on its content. `text/plain`, or no type, is JSON if it
    holds an object or a list.
    """
    if not content:
        return None
    kind = exchange.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("", "text/plain"):  # of a server that does not declare JSON, or a transcript
        is_json = isinstance(parsed(content)[0], (dict, list))
    else:
        is_json = kind.endswith(("/json", "+json"))
    if not is_json:
        return content
    value = reply_json(exchange, content)
    if error := only_error(value):
        raise error_in_reply(error, exchange)
    return value


def only_error(value: JSONValue) -> Any:
    """`value` if it is only an error, else None.

    Outside of chat, a response with an `error` member may be valid: batches, fine-tuning jobs
    and responses report a failure there. These have an `id` or an `object`; an error has
    neither.
    """
    if not isinstance(value, dict):
        return None
    named = "error" in (value.get("type"), value.get("object"))
    alone = value.get("error") and not value.get("id") and not value.get("object")
    return value if named or alone else None


# The query, and the body


def query_text(query: Mapping[str, Any] | None) -> str:
    """A query, encoded, without values that are None. Raises ConfigError for an invalid one."""
    from urllib.parse import urlencode

    if query is not None and not is_mapping(query):
        raise ConfigError(f"query must be a mapping, not {type(query).__name__}")
    try:
        return urlencode(list(_query_pairs(query or {})))
    except UnicodeEncodeError as error:  # it has the query, which may hold a secret
        raise ConfigError(f"query cannot be sent: {error}") from None


def _query_pairs(query: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    for name, value in query.items():
        if not isinstance(name, str):
            raise ConfigError(f"query: a name must be text, not {type(name).__name__}")
        named = (
            {f"{name}[{k}]": v for k, v in value.items()} if is_mapping(value) else {name: value}
        )
        for key, item in named.items():
            for one in item if is_list(item) else (item,):
                if (text := _query_value(key, one)) is not None:
                    yield key, text


def _query_value(name: str, value: Any) -> str | None:
    plain = value.value if isinstance(value, Enum) else value
    if isinstance(plain, bool):
        return str(plain).lower()
    if plain is not None and not isinstance(plain, (str, int, float)):
        raise ConfigError(f"query: {name} cannot be of type {type(plain).__name__}")
    return None if plain is None else str(plain)


def _content(body: Any, files: Mapping[str, Any] | None) -> tuple[bytes | None, str | None]:
    """The bytes of a body, and their Content-Type if it is not JSON."""
    if files is None:
        return None if body is None else encode(body), None
    values: JSONValue = {} if body is None else json.loads(encode(body))
    if not isinstance(values, dict):
        raise ConfigError(f"a form must be a mapping or a dataclass, not {type(body).__name__}")
    return form_of(values, files)


def form_of(members: Mapping[str, Any], files: Mapping[str, Any]) -> tuple[bytes, str]:
    """The body of a form with these JSON values and files, and its Content-Type.

    It is built in memory, so that a retry sends the same bytes.
    """
    from urllib3.filepost import encode_multipart_formdata

    if not is_mapping(files):
        raise ConfigError(f"files must map names to files, not {type(files).__name__}")
    fields = [*_numbered(members, _form_text), *_numbered(files, _upload_part)]
    try:
        return encode_multipart_formdata(fields)
    except UnicodeEncodeError as error:
        raise ConfigError(f"cannot be sent in a form: {error}") from error


def _numbered(
    values: Mapping[Any, Any], made: Callable[[str, Any], Any]
) -> Iterator[tuple[str, Any]]:
    """The fields of a form, with the names that the API expects: `name[]` for each item of a
    list, `name[key]` for each member of an object."""
    for name, value in values.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"invalid name of a form field: {name!r}")
        if is_list(value) and not isinstance(value, tuple):  # a tuple is one file
            many = name if name.endswith("[]") else f"{name}[]"
            yield from ((many, made(name, item)) for item in value if item is not None)
        elif is_mapping(value):
            yield from _numbered({f"{name}[{key}]": item for key, item in value.items()}, made)
        elif value is not None:
            yield name, made(name, value)


def _form_text(name: str, value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _upload_part(name: str, given: _Upload) -> tuple[str, bytes] | tuple[str, bytes, str]:
    """The file name, the content and, if given, the media type of a file."""
    filename: Any = None
    media: list[Any] = []
    if isinstance(given, tuple):
        if len(given) not in (2, 3) or isinstance(given[1], str):
            raise ConfigError(
                f"files[{name!r}]: a tuple must be (file name, bytes or open file[, media type])"
            )
        filename, given, *media = given
    found, content = _upload_read(name, given)
    filename = filename or found or name
    if not isinstance(filename, str):
        raise ConfigError(f"files[{name!r}]: the name must be text, not {type(filename).__name__}")
    if media and media[0] is not None:
        if not isinstance(media[0], str) or not re.fullmatch("[!-~]+/[ -~]+", media[0]):
            raise ConfigError(f"files[{name!r}]: not a media type: {media[0]!r}")
        return filename, content, media[0]
    return filename, content  # urllib3 guesses the media type from the name


def _upload_read(name: str, given: _Upload) -> tuple[str | None, bytes]:
    """The name of a file, or None, and its content."""
    if isinstance(given, (bytes, bytearray, memoryview)):
        return None, bytes(given)
    path: Any = getattr(given, "name", None)
    content: Any = given
    try:
        if isinstance(given, (str, os.PathLike)):
            path = os.path.expanduser(os.fsdecode(cast("str", given)))
            with open(path, "rb") as file:
                content = file.read()
        elif hasattr(given, "read"):
            opened: Any = given
            content = opened.read()
            if not content and getattr(opened, "seekable", bool)() and opened.tell():
                raise ValueError("it is at its end: call its seek(0) first")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"files[{name!r}]: {path!r} can't be read: {reason}") from error
    if not isinstance(content, bytes):
        raise ConfigError(
            f"files[{name!r}]: a file must be a path, bytes, or a file open in binary mode, "
            f"not {type(given).__name__}"
        )
    return os.path.basename(os.fsdecode(path)) if isinstance(path, (str, bytes)) else None, content


# Events


@dataclass(frozen=True)
class ServerSentEvent:
    """An event: its name, or "", and its data, which is text if it is not JSON."""

    event: str
    data: Any


class EventStream(ResponseStream[ServerSentEvent]):
    """The events of a response as they arrive: an iterator and a context manager.

    The server has accepted the request. The stream ends at `[DONE]`, or with the body of the
    response; the endpoint's page says which event is the last.

    Iterating raises APIError for an event that is an error, StreamInterruptedError if the
    connection is lost, RequestTimeoutError if the server falls silent or the deadline expires,
    DeserializeError for a response that is not a stream.
    """

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange, _events(exchange))


def _events(exchange: Exchange) -> Generator[ServerSentEvent, None, bool]:
    """Yield the events, and return True at a regular end.

    This is a function, not a method: a generator that refers to the stream would keep it and
    its connection open after the user has dropped it."""
    decoder = EventDecoder()
    done = False
    try:
        # None is the end of the body, which may complete an event.
        for piece in chain(exchange.iter_bytes(), (None,)):
            for name, data in decoder.close() if piece is None else decoder.feed(piece):
                if done := data.strip() == "[DONE]":
                    break
                event = _event(name, data, decoder.closed, exchange)
                exchange.check_deadline()
                yield event
            if done:
                break
        if rest := decoder.non_sse_text.strip():  # an error, a page, or the complete response
            value, broken = parsed(rest)
            if error := only_error(value):
                raise error_in_reply(error, exchange)
            if broken is not None and not decoder.any_came:
                content = rest.encode("utf-8", "replace")
                raise not_json(exchange, content)
            if not decoder.any_came:
                yield ServerSentEvent("", value)
        exchange.finish()
        return True
    finally:
        exchange.close()


def _event(name: str, data: str, cut: bool, exchange: Exchange) -> ServerSentEvent:
    """Read an event. `cut` says that the body ended without the blank line that ends an event,
    so its data may be incomplete."""
    value, broken = parsed(data)
    if name.lower() in ERROR_NAMES:
        raise error_event(value, data, exchange)
    if error := only_error(value):
        raise error_in_reply(error, exchange)
    if broken is None:
        return ServerSentEvent(name, value)
    if cut and data.lstrip().startswith(("{", "[")):
        raise interrupted("ended in the middle of an event", exchange)
    return ServerSentEvent(name, data)
