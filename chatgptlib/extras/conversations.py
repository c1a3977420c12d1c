"""Conversations by id, kept in a store.

    chats = Conversations(client, SQLiteStore("chats.db"))
    print(chats.chat_completion("ann", "My name is Ann.").text)
    print(chats.chat_completion("ann", "What is my name?").text)  # today, or next year

A turn is the new messages and their answer. It is stored when the answer is complete; a turn
that fails leaves the conversation unchanged.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, cast

from ..chat import create_chat_completion, create_chat_completion_stream
from ..client import OpenAIClient
from ..codec import is_list
from ..dialects import join_split_surrogates
from ..errors import ConfigError, JSONValue, OpenAIError
from ..models import (
    ChatCompletionUsage,
    ChatMessage,
    ChatRole,
    CreateChatCompletionChunk,
    CreateChatCompletionRequest,
    CreateChatCompletionResponse,
    Model,
    ToolCall,
)
from .results import about_response, check_at_least
from .stores import ConversationStore, MemoryStore

if TYPE_CHECKING:
    from typing import TypeAlias, TypedDict

    from typing_extensions import Self, Unpack

    from ..stream import ChatCompletionStream
    from .results import ResultStream
    from .tools import BeforeCall, ToolRun

    ToolStream: TypeAlias = "ResultStream[CreateChatCompletionChunk | ToolCall, ToolRun]"

    class ToolSettings(TypedDict, total=False):
        max_rounds: int
        raise_errors: bool
        strict: bool
        before_call: BeforeCall | None
        jobs: int


@dataclass(slots=True, kw_only=True)
class ChatOptions:
    """The options of one turn. A parameter that is None is not sent.

    system_prompt: the first message, in this turn and in later ones that set none. "" removes
        it.
    pre_prompt, post_prompt: lines before and after a user message that is sent, as parts if
        the message has parts. They are not stored.
    restart: begin a new conversation. It replaces the stored one when this turn succeeds.
    history_messages: the maximum number of earlier messages to send; None for all.
    history_tokens: the maximum number of tokens in them, estimated as one for 4 bytes of a
        message's JSON in UTF-8, and 1000 for an image, an audio clip or a file.
    extra: other parameters of the request, such as `tools`.

    The limits keep the newest turns, each from the user's message on. The result of a tool
    call is always sent together with the call, even beyond the limits.
    https://platform.openai.com/docs/api-reference/chat/create
    """

    model: str = Model.GPT_4O_MINI
    restart: bool = False
    system_prompt: str | None = None
    pre_prompt: str | None = None
    post_prompt: str | None = None
    history_messages: int | None = None
    history_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | Sequence[str] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[str, int] | Mapping[int, int] | None = None
    response_format: Any = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class ChatResponse:
    """The answer of a turn.

    `choice` is its text, "" for an answer of tool calls only. `restarted` says whether the
    conversation began with this turn. `response` is the last response, and `usage` the sum over
    all responses of the turn, if the server reports it.
    """

    choice: str
    restarted: bool
    response: CreateChatCompletionResponse = field(repr=False)
    usage: ChatCompletionUsage | None = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """The same as `choice`, under the name that it has elsewhere in this library."""
        return self.choice


Sentence = str | ChatMessage | Sequence[ChatMessage]
"""The input of a turn: the user's text, a message, or several messages."""


class Conversations:
    """Talk to a model in conversations that continue, by id.

    `store` is a SQLiteStore, a MemoryStore (the default), or an object with the methods of
    ConversationStore. An id is any text that is not empty, such as the id of a user. Turns of
    one conversation may run at the same time, also in several processes; each is stored when
    its answer is complete.
    """

    def __init__(self, client: OpenAIClient, store: ConversationStore | None = None) -> None:
        if not isinstance(cast("object", client), OpenAIClient):
            raise ConfigError(f"Conversations needs an OpenAIClient, not {type(client).__name__}")
        self._client = client
        self._store: ConversationStore = MemoryStore() if store is None else store

    def chat_completion(
        self,
        conversation_id: str,
        sentence: Sentence,
        options: ChatOptions | None = None,
        *,
        tools: Sequence[Callable[..., Any]] = (),
        **settings: Unpack[ToolSettings],
    ) -> ChatResponse:
        """Send a message in a conversation, and return the answer.

        A new id begins a conversation. `sentence` is text, a ChatMessage (with images, or the
        result of a tool call), or a list of messages (the results of parallel calls).

        `tools` are functions that the model may call, a `list[Callable[..., Any]]`, and
        `settings` are other arguments of run_tools, such as `before_call`. The calls, their
        results and the answer are stored as one turn.

        Raises ConfigError for an id, options or a store that can't be used, and what
        create_chat_completion and run_tools raise. If the answer can't be stored, raises an
        OpenAIError with the response as `partial`.
        """
        turn = self._turn(conversation_id, sentence, options or ChatOptions())
        if not tools and not settings:
            return turn.keep(create_chat_completion(self._client, turn.request))
        from .tools import run_tools

        return turn.keep(run_tools(self._client, turn.request, tools, **settings))

    def chat_completion_stream(
        self,
        conversation_id: str,
        sentence: Sentence,
        options: ChatOptions | None = None,
        *,
        tools: Sequence[Callable[..., Any]] = (),
        **settings: Unpack[ToolSettings],
    ) -> ConversationStream:
        """Send a message in a conversation, and return the answer as a stream.

        The turn is stored when the stream has been read to its end. Arguments and errors are
        those of chat_completion. With `tools` the stream has the chunks of all responses of the
        turn, and the first request is sent when it is read.
        """
        turn = self._turn(conversation_id, sentence, options or ChatOptions())
        if not tools and not settings:
            answer = create_chat_completion_stream(self._client, turn.request)
            return ConversationStream(answer, answer.response, turn)
        from .tools import stream_tools

        answers = stream_tools(self._client, turn.request, tools, **settings)
        return ConversationStream(answers, answers.result, turn)

    def history(self, conversation_id: str) -> list[ChatMessage]:
        """The stored messages, without the system prompt; [] for a new id."""
        _, messages = self._store.load(checked_conversation_id(conversation_id)) or (None, [])
        return [ChatMessage.from_dict(message) for message in messages]

    def delete(self, conversation_id: str) -> bool:
        """Delete a conversation. Returns whether it existed."""
        return self._store.delete(checked_conversation_id(conversation_id))

    def ids(self) -> list[str]:
        """The ids of all conversations; the one with the newest message comes last."""
        return self._store.ids()

    def _turn(self, conversation_id: str, sentence: Sentence, options: ChatOptions) -> _Turn:
        checked_conversation_id(conversation_id)
        limits = {name: getattr(options, name) for name in ("history_messages", "history_tokens")}
        check_at_least(0, **{name: limit for name, limit in limits.items() if limit is not None})
        new = _new_messages(sentence)
        kept = None
        if not options.restart:
            answers_calls = any(message.role in _ANSWERING for message in new)
            limit = None if answers_calls else options.history_messages
            kept = self._store.load(conversation_id, limit)
        known_prompt, history = kept or (None, [])
        system_prompt = known_prompt if options.system_prompt is None else options.system_prompt
        new_dicts = [message.to_dict() for message in new]
        messages = [ChatMessage.system(system_prompt)] if system_prompt else []
        messages += map(_recalled, _newest_turns(history, new_dicts, options))
        messages += [_between_prompts(message, options) for message in new]
        names = (one.name for one in dataclasses.fields(CreateChatCompletionRequest))
        sent = {name: getattr(options, name) for name in names if hasattr(options, name)}
        return _Turn(
            client=self._client,
            request=CreateChatCompletionRequest(messages=messages, **sent),
            restarted=kept is None,
            keep_messages=lambda answers: self._store.append(
                conversation_id,
                [*new_dicts, *answers],
                system_prompt=options.system_prompt,
                restart=options.restart,
            ),
        )


@dataclass
class _Turn:
    """A turn before its answer."""

    client: OpenAIClient
    request: CreateChatCompletionRequest
    restarted: bool
    keep_messages: Callable[[_Messages], None]

    def keep(self, answer: CreateChatCompletionResponse | ToolRun) -> ChatResponse:
        """Store the turn with its answer."""
        if isinstance(answer, CreateChatCompletionResponse):
            response, answers = answer, [answer.choices[0].message.to_dict()]
        else:
            response, new = answer.response, answer.messages[len(self.request.messages) :]
            answers = [m.to_dict() if isinstance(m, ChatMessage) else dict(m) for m in new]
        try:
            self.keep_messages(answers)
        except Exception as cause:  # a store of the user's may raise anything
            error = OpenAIError(f"the answer came, but could not be stored: {cause}")
            raise about_response(error, response, self.client) from cause
        return ChatResponse(response.text, self.restarted, response, answer.usage)


class ConversationStream:
    """The answer of a turn as it arrives: an iterator of chunks and a context manager.

    The turn is stored when the stream has been read to its end. If it is closed or fails
    before, the conversation stays unchanged. `restarted` says whether the conversation begins
    with this turn.

    Iterating raises what a ChatCompletionStream and run_tools raise, and at the end an
    OpenAIError, with the response as `partial`, if the turn can't be stored.
    """

    def __init__(
        self,
        stream: ChatCompletionStream[CreateChatCompletionChunk] | ToolStream,
        rest: Callable[[], CreateChatCompletionResponse | ToolRun],
        turn: _Turn,
    ) -> None:
        self.restarted: bool = turn.restarted
        self._stream = stream
        self._rest = rest
        self._turn = turn
        self._kept: ChatResponse | None = None
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[CreateChatCompletionChunk]:
        return self

    def __next__(self) -> CreateChatCompletionChunk:
        for item in self._stream:
            if isinstance(item, CreateChatCompletionChunk):  # else a ToolCall
                return item
        self.response()
        raise StopIteration

    def text_deltas(self) -> Iterator[str]:
        """The text, in pieces that never split a character."""
        return join_split_surrogates(chunk.text for chunk in self)

    def response(self) -> CreateChatCompletionResponse:
        """Read the remaining chunks, store the turn, and return the last response.

        Raises what iterating raises; an incomplete response is never returned.
        """
        answer = self._rest()
        with self._lock:
            self._kept = self._kept or self._turn.keep(answer)
        return self._kept.response

    @property
    def usage(self) -> ChatCompletionUsage | None:
        """The sum over all responses of the turn, once it is stored, if the server reports it."""
        return self._kept.usage if self._kept else None

    def close(self) -> None:
        """Close the stream and free its connection. Without tools, any thread may call this."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


# The messages to send

_Messages = list[dict[str, Any]]

_ANSWERING = (ChatRole.TOOL, ChatRole.FUNCTION)
_FOLLOWING = (ChatRole.ASSISTANT, *_ANSWERING)  # a turn does not begin with these
_MEDIA = ("image_url", "input_audio", "file")
_MEDIA_TOKENS = 1000


def checked_conversation_id(conversation_id: Any) -> str:
    """Return an id that a store can keep. Raises ConfigError for any other."""
    try:
        if isinstance(conversation_id, str) and conversation_id.encode():
            return conversation_id
    except UnicodeEncodeError:  # a lone surrogate
        pass
    wanted = "text that is not empty"
    raise ConfigError(f"the id of a conversation must be {wanted}, not {conversation_id!r}")


def _new_messages(sentence: Any) -> list[ChatMessage]:
    given = ChatMessage.user(sentence) if isinstance(sentence, str) else sentence
    new: object = [given] if isinstance(given, ChatMessage) else given
    if not is_list(new) or not all(isinstance(one, ChatMessage) for one in new):
        kind = type(sentence).__name__
        raise ConfigError(f"give text, a ChatMessage or a list of ChatMessages, not {kind}")
    if not new or any(one.role == ChatRole.USER and not one.content for one in new):
        raise ConfigError(f"the {'message' if new else 'list of messages'} is empty")
    return list(new)


def _between_prompts(message: ChatMessage, options: ChatOptions) -> ChatMessage:
    before, after = options.pre_prompt, options.post_prompt
    if message.role != ChatRole.USER or not (before or after):
        return message
    content: Any = message.content
    if content is None or isinstance(content, str):
        content = "\n".join(text for text in (before, content, after) if text)
    else:
        first, last = ([{"type": "text", "text": text}] if text else [] for text in (before, after))
        content = [*first, *content, *last]
    return dataclasses.replace(message, content=content)


def _recalled(kept: dict[str, Any]) -> ChatMessage:
    """A message of the history. Audio that the server has deleted becomes its transcript."""
    message = ChatMessage.from_dict(kept)
    if audio := message.audio:
        expires: Any = audio.expires_at
        if not audio.id or (isinstance(expires, (int, float)) and expires < time.time()):
            message.content, message.audio = message.content or audio.transcript, None
    return message


def _newest_turns(history: _Messages, new: _Messages, options: ChatOptions) -> _Messages:
    """The newest part of `history` within the limits, to send before `new`.

    It begins with a turn. If `new` has the result of a call, it may begin inside the turn of
    that call, and it contains at least the call.
    """
    blocks, answered = _blocks(history, new)
    messages = inf if options.history_messages is None else options.history_messages
    tokens = inf if options.history_tokens is None else options.history_tokens
    fitting: list[int] = []
    for place in reversed(range(len(blocks))):
        messages -= len(blocks[place])
        tokens -= sum(map(_estimated_tokens, blocks[place])) if tokens < inf else 0
        if messages < 0 or tokens < 0:
            break
        fitting.append(place)
    if options.history_messages is None and len(fitting) == len(blocks):
        return [message for block in blocks for message in block]  # whatever it begins with
    turns = [place for place in fitting if blocks[place][0].get("role") not in _FOLLOWING]
    begins = turns or (fitting if answered else [])
    begin = min(begins, default=len(blocks) - 1 if answered else len(blocks))
    return [message for block in blocks[begin:] for message in block]


def _blocks(history: _Messages, new: _Messages) -> tuple[list[_Messages], bool]:
    """Group the history into blocks: a message and the results of its calls. Also return whether
    `new` answers a call; the block of that call is then the last.

    A call without a result is left out, since servers reject a request that has one. So is a
    result without a call.
    """
    blocks: list[_Messages] = []
    waiting: dict[str, list[_Messages]] = {}  # blocks without a result yet, by the id of the call
    for message in history:
        if message.get("role") not in _ANSWERING:
            blocks.append([message])
            for call_id in _ids_of_calls(message):
                waiting.setdefault(call_id, []).append(blocks[-1])
        elif callers := waiting.get(str(message.get("tool_call_id"))):
            callers.pop().append(message)
    answers = [message for message in new if message.get("role") in _ANSWERING]
    answered = [
        callers[-1]
        for message in answers
        if (callers := waiting.get(str(message.get("tool_call_id"))))
    ]
    complete = [block for block in blocks if len(block) == 1 + len(_ids_of_calls(block[0]))]
    return [*complete, *answered[:1]], bool(answered)


def _ids_of_calls(message: dict[str, Any]) -> list[str]:
    """The ids of the calls in a message, which may have any JSON there."""
    calls: JSONValue = message.get("tool_calls")
    found = calls if isinstance(calls, list) else []
    ids = [str(call.get("id")) for call in found if isinstance(call, dict)]
    if message.get("function_call"):  # neither it nor its result has an id
        ids.append(str(None))
    return ids


def _estimated_tokens(message: Mapping[str, Any]) -> int:
    content: JSONValue = message.get("content")
    media = 0
    if isinstance(content, list):
        words = [
            part for part in content if not isinstance(part, dict) or part.get("type") not in _MEDIA
        ]
        media = len(content) - len(words)
        message = {**message, "content": words}
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", "replace")) // 4 + media * _MEDIA_TOKENS
