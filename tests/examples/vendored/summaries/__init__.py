"""A package with the client inside it, as one file: users need `requests`, and not chatgptlib.

Run:     python -m chatgptlib vendor -o summaries/chat.py && python -m pytest
Change:  summary(). If it needs an extra, such as tools, write the file anew: --with tools.
"""

from .chat import (
    ChatMessage,
    CreateChatCompletionRequest,
    OpenAIClient,
    OpenAIError,
    create_chat_completion,
)

__all__ = ["OpenAIError", "summary"]


def summary(text: str, *, words: int = 30, client: OpenAIClient | None = None) -> str:
    """Sum up a text in at most so many words.

    The key comes from OPENAI_API_KEY, unless a client is given. Raises OpenAIError.
    """
    request = CreateChatCompletionRequest(
        model="gpt-4o-mini",
        messages=[
            ChatMessage.system(f"Sum up the text in at most {words} words."),
            ChatMessage.user(text),
        ],
    )
    if client is not None:
        return create_chat_completion(client, request).text
    with OpenAIClient() as own_client:
        return create_chat_completion(own_client, request).text
