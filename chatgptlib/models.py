"""The objects of the API: requests, messages, responses, chunks, and the parts they hold.

https://platform.openai.com/docs/api-reference/chat

Rules that hold for all of them:

- A field at None is not sent, so the server's default applies. `False`, `0`, `""` and
  `[]` are sent. After reading, None means that the key was missing or null.
- Keys that a class does not name are in its `extra`. A field that is set wins over a key of
  `extra`, which fills what is not set.
- Values are not checked or converted: a new role or finish reason is kept as it came.
- `to_dict()` gives the JSON object, `from_dict()` reads one.

The annotations here are evaluated at once, unlike those of the other modules, since `dataclass`
and the codec would parse text at every start of a program. Slots make a class twice as slow to
create; they are for what users write, where they find misspelt names, and for chunks.
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
        """An image of Pillow's, or what saves itself as one does."""

        def save(self, file: IO[bytes], format: str, /) -> object: ...

    _Bytes: TypeAlias = bytes | bytearray | memoryview
    Media: TypeAlias = (
        "str | os.PathLike[str] | _Bytes | IO[bytes] | Picture | ContentPart | Mapping[str, Any]"
    )


FILLED_DIRECTLY.add(__name__)


class ChatRole(str, Enum):  # not StrEnum, which Python 3.10 lacks
    """Who says a message. Any other string does as well."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    FUNCTION = "function"  # deprecated

    def __str__(self) -> str:
        return str(self.value)


class Model:
    """Names of models in use; any other text will do. https://platform.openai.com/docs/models"""

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
    """The function a model wants called. `arguments` is the text it wrote: often JSON."""

    name: str | None = None
    arguments: str | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class CustomToolCall(JSONObject):
    """The custom tool a model wants called, with free text for it."""

    name: str | None = None
    input: str | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class ToolCall(JSONObject):
    """One call in an assistant's message, or a piece of one in a stream."""

    id: str | None = None
    type: str | None = None  # "function" or "custom"
    function: FunctionCall | None = None
    custom: CustomToolCall | None = None
    index: int | None = None  # in a stream only: which call this is a piece of
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    def _as_sent(self) -> dict[str, Any]:
        found = {"type": "custom" if self.custom else "function", **members(self)}
        found.pop("index", None)
        return found


@dataclass(repr=False, eq=False)
class ContentPart(JSONObject):
    """A part of a message's content; `type` says which of the others is set.
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
    """Where a piece of the text comes from; indexes count characters of the message."""

    start_index: int | None = None
    end_index: int | None = None
    url: str | None = None
    title: str | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class Annotation(JSONObject):
    """A note on a message that was made with web search."""

    type: str | None = None  # "url_citation"
    url_citation: URLCitation | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class ChatCompletionAudio(JSONObject):
    """A spoken answer. To refer to it later, a message needs its `id` alone."""

    id: str | None = None
    data: str | None = None  # base64, in the format the request asked for
    transcript: str | None = None
    expires_at: int | None = None  # Unix time, in seconds
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False, slots=True)
class ChatMessage(JSONObject):
    """One message of a chat, to the server or from it.

    Write `ChatMessage("user", "Hello")` or `ChatMessage.user("Hello")`: the role comes
    first. Without one it is a TypeError, and so is a role alone that is not in ChatRole,
    since `ChatMessage("Hello")` has its text in the place of the role. `from_dict` reads any
    role, and a message without one as the assistant's.

    An answer's message goes back into the next request as the API takes it there: a spoken
    answer as its id, notes of a search not at all, keys of the server's own as they came.
    """

    role: ChatRole | str = field(default="", metadata={WHEN_MISSING: ChatRole.ASSISTANT})
    content: str | Sequence[ContentPart | Mapping[str, Any]] | None = None
    name: str | None = None  # tells participants of one role apart
    tool_calls: list[ToolCall] | None = None  # from the assistant
    tool_call_id: str | None = None  # to the assistant: the call this answers
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
        """Instructions that hold for the whole chat."""
        return cls(ChatRole.SYSTEM, text)

    @classmethod
    def developer(cls, text: str) -> "Self":
        """Instructions, under the name that newer OpenAI models give them."""
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
        """What the person says and shows.

        An image, an audio clip or a file is a path, bytes, an open binary file, a data: URL
        or a part in the API's own form; an image also an http(s) URL or an image of Pillow's,
        a file also the id of an uploaded one. Each may be one or several. A path is read at
        once. `detail` ("low", "high", "auto") is how closely a model looks at the images,
        parts of your own excepted.

        Raises ConfigError for what can't be read, and for what by its first bytes is no PNG,
        JPEG, GIF or WebP (images), no WAV or MP3 (audio), or a file of no known kind.
        https://platform.openai.com/docs/guides/images-vision
        """
        if all(type(given) is tuple and not given for given in (images, audio, files)):
            return cls(ChatRole.USER, text)
        from .extras.media import user_content

        return cls(ChatRole.USER, user_content(text, images, audio, files, detail))

    @classmethod
    def assistant(cls, text: str) -> "Self":
        """What the model said, or is to be taken as having said."""
        return cls(ChatRole.ASSISTANT, text)

    @classmethod
    def tool(cls, tool_call_id: str, content: str) -> "Self":
        """The result of the tool call with that id."""
        return cls(ChatRole.TOOL, content, tool_call_id=tool_call_id)

    @property
    def text(self) -> str:
        """The text of the message: its content, or its parts of type text. Never raises."""
        return text_of(self.content or self.extra.get("content"))

    @property
    def reasoning(self) -> str:
        """The reasoning that some servers send beside the answer; "" where there is none."""
        return reasoning_of(self.extra, self.content)

    def _finish_members(self, found: dict[str, Any]) -> None:
        if self.tool_calls or self.function_call:
            found.setdefault("content", None)  # many servers refuse a call without the key

    def _as_sent(self) -> dict[str, Any]:
        found = members(self)
        if self.role != ChatRole.ASSISTANT:
            return found
        found.pop("annotations", None)
        if self.audio is not None:
            found["audio"] = {"id": self.audio.id}
        found = {name: value for name, value in found.items() if value != []}
        if not found.keys() & {"content", "refusal", "audio"}:
            found["content"] = ""  # the API takes null only beside a call
        return found


@dataclass(repr=False, eq=False, slots=True, kw_only=True)
class CreateChatCompletionRequest(JSONObject):
    """The body of `POST /chat/completions`, with all the parameters it documents.
    https://platform.openai.com/docs/api-reference/chat/create

    A parameter left at None is not sent. A misspelt one is a TypeError; a value that JSON
    cannot represent is a ConfigError when the request is sent.

    model: name of the model, as in `Model`
    messages: the chat so far, oldest first: at least one ChatMessage or mapping

    max_completion_tokens: most tokens to write in each choice, those of the reasoning included
    max_tokens: the same under its older name; deprecated by OpenAI, known to most other servers
    temperature: randomness, 0 to 2 (default 1); at 0 nearly the same answer each time
    top_p: choose among the likeliest tokens, up to this probability: 0 to 1 (default 1)
    frequency_penalty: -2 to 2; above 0, a token is less likely the more often it was used
    presence_penalty: -2 to 2; above 0, a token is less likely once it was used
    logit_bias: for each token id, -100 to 100: how much likelier it is; -100 bans the token
    stop: one to four texts, before which the answer ends
    n: number of choices, 1 to 128 (default 1); the tokens of each are billed
    seed: an integer; the same seed gives the same answer, as far as possible; deprecated
    reasoning_effort: "none", "minimal", "low", "medium", "high", "xhigh" or "max"
    verbosity: length of the answer: "low", "medium" (default) or "high"
    response_format: {"type": "json_object"}, or a JSON schema: see json_schema()
    modalities: what to answer with: ["text"] (default), or ["text", "audio"]
    audio: how to speak: {"voice": "alloy", "format": "mp3"}; needed for the modality "audio"
    prediction: {"type": "content", "content": text that most of the answer will repeat}
    logprobs: True to get the log probability of each token
    top_logprobs: number of likeliest tokens to get at each place, 0 to 20; needs logprobs

    tools: functions and custom tools that the model may call: see function_tool()
    tool_choice: "none", "auto" (default), "required", or the one tool to call, as a mapping
    parallel_tool_calls: False for at most one call in an answer (default True)
    web_search_options: search the web; {"search_context_size": "low", "medium" or "high"}
    functions: 1 to 128 functions; deprecated: use tools
    function_call: "none", "auto", or {"name": ...}; deprecated: use tool_choice

    stream: leave it out: create_chat_completion_stream() sets it
    stream_options: {"include_usage": True} to get the usage at the end of a stream
    store: True to keep the completion at the server (default False)
    metadata: up to 16 pairs of text to find it by: keys of 64 characters, values of 512
    service_tier: price and speed: "auto" (default), "default", "flex", "scale", "priority", "fast"
    prompt_cache_key: the same text for requests that begin alike, so that they share a cache
    prompt_cache_options: {"mode": "implicit" or "explicit", "ttl": "30m"}
    prompt_cache_retention: "in_memory" or "24h"; deprecated: use prompt_cache_options
    safety_identifier: the end user, as a hash of the name: up to 64 characters
    moderation: how to moderate the prompt and the answer: {"model": ..., "policy": ...}
    user: the end user; deprecated: use safety_identifier and prompt_cache_key

    extra: parameters that are not in this list, by name: sent as they are, unless a field is set
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
    """A token, its log probability, and the likeliest tokens in its place."""

    token: str | None = None
    logprob: float | None = None
    bytes: list[int] | None = None  # of the token in UTF-8
    top_logprobs: "list[TokenLogprob] | None" = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class ChatCompletionLogprobs(JSONObject):
    """The log probabilities of a choice's tokens."""

    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class CompletionTokensDetails(JSONObject):
    """What the tokens of an answer were."""

    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    text_tokens: int | None = None
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class PromptTokensDetails(JSONObject):
    """What the tokens of a prompt were."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None
    text_tokens: int | None = None
    image_tokens: int | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class ChatCompletionUsage(JSONObject):
    """The tokens a call is billed for. In a stream the last one told holds for all of it."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(repr=False, eq=False)
class ChatCompletionChoice(JSONObject):
    """One answer of the `n` asked for."""

    index: int | None = None
    message: ChatMessage = field(default_factory=lambda: ChatMessage(ChatRole.ASSISTANT))
    finish_reason: str | None = None  # "stop", "length", "tool_calls", "content_filter" ...
    logprobs: ChatCompletionLogprobs | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    _dropped_keys = ("delta",)
    _normalize = staticmethod(partial(in_form, form="message", other="delta"))


class _FromHTTP:
    """What came beside the JSON: no fields, or web services would pass it on to browsers."""

    request_id: str | None = None  # the server's name for the request, to quote to its support
    headers: Mapping[str, str] = MappingProxyType({})  # of the HTTP response: rate limits and more


@dataclass(repr=False, eq=False)
class CreateChatCompletionResponse(JSONObject, _FromHTTP):
    """A whole answer. https://platform.openai.com/docs/api-reference/chat/object

    `request_id` and `headers` are those of the HTTP response. They are no fields: `asdict`,
    `to_dict`, comparison and the repr pass over them, copies and pickles keep them.
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
        """The text of the first choice; "" where there is none. Never raises."""
        return self.choices[0].message.text if self.choices else ""


@dataclass(repr=False, eq=False, slots=True)
class ChatCompletionDelta(JSONObject):
    """What a chunk adds to the message of a choice."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None  # deprecated
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def text(self) -> str:
        """The text this adds; "" where there is none. Never raises."""
        return text_of(self.content or self.extra.get("content"))

    @property
    def reasoning(self) -> str:
        """The reasoning this adds, where a server sends it; "" where there is none."""
        return reasoning_of(self.extra, self.content)


@dataclass(repr=False, eq=False, slots=True)
class ChatCompletionChunkChoice(JSONObject):
    """What a chunk adds to one choice."""

    index: int | None = None
    delta: ChatCompletionDelta = field(default_factory=ChatCompletionDelta)
    finish_reason: str | None = None  # on the choice's last chunk
    logprobs: ChatCompletionLogprobs | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    _dropped_keys = ("message",)
    _normalize = staticmethod(partial(in_form, form="delta", other="message"))


@dataclass(repr=False, eq=False, slots=True)
class CreateChatCompletionChunk(JSONObject):
    """A piece of a streamed answer. `choices` may be empty, as beside the usage.
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
    obfuscation: str | None = None  # padding, against eavesdroppers who count bytes
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    @staticmethod
    def _normalize(data: Mapping[str, Any]) -> Mapping[str, Any]:
        if data.get("object") == "chat.completion":  # a whole answer where a stream was asked for
            data = {**data, "object": "chat.completion.chunk"}
        return with_usage(data)

    @property
    def text(self) -> str:
        """The text this adds to the first choice; "" where there is none. Never raises."""
        first = (c.delta.text for c in self.choices if not index_of(c.index))
        return "".join(first)
