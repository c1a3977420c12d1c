"""Stored completions: those that were created with `store=True`.

To read a response into another class, use `client.get("chat/completions", into=Page)`.
https://platform.openai.com/docs/api-reference/chat/list
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..chat import read_reply
from ..client import OpenAIClient, send
from ..codec import JSONObject, decoder, encode
from ..errors import OpenAIError
from ..models import ChatMessage, CreateChatCompletionResponse
from ..redaction import without_traceback
from ..settings import path_segment, with_query
from .rest import query_text

StoredT = TypeVar("StoredT")


@dataclass(repr=False, eq=False)
class ChatCompletionList(JSONObject):
    """A page of stored completions, which can be iterated. `has_more` says whether more follow."""

    data: list[CreateChatCompletionResponse]
    object: str | None = None  # "list"
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    def __iter__(self) -> Iterator[CreateChatCompletionResponse]:
        return iter(self.data)


@dataclass(repr=False, eq=False)
class ChatCompletionMessageList(JSONObject):
    """A page of the messages of a stored completion. `extra` of each has its id."""

    data: list[ChatMessage]
    object: str | None = None  # "list"
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    def __iter__(self) -> Iterator[ChatMessage]:
        return iter(self.data)


@dataclass(repr=False, eq=False)
class ChatCompletionDeleted(JSONObject):
    """The response to a deletion: the id, and whether the completion was deleted."""

    id: str | None = None
    object: str | None = None  # "chat.completion.deleted"
    deleted: bool | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


def list_chat_completions(
    client: OpenAIClient,
    *,
    model: str | None = None,
    metadata: Mapping[str, str] | None = None,
    after: str | None = None,
    limit: int | None = None,
    order: str | None = None,
) -> ChatCompletionList:
    """List a page of the stored completions, filtered by `model` and `metadata`.

    `after` is the last id of the page before, `limit` the page's length (20 if None), `order`
    "asc" or "desc" by time. Raises what create_chat_completion raises.
    https://platform.openai.com/docs/api-reference/chat/list
    """
    query = {"model": model, "after": after, "limit": limit, "order": order, "metadata": metadata}
    return _stored(client, "GET", ChatCompletionList, query=query)


def iterate_chat_completions(
    client: OpenAIClient,
    *,
    model: str | None = None,
    metadata: Mapping[str, str] | None = None,
    limit: int | None = None,
    order: str | None = None,
) -> Iterator[CreateChatCompletionResponse]:
    """Iterate over all stored completions. Each page is requested when it is needed.

    Arguments and errors are those of list_chat_completions; `limit` is the length of a page.
    https://platform.openai.com/docs/api-reference/chat/list
    """
    after: str | None = None
    while True:
        page = list_chat_completions(
            client, model=model, metadata=metadata, after=after, limit=limit, order=order
        )
        yield from page
        if not page.data:
            return  # with `has_more` too, or this would not end
        last = page.last_id or page.data[-1].id
        if not page.has_more or not last or last == after:
            return
        after = last


def retrieve_chat_completion(
    client: OpenAIClient, completion_id: str
) -> CreateChatCompletionResponse:
    """Retrieve a stored completion. Raises what create_chat_completion raises.

    https://platform.openai.com/docs/api-reference/chat/get
    """
    return _stored(client, "GET", CreateChatCompletionResponse, completion_id)


def update_chat_completion(
    client: OpenAIClient, completion_id: str, metadata: Mapping[str, str]
) -> CreateChatCompletionResponse:
    """Replace the metadata of a stored completion: up to 16 pairs.

    Raises what create_chat_completion raises.
    https://platform.openai.com/docs/api-reference/chat/update
    """
    body = encode({"metadata": metadata})
    return _stored(client, "POST", CreateChatCompletionResponse, completion_id, body=body)


def delete_chat_completion(client: OpenAIClient, completion_id: str) -> ChatCompletionDeleted:
    """Delete a stored completion. Raises what create_chat_completion raises.

    https://platform.openai.com/docs/api-reference/chat/delete
    """
    return _stored(client, "DELETE", ChatCompletionDeleted, completion_id)


def list_chat_completion_messages(
    client: OpenAIClient,
    completion_id: str,
    *,
    after: str | None = None,
    limit: int | None = None,
    order: str | None = None,
) -> ChatCompletionMessageList:
    """List a page of the messages of a stored completion. Arguments: as list_chat_completions.

    https://platform.openai.com/docs/api-reference/chat/getMessages
    """
    query = {"after": after, "limit": limit, "order": order}
    kind = ChatCompletionMessageList
    return _stored(client, "GET", kind, completion_id, "messages", query=query)


def _stored(
    client: OpenAIClient,
    method: str,
    kind: type[StoredT],
    *below: str,
    body: bytes | None = None,
    query: Mapping[str, Any] | None = None,
) -> StoredT:
    segments = (path_segment("completion id", part) for part in below)
    path = with_query("/".join(["chat/completions", *segments]), query_text(query))
    try:
        found: StoredT = read_reply(decoder(kind), send(client, method, path, body))
    except OpenAIError as error:
        raise without_traceback(error) from error.__cause__
    return found
