"""What users get wrong: strict mypy and strict pyright flag each line that is marked."""

from collections.abc import Mapping
from typing import Any

from chatgptlib import (
    APIError,
    ChatMessage,
    ChatOptions,
    ChatRole,
    Conversations,
    CreateChatCompletionRequest,
    CreateChatCompletionResponse,
    Cut,
    Inject,
    OfflineServer,
    OpenAIClient,
    OpenAIError,
    Pieces,
    Stall,
    create_chat_completion,
    create_chat_completion_stream,
    delete_chat_completion,
    list_chat_completions,
    parse_chat_completion,
    run_tools,
    stream_parsed,
    stream_tools,
    verify_webhook,
)

client = OpenAIClient()
hi = [ChatMessage.user("Hi")]
request = CreateChatCompletionRequest(model="m", messages=hi)

# Clients

OpenAIClient(api_key=b"sk-key")  # wrong: text, or a function that gives it
OpenAIClient(timeout="10")  # wrong
OpenAIClient(timeout=(1, 2, 3))  # wrong: to connect, to read
OpenAIClient("sk-key", "http://localhost")  # wrong: by name
OpenAIClient(headers={"X-Number": 1})  # wrong
OpenAIClient(base="http://localhost")  # wrong: no such setting
client.with_options(time_out=3)  # wrong: no such setting

# Requests

CreateChatCompletionRequest(model="m")  # wrong: no messages
CreateChatCompletionRequest("m", hi)  # wrong: by name
CreateChatCompletionRequest(model="m", messages="Hi")  # wrong: a list
CreateChatCompletionRequest(model="m", messages=["Hi"])  # wrong: of messages
CreateChatCompletionRequest(model="m", messages=hi, temprature=1)  # wrong: misspelt
CreateChatCompletionRequest(model="m", messages=hi, temperature="hot")  # wrong
CreateChatCompletionRequest(model="m", messages=hi, n=1.5)  # wrong
CreateChatCompletionRequest(model="m", messages=hi, stop=5)  # wrong
CreateChatCompletionRequest(model=None, messages=hi)  # wrong
request.temprature = 1  # wrong: misspelt
ChatMessage.user()  # wrong: says nothing
ChatMessage.user("Hi", image="a.png")  # wrong: images
ChatMessage.user("Hi", images=5)  # wrong: a path, bytes, a file, a picture
ChatMessage.user("Hi", images=[object()])  # wrong
ChatMessage.user(["Hi"])  # wrong: text
ChatMessage.tool("call-1")  # wrong: without a result
ChatMessage(ChatRole.USR, "Hi")  # wrong: misspelt
ChatMessage(ChatRole.USER, 5)  # wrong
ChatMessage(None, "Hi")  # wrong: of whom?
ChatMessage("user", text="Hi")  # wrong: content

# Calls

create_chat_completion(request)  # wrong: no client
create_chat_completion(request, client)  # wrong: the other way round
create_chat_completion(client, "Hi")  # wrong: a request is no text
create_chat_completion(client, hi)  # wrong: nor a list
create_chat_completion(client, request, stream=True)  # wrong: the other function
create_chat_completion(client, request, dict)  # wrong: by name
create_chat_completion(client, request, into=dict).text  # wrong: a dict has none
delete_chat_completion(client)  # wrong: which?
list_chat_completions(client, limit="3")  # wrong

# Answers

response = create_chat_completion(client, request)
response.txt  # wrong: misspelt
response["choices"]  # wrong: an object
CreateChatCompletionResponse([], headers={})  # wrong: no field of the JSON
response.choices.message  # wrong: of which?
response.choices[0].message.content.upper()  # wrong: perhaps None, perhaps parts
response.usage.total_tokens  # wrong: perhaps None
response.choices[0].message.tool_calls[0]  # wrong: perhaps None
number: int = response.text  # wrong

# Streams

stream = create_chat_completion_stream(client, request)
stream.text  # wrong: of a chunk
for chunk in stream:
    chunk.choices[0].message  # wrong: a delta
    chunk["choices"]  # wrong: an object
for text in stream.text_deltas():
    text.content  # wrong: text
for plain in create_chat_completion_stream(client, request, into=dict):
    plain.choices  # wrong: a dict

# Errors

try:
    create_chat_completion(client, request)
except APIError as error:
    error.status  # wrong: status_code
    error.partial.text  # wrong: perhaps None
except OpenAIError as error:
    error.status_code  # wrong: not every error has one

# Tools, structure, conversations


class Half:
    """Two of the four methods of a store."""

    def load(self, conversation_id: str, limit: int | None = None) -> None: ...

    def delete(self, conversation_id: str) -> bool:
        return True


parse_chat_completion(client, request, int).title  # wrong: an int has none
run_tools(client, request, print)  # wrong: a list
run_tools(client, request, ["print"])  # wrong: of functions
run_tools(client, request, [print], jobs="2")  # wrong: a number
run_tools(client, request, [print], before_call=lambda call: 5)  # wrong: text, or None
stream_tools(client, request, [print], on_chunk=print)  # wrong: it yields them
for item in stream_tools(client, request, [print]):
    item.text  # wrong: a call has none
stream_tools(client, request, [print]).text  # wrong: of its result
parse_chat_completion(client, request, int, attempts="3")  # wrong: a number
parse_chat_completion(client, request, int, 3)  # wrong: by name
parse_chat_completion(client, request, int, with_response=True).text  # wrong: of its response
for part in stream_parsed(client, request, int):
    part["title"]  # wrong: the last is the int
stream_parsed(client, request, int).result().title  # wrong: an int has none
Conversations(client, Half())  # wrong: not all of a store
Conversations(client, "chats.db")  # wrong: SQLiteStore("chats.db")
Conversations(client).chat_completion("ann")  # wrong: says nothing
Conversations(client).chat_completion("ann", "Hi").choice.message  # wrong: a text
Conversations(client).chat_completion("ann", "Hi", tools=print)  # wrong: a list
Conversations(client).chat_completion_stream("ann", "Hi", tools=["print"])  # wrong: of functions
Conversations(client).chat_completion("ann", "Hi", [print])  # wrong: tools, by name
ChatOptions(modle="m")  # wrong: misspelt
ChatOptions("m")  # wrong: by name
event: Mapping[str, Any] = verify_webhook({"type": "x"}, {})  # wrong: the bytes that came

# The offline server

OfflineServer([None])  # wrong: no reply
OfflineServer("Hi!", strict="yes")  # wrong: a list, and True
OfflineServer(rules=["weather"])  # wrong: pairs
Cut("Hi!")  # wrong: answer="Hi!"
Cut(after=3, how="broken")  # wrong: end, close or reset
Stall()  # wrong: how long
Inject(after=2)  # wrong: which event
Pieces(7)  # wrong: a list
