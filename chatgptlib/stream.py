"""Chunks added up into a response (no I/O), and the stream object the user holds.

    for chunk in stream: ...            # or stream.text_deltas()
    response = stream.response()        # what the call would have given without a stream

A stream ended well if `[DONE]` came, or if every choice seen has its finish reason.
Any other end is a `StreamInterruptedError`, with the response so far.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from io import StringIO
from itertools import chain
from typing import Any, TypeGuard, TypeVar, cast

from .codec import decode, decoder
from .errors import (
    ConfigError,
    DeserializeError,
    HTTPError,
    JSONValue,
    OpenAIError,
    StreamInterruptedError,
    excerpt,
    told_error,
)
from .events import ResponseStream
from .exchange import Exchange
from .models import (
    ChatCompletionChoice,
    ChatCompletionChunkChoice,
    ChatCompletionDelta,
    ChatCompletionLogprobs,
    ChatCompletionUsage,
    ChatMessage,
    ChatRole,
    CreateChatCompletionChunk,
    CreateChatCompletionResponse,
    ToolCall,
)
from .protocol import LEFT
from .replies import (
    check_depth,
    error_event,
    not_json,
    parsed,
    told_in_answer,
    with_answer,
)
from .sse import EventDecoder

C = TypeVar("C")


# Adding up


class ResponseAccumulator:
    """Adds chunks up into the response that the call would have given without a stream.

        total = ResponseAccumulator()
        for chunk in chunks:
            total.add(chunk)
        response = total.response()     # at any time: the response so far

    Text and arguments are appended; of ids, names, roles and finish reasons the first that
    is not empty holds; of usage and the like the last. Choices are told apart by their
    index, however they arrive.

    `choices` is how many were asked for, `usage` whether it was: without them the
    response is not complete.
    """

    def __init__(self, *, choices: int = 1, usage: bool = False) -> None:
        self._asked = max(choices, 1)
        self._asked_usage = usage
        self._choices: dict[int, _Choice] = {}
        self._id: str | None = None
        self._created: int | None = None
        self._model: str | None = None
        self._service_tier: str | None = None
        self._system_fingerprint: str | None = None
        self._moderation: dict[str, Any] | None = None
        self._usage: ChatCompletionUsage | None = None
        self._extra: dict[str, Any] = {}

    @property
    def missing(self) -> list[str]:
        """What a complete response would have and this one has not yet."""
        unfinished = sorted(i for i, one in self._choices.items() if not one.finish_reason)
        missing = [f"the finish reason of choice {index}" for index in unfinished]
        if len(self._choices) < self._asked:
            missing.append(f"{self._asked - len(self._choices)} of {self._asked} choices")
        if self._asked_usage and self._usage is None:
            missing.append("the usage")
        return missing

    @property
    def has_choices(self) -> bool:
        """Some of an answer has arrived."""
        return bool(self._choices)

    def add(self, chunk: CreateChatCompletionChunk) -> bool:
        """Add the next chunk. True if a choice in it ended or holds unusual keys, which may
        tell of an error.

        A choice that holds a message in place of a delta, as in a whole completion, is
        turned into what it would be in a stream.
        """
        unusual = False
        # Called for every chunk: what most chunks do not have is passed over quickly.
        if not self._id:
            self._id = chunk.id
        if not self._created:
            self._created = chunk.created
        if not self._model:
            self._model = chunk.model
        if chunk.service_tier is not None:
            self._service_tier = chunk.service_tier
        if chunk.system_fingerprint is not None:
            self._system_fingerprint = chunk.system_fingerprint
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.moderation is not None:
            self._moderation = chunk.moderation
        if chunk.extra:
            _keep_last(self._extra, chunk.extra)
        for choice in chunk.choices:
            index = choice.index
            if type(index) is not int:
                index = 0
            so_far = self._choices.get(index)
            if so_far is None:
                so_far = self._choices[index] = _Choice()
            if choice.extra:
                unusual = True
                # Beside a delta, as some servers send it, it is but the sum so far.
                if isinstance(choice.extra.get("message"), dict) and not choice.delta.to_dict():
                    _make_delta(choice)
                    chunk.object = "chat.completion.chunk"
            if choice.finish_reason is not None:
                unusual = True
            so_far.add(choice)
        return unusual

    def response(self) -> CreateChatCompletionResponse:
        """The response so far."""
        return CreateChatCompletionResponse(
            id=self._id,
            object="chat.completion",
            created=self._created,
            model=self._model,
            choices=[choice.whole(index) for index, choice in sorted(self._choices.items())],
            usage=self._usage,
            service_tier=self._service_tier,
            system_fingerprint=self._system_fingerprint,
            moderation=self._moderation,
            extra=dict(self._extra),
        )


def _make_delta(choice: ChatCompletionChunkChoice) -> None:
    message: JSONValue = choice.extra.pop("message")
    if isinstance(message, dict) and isinstance(calls := message.get("tool_calls"), list):
        numbered: list[JSONValue] = [
            {"index": index, **call} if isinstance(call, dict) else call
            for index, call in enumerate(calls)
        ]
        message = {**message, "tool_calls": numbered}
    choice.delta = decode(ChatCompletionDelta, message)


class _Choice:
    """One choice, as far as it has come."""

    __slots__ = (
        "calls",
        "extra",
        "finish_reason",
        "function_call",
        "logprobs",
        "message_extra",
        "parts",
        "refusal",
        "role",
        "text",
    )

    def __init__(self) -> None:
        self.role: str | None = None
        self.text: StringIO | None = None  # a list of its pieces would take ten times as much
        self.parts: list[Any] = []  # from servers that send some content in parts
        self.refusal: list[str] = []
        self.calls = _Calls()
        self.function_call: _Call | None = None
        self.finish_reason: str | None = None
        self.logprobs: dict[str, JSONValue] = {}
        self.extra: dict[str, Any] = {}
        self.message_extra: dict[str, Any] = {}

    def add(self, choice: ChatCompletionChunkChoice) -> None:
        delta = choice.delta
        content: Any = delta.content
        if type(content) is str:
            if self.text is None:
                self.text = StringIO()
            self.text.write(content)
        elif content is not None:
            self._end_text()
            self.parts.append(content)
        if delta.role and not self.role:
            self.role = delta.role
        if delta.refusal is not None:
            self.refusal.append(delta.refusal)
        if delta.tool_calls:
            for piece in delta.tool_calls:
                self.calls.add(piece)
        if delta.function_call is not None:
            if self.function_call is None:
                self.function_call = _Call()
            self.function_call.add(ToolCall(function=delta.function_call))
        if delta.extra:
            _merge(self.message_extra, delta.extra)
        if choice.finish_reason is not None and not self.finish_reason:
            self.finish_reason = choice.finish_reason
        if choice.logprobs is not None:
            told: dict[str, JSONValue] = choice.logprobs.to_dict()
            for key, value in told.items():
                so_far = self.logprobs.get(key)
                if isinstance(value, list):
                    if not isinstance(so_far, list):
                        so_far = self.logprobs[key] = []
                    so_far.extend(value)
                elif not isinstance(so_far, list):
                    self.logprobs[key] = value
        if choice.extra:
            _keep_last(self.extra, choice.extra)

    def _end_text(self) -> None:
        if self.text is not None:
            self.parts.append(self.text.getvalue())
            self.text = None

    def whole(self, index: int) -> ChatCompletionChoice:
        message: dict[str, Any] = dict(_settled(self.message_extra))
        message["role"] = self.role or ChatRole.ASSISTANT.value
        if calls := self.calls.whole():
            message["tool_calls"] = calls
        if self.function_call is not None:
            message["function_call"] = self.function_call.whole().get("function")
        message["refusal"] = _text(self.refusal) or None
        text = None if self.text is None else self.text.getvalue()
        message["content"] = content = _content([*self.parts, text])
        if content == "" and (calls or self.function_call or message["refusal"]):
            message["content"] = None  # as beside calls in a whole answer
        return ChatCompletionChoice(
            index=index,
            message=decode(ChatMessage, message),
            finish_reason=self.finish_reason,
            logprobs=decode(ChatCompletionLogprobs, self.logprobs) if self.logprobs else None,
            extra=dict(self.extra),
        )


class _Calls:
    """The tool calls of one choice. Servers number and name their pieces in many routes."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_id: dict[str, _Call] = {}
        self._by_index: dict[int, _Call] = {}  # the last with that index

    def add(self, piece: ToolCall) -> None:
        """Add a piece to the call it belongs to.

        A known id says which. Else the index does, unless another call has it: some
        servers number every call 0. With neither, it goes on with the last call.
        """
        named = piece.id if isinstance(piece.id, str) and piece.id else None
        index = piece.index if type(piece.index) is int else None
        call = self._by_id.get(named) if named else None
        if call is None:
            if index is not None:
                call = self._by_index.get(index)
            elif self._calls:
                call = self._calls[-1]
            # One that has another id, or is whole already, this piece does not go on with.
            if call is not None and (
                call.id or (index is None and call.parts)
                if named
                else call.is_complete_beside(piece)
            ):
                call = None
        if call is None:
            call = _Call()
            call.index = index
            self._calls.append(call)
        if named:
            self._by_id[named] = call
        if index is not None:
            self._by_index[index] = call
        call.add(piece)

    def whole(self) -> list[dict[str, Any]]:
        return [call.whole() for call in sorted(self._calls, key=lambda call: call.index or 0)]


class _Call:
    """One tool call, as far as it has come."""

    __slots__ = ("extra", "id", "index", "name", "part_extra", "parts", "type")

    def __init__(self) -> None:
        self.index: int | None = None
        self.id: str | None = None
        self.type: str | None = None
        self.name: str | None = None
        self.parts: list[str] = []  # of the arguments, or of a custom tool's input
        self.extra: dict[str, Any] = {}
        self.part_extra: dict[str, Any] = {}

    def add(self, piece: ToolCall) -> None:
        self.id = self.id or piece.id
        self.type = self.type or piece.type or ("custom" if piece.custom else None)
        _merge(self.extra, piece.extra)
        for called in (piece.function, piece.custom):
            if called is None:
                continue
            self.name = self.name or called.name
            text: Any = called.input if called is piece.custom else called.arguments  # type: ignore[union-attr]
            if text is not None:
                # Some servers send the arguments as an object, all at once.
                self.parts.append(text if isinstance(text, str) else json.dumps(text))
            _merge(self.part_extra, called.extra)

    def is_complete_beside(self, piece: ToolCall) -> bool:
        """`piece`, which has no id, begins another call: it has a name and arguments of
        its own, while the arguments here are whole already."""
        function = piece.function
        if function is None or not function.name or not function.arguments or not self.name:
            return False
        if not self.parts or self.parts[-1].rstrip()[-1:] not in ("}", "]"):
            return False  # before the costly look
        try:
            json.loads("".join(self.parts))
        except (ValueError, RecursionError):
            return False
        return True

    def whole(self) -> dict[str, Any]:
        kind = "custom" if self.type == "custom" else "function"
        key = "input" if kind == "custom" else "arguments"
        called = {**_settled(self.part_extra), "name": self.name, key: _text(self.parts)}
        whole = {**_settled(self.extra), "id": self.id, "type": self.type or kind}
        if self.name or self.parts or self.part_extra:
            whole[kind] = called
        return whole


def _keep_last(so_far: dict[str, Any], added: Mapping[str, Any]) -> None:
    """Take the new values; but null, as for keys that are known, changes nothing."""
    for key, value in added.items():
        if value is not None or key not in so_far:
            so_far[key] = value


# Keys whose text names something. Other text in a delta is a piece of a longer one.
_NAMES = frozenset({"id", "type", "role", "name", "format", "object", "model", "status"})


def _merge(so_far: dict[str, Any], added: Mapping[str, JSONValue]) -> None:
    """Add the keys of a delta that this library does not know, by what they hold."""
    for key, value in added.items():
        if value is None:
            continue
        before: Any = so_far.get(key)
        if isinstance(value, str) and key not in _NAMES:
            if isinstance(before, _Pieces):
                before.append(value)
            else:
                so_far[key] = _Pieces([value])
        elif isinstance(value, str):
            so_far[key] = before or value
        elif isinstance(value, dict):
            if type(before) is not dict:
                before = so_far[key] = {}
            _merge(cast("dict[str, Any]", before), value)
        elif isinstance(value, list):
            if not isinstance(before, _Items):
                before = so_far[key] = _Items()
            for item in value:
                _merge_item(before, item)
        else:
            so_far[key] = value


class _Items(list[Any]):
    """A list that is still being added to; of those with an index, the items by that."""

    def __init__(self) -> None:
        super().__init__()
        self.numbered: dict[int, dict[str, Any]] = {}


def _merge_item(items: _Items, item: JSONValue) -> None:
    """Add an item of a list, to the item of the same index where they are numbered."""
    if not isinstance(item, dict):
        items.append(item)
        return
    index = item.get("index")
    same = items.numbered.get(index) if type(index) is int else None
    if same is None:
        same = {}
        items.append(same)
        if type(index) is int:
            items.numbered[index] = same
    _merge(same, item)


class _Pieces(list[str]):
    """Text that is still being added to."""


def _settled(value: JSONValue) -> Any:
    """What `_merge` has gathered, as plain JSON."""
    if isinstance(value, _Pieces):
        return _text(value)
    if isinstance(value, dict):
        return {key: _settled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_settled(item) for item in value]
    return value


def _content(pieces: list[JSONValue]) -> Any:
    """The content of a message from that of its deltas: text, or a list of parts."""
    pieces = [piece for piece in pieces if piece is not None]
    if not pieces:
        return None
    if all(isinstance(piece, str) for piece in pieces):
        return _text(pieces)
    parts: list[Any] = []
    for piece in pieces:
        for part in piece if isinstance(piece, list) else [piece]:
            said: JSONValue = {"type": "text", "text": part} if isinstance(part, str) else part
            last = parts[-1] if parts else None
            if last is not None and _is_text(said) and _is_text(last):
                parts[-1] = {**last, "text": _text([last["text"], said["text"]])}
            else:
                parts.append(said)
    return parts


def _is_text(part: JSONValue) -> TypeGuard[dict[str, Any]]:
    return isinstance(part, dict) and part.keys() == {"type", "text"} and part["type"] == "text"


def _text(pieces: Iterable[Any]) -> str:
    """Pieces of text as one; a character that was split between two of them is whole again.

    Servers that cut text by UTF-16 units send each half as an escape of its own.
    """
    text = "".join(piece if isinstance(piece, str) else json.dumps(piece) for piece in pieces)
    if text.isascii():
        return text
    return re.sub(
        "[\ud800-\udbff][\udc00-\udfff]",
        lambda halves: halves[0].encode("utf-16", "surrogatepass").decode("utf-16"),
        text,
    )


# Reading


class ChatCompletionStream(ResponseStream[C]):
    """The chunks of an answer, as they arrive: an iterator, and a context manager.

    The server has accepted the request when this exists. Left before its end, it closes
    its connection: at the end of a `with` block, by `close()`, or when it is forgotten.

    Iterating raises StreamInterruptedError when the stream ends early, APIError when the
    server tells of an error in it, RequestTimeoutError when it falls silent or the
    deadline runs out, DeserializeError for what is no chunk. Each has the response so
    far as `partial`.
    https://platform.openai.com/docs/api-reference/chat-streaming
    """

    def __init__(
        self, exchange: Exchange, into: type[C], *, choices: int = 1, usage: bool = False
    ) -> None:
        self._total = ResponseAccumulator(choices=choices, usage=usage)
        pieces = exchange.iter_bytes()
        super().__init__(exchange, _chunks(exchange, pieces, self._total, decoder(into)))

    def text_deltas(self) -> Iterator[str]:
        """The text of the first choice alone, piece by piece, no character ever split."""
        half = ""
        for chunk in self:
            text: Any
            if isinstance(chunk, dict):
                whole = decode(CreateChatCompletionChunk, chunk)
                ResponseAccumulator().add(whole)  # makes a delta of a message
                text = whole.text
            else:
                text = getattr(chunk, "text", None)
                if not isinstance(text, str):
                    raise ConfigError(f"text_deltas() needs {type(chunk).__name__}.text")
            text = half + text
            half = ""
            if "\ud800" <= text[-1:] <= "\udbff":  # its other half is in the next chunk
                text, half = text[:-1], text[-1]
            if text:
                yield _text([text])
        if half:
            yield half

    def response(self) -> CreateChatCompletionResponse:
        """Read what is left and return the whole answer, as a call without a stream would.

        Raises what iterating raises; an answer that is not whole is never returned.
        """
        for _ in self:
            pass
        response = self._total.response()
        response.request_id, response.headers = self.request_id, self.headers
        return response

    def _cut(self) -> StreamInterruptedError:
        error = super()._cut()
        error.partial = self._total.response()
        return error


def collected(exchange: Exchange, body: bytes) -> CreateChatCompletionResponse:
    """The response in the body of an answer that came as a stream, unasked."""
    total = ResponseAccumulator()
    for _ in _chunks(exchange, iter([body]), total, decoder(dict)):
        pass
    return total.response()


_DONE: dict[str, Any] = {}  # known by identity
_STRAY = "no event"  # the name, which no server can send, of a body without events


def _chunks(
    exchange: Exchange,
    pieces: Iterator[bytes],
    total: ResponseAccumulator,
    read: Callable[[Any], C],
) -> Generator[C, None, bool]:
    """The chunks of a stream, added up in `total` on their way, and True at its end.

    A function of its own, not a method: a generator that held the stream would keep it,
    and its connection, alive after the user has forgotten it.
    """
    events = EventDecoder()
    read_chunk = decoder(CreateChatCompletionChunk)
    typed: Any = read is read_chunk
    done, data = False, ""
    feed, add = events.feed, total.add
    # What `json.loads` comes down to, without its look at white space around the value;
    # an event with such, or with anything else behind it, is looked at more closely.
    scan: Any = vars(json.JSONDecoder())["scan_once"]
    try:
        # None stands for the end of the body, which may complete an event too.
        for piece in chain(pieces, (None,)):
            for name, data in _at_end(events) if piece is None else feed(piece):
                try:
                    value, end = scan(data, 0)
                    if len(data) > 500:  # less is not deep enough to matter
                        check_depth(data, value)
                except (StopIteration, ValueError, RecursionError):
                    value, end = None, -1
                if name or end != len(data) or type(value) is not dict:
                    value = _unusual(name, data, events.closed, exchange)
                    if value is _DONE:
                        done = True
                        break
                    if not value:
                        continue
                if "error" in value or "choices" not in value:
                    _raise_if_told(value, exchange)
                chunk = read_chunk(value)
                if add(chunk):
                    _raise_if_told(value, exchange)
                exchange.check_deadline()
                yield chunk if typed else read(value)
            if done:
                break
        _check_end(done, events, total, exchange)
        exchange.finish()
        return True
    except OpenAIError as error:
        if isinstance(error, HTTPError) and exchange.state != LEFT and not total.missing:
            return True  # all of it is here; it does not matter how the body ended
        if isinstance(error, DeserializeError) and error.body is None:
            error.body = exchange.redacted(data)
        error.partial = total.response()
        with_answer(error, exchange)
        raise
    finally:
        exchange.close()


def _at_end(events: EventDecoder) -> list[tuple[str, str]]:
    """The event that the end of the body completes; or a body that held none, as one."""
    found = events.close()
    if not found and not events.any_came and (stray := events.stray.strip()):
        return [(_STRAY, stray)]
    return found


def _unusual(name: str, data: str, cut: bool, exchange: Exchange) -> dict[str, Any] | None:
    """What an event says that is not simply a JSON object; None where it says nothing.

    `cut`: the body ended in it, so what can't be read is no fault but the end.
    """
    text = data.strip()
    if text == "[DONE]":
        return _DONE
    if not text or text.startswith(":"):  # a comment, wrapped into an event by a proxy
        return None
    value, _ = parsed(text)
    if value is None and "\n" in text:  # an event for each line, which lost its blank lines
        lines = [line for line in text.split("\n") if line.strip() not in ("", "[DONE]")]
        value, _ = parsed(lines[0]) if len(lines) == 1 else (None, None)
    if name == "error":
        raise error_event(value, text, exchange)
    if isinstance(value, dict):
        return value
    if value is not None:
        _raise_if_told(value, exchange)
    if name is _STRAY:
        raise not_json(exchange, text.encode("utf-8", "replace"))
    if cut and value is None:
        return None
    shown = exchange.redacted(text)
    raise DeserializeError(
        f"an event of the stream is no JSON object: {excerpt(shown)} [{exchange.where}]", body=shown
    )


def _raise_if_told(value: Any, exchange: Exchange) -> None:
    if told := told_error(value):
        raise told_in_answer(told, exchange)


def _check_end(
    done: bool, events: EventDecoder, total: ResponseAccumulator, exchange: Exchange
) -> None:
    """Raise unless the stream, whose body is over, or which said that it is, ended well."""
    if stray := events.stray.strip():  # perhaps an error, told outside of any event
        _raise_if_told(parsed(stray)[0], exchange)
    if total.has_choices and (done or not total.missing):
        return
    if total.has_choices:
        reason = f"neither [DONE] came, nor {', nor '.join(total.missing)}"
    else:
        extra = total.response().extra
        reason = "it held no answer" + (f", only {excerpt(json.dumps(extra))}" if extra else "")
    raise StreamInterruptedError(
        f"the stream ended early: {exchange.redacted(reason)} [{exchange.where}]"
    )
