"""The objects of the API: requests, messages, responses, chunks and their parts.

https://platform.openai.com/docs/api-reference/chat

For all of them:

- A field at None is not sent, so that the server's default applies. `False`, `0`, `""` and
  `[]` are sent, except where ChatMessage says otherwise. In an object that was read, None means
  that the key was missing or null.
- `extra` holds the keys that a class has no field for. They are sent too, each unless a field
  of that name is set.
- Values are not checked or converted, so that new roles and finish reasons are kept.
- `to_dict()` returns the JSON object, `from_dict()` reads one.

This module does not postpone the evaluation of annotations, as others do, since `dataclass` and
the codec would have to parse each of them at the start of every program. Slots double the time
to create a class. Two kinds of classes have them: those that users fill in, so that a misspelt
attribute is an error, and the parts of a chunk, for speed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .codec import FILLED_DIRECTLY, WHEN_MISSING, JSONObject, members
from .dialects import in_form, index_of, reasoning_of, text_of, with_usage

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from typing import IO, Protocol, TypeAlias

    from typing_extensions import Self

    class Picture(Protocol):
        """An image of Pillow, or an object with the same `save` method."""

        def save(self, file: IO[bytes], format: str, /) -> object: ...

    _Bytes: TypeAlias = bytes | bytearray | memoryview
    Media: TypeAlias = (
        "str | os.PathLike[str] | _Bytes | IO[bytes] | Picture | ContentPart | Mapping[str, Any]"
    )


FILLED_DIRECTLY.add(__name__)


class ChatRole(str, Enum):  # not StrEnum, which Python 3.10 lacks
    """The author of a message. A plain string, such as "user", can be used instead.

    SYSTEM and DEVELOPER messages give instructions, USER messages are the person's, ASSISTANT
    messages the model's, and TOOL messages the results of tool calls.
    """

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    FUNCTION = "function"  # deprecated

    def __str__(self) -> str:
        return str(self.value)


class Model:
    """Names of OpenAI's models. Any other name can be given as a string.

    https://platform.openai.com/docs/models
    """

    GPT_5_6_SOL = "gpt-5.6-sol"
    GPT_5_6_TERRA = "gpt-5.6-terra"
    GPT_5_6_LUNA = "gpt-5.6-luna"
    GPT_5_5 = "gpt-5.5"
    GPT_5_4 = "gpt-5.4"
    GPT_5_4_MINI = "gpt-5.4-mini"
    GPT_5_4_NANO = "gpt-5.4-nano"
    GPT_5_2 = "gpt-5.2"
    GPT_5_1 = "gpt-5.1"
    GPT_5 = "gpt-5"
    GPT_5_MINI = "gpt-5-mini"
    GPT_5_NANO = "gpt-5-nano"
    GPT_4_1 = "gpt-4.1"
    GPT_4_1_MINI = "gpt-4.1-mini"
    GPT_4_1_NANO = "gpt-4.1-nano"
    GPT_4O = "gpt-4o"
    GPT_4O_MINI = "gpt-4o-mini"
    GPT_4_TURBO = "gpt-4-turbo"
    GPT_4 = "gpt-4"
    GPT_3_5_TURBO = "gpt-3.5-turbo"
    O4_MINI = "o4-mini"
    O3 = "o3"
    O3_MINI = "o3-mini"
    O1 = "o1"


@dataclass(repr=False, eq=False)
class FunctionCall(JSONObject):
    """The function that the model calls. It writes `arguments` as JSON, which may be invalid."""

    name: str | None = None
    arguments: str | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class CustomToolCall(JSONObject):
    """The custom tool that the model calls, with any text as its input."""

    name: str | None = None
    input: str | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class ToolCall(JSONObject):
    """A tool call in an assistant's message, or a piece of one in a stream."""

    id: str | None = None
    type: str | None = None  # "function" or "custom"
    function: FunctionCall | None = None
    custom: CustomToolCall | None = None
    index: int | None = None  # only in a stream: the call that this piece belongs to
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    def _as_sent(self) -> dict[str, Any]:
        found = {"type": "custom" if self.custom else "function", **members(self)}
        found.pop("index", None)
        return found


@dataclass(repr=False, eq=False)
class ContentPart(JSONObject):
    """A part of a message's content. `type` names the field that is set.
    https://platform.openai.com/docs/api-reference/chat/create#chat-create-messages"""

    type: str | None = None  # "text", "image_url", "input_audio", "file" or "refusal"
    text: str | None = None
    image_url: dict[str, Any] | None = None  # url, detail
    input_audio: dict[str, Any] | None = None  # data in base64, format
    file: dict[str, Any] | None = None  # file_id, or filename and file_data
    refusal: str | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class URLCitation(JSONObject):
    """The source of a part of the text. The indexes count characters of the message."""

    start_index: int | None = None
    end_index: int | None = None
    url: str | None = None
    title: str | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class Annotation(JSONObject):
    """A note on a message, such as a source that a web search found."""

    type: str | None = None  # "url_citation"
    url_citation: URLCitation | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class ChatCompletionAudio(JSONObject):
    """A spoken answer. A later request refers to it by its `id`."""

    id: str | None = None
    data: str | None = None  # base64, in the format the request asked for
    transcript: str | None = None
    expires_at: int | None = None  # Unix time, in seconds
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False, slots=True)
class ChatMessage(JSONObject):
    """A message of a chat, to the server or from it.

    Write `ChatMessage.user("Hello")` or `ChatMessage("user", "Hello")`. A message without a
    role is a TypeError. So is a message that has only a role which is not in ChatRole, since
    `ChatMessage("Hello")` would be a message without content. `from_dict` accepts any role; a
    message without one is the assistant's.

    The message of a response can be put into the next request. An assistant's message is sent
    as the API accepts it: audio as its id, `""` for no content, without annotations and empty
    lists, and with the server's own keys.
    """

    role: ChatRole | str = field(default="", metadata={WHEN_MISSING: ChatRole.ASSISTANT})
    content: str | Sequence[ContentPart | Mapping[str, Any]] | None = None
    name: str | None = None  # distinguishes participants that have the same role
    tool_calls: list[ToolCall] | None = None  # of the assistant
    tool_call_id: str | None = None  # of a tool's message: the call that it answers
    refusal: str | None = None
    annotations: list[Annotation] | None = None
    audio: ChatCompletionAudio | None = None
    function_call: FunctionCall | None = None  # deprecated
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        known = self.role in ChatRole.__members__.values()
        if not self.role or (not known and members(self).keys() == {"role"}):
            example = 'write ChatMessage.user("Hello") or ChatMessage("user", "Hello")'
            raise TypeError(f"a message needs its role first: {example}")

    @classmethod
    def system(cls, text: str) -> "Self":
        """A message with instructions for the complete chat."""
        return cls(ChatRole.SYSTEM, text)

    @classmethod
    def developer(cls, text: str) -> "Self":
        """Instructions, which OpenAI's newer models expect in place of a system message."""
        return cls(ChatRole.DEVELOPER, text)

    @classmethod
    def user(
        cls,
        text: str,
        *,
        images: "Media | Iterable[Media]" = (),
        audio: "Media | Iterable[Media]" = (),
        files: "Media | Iterable[Media]" = (),
        detail: str | None = None,
    ) -> "Self":
        """A message of the user: text, and if needed images, audio and files, one or several.

        Each of these can be a path (which is read at once), bytes, an open binary file, a
        data: URL, or a part as in the API. An image can also be an http(s) URL or an image of
        Pillow, a file also the id of an uploaded file. `detail` ("low", "high" or "auto") is
        the resolution at which the model looks at the images, except for parts as in the API.

        Raises ConfigError for a file that cannot be read, for an image that is not PNG, JPEG,
        GIF or WebP by its first bytes, for audio that is not WAV or MP3, and for a file of an
        unknown type.
        https://platform.openai.com/docs/guides/images-vision
        """
        if all(type(given) is tuple and not given for given in (images, audio, files)):
            return cls(ChatRole.USER, text)
        from .extras.media import user_content

        return cls(ChatRole.USER, user_content(text, images, audio, files, detail))

    @classmethod
    def assistant(cls, text: str) -> "Self":
        """A message of the model, or an example of one."""
        return cls(ChatRole.ASSISTANT, text)

    @classmethod
    def tool(cls, tool_call_id: str, content: str) -> "Self":
        """A message with the result of a tool call."""
        return cls(ChatRole.TOOL, content, tool_call_id=tool_call_id)

    @property
    def text(self) -> str:
        """The text of the message: its content, or the text parts of that. Never raises."""
        return text_of(self.extra.get("content") if self.content is None else self.content)

    @property
    def reasoning(self) -> str:
        """The reasoning that some servers send with the answer; "" if there is none."""
        return reasoning_of(self.extra, self.content)

    def _finish_members(self, found: dict[str, Any]) -> None:
        if self.tool_calls or self.function_call:
            found.setdefault("content", None)  # many servers reject calls without the key

    def _as_sent(self) -> dict[str, Any]:
        found = members(self)
        if self.role != ChatRole.ASSISTANT:
            return found
        found.pop("annotations", None)
        if self.audio is not None:
            found["audio"] = {"id": self.audio.id}
        found = {name: value for name, value in found.items() if value != []}
        if not found.keys() & {"content", "refusal", "audio"}:
            found["content"] = ""  # the API accepts null only in a message with calls
        return found


@dataclass(repr=False, eq=False, slots=True, kw_only=True)
class CreateChatCompletionRequest(JSONObject):
    """A request for a chat completion, with all the parameters that the API documents.
    https://platform.openai.com/docs/api-reference/chat/create

    A parameter at None is not sent. An unknown parameter is a TypeError. A value that JSON
    cannot represent is a ConfigError when the request is sent.

    model: name of the model, such as "gpt-4o-mini"; see `Model`
    messages: the chat so far, oldest first: at least one ChatMessage or mapping

    max_completion_tokens: limit on the tokens of each choice, including those of the reasoning
    max_tokens: the same under its older name; deprecated by OpenAI, used by most other servers
    temperature: randomness, 0 to 2 (default 1); at 0 the answer is nearly the same each time
    top_p: use only the likeliest tokens, up to this total probability: 0 to 1 (default 1)
    frequency_penalty: -2 to 2; above 0, a token is less likely the more often it was used
    presence_penalty: -2 to 2; above 0, a token is less likely if it was used before
    logit_bias: maps token ids to a bias of -100 to 100; at -100 a token is never used
    stop: one to four strings; the answer ends before the first of them
    n: number of choices, 1 to 128 (default 1); the tokens of all of them are billed
    seed: an integer; with the same seed the answer is the same if possible; deprecated
    reasoning_effort: "none", "minimal", "low", "medium", "high", "xhigh" or "max"
    verbosity: length of the answer: "low", "medium" (default) or "high"
    response_format: {"type": "json_object"}, or a JSON schema: see json_schema()
    modalities: types of output: ["text"] (default), or ["text", "audio"]
    audio: {"voice": "alloy", "format": "mp3"}, for example; required for the modality "audio"
    prediction: {"type": "content", "content": text that will make up most of the answer}
    logprobs: True to get the log probability of each token
    top_logprobs: number of likeliest tokens to get at each position, 0 to 20; needs logprobs

    tools: functions and custom tools that the model may call: see function_tool()
    tool_choice: "none", "auto" (default), "required", or a mapping that names the tool to call
    parallel_tool_calls: False for at most one call in an answer (default True)
    web_search_options: {"search_context_size": "low", "medium" or "high"}; searches the web
    functions: 1 to 128 functions; deprecated: use tools
    function_call: "none", "auto", or {"name": ...}; deprecated: use tool_choice

    stream: do not set it; create_chat_completion_stream() does
    stream_options: {"include_usage": True} to get the usage at the end of a stream
    store: True to keep the completion on the server (default False)
    metadata: up to 16 pairs of strings to find it by; keys up to 64 characters, values up to 512
    service_tier: price and speed: "auto" (default), "default", "flex", "scale", "priority", "fast"
    prompt_cache_key: a text that requests with the same beginning share, to share a cache
    prompt_cache_options: {"mode": "implicit" or "explicit", "ttl": "30m"}
    prompt_cache_retention: "in_memory" or "24h"; deprecated: use prompt_cache_options
    safety_identifier: identifies the end user, such as a hash of the name; up to 64 characters
    moderation: how to moderate the prompt and the answer: {"model": ..., "policy": ...}
    user: identifies the end user; deprecated: use safety_identifier and prompt_cache_key

    extra: other parameters by name, sent as they are
    """

    model: str
    messages: Sequence[ChatMessage | Mapping[str, Any]]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: Mapping[str, int] | Mapping[int, int] | None = None
    stop: str | Sequence[str] | None = None
    n: int | None = None
    seed: int | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    response_format: Any = None
    modalities: Sequence[str] | None = None
    audio: Mapping[str, Any] | None = None
    prediction: Mapping[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: Sequence[Any] | None = None
    tool_choice: str | Mapping[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    web_search_options: Mapping[str, Any] | None = None
    functions: Sequence[Mapping[str, Any]] | None = None
    function_call: str | Mapping[str, Any] | None = None
    stream: bool | None = None
    stream_options: Mapping[str, Any] | None = None
    store: bool | None = None
    metadata: Mapping[str, str] | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: Mapping[str, Any] | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    moderation: Mapping[str, Any] | None = None
    user: str | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class TokenLogprob(JSONObject):
    """A token, its log probability, and the likeliest tokens at its position."""

    token: str | None = None
    logprob: float | None = None
    bytes: list[int] | None = None  # of the token in UTF-8
    top_logprobs: "list[TokenLogprob] | None" = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class ChatCompletionLogprobs(JSONObject):
    """The log probabilities of the tokens of a choice."""

    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class CompletionTokensDetails(JSONObject):
    """The tokens of an answer by their kind."""

    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    text_tokens: int | None = None
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class PromptTokensDetails(JSONObject):
    """The tokens of a prompt by their kind."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None
    text_tokens: int | None = None
    image_tokens: int | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class ChatCompletionUsage(JSONObject):
    """The number of tokens that a call used. In a stream, the last usage counts."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class ChatCompletionChoice(JSONObject):
    """One of the `n` answers that were requested."""

    index: int | None = None
    message: ChatMessage = field(default_factory=lambda: ChatMessage(ChatRole.ASSISTANT))
    finish_reason: str | None = None  # "stop", "length", "tool_calls", "content_filter" ...
    logprobs: ChatCompletionLogprobs | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    _dropped_keys = ("delta",)
    _normalize = staticmethod(partial(in_form, form="message", other="delta"))


class _FromHTTP:
    """Values of the HTTP response. They are not fields, since a web service that returns a
    response object would send them to its own clients."""

    request_id: str | None = None  # identifies the request to the server's support
    headers: Mapping[str, str] = MappingProxyType({})  # rate limits and more


@dataclass(repr=False, eq=False)
class CreateChatCompletionResponse(JSONObject, _FromHTTP):
    """A complete response. https://platform.openai.com/docs/api-reference/chat/object

    `request_id` and `headers` are those of the HTTP response. They are not fields: copies and
    pickles include them; `asdict`, `to_dict`, `==` and the repr do not.
    """

    choices: list[ChatCompletionChoice]
    id: str | None = None
    object: str | None = None  # "chat.completion"
    created: int | None = None  # Unix time, in seconds
    model: str | None = None
    usage: ChatCompletionUsage | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None  # deprecated
    metadata: dict[str, str] | None = None
    moderation: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    _normalize = staticmethod(with_usage)

    @property
    def text(self) -> str:
        """The text of the first choice; "" if there is none. Never raises."""
        return self.choices[0].message.text if self.choices else ""


@dataclass(repr=False, eq=False, slots=True)
class ChatCompletionDelta(JSONObject):
    """The part of a choice's message that a chunk adds."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None  # deprecated
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def text(self) -> str:
        """The text that this adds; "" if there is none. Never raises."""
        return text_of(self.extra.get("content") if self.content is None else self.content)

    @property
    def reasoning(self) -> str:
        """The reasoning that this adds, on servers that send it; "" if there is none."""
        return reasoning_of(self.extra, self.content)


@dataclass(repr=False, eq=False, slots=True)
class ChatCompletionChunkChoice(JSONObject):
    """The part of a choice that a chunk adds."""

    index: int | None = None
    delta: ChatCompletionDelta = field(default_factory=ChatCompletionDelta)
    finish_reason: str | None = None  # on the choice's last chunk
    logprobs: ChatCompletionLogprobs | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    _dropped_keys = ("message",)
    _normalize = staticmethod(partial(in_form, form="delta", other="message"))


@dataclass(repr=False, eq=False, slots=True)
class CreateChatCompletionChunk(JSONObject):
    """A piece of a streamed response. The chunk with the usage may have no choices.
    https://platform.openai.com/docs/api-reference/chat-streaming"""

    choices: list[ChatCompletionChunkChoice] = field(default_factory=list[Any])
    id: str | None = None
    object: str | None = None  # "chat.completion.chunk"
    created: int | None = None  # Unix time, in seconds
    model: str | None = None
    usage: ChatCompletionUsage | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None  # deprecated
    moderation: dict[str, Any] | None = None
    obfuscation: str | None = None  # padding, so that the size of a packet reveals less of the text
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    _normalize = staticmethod(with_usage)

    @property
    def text(self) -> str:
        """The text that this adds to the first choice; "" if there is none. Never raises."""
        return "".join(c.delta.text for c in self.choices if not index_of(c.index))
