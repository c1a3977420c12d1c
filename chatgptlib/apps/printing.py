"""The text that the command line prints; no control character in it takes effect."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from ..codec import is_dict, is_list
from ..dialects import join_split_surrogates
from ..errors import AuthenticationError, NotFoundError, OpenAIError
from ..extras.conversations import ConversationStream
from ..models import ChatCompletionUsage, ChatMessage, CreateChatCompletionResponse
from ..settings import NO_KEY

# Control characters except tabs and line ends, bidirectional controls, invisible characters and
# lone surrogates. Joiners belong to scripts and emoji, but have no use after ASCII.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e"
    r"\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
    r"|\r(?!\n)|(?<=[\x00-\x7f\u200c\u200d])[\u200c\u200d]"
)


def escaped(text: str) -> str:
    """Text with JSON escapes for the characters that could rename the terminal's window, write
    to the clipboard, or hide or reorder other output."""
    return _CONTROLS.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass").hex(" ", 2)
    return "\\u" + units.replace(" ", "\\u")


def shown_text(text: str) -> str:
    """Text as stdout gets it: escaped for a terminal, unchanged for a program."""
    return escaped(text) if sys.stdout.isatty() else text


def print_message(text: str) -> None:
    """Print a message on stderr, in one line."""
    line = escaped(text).replace("\n", "\\n")
    print(f"chatgptlib: {line}", file=sys.stderr, flush=True)


_HINTS: dict[type[OpenAIError], str] = {
    AuthenticationError: "check OPENAI_API_KEY, and the server in --base-url or OPENAI_BASE_URL",
    NotFoundError: "check the model (-m, CHATGPTLIB_MODEL) and the server (--base-url); "
    "`chatgptlib models` lists the server's models",
}


def explained(error: OpenAIError) -> str:
    """The message of an error, with the options and variables to check."""
    if str(error) == NO_KEY:  # it names Python parameters
        return (
            "no API key: set the environment variable OPENAI_API_KEY, use --base-url for a server "
            "that needs no key, or try --offline"
        )
    hints = [_HINTS[kind] for kind in _HINTS if isinstance(error, kind)]
    if type(error.__cause__).__name__ == "DatabaseError":  # sqlite3's, for a damaged file
        hints.append("move the file away, or use another with --store")
    return "; ".join([str(error), *hints])


_CUT_ADVICE = {
    "length": "raise --max-tokens, or ask for less",
    "content_filter": "the server's content filter stopped it",
}


def report_ending(response: CreateChatCompletionResponse, *, is_json: bool = False) -> int:
    """Report on stderr how an answer ended, unless it is complete; return the exit code.

    An answer without text, such as one with only tool calls, is a failure in a shell, unless
    `is_json` says that the complete response was printed. A text with an unknown finish reason
    is an answer, since servers have their own names for "stop".
    """
    choice = response.choices[0]  # a response without choices is an error
    reason = choice.finish_reason
    if choice.message.refusal:
        print_message(f"the model refused: {choice.message.refusal}")
        return 1
    if advice := _CUT_ADVICE.get(str(reason)):
        print_message(f"the answer is cut off (finish_reason {reason!r}): {advice}")
        return 3
    if is_json:
        return 0
    if not response.text:
        print_message(f"the answer has no text (finish_reason {reason!r}): --json prints all of it")
        return 1
    if reason not in ("stop", None):
        print_message(f"the answer ended with finish_reason {reason!r}")
    return 0


def print_answer(stream: ConversationStream) -> CreateChatCompletionResponse:
    """Print an answer as it arrives. Reasoning goes to stderr, dimmed, if that is a terminal."""
    held = ""  # a "\r" at the end of a chunk: the next chunk shows whether a "\n" follows
    for text in join_split_surrogates(_with_reasoning_printed(stream)):
        text, held = (held + text).removesuffix("\r"), "\r" * text.endswith("\r")
        print(shown_text(text), end="", flush=True)
    print(shown_text(held))
    return stream.response()


def _with_reasoning_printed(stream: ConversationStream) -> Iterator[str]:
    """The text of each chunk, after its reasoning was printed."""
    is_plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    dim, normal = ("", "") if is_plain else ("\x1b[2m", "\x1b[0m")
    gap = ""  # between the reasoning and the text after it
    for chunk in stream:
        thoughts = (choice.delta.reasoning for choice in chunk.choices)
        if sys.stderr.isatty() and (thought := "".join(thoughts)):
            print(f"{dim}{escaped(thought)}{normal}", end="", file=sys.stderr, flush=True)
            gap = "\n\n"
        if chunk.text:
            print(end=gap, file=sys.stderr, flush=True)
            gap = ""
            yield chunk.text


def shown_message(message: ChatMessage) -> str:
    """A message as text, with its other contents in brackets."""
    plain = message.to_dict()
    parts = filter(is_dict, plain["content"] if is_list(plain.get("content")) else ())
    shown = [message.text, *(f"[{kind}]" for part in parts if (kind := part.get("type")) != "text")]
    calls = [*(plain.get("tool_calls") or ()), {"function": plain.get("function_call")}]
    for call in filter(is_dict, calls):
        called: Any = call.get("function") or call.get("custom")
        if is_dict(called):
            given = called.get("arguments", called.get("input"))
            shown.append(f"[calls {called.get('name')}({given})]")
    audio: Any = plain.get("audio")
    if is_dict(audio):
        shown.append(f"[says: {audio['transcript']}]" if audio.get("transcript") else "[audio]")
    if message.refusal:
        shown.append(f"[refuses: {message.refusal}]")
    return " ".join(filter(None, shown))


def shown_usage(usage: ChatCompletionUsage | None) -> str:
    """The token counts in words, or "" if the server did not report any."""
    if usage is None:
        return ""
    counts = {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens}
    text = " + ".join(f"{counts[name]} {name}" for name in counts if counts[name] is not None)
    if usage.total_tokens is not None:
        text += f" = {usage.total_tokens}" if text else str(usage.total_tokens)
    return text and f"{text} tokens"
