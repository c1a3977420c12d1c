"""A client for the Chat Completions API, with `requests` as its only dependency.

    from chatgptlib import (
        ChatMessage, CreateChatCompletionRequest, OpenAIClient, create_chat_completion
    )

    client = OpenAIClient()  # key from OPENAI_API_KEY
    request = CreateChatCompletionRequest(
        model="gpt-4o-mini", messages=[ChatMessage.user("Say hi.")]
    )
    print(create_chat_completion(client, request).text)

Every error that the library raises for a request is an `OpenAIError`.
"""

from typing import TYPE_CHECKING, Any

from .chat import (
    ChatRequest,
    create_chat_completion,
    create_chat_completion_stream,
)
from .client import OpenAIClient, __version__
from .codec import JSONObject
from .errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ConfigError,
    ConflictError,
    DeserializeError,
    HTTPError,
    InternalServerError,
    NotFoundError,
    OpenAIError,
    OutputTruncatedError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    RefusalError,
    RequestTimeoutError,
    StreamInterruptedError,
    ToolError,
    UnprocessableEntityError,
    WebhookError,
)
from .models import (
    Annotation,
    ChatCompletionAudio,
    ChatCompletionChoice,
    ChatCompletionChunkChoice,
    ChatCompletionDelta,
    ChatCompletionLogprobs,
    ChatCompletionUsage,
    ChatMessage,
    ChatRole,
    CompletionTokensDetails,
    ContentPart,
    CreateChatCompletionChunk,
    CreateChatCompletionRequest,
    CreateChatCompletionResponse,
    CustomToolCall,
    FunctionCall,
    Model,
    PromptTokensDetails,
    TokenLogprob,
    ToolCall,
    URLCitation,
)

if TYPE_CHECKING:
    from .accumulate import ResponseAccumulator
    from .extras.conversations import (
        ChatOptions,
        ChatResponse,
        Conversations,
        ConversationStream,
    )
    from .extras.glific import parse_via_chat_gpt
    from .extras.offline import OfflineRequest, OfflineServer
    from .extras.offline_replies import Cut, Inject, Pieces, Stall
    from .extras.rest import EventStream, ServerSentEvent
    from .extras.results import ResultStream
    from .extras.schema import json_schema
    from .extras.stored import (
        ChatCompletionDeleted,
        ChatCompletionList,
        ChatCompletionMessageList,
        delete_chat_completion,
        iterate_chat_completions,
        list_chat_completion_messages,
        list_chat_completions,
        retrieve_chat_completion,
        update_chat_completion,
    )
    from .extras.stores import ConversationStore, MemoryStore, SQLiteStore
    from .extras.structured import ParsedCompletion, parse_chat_completion, stream_parsed
    from .extras.tools import ToolRun, function_tool, run_tools, stream_tools
    from .extras.webhooks import verify_webhook
    from .sse import EventDecoder
    from .stream import ChatCompletionStream

__all__ = [
    "APIError",
    "Annotation",
    "AuthenticationError",
    "BadRequestError",
    "ChatCompletionAudio",
    "ChatCompletionChoice",
    "ChatCompletionChunkChoice",
    "ChatCompletionDeleted",
    "ChatCompletionDelta",
    "ChatCompletionList",
    "ChatCompletionLogprobs",
    "ChatCompletionMessageList",
    "ChatCompletionStream",
    "ChatCompletionUsage",
    "ChatMessage",
    "ChatOptions",
    "ChatRequest",
    "ChatResponse",
    "ChatRole",
    "CompletionTokensDetails",
    "ConfigError",
    "ConflictError",
    "ContentPart",
    "ConversationStore",
    "ConversationStream",
    "Conversations",
    "CreateChatCompletionChunk",
    "CreateChatCompletionRequest",
    "CreateChatCompletionResponse",
    "CustomToolCall",
    "Cut",
    "DeserializeError",
    "EventDecoder",
    "EventStream",
    "FunctionCall",
    "HTTPError",
    "Inject",
    "InternalServerError",
    "JSONObject",
    "MemoryStore",
    "Model",
    "NotFoundError",
    "OfflineRequest",
    "OfflineServer",
    "OpenAIClient",
    "OpenAIError",
    "OutputTruncatedError",
    "ParsedCompletion",
    "PermissionDeniedError",
    "Pieces",
    "PromptTokensDetails",
    "QuotaExceededError",
    "RateLimitError",
    "RefusalError",
    "RequestTimeoutError",
    "ResponseAccumulator",
    "ResultStream",
    "SQLiteStore",
    "ServerSentEvent",
    "Stall",
    "StreamInterruptedError",
    "TokenLogprob",
    "ToolCall",
    "ToolError",
    "ToolRun",
    "URLCitation",
    "UnprocessableEntityError",
    "WebhookError",
    "__version__",
    "create_chat_completion",
    "create_chat_completion_stream",
    "delete_chat_completion",
    "function_tool",
    "iterate_chat_completions",
    "json_schema",
    "list_chat_completion_messages",
    "list_chat_completions",
    "parse_chat_completion",
    "parse_via_chat_gpt",
    "retrieve_chat_completion",
    "run_tools",
    "stream_parsed",
    "stream_tools",
    "update_chat_completion",
    "verify_webhook",
]


if not TYPE_CHECKING:  # with __getattr__, a type checker would accept any name
    # Imported at first use, since most programs need none of them.
    _LATER = {
        name: module
        for module, names in {
            "accumulate": "ResponseAccumulator",
            "sse": "EventDecoder",
            "stream": "ChatCompletionStream",
            "extras.conversations": "ChatOptions ChatResponse ConversationStream Conversations",
            "extras.glific": "parse_via_chat_gpt",
            "extras.offline": "OfflineRequest OfflineServer",
            "extras.offline_replies": "Cut Inject Pieces Stall",
            "extras.rest": "EventStream ServerSentEvent",
            "extras.results": "ResultStream",
            "extras.schema": "json_schema",
            "extras.stored": "ChatCompletionDeleted ChatCompletionList ChatCompletionMessageList "
            "delete_chat_completion iterate_chat_completions list_chat_completion_messages "
            "list_chat_completions retrieve_chat_completion update_chat_completion",
            "extras.stores": "ConversationStore MemoryStore SQLiteStore",
            "extras.structured": "ParsedCompletion parse_chat_completion stream_parsed",
            "extras.tools": "ToolRun function_tool run_tools stream_tools",
            "extras.webhooks": "verify_webhook",
        }.items()
        for name in names.split()
    }

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = globals()[name] = getattr(import_module(f".{_LATER[name]}", __name__), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATER})
