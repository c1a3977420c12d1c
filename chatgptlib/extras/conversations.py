"""Conversations by id: what to send of them, and what to keep.

    chats = Conversations(client, SQLiteStore("chats.db"))
    print(chats.chat_completion("ann", "My name is Ann.").text)
    print(chats.chat_completion("ann", "What is my name?").text)  # today, or next year

A turn is what was said and its answer. It is kept whole, when the answer is there, or
not at all: a turn that fails leaves the conversation as it was.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

from ..chat import create_chat_completion, create_chat_completion_stream
from ..client import OpenAIClient
from ..dialects import with_whole_characters
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
    from typing import TypeAlias

    from typing_extensions import Self

    from ..stream import ChatCompletionStream
    from .results import ResultStream
    from .tools import ToolRun

    ToolStream: TypeAlias = "ResultStream[CreateChatCompletionChunk | ToolCall, ToolRun]"


@dataclass(slots=True, kw_only=True)
class ChatOptions:
    """How one turn is asked for. A parameter left at None is not sent.

    system_prompt: stands first, in this turn and in those after it that give none. ""
        takes it away.
    pre_prompt, post_prompt: lines before and after the sentence that is sent. They are
        not kept. A message with parts gets them as parts; one that is not the user's,
        such as a tool's answer, does not get them.
    restart: begin anew. What was kept is replaced when this turn has its answer.
    history_messages: how many earlier messages are sent at most; all, unless it is given.
    history_tokens: how many tokens they may have, by an estimate: a token for 4 bytes of
        a message's JSON in UTF-8, and 1000 for an image, an audio clip or a file.
    extra: any other parameter of the request, as `tools`.

    Of the history whole exchanges are sent, the newest: each begins with what was said.
    The answer to a tool call always has the call before it, whatever the limits.
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

    `choice` is its text, "" where there is none, as beside tool calls; `restarted` says that
    the conversation began with it; `response` is the whole of the last answer; `usage` the
    tokens of all the answers of the turn, where the server tells them.
    """

    choice: str
    restarted: bool
    response: CreateChatCompletionResponse = field(repr=False)
    usage: ChatCompletionUsage | None = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """The same as `choice`: everything that holds an answer has its text here."""
        return self.choice


Sentence = str | ChatMessage | Sequence[ChatMessage]
"""What can be said in a turn: text of the user's, a message, or several."""


class Conversations:
    """Conversations by id, with a model behind them.

    `store` is a SQLiteStore, a MemoryStore (which is made if None is given), or one of
    your own: see ConversationStore. Ids are any text that is not empty: a user's, a
    chat's. Turns of one conversation may be at work at once, here or in another process;
    each is kept when its answer is there.
    """

    def __init__(self, client: OpenAIClient, store: ConversationStore | None = None) -> None:
        self._client = client
        self._store: ConversationStore = MemoryStore() if store is None else store

    def chat_completion(
        self,
        conversation_id: str,
        sentence: Sentence,
        options: ChatOptions | None = None,
        *,
        tools: Sequence[Callable[..., Any]] = (),
    ) -> ChatResponse:
        """Say something in a conversation, and return the answer.

        An id that is new begins one. `sentence` is text, a ChatMessage (with images, or
        the answer to a tool call), or a list of those (the answers to parallel calls).
        `tools` are functions that the model may call, as in run_tools: the calls, what
        came of them and the answer to that are all kept, as one turn.

        Raises ConfigError for an id, options or a store that can't be used, and what
        create_chat_completion and run_tools raise. When the answer came but could not be
        kept, that is an OpenAIError with the answer as `partial`.
        """
        turn = self._turn(conversation_id, sentence, options or ChatOptions())
        if not tools:
            return turn.keep(create_chat_completion(self._client, turn.request))
        from .tools import run_tools

        return turn.keep(run_tools(self._client, turn.request, tools))

    def chat_completion_stream(
        self,
        conversation_id: str,
        sentence: Sentence,
        options: ChatOptions | None = None,
        *,
        tools: Sequence[Callable[..., Any]] = (),
    ) -> ConversationStream:
        """Say something in a conversation, and return the answer as a stream.

        The turn is kept when the stream has been read to its end. Arguments and errors are
        those of chat_completion. With `tools` the stream goes through all the answers of
        the turn, and nothing is asked before it is read.
        """
        turn = self._turn(conversation_id, sentence, options or ChatOptions())
        if not tools:
            answer = create_chat_completion_stream(self._client, turn.request)
            return ConversationStream(answer, answer.response, turn)
        from .tools import stream_tools

        answers = stream_tools(self._client, turn.request, tools)
        return ConversationStream(answers, answers.result, turn)

    def history(self, conversation_id: str) -> list[ChatMessage]:
        """All that was said and answered, without the system prompt; [] for a new id."""
        _, messages = self._store.load(checked_conversation_id(conversation_id)) or (None, [])
        return [ChatMessage.from_dict(message) for message in messages]

    def delete(self, conversation_id: str) -> bool:
        """Forget a conversation; whether there was one."""
        return self._store.delete(checked_conversation_id(conversation_id))

    def ids(self) -> list[str]:
        """The ids of all conversations; the one with the newest message comes last."""
        return self._store.ids()

    def _turn(self, conversation_id: str, sentence: Sentence, options: ChatOptions) -> _Turn:
        checked_conversation_id(conversation_id)
        limits = {name: getattr(options, name) for name in ("history_messages", "history_tokens")}
        check_at_least(0, **{name: limit for name, limit in limits.items() if limit is not None})
        said = _messages_said(sentence)
        kept = None
        if not options.restart:
            answers_calls = any(message.role in _ANSWERING for message in said)
            limit = None if answers_calls else options.history_messages
            kept = self._store.load(conversation_id, limit)
        known_prompt, history = kept or (None, [])
        system_prompt = known_prompt if options.system_prompt is None else options.system_prompt
        words = [message.to_dict() for message in said]
        messages = [ChatMessage.system(system_prompt)] if system_prompt else []
        messages += map(_recalled, _newest_exchanges(history, words, options))
        messages += [_between_prompts(message, options) for message in said]
        names = (one.name for one in dataclasses.fields(CreateChatCompletionRequest))
        sent = {name: getattr(options, name) for name in names if hasattr(options, name)}
        return _Turn(
            client=self._client,
            request=CreateChatCompletionRequest(messages=messages, **sent),
            restarted=kept is None,
            keep_messages=lambda answers: self._store.append(
                conversation_id,
                [*words, *answers],
                system_prompt=options.system_prompt,
                restart=options.restart,
            ),
        )


@dataclass
class _Turn:
    """A turn that waits for its answer."""

    client: OpenAIClient
    request: CreateChatCompletionRequest
    restarted: bool
    keep_messages: Callable[[_Messages], None]

    def keep(self, answer: CreateChatCompletionResponse | ToolRun) -> ChatResponse:
        """Keep the turn, now that it has its answer."""
        if isinstance(answer, CreateChatCompletionResponse):
            response, answers = answer, [answer.choices[0].message.to_dict()]
        else:
            response, new = answer.response, answer.messages[len(self.request.messages) :]
            answers = [m.to_dict() if isinstance(m, ChatMessage) else dict(m) for m in new]
        try:
            self.keep_messages(answers)
        except Exception as cause:  # any of a user's store: the answer is not lost with it
            error = OpenAIError(f"the answer came, but could not be kept: {cause}")
            raise about_response(error, response, self.client) from cause
        return ChatResponse(response.text, self.restarted, response, answer.usage)


class ConversationStream:
    """The answer of a turn, as it arrives: an iterator of chunks, and a context manager.

    Read to its end, the turn is kept. Left, closed or failed before, it is not, and the
    conversation stays as it was. `restarted` says that the conversation begins with it.

    Iterating raises what a ChatCompletionStream and run_tools raise, and at the end an
    OpenAIError, with the answer as `partial`, when the turn could not be kept.
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
            if isinstance(item, CreateChatCompletionChunk):  # and no call, which chunks held
                return item
        self.response()
        raise StopIteration

    def text_deltas(self) -> Iterator[str]:
        """The text alone, piece by piece, no character ever split."""
        return with_whole_characters(chunk.text for chunk in self)

    def response(self) -> CreateChatCompletionResponse:
        """Read what is left, keep the turn, and return the whole of the last answer.

        Raises what iterating raises; an answer that is not whole is never returned.
        """
        answer = self._rest()
        with self._lock:
            self._kept = self._kept or self._turn.keep(answer)
        return self._kept.response

    def close(self) -> None:
        """Leave the stream and free its connection: from any thread, if there are no tools."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


# What is said, and what is sent

_Messages = list[dict[str, Any]]

_ANSWERING = (ChatRole.TOOL, ChatRole.FUNCTION)
_FOLLOWING = (ChatRole.ASSISTANT, *_ANSWERING)  # no exchange begins with these
_MEDIA = ("image_url", "input_audio", "file")
_MEDIA_TOKENS = 1000


def checked_conversation_id(conversation_id: Any) -> str:
    """An id that a store can keep. Raises ConfigError for any other."""
    try:
        if isinstance(conversation_id, str) and conversation_id.encode():
            return conversation_id
    except UnicodeEncodeError:  # half a character, which no file can hold
        pass
    raise ConfigError(f"the id of a conversation is text, not {conversation_id!r}")


def _messages_said(sentence: str | ChatMessage | Sequence[Any] | None) -> list[ChatMessage]:
    if isinstance(sentence, str):
        return [ChatMessage.user(sentence)]
    said = [sentence] if isinstance(sentence, ChatMessage) else sentence
    if isinstance(said, Sequence) and said and all(isinstance(one, ChatMessage) for one in said):
        return list(said)
    raise ConfigError(f"say text, a ChatMessage, or a list of those, not {type(sentence).__name__}")


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
    """A message of the history, with the words of a spoken answer that the server has no more."""
    message = ChatMessage.from_dict(kept)
    if audio := message.audio:
        expires: Any = audio.expires_at
        if not audio.id or (isinstance(expires, (int, float)) and expires < time.time()):
            message.content, message.audio = message.content or audio.transcript, None
    return message


def _newest_exchanges(history: _Messages, said: _Messages, options: ChatOptions) -> _Messages:
    """The end of `history` that is sent before `said`: as much as the limits allow.

    It begins with an exchange. Where `said` answers a call, it may begin within the one
    that the call belongs to, and goes back to the call at the least.
    """
    blocks, answered = _blocks(history, said)
    messages = inf if options.history_messages is None else options.history_messages
    tokens = inf if options.history_tokens is None else options.history_tokens
    fitting: list[int] = []
    for place in reversed(range(len(blocks))):
        messages -= len(blocks[place])
        tokens -= sum(map(_estimated_tokens, blocks[place])) if tokens < inf else 0
        if messages < 0 or tokens < 0:
            break
        fitting.append(place)
    exchanges = [place for place in fitting if blocks[place][0].get("role") not in _FOLLOWING]
    begins = exchanges or (fitting if answered else [])
    begin = min(begins, default=len(blocks) - answered)
    return [message for block in blocks[begin:] for message in block]


def _blocks(history: _Messages, said: _Messages) -> tuple[list[_Messages], bool]:
    """The history as servers want it: each call in a block with all of its answers behind it.

    A call that nobody answered is left out, or all later turns would be refused, and so is
    an answer to no call. The call that `said` answers comes last, if there is one.
    """
    blocks: list[_Messages] = []
    waiting: dict[str, list[_Messages]] = {}  # the blocks that wait for the answer to a call
    for message in history:
        if message.get("role") not in _ANSWERING:
            blocks.append([message])
            for call_id in _ids_of_calls(message):
                waiting.setdefault(call_id, []).append(blocks[-1])
        elif callers := waiting.get(str(message.get("tool_call_id"))):
            callers.pop().append(message)
    answers = [message for message in said if message.get("role") in _ANSWERING]
    answered = [
        callers[-1]
        for message in answers
        if (callers := waiting.get(str(message.get("tool_call_id"))))
    ]
    whole = [block for block in blocks if len(block) == 1 + len(_ids_of_calls(block[0]))]
    return [*whole, *answered[:1]], bool(answered)


def _ids_of_calls(message: dict[str, Any]) -> list[str]:
    """The ids of the calls in a message; a server may have written anything there."""
    calls: JSONValue = message.get("tool_calls")
    found = calls if isinstance(calls, list) else []
    ids = [str(call.get("id")) for call in found if isinstance(call, dict)]
    if message.get("function_call"):  # which has no id, and nor has its answer
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
