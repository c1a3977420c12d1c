"""A chat bot for the terminal, which remembers what was said when it is started again.

Run:     python chat_bot.py [NAME]     (with a key in OPENAI_API_KEY; Ctrl-D ends it)
Change:  OPTIONS and TOOLS, which may be any functions with type hints and a docstring.

Each NAME has a conversation of its own, in the file chat_bot.db. Ctrl-C stops an answer.
"""

import random
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from chatgptlib import ChatOptions, Conversations, OpenAIClient, OpenAIError, SQLiteStore


def time_now() -> datetime:
    """Tell the date and the time."""
    return datetime.now().astimezone()


def roll_dice(count: int, sides: Annotated[int, "of each"] = 6) -> list[int]:
    """Roll some dice."""
    return [random.randint(1, sides) for _ in range(count)]


OPTIONS = ChatOptions(
    model="gpt-4o-mini",
    system_prompt="You are the host of a games night. Be brief.",
    history_tokens=20_000,  # older messages are kept, but not sent
)
TOOLS: list[Callable[..., Any]] = [time_now, roll_dice]


def answer(chats: Conversations, name: str, sentence: str) -> None:
    """Print the answer as it arrives. A turn that fails or is stopped is not kept."""
    try:
        with chats.chat_completion_stream(name, sentence, OPTIONS, tools=TOOLS) as stream:
            for text in stream.text_deltas():
                print(text, end="", flush=True)
    except OpenAIError as error:
        print(f"[error: {error}]", end="")
    except KeyboardInterrupt:
        print("[stopped]", end="")
    print()


def main(name: str = "you") -> None:
    with OpenAIClient(timeout=60) as client:
        chats = Conversations(client, SQLiteStore("chat_bot.db"))
        for message in chats.history(name)[-2:]:
            if message.text:
                print(f"({message.role}: {message.text})")
        while True:
            try:
                sentence = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                break
            if sentence:
                answer(chats, name, sentence)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except OpenAIError as problem:  # no key, or a file that can't be used
        sys.exit(f"error: {problem}")
