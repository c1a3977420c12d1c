"""What users write: strict mypy and strict pyright find nothing in it.

Never run; what runs is the README's. Each `assert_type` says what a call is known to give.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, Annotated, Any, Literal, Optional, TypedDict
from uuid import UUID

import requests
from typing_extensions import assert_type

from chatgptlib import (
    APIError,
    ChatCompletionDelta,
    ChatCompletionStream,
    ChatCompletionUsage,
    ChatMessage,
    ChatOptions,
    ChatRequest,
    ChatResponse,
    ChatRole,
    ConfigError,
    ContentPart,
    Conversations,
    ConversationStore,
    ConversationStream,
    CreateChatCompletionChunk,
    CreateChatCompletionRequest,
    CreateChatCompletionResponse,
    DeserializeError,
    HTTPError,
    MemoryStore,
    Model,
    OpenAIClient,
    OpenAIError,
    OutputTruncatedError,
    ParsedCompletion,
    RateLimitError,
    RefusalError,
    RequestTimeoutError,
    ResponseAccumulator,
    ResultStream,
    ServerSentEvent,
    SQLiteStore,
    StreamInterruptedError,
    ToolCall,
    ToolError,
    ToolRun,
    create_chat_completion,
    create_chat_completion_stream,
    delete_chat_completion,
    function_tool,
    iterate_chat_completions,
    json_schema,
    list_chat_completion_messages,
    list_chat_completions,
    parse_chat_completion,
    parse_via_chat_gpt,
    retrieve_chat_completion,
    run_tools,
    stream_parsed,
    stream_tools,
    update_chat_completion,
    verify_webhook,
)

# Clients


def fresh_key() -> str:
    return Path("key").read_text()


client = OpenAIClient()
careful = OpenAIClient(
    fresh_key,
    base_url="http://localhost:11434/v1",
    organization="org-1",
    timeout=(3, 60.5),
    deadline=90,
    headers={"X-Team": "ice"},
    query={"trace": "1"},
    verify="ca.pem",
    proxies={"https": "http://proxy:3128"},
    session=requests.Session(),
)
assert_type(careful.with_options(timeout=3, max_retries=0, path="other/path"), OpenAIClient)
azure = OpenAIClient.azure("https://x", deployment="d", api_version="1", api_key=fresh_key)
with OpenAIClient("sk-key") as one:
    assert_type(one.base_url, str)

# Requests: messages of both kinds, enums and text, what is left out

request = CreateChatCompletionRequest(
    model=Model.GPT_4O_MINI,
    messages=[
        ChatMessage(ChatRole.SYSTEM, "Be brief."),
        {"role": "user", "content": "A mapping does as well."},
        ChatMessage.user("Look.", images=["a.png", b"\x89PNG", Path("b.png")], files="c.pdf"),
        ChatMessage("user", [ContentPart(type="text", text="Hi"), {"type": "text", "text": "!"}]),
    ],
    stop=["\n"],
    logit_bias={"50256": -100},
    response_format={"type": "json_object"},
    tool_choice="auto",
    stream_options={"include_usage": True},
    extra={"top_k": 40},
)
only_messages = [ChatMessage.user("Hi")]
only_messages.append(ChatMessage(role="assistant", tool_calls=[ToolCall(id="call-1")]))
only_messages.append(ChatMessage("tool", "x", tool_call_id="call-1"))
CreateChatCompletionRequest(model="llama3.2", messages=only_messages, temperature=0, stop="\n")
only_mappings: list[dict[str, str]] = [{"role": "user", "content": "Hi"}]
CreateChatCompletionRequest(model="m", messages=only_mappings)
request.temperature = 0.5
body: dict[str, Any] = request.to_dict()
body = asdict(replace(request, temperature=1))


class Drawing:
    """As an image of Pillow's is declared."""

    def save(self, fp: str | IO[bytes], format: str | None = None, **params: Any) -> None: ...


with Path("a.png").open("rb") as picture:
    ChatMessage.user("Look.", images=picture, audio=BytesIO(), files=[picture, "c.pdf"])
    ChatMessage.user("Look.", images=[Drawing(), picture])
    ChatMessage.user("Look.", images=Drawing())

# Whole answers

response = create_chat_completion(client, request)
assert_type(response, CreateChatCompletionResponse)
assert_type(response.text, str)
assert_type(response.choices[0].message, ChatMessage)
assert_type(response.choices[0].finish_reason, str | None)
assert_type(response.usage, ChatCompletionUsage | None)
assert_type(response.request_id, str | None)
assert_type(response.headers["x-request-id"], str)
assert_type(response.extra["provider"], Any)
for call in response.choices[0].message.tool_calls or []:
    assert_type(call, ToolCall)
    if call.function and call.function.arguments:
        print(call.function.name, call.function.arguments.upper())
if response.usage and response.usage.prompt_tokens_details:
    assert_type(response.usage.prompt_tokens_details.cached_tokens, int | None)
again = CreateChatCompletionRequest(
    model="m", messages=[*request.messages, response.choices[0].message]
)
kept = CreateChatCompletionResponse.from_dict(response.to_dict())
assert_type(kept, CreateChatCompletionResponse)

# Into what one likes


@dataclass
class Mine:
    model: str
    messages: list[dict[str, str]]
    temperature: float | None = None


@dataclass
class Short:
    id: str = ""
    choices: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


class Typed(TypedDict):
    id: str


mine = Mine("m", [{"role": "user", "content": "Hi"}])
assert_type(create_chat_completion(client, mine), CreateChatCompletionResponse)
assert_type(create_chat_completion(client, {"model": "m", "messages": [ChatMessage.user("")]}),
            CreateChatCompletionResponse)  # fmt: skip
assert_type(create_chat_completion(client, mine, into=dict), dict[str, Any])
assert_type(create_chat_completion(client, mine, into=Short).choices, list[dict[str, Any]])
assert_type(create_chat_completion(client, mine, into=Typed)["id"], str)

union = parse_chat_completion(client, mine, Mine | Short)
assert_type(iterate_chat_completions(client), Iterator[CreateChatCompletionResponse])


def ask_twice(request: ChatRequest) -> list[CreateChatCompletionResponse]:
    return [create_chat_completion(client, request) for _ in range(2)]


# Classes made of the library's


class Team(OpenAIClient):
    def name(self) -> str:
        return "ice"


class Log(SQLiteStore):
    def size(self) -> int:
        return len(self.ids())


class Note(ChatMessage):
    pass


with Team() as team, Log("log.db") as log:
    print(team.name(), log.size())
assert_type(Team().with_options(timeout=3).name(), str)
assert_type(Team.azure(deployment="d").name(), str)
note: Note = Note.user("Hi")

# Streams

with create_chat_completion_stream(client, request) as stream:
    for chunk in stream:
        assert_type(chunk, CreateChatCompletionChunk)
        assert_type(chunk.choices[0].delta, ChatCompletionDelta)
    for text in stream.text_deltas():
        assert_type(text, str)
    assert_type(stream.response(), CreateChatCompletionResponse)
    assert_type(stream.request_id, str | None)
for plain in create_chat_completion_stream(client, mine, into=dict):
    assert_type(plain, dict[str, Any])
for short in create_chat_completion_stream(client, mine, into=Short):
    assert_type(short, Short)


def show(stream: ChatCompletionStream[CreateChatCompletionChunk]) -> Iterator[str]:
    total = ResponseAccumulator()
    for chunk in stream:
        total.add(chunk)
        yield chunk.text
    assert_type(total.response(), CreateChatCompletionResponse)


print(*show(create_chat_completion_stream(client, request)))

# Errors, and what they carry

try:
    create_chat_completion(client, request)
except RateLimitError as error:
    assert_type(error.retry_after, float | None)
except APIError as error:
    assert_type(error.status_code, int)
    assert_type(error.message, str)
    assert_type(error.code, Any)
    assert_type(error.body, Any)
    assert_type(error.headers, Mapping[str, str])
except RequestTimeoutError as error:
    timeout: TimeoutError = error
except StreamInterruptedError as error:
    assert_type(error.partial, CreateChatCompletionResponse | None)
except HTTPError as error:
    assert_type(error.may_retry, bool)
except DeserializeError as error:
    assert_type(error.path, str)
    assert_type(error.body, str | None)
except (RefusalError, OutputTruncatedError) as error:
    assert_type(error.response, CreateChatCompletionResponse)
except ToolError as error:
    assert_type(error.call, ToolCall)
    messages = error.messages
    if messages:
        CreateChatCompletionRequest(model="m", messages=messages)
except ConfigError as error:
    print(error)
except OpenAIError as error:
    assert_type(error.request_id, str | None)
    assert_type(error.headers, Mapping[str, str] | None)

# Tools


class Unit(Enum):
    CELSIUS = "celsius"
    FAHRENHEIT = "fahrenheit"


@dataclass
class Place:
    city: str
    country: str | None = None


def get_weather(
    place: Place, unit: Unit = Unit.CELSIUS, how: Annotated[Literal["now", "soon"], "when"] = "now"
) -> dict[str, float]:
    return {place.city: 21.5}


def show_chunk(chunk: CreateChatCompletionChunk) -> None:
    print(chunk.text)


def ask_first(call: ToolCall) -> str | None:
    return "not today" if call.function and call.function.name == "book" else None


run = run_tools(client, request, [get_weather, print], max_rounds=3, on_chunk=show_chunk)
assert_type(run, ToolRun)
assert_type(run.text, str)
run = run_tools(client, request, [get_weather], before_call=ask_first, jobs=4)
with stream_tools(client, request, [get_weather], before_call=ask_first, jobs=4) as tool_stream:
    for item in tool_stream:
        if isinstance(item, ToolCall):
            assert_type(item, ToolCall)
        else:
            assert_type(item, CreateChatCompletionChunk)
    assert_type(tool_stream.result(), ToolRun)


def pass_on() -> Generator[CreateChatCompletionChunk | ToolCall, None, str]:
    run = yield from stream_tools(client, request, [partial(get_weather, how="now")])
    assert_type(run, ToolRun)
    return run.text


def tool_of_any_type(
    at: datetime, price: Decimal, id: UUID, file: Path, length: timedelta, data: bytes = b""
) -> date:
    return at.date()


function_tool(tool_of_any_type, strict=True)
tools = [function_tool(get_weather), {"type": "custom", "custom": {"name": "code"}}]
CreateChatCompletionRequest(model="m", messages=run.messages, tools=tools)

# Structured output


@dataclass
class Recipe:
    title: str
    steps: list[str]


assert_type(parse_chat_completion(client, request, Recipe), Recipe)
assert_type(parse_chat_completion(client, request, list[Recipe]), list[Recipe])
assert_type(parse_chat_completion(client, request, Recipe, attempts=3), Recipe)
parse_chat_completion(client, request, Optional[Recipe])  # noqa: UP045
parse_chat_completion(client, request, Literal["yes", "no"])
parse_chat_completion(client, request, Annotated[int, "minutes"])
parse_chat_completion(client, request, Recipe, with_response=bool(response.text))
stream_parsed(client, request, Literal["yes", "no"])
whole = parse_chat_completion(client, request, Recipe, attempts=3, with_response=True)
assert_type(whole, ParsedCompletion[Recipe])
assert_type(whole.value.steps, list[str])
assert_type(whole.response.request_id, str | None)
assert_type(whole.usage, ChatCompletionUsage | None)


def grown(stream: ResultStream[dict[str, Any] | Recipe, Recipe]) -> Recipe:
    for part in stream:
        if isinstance(part, Recipe):
            return part
        assert_type(part, dict[str, Any])
    return stream.result()


for either in stream_parsed(client, request, Recipe | None):
    print(either)
assert_type(grown(stream_parsed(client, request, Recipe)), Recipe)
assert_type(json_schema(Recipe), dict[str, Any])

# Conversations, in a store of one's own


class DictStore:
    def __init__(self) -> None:
        self.kept: dict[str, tuple[str | None, list[dict[str, Any]]]] = {}

    def load(
        self, conversation_id: str, limit: int | None = None
    ) -> tuple[str | None, list[dict[str, Any]]] | None:
        return self.kept.get(conversation_id)

    def append(
        self,
        conversation_id: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        system_prompt: str | None,
        restart: bool,
    ) -> None:
        self.kept[conversation_id] = (system_prompt, [dict(message) for message in messages])

    def delete(self, conversation_id: str) -> bool:
        return self.kept.pop(conversation_id, None) is not None

    def ids(self) -> list[str]:
        return list(self.kept)


stores: list[ConversationStore] = [DictStore(), MemoryStore(), SQLiteStore(Path("chats.db"))]
chats = Conversations(client, stores[0])
options = ChatOptions(model="m", system_prompt="Be brief.", stop=["\n"], history_messages=10)
said = chats.chat_completion("ann", "Hi!", options)
assert_type(said, ChatResponse)
assert_type(said.restarted, bool)
assert_type(said.choice, str)
assert_type(said.response, CreateChatCompletionResponse)
with chats.chat_completion_stream("ann", ChatMessage.user("And?"), options) as answer:
    assert_type(answer, ConversationStream)
    for text in answer.text_deltas():
        assert_type(text, str)
    assert_type(answer.response().text, str)
assert_type(chats.history("ann"), list[ChatMessage])


def look_up(name: str) -> str:
    """Look somebody up."""
    return name


told = chats.chat_completion("ann", "Who is Bob?", options, tools=[look_up])
assert_type(told.usage, ChatCompletionUsage | None)
with chats.chat_completion_stream("ann", "And?", tools=(look_up, len)) as answer:
    for chunk in answer:
        assert_type(chunk, CreateChatCompletionChunk)

# Stored completions, and the rest of the API

page = list_chat_completions(client, metadata={"a": "b"}, limit=3)
for completion in page:
    assert_type(completion, CreateChatCompletionResponse)
    if completion.id:
        assert_type(retrieve_chat_completion(client, completion.id).text, str)
        assert_type(update_chat_completion(client, completion.id, {}).id, str | None)
        assert_type(delete_chat_completion(client, completion.id).deleted, bool | None)
        for message in list_chat_completion_messages(client, completion.id):
            assert_type(message, ChatMessage)
assert_type(client.get("chat/completions", into=Short), Short)
assert_type(client.post("embeddings", {"input": "ice"}, into=Typed)["id"], str)
assert_type(client.get("models", {"a": "b"}), Any)
print(client.post("embeddings", {"input": "ice"})["data"], client.delete("files/file-1"))
with client.stream("responses", {"input": "Hi"}) as events:
    for event in events:
        assert_type(event, ServerSentEvent)
        print(event.event, event.data["delta"])

# Adapters, and many at once

assert_type(parse_via_chat_gpt(client, {"question_text": "Hi"}), dict[str, Any])
assert_type(verify_webhook(b"{}", {"webhook-id": "1"}, ["new", "old"]), dict[str, Any])
ask = partial(create_chat_completion, client)
with ThreadPoolExecutor() as threads, ProcessPoolExecutor() as processes:
    for done in [*threads.map(ask, [request] * 3), *processes.map(ask, [request])]:
        assert_type(done, CreateChatCompletionResponse)
