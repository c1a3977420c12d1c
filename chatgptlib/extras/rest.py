"""Every other endpoint: what `client.get`, `post`, `delete` and `stream` do.

A query and a body as the API has them; the answer as JSON, as bytes or as a stream of events.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

from ..client import EVENT_STREAM, OpenAIClient, send
from ..codec import decoder, encode, is_list, is_mapping, object_members
from ..errors import ConfigError, DeserializeError, JSONValue, OpenAIError, without_traceback
from ..exchange import Exchange
from ..replies import answer_json, error_event, error_in_reply, not_json, parsed, unusable
from ..settings import checked_path, with_query
from ..sse import EventDecoder
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
    """The answer of an endpoint, as `client.get` and `client.post` say."""
    content, content_type = _content(body, files)
    path = whole_path(path, query)
    read = None if into is None else decoder(into)
    try:
        exchange = send(client, method, path, content, accept=_ANYTHING, content_type=content_type)
        answer: AnswerT = _answer_in(exchange, read)
        return answer
    except OpenAIError as error:
        raise without_traceback(error) from error.__cause__


def _answer_in(exchange: Exchange, read: Callable[[Any], Any] | None) -> Any:
    """The answer of an exchange, made by `read` if it is to be of some class."""
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
    """The answer of an endpoint as its events, as `client.stream` says."""
    found = object_members(body)
    if found is not None:
        body = {"stream": True, **found}
    content, _ = _content(body, None)
    path = whole_path(path, query)
    try:
        return EventStream(send(client, "POST", path, content, accept=EVENT_STREAM))
    except OpenAIError as error:
        raise without_traceback(error) from error.__cause__


def answer_value(exchange: Exchange, content: bytes) -> Any:
    """The whole answer of any endpoint: JSON, bytes where it is none, None where it is empty.

    A file is bytes though it may hold JSON: what the caller gets depends on the endpoint,
    and not on what somebody once uploaded.
    """
    if not content:
        return None
    kind = exchange.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("", "text/plain"):  # a server that does not say: a transcript, or JSON
        is_json = isinstance(parsed(content)[0], (dict, list))
    else:
        is_json = kind.endswith(("/json", "+json"))
    if not is_json:
        return content
    value = answer_json(exchange, content)
    if error := only_error(value):
        raise error_in_reply(error, exchange)
    return value


def only_error(value: JSONValue) -> Any:
    """`value` if it is an error and nothing else, else None.

    Outside of chat, an `error` member does not make an error: batches, fine-tuning jobs and
    responses keep in theirs what went wrong, and are good answers. They have an `id` or an
    `object`, which a mere error has not.
    """
    if not isinstance(value, dict):
        return None
    named = "error" in (value.get("type"), value.get("object"))
    alone = value.get("error") and not value.get("id") and not value.get("object")
    return value if named or alone else None


# The query, and the body


def whole_path(path: str, query: Mapping[str, Any] | None) -> str:
    """A path with its query, as the user gave both. Raises ConfigError for what can't be."""
    return with_query(checked_path(path), query_text(query))


def query_text(query: Mapping[str, Any] | None) -> str:
    """A query as a URL has it, None left out. Raises ConfigError for what can't be."""
    from urllib.parse import urlencode

    if query is not None and not is_mapping(query):
        raise ConfigError(f"query must be a mapping, not {type(query).__name__}")
    try:
        return urlencode(list(_query_pairs(query or {})))
    except UnicodeEncodeError as error:
        raise ConfigError(f"query cannot be sent: {error}") from None  # it holds the value


def _query_pairs(query: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    for name, value in query.items():
        if not isinstance(name, str):
            raise ConfigError(f"query: a name is text, not {type(name).__name__}")
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
    """The bytes of a body, and their type where they are not JSON."""
    if files is None:
        return None if body is None else encode(body), None
    values: JSONValue = {} if body is None else json.loads(encode(body))
    if not isinstance(values, dict):
        raise ConfigError(f"a form is a mapping or a dataclass, not {type(body).__name__}")
    return form_of(values, files)


def form_of(members: Mapping[str, Any], files: Mapping[str, Any]) -> tuple[bytes, str]:
    """The body of a form with these JSON values and files in it, and its Content-Type.

    Made whole, in memory, so that a retry sends the same bytes.
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
    """The fields of a form, named as the API wants them: `name[]` each item of a list, and
    `name[key]` the member of an object."""
    for name, value in values.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"not the name of a form's field: {name!r}")
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
    """The file name, content and media type of what a user gave as a file."""
    filename: Any = None
    media: list[Any] = []
    if isinstance(given, tuple):
        if len(given) not in (2, 3) or isinstance(given[1], str):
            raise ConfigError(
                f"files[{name!r}]: a tuple is (file name, bytes or open file[, media type])"
            )
        filename, given, *media = given
    found, content = _upload_read(name, given)
    filename = filename or found or name
    if not isinstance(filename, str):
        raise ConfigError(f"files[{name!r}]: a file name is text, not {type(filename).__name__}")
    if media and media[0] is not None:
        if not isinstance(media[0], str) or not re.fullmatch("[!-~]+/[ -~]+", media[0]):
            raise ConfigError(f"files[{name!r}]: not a media type: {media[0]!r}")
        return filename, content, media[0]
    return filename, content  # its media type is that of the file name


def _upload_read(name: str, given: _Upload) -> tuple[str | None, bytes]:
    """The name of a file, if it has one, and its content."""
    if isinstance(given, (bytes, bytearray, memoryview)):
        return None, bytes(given)
    path: Any = getattr(given, "name", None)
    content: Any = given
    try:
        if isinstance(given, (str, os.PathLike)):
            path = os.fspath(given)
            with open(given, "rb") as file:
                content = file.read()
        elif read := getattr(given, "read", None):
            content = read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"files[{name!r}]: {path!r} can't be read: {reason}") from error
    if not isinstance(content, bytes):
        raise ConfigError(
            f"files[{name!r}]: a file is a path, bytes, or a file open in binary mode, "
            f"not {type(given).__name__}"
        )
    return os.path.basename(os.fsdecode(path)) if isinstance(path, (str, bytes)) else None, content


# Events


@dataclass(frozen=True)
class ServerSentEvent:
    """An event: its name, "" where it has none, and its data, text where it is no JSON."""

    event: str
    data: Any


class EventStream(ResponseStream[ServerSentEvent]):
    """The events of an answer, as they arrive: an iterator, and a context manager.

    The server has accepted the request when this exists. It ends at `[DONE]`, or with
    the body of the answer; the endpoint's page says which event is the last.

    Iterating raises APIError for an event that is an error, StreamInterruptedError when
    the connection is lost, RequestTimeoutError when the server falls silent or the
    deadline runs out, DeserializeError for a page in place of a stream.
    """

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange, _events(exchange))


def _events(exchange: Exchange) -> Generator[ServerSentEvent, None, bool]:
    """The events, and True when they have ended well.

    A function, not a method: a generator that held the stream would keep it, and its
    connection, alive after the user has forgotten it."""
    decoder = EventDecoder()
    done = False
    try:
        # None stands for the end of the body, which may complete an event too.
        for piece in chain(exchange.iter_bytes(), (None,)):
            for name, data in decoder.close() if piece is None else decoder.feed(piece):
                if done := data.strip() == "[DONE]":
                    break
                event = _event(name, data, decoder.closed, exchange)
                exchange.check_deadline()
                yield event
            if done:
                break
        if rest := decoder.non_sse_text.strip():  # an error, a page, or the whole answer at once
            value, broken = parsed(rest)
            if told := only_error(value):
                raise error_in_reply(told, exchange)
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
    """`cut`: the body ended in this event, perhaps before all of it had come."""
    value, broken = parsed(data)
    if name == "error":
        raise error_event(value, data, exchange)
    if told := only_error(value):
        raise error_in_reply(told, exchange)
    if broken is None:
        return ServerSentEvent(name, value)
    if cut and data.lstrip().startswith(("{", "[")):
        raise interrupted("ended in the middle of an event", exchange)
    return ServerSentEvent(name, data)
