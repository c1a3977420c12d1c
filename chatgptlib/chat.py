"""One function per endpoint: path, body, type, nothing else.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, overload

from .client import EVENT_STREAM, OpenAIClient, send
from .codec import T, decoder, encode, is_mapping, object_members
from .errors import ConfigError, DeserializeError, OpenAIError, without_traceback
from .exchange import Exchange
from .models import (
    ChatCompletionDeleted,
    ChatCompletionList,
    ChatCompletionMessageList,
    CreateChatCompletionChunk,
    CreateChatCompletionRequest,
    CreateChatCompletionResponse,
)
from .paths import path_step, query_text, with_query
from .replies import answer_json, with_answer

if TYPE_CHECKING:
    from .stream import ChatCompletionStream

_COMPLETIONS = "chat/completions"


class DataclassInstance(Protocol):
    """An instance of any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


ChatRequest = CreateChatCompletionRequest | Mapping[str, Any] | DataclassInstance
"""What the create functions take: the library's request, any other dataclass, or a mapping."""


@overload
def create_chat_completion(
    client: OpenAIClient, request: ChatRequest
) -> CreateChatCompletionResponse: ...


@overload
def create_chat_completion(
    client: OpenAIClient, request: ChatRequest, *, into: type[dict[str, Any]]
) -> dict[str, Any]: ...


@overload
def create_chat_completion(
    client: OpenAIClient,
    request: ChatRequest,
    *,
    into: type[T],
) -> T: ...


def create_chat_completion(
    client: OpenAIClient,
    request: ChatRequest,
    *,
    into: type[Any] = CreateChatCompletionResponse,
) -> Any:
    """Ask for an answer, and return the whole of it.

    `request` is a CreateChatCompletionRequest, another dataclass, or a mapping. `into` is
    the class to read the answer into; `dict` gives the JSON as it came.

    Raises ConfigError for a request that can't be sent, HTTPError when no whole answer
    came, APIError when the server refused, DeserializeError when its answer is none.
    https://platform.openai.com/docs/api-reference/chat/create
    """
    body = request_members(request)
    if body.get("stream"):
        raise ConfigError("stream=True is for create_chat_completion_stream()")
    read = decoder(into)
    content = encode(body)
    try:
        return _finished(read, send(client, "POST", _COMPLETIONS, content))
    except OpenAIError as error:
        raise without_traceback(error) from error.__cause__


@overload
def create_chat_completion_stream(
    client: OpenAIClient, request: ChatRequest
) -> ChatCompletionStream[CreateChatCompletionChunk]: ...


@overload
def create_chat_completion_stream(
    client: OpenAIClient, request: ChatRequest, *, into: type[dict[str, Any]]
) -> ChatCompletionStream[dict[str, Any]]: ...


@overload
def create_chat_completion_stream(
    client: OpenAIClient,
    request: ChatRequest,
    *,
    into: type[T],
) -> ChatCompletionStream[T]: ...


def create_chat_completion_stream(
    client: OpenAIClient,
    request: ChatRequest,
    *,
    into: type[Any] = CreateChatCompletionChunk,
) -> ChatCompletionStream[Any]:
    """Ask for an answer, and return it as a stream of chunks.

    The request is sent, and a refusal raised, here; see ChatCompletionStream for what
    iterating raises. `request` and `into` are as for create_chat_completion; `into` is
    the class of the chunks.
    https://platform.openai.com/docs/api-reference/chat-streaming
    """
    from .stream import ChatCompletionStream

    body = request_members(request)
    body["stream"] = True
    decoder(into)  # a class that can't be read into is refused before anything is sent
    content = encode(body)
    try:
        exchange = send(client, "POST", _COMPLETIONS, content, accept=EVENT_STREAM)
    except OpenAIError as error:
        raise without_traceback(error) from error.__cause__
    n, options = body.get("n"), body.get("stream_options")
    return ChatCompletionStream(
        exchange,
        into,
        choices=n if isinstance(n, int) else 1,
        usage=is_mapping(options) and options.get("include_usage") is True,
    )


# Completions that were created with `store=True`


@overload
def list_chat_completions(
    client: OpenAIClient,
    *,
    model: str | None = None,
    metadata: Mapping[str, str] | None = None,
    after: str | None = None,
    limit: int | None = None,
    order: str | None = None,
) -> ChatCompletionList: ...


@overload
def list_chat_completions(
    client: OpenAIClient,
    *,
    model: str | None = None,
    metadata: Mapping[str, str] | None = None,
    after: str | None = None,
    limit: int | None = None,
    order: str | None = None,
    into: type[dict[str, Any]],
) -> dict[str, Any]: ...


@overload
def list_chat_completions(
    client: OpenAIClient,
    *,
    model: str | None = None,
    metadata: Mapping[str, str] | None = None,
    after: str | None = None,
    limit: int | None = None,
    order: str | None = None,
    into: type[T],
) -> T: ...


def list_chat_completions(
    client: OpenAIClient,
    *,
    model: str | None = None,
    metadata: Mapping[str, str] | None = None,
    after: str | None = None,
    limit: int | None = None,
    order: str | None = None,
    into: type[Any] = ChatCompletionList,
) -> Any:
    """A page of the stored completions: those of `model`, with all of `metadata`.

    `after` is the id that the page before ended with, `limit` its length (20 if None),
    `order` "asc" or "desc" by time; `into` is the class to read the page into. Raises
    what create_chat_completion does.
    https://platform.openai.com/docs/api-reference/chat/list
    """
    query = {"model": model, "after": after, "limit": limit, "order": order, "metadata": metadata}
    return _stored(client, "GET", into, query=query)


@overload
def iterate_chat_completions(
    client: OpenAIClient,
    *,
    model: str | None = None,
    metadata: Mapping[str, str] | None = None,
    limit: int | None = None,
    order: str | None = None,
) -> Iterator[CreateChatCompletionResponse]: ...


@overload
def iterate_chat_completions(
    client: OpenAIClient,
    *,
    model: str | None = None,
    metadata: Mapping[str, str] | None = None,
    limit: int | None = None,
    order: str | None = None,
    into: type[dict[str, Any]],
) -> Iterator[dict[str, Any]]: ...


@overload
def iterate_chat_completions(
    client: OpenAIClient,
    *,
    model: str | None = None,
    metadata: Mapping[str, str] | None = None,
    limit: int | None = None,
    order: str | None = None,
    into: type[T],
) -> Iterator[T]: ...


def iterate_chat_completions(
    client: OpenAIClient,
    *,
    model: str | None = None,
    metadata: Mapping[str, str] | None = None,
    limit: int | None = None,
    order: str | None = None,
    into: type[Any] = CreateChatCompletionResponse,
) -> Iterator[Any]:
    """All the stored completions, page after page, each page asked for when it is needed.

    The arguments and errors are those of list_chat_completions; `limit` is for a page,
    `into` is the class of the completions.
    """
    read = decoder(into)
    after: str | None = None
    while True:
        page = list_chat_completions(
            client, model=model, metadata=metadata, after=after, limit=limit, order=order
        )
        for completion in page:
            yield completion if into is type(completion) else read(completion.to_dict())
        if not page.data:
            return  # whatever it says of more: that has no end
        last = page.last_id or page.data[-1].id
        if not page.has_more or not last or last == after:
            return
        after = last


@overload
def retrieve_chat_completion(
    client: OpenAIClient, completion_id: str
) -> CreateChatCompletionResponse: ...


@overload
def retrieve_chat_completion(
    client: OpenAIClient, completion_id: str, *, into: type[dict[str, Any]]
) -> dict[str, Any]: ...


@overload
def retrieve_chat_completion(client: OpenAIClient, completion_id: str, *, into: type[T]) -> T: ...


def retrieve_chat_completion(
    client: OpenAIClient, completion_id: str, *, into: type[Any] = CreateChatCompletionResponse
) -> Any:
    """A stored completion, as an `into`. Raises what create_chat_completion does.

    https://platform.openai.com/docs/api-reference/chat/get
    """
    return _stored(client, "GET", into, completion_id)


@overload
def update_chat_completion(
    client: OpenAIClient, completion_id: str, metadata: Mapping[str, str]
) -> CreateChatCompletionResponse: ...


@overload
def update_chat_completion(
    client: OpenAIClient,
    completion_id: str,
    metadata: Mapping[str, str],
    *,
    into: type[dict[str, Any]],
) -> dict[str, Any]: ...


@overload
def update_chat_completion(
    client: OpenAIClient, completion_id: str, metadata: Mapping[str, str], *, into: type[T]
) -> T: ...


def update_chat_completion(
    client: OpenAIClient,
    completion_id: str,
    metadata: Mapping[str, str],
    *,
    into: type[Any] = CreateChatCompletionResponse,
) -> Any:
    """Replace the metadata of a stored completion: up to 16 pairs.

    Raises what create_chat_completion does.
    https://platform.openai.com/docs/api-reference/chat/update
    """
    body = encode({"metadata": metadata})
    return _stored(client, "POST", into, completion_id, body=body)


@overload
def delete_chat_completion(client: OpenAIClient, completion_id: str) -> ChatCompletionDeleted: ...


@overload
def delete_chat_completion(
    client: OpenAIClient, completion_id: str, *, into: type[dict[str, Any]]
) -> dict[str, Any]: ...


@overload
def delete_chat_completion(client: OpenAIClient, completion_id: str, *, into: type[T]) -> T: ...


def delete_chat_completion(
    client: OpenAIClient, completion_id: str, *, into: type[Any] = ChatCompletionDeleted
) -> Any:
    """Delete a stored completion. Raises what create_chat_completion does.

    https://platform.openai.com/docs/api-reference/chat/delete
    """
    return _stored(client, "DELETE", into, completion_id)


@overload
def list_chat_completion_messages(
    client: OpenAIClient,
    completion_id: str,
    *,
    after: str | None = None,
    limit: int | None = None,
    order: str | None = None,
) -> ChatCompletionMessageList: ...


@overload
def list_chat_completion_messages(
    client: OpenAIClient,
    completion_id: str,
    *,
    after: str | None = None,
    limit: int | None = None,
    order: str | None = None,
    into: type[dict[str, Any]],
) -> dict[str, Any]: ...


@overload
def list_chat_completion_messages(
    client: OpenAIClient,
    completion_id: str,
    *,
    after: str | None = None,
    limit: int | None = None,
    order: str | None = None,
    into: type[T],
) -> T: ...


def list_chat_completion_messages(
    client: OpenAIClient,
    completion_id: str,
    *,
    after: str | None = None,
    limit: int | None = None,
    order: str | None = None,
    into: type[Any] = ChatCompletionMessageList,
) -> Any:
    """A page of the messages of a stored completion; arguments as for list_chat_completions.

    https://platform.openai.com/docs/api-reference/chat/getMessages
    """
    query = {"after": after, "limit": limit, "order": order}
    return _stored(client, "GET", into, completion_id, "messages", query=query)


def _stored(
    client: OpenAIClient,
    method: str,
    into: type[T],
    *below: str,
    body: bytes | None = None,
    query: Mapping[str, Any] | None = None,
) -> T:
    read = decoder(into)  # what can't be read into is refused before anything is sent
    path = "/".join([_COMPLETIONS, *(path_step("completion id", one) for one in below)])
    path = with_query(path, query_text(query))
    try:
        finished: T = _finished(read, send(client, method, path, body))
    except OpenAIError as error:
        raise without_traceback(error) from error.__cause__
    return finished


def request_members(request: Any) -> dict[str, Any]:
    """The keys of a request, which is a dataclass or a mapping, values as they are."""
    found = object_members(request)
    if found is None:
        raise ConfigError(f"expected a dataclass or a mapping, not {type(request).__name__}")
    return found


def _finished(read: Any, exchange: Exchange) -> Any:
    """The response in the body of an answer, made by `read`."""
    content = exchange.read()
    begin = content[:64].lstrip(b"\xef\xbb\xbf \r\n")
    if begin.startswith((b"data:", b"event:", b"id:", b"retry:", b":")):  # a stream, unasked
        from .stream import collected

        value = collected(exchange, content).to_dict()
    else:
        value = answer_json(exchange, content)
    try:
        response = read(value)
    except DeserializeError as error:
        error.body = exchange.redacted(content.decode("utf-8", "replace"))
        with_answer(error, exchange)
        raise
    if isinstance(response, CreateChatCompletionResponse):
        response.request_id, response.headers = exchange.request_id, exchange.headers
    return response
