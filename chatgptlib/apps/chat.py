"""The chat in a terminal, and what the command line prints for people.

Lines come in through `input`, which edits them with readline where there is one, and takes a
paste of several lines as one question. Lines that begin with a slash are commands, all others
are said to the model. Ctrl-C stops the answer that is coming, and leaves the conversation as
it was before the question. Characters that would steer the terminal are shown escaped.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from pathlib import Path
from typing import Any, TextIO

from ..codec import is_list
from ..dialects import whole_characters
from ..errors import AuthenticationError, NotFoundError, OpenAIError
from ..extras.conversations import ChatOptions, Conversations, ConversationStream
from ..extras.results import added_usage
from ..models import ChatCompletionUsage, ChatMessage, CreateChatCompletionResponse
from ..settings import NO_KEY

_HELP = """\
/restart       begin a new conversation
/system TEXT   instructions for the model from here on; without TEXT none
/model NAME    ask another model
/image FILE    send an image, or a URL, with the next question
/save FILE     write the conversation down: as JSON into a .json, else as text
/usage         the tokens used, where the server tells them
/quit          leave, as exit, quit and Ctrl-D do
\"""            begins and ends a question of several lines
Ctrl-C stops an answer."""
_NEEDED = {"/image": "FILE", "/model": "NAME", "/save": "FILE"}


class InteractiveChat:
    """A chat with a person at a terminal."""

    def __init__(
        self, conversations: Conversations, conversation_id: str, options: ChatOptions
    ) -> None:
        self._conversations = conversations
        self._id = conversation_id
        self._options = options
        self._images: list[str] = []
        self._usage: ChatCompletionUsage | None = None

    def run(self) -> None:
        """Chat until the person leaves."""
        _enable_line_editing()
        earlier = len(self._conversations.history(self._id))
        so_far = f" ({earlier} messages so far)" if earlier else ""
        model = shown_text(self._options.model, sys.stdout)
        print(f"Chatting with {model}{so_far}. /help tells more, Ctrl-D leaves.")
        while True:
            try:
                line = _typed().strip()
            except EOFError:
                print()
                return
            except KeyboardInterrupt:  # a line that is given up
                print()
                continue
            except UnicodeDecodeError as error:
                complain(f"that is no {error.encoding} text")
                continue
            if line in ("/quit", "/exit", "quit", "exit"):
                return
            if line.startswith("/") and "\n" not in line:
                self._command(*line.partition(" ")[::2])
            elif line:
                self._say(line)

    def _say(self, line: str) -> None:
        images, self._images = self._images, []
        try:
            question = ChatMessage.user(line, images=images)
            with self._conversations.chat_completion_stream(
                self._id, question, self._options
            ) as stream:
                response = print_answer(stream)
        except KeyboardInterrupt:
            print("\n(stopped; the question and this answer are not kept)")
            return
        except OpenAIError as error:
            print()
            complain(explained(error))
            return
        self._options = dataclasses.replace(self._options, restart=False)
        self._usage = added_usage(self._usage, response.usage)
        told_of_end(response)

    def _command(self, name: str, argument: str) -> None:
        argument = argument.strip()
        if name == "/help":
            told = _HELP
        elif name == "/restart":
            self._options = dataclasses.replace(self._options, restart=True)
            told = "(a new conversation begins with the next question)"
        elif name == "/system":
            self._options = dataclasses.replace(self._options, system_prompt=argument)
            told = "(from here on)" if argument else "(none from here on)"
        elif name in _NEEDED and not argument:
            told = f"{name} needs an argument: {name} {_NEEDED[name]}"
        elif name == "/model":
            self._options = dataclasses.replace(self._options, model=argument)
            told = f"(asking {argument} from here on)"
        elif name == "/image":
            self._images.append(argument)
            told = "(sent with the next question)"
        elif name == "/save":
            told = self._save(argument)
        elif name == "/usage":
            extra = {"stream_options": {"include_usage": True}, **self._options.extra}
            self._options = dataclasses.replace(self._options, extra=extra)
            told = shown_usage(self._usage) or "(none told yet; asked for from here on)"
        else:
            told = f"not a command: {name} {argument}".rstrip() + " (/help tells which there are)"
        print(shown_text(told, sys.stdout))

    def _save(self, name: str) -> str:
        try:
            path = Path(name).expanduser()
            history = [] if self._options.restart else self._conversations.history(self._id)
            if path.suffix == ".json":
                plain = [message.to_dict() for message in history]
                text = json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
            else:
                text = "".join(
                    f"{message.role}: {shown_message(message)}\n\n" for message in history
                )
            path.write_text(text, encoding="utf-8", errors="replace")
        # RuntimeError: ~nobody; ValueError: a null character in the path.
        except (OSError, RuntimeError, ValueError, OpenAIError) as error:
            return f"chatgptlib: cannot write {name!r}: {getattr(error, 'strerror', '') or error}"
        return f"({len(history)} messages written to {path})"


def _typed() -> str:
    """What a person types, or pastes, as one question."""
    text = input("> ")
    if not text.startswith('"""'):
        return text
    text = text[3:]
    while not text.rstrip().endswith('"""'):
        text += "\n" + input("... ")
    return text.rstrip()[:-3]


def _enable_line_editing() -> None:
    try:
        import readline
    except ImportError:
        return  # Windows has its own
    if os.environ.get("TERM") != "dumb":
        # Python turns this off, and then each pasted line is a question.
        readline.parse_and_bind("set enable-bracketed-paste on")


# What is printed

# Controls, but for tabs and line ends; what turns the direction of text; what can't be seen; and
# halves of characters. Joiners are a part of scripts and emoji, but not behind ASCII.
_STEERING = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e"
    r"\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
    r"|\r(?!\n)|(?<=[\x00-\x7f\u200c\u200d])[\u200c\u200d]"
)


def escaped(text: str) -> str:
    """Text with JSON's escapes in place of what would steer a terminal: rename its window,
    write to the clipboard, hide or turn around what else is shown."""
    return _STEERING.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass").hex(" ", 2)
    return "\\u" + units.replace(" ", "\\u")


def shown_text(text: str, stream: TextIO) -> str:
    """Text as it is printed: escaped for a terminal, and as it is for a program."""
    return escaped(text) if stream.isatty() else text


def complain(text: str) -> None:
    """Say on stderr, in one line, what is wrong."""
    line = escaped(text).replace("\n", "\\n")
    print(f"chatgptlib: {line}", file=sys.stderr, flush=True)


_HINTS: dict[type[OpenAIError], str] = {
    AuthenticationError: "the key is that of OPENAI_API_KEY (--offline needs none), the server "
    "that of --base-url or OPENAI_BASE_URL",
    NotFoundError: "the model is that of -m or CHATGPTLIB_MODEL, the server that of --base-url; "
    "chatgptlib models lists what it has",
}


def explained(error: OpenAIError) -> str:
    """An error, with the option or variable that helps."""
    if str(error) == NO_KEY:  # which names the parameters of Python
        return (
            "no API key: set the environment variable OPENAI_API_KEY, name a server that needs "
            "none with --base-url, or try --offline"
        )
    hints = [_HINTS[kind] for kind in _HINTS if isinstance(error, kind)]
    if type(error.__cause__).__name__ == "DatabaseError":  # of sqlite3: the file is damaged
        hints.append("move the file away, or name another with --store")
    return "; ".join([str(error), *hints])


_CUT = {
    "length": "raise --max-tokens, or ask for less",
    "content_filter": "the server's content filter stopped it",
}


def told_of_end(response: CreateChatCompletionResponse, *, is_json: bool = False) -> int:
    """Say on stderr what the text of an answer does not show; the exit code for it.

    An answer without text, such as one with nothing but tool calls, is a failure for a shell
    that wants text, and a success where all of it was printed as JSON.
    """
    choice = response.choices[0]  # without one it is an error, and does not come here
    reason = choice.finish_reason
    if choice.message.refusal:
        complain(f"the model refused: {choice.message.refusal}")
        return 1
    if reason in _CUT:
        complain(f"the answer is cut off (finish_reason {reason!r}): {_CUT[reason]}")
        return 3
    if is_json:
        return 0
    if not response.text:
        complain(f"the answer has no text (finish_reason {reason!r}): --json prints all of it")
        return 1
    if reason not in ("stop", None):
        complain(f"the answer ended with finish_reason {reason!r}")
    return 0


def print_answer(stream: ConversationStream) -> CreateChatCompletionResponse:
    """Print an answer as it comes; on a terminal its reasoning before it, dimmed, on stderr."""
    is_plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    dim, normal = ("", "") if is_plain else ("\x1b[2m", "\x1b[0m")
    thinks, half = False, ""
    for chunk in stream:
        thoughts = (choice.delta.reasoning for choice in chunk.choices)
        if sys.stderr.isatty() and (thought := "".join(thoughts)):
            print(f"{dim}{escaped(thought)}{normal}", end="", file=sys.stderr, flush=True)
            thinks = True
        if text := half + chunk.text:
            half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""  # the rest is to come
            print(end="\n\n" if thinks else "", file=sys.stderr, flush=True)
            text = whole_characters(text.removesuffix(half))
            print(shown_text(text, sys.stdout), end="", flush=True)
            thinks = False
    print()
    return stream.response()


def shown_message(message: ChatMessage) -> str:
    """A message as text, with what it holds beside text in brackets."""
    plain = message.to_dict()
    parts: list[dict[str, Any]] = plain["content"] if is_list(plain.get("content")) else []
    shown = [message.text, *(f"[{kind}]" for part in parts if (kind := part.get("type")) != "text")]
    for call in (*(plain.get("tool_calls") or ()), {"function": plain.get("function_call")}):
        if called := call.get("function") or call.get("custom"):
            given = called.get("arguments", called.get("input"))
            shown.append(f"[calls {called.get('name')}({given})]")
    if audio := plain.get("audio"):
        shown.append(f"[says: {audio['transcript']}]" if audio.get("transcript") else "[audio]")
    if message.refusal:
        shown.append(f"[refuses: {message.refusal}]")
    return " ".join(filter(None, shown))


def shown_usage(usage: ChatCompletionUsage | None) -> str:
    """The tokens used, in words; "" where they were not told."""
    if usage is None:
        return ""
    counts = {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens}
    text = " + ".join(f"{counts[name]} {name}" for name in counts if counts[name] is not None)
    if usage.total_tokens is not None:
        text += f" = {usage.total_tokens}" if text else str(usage.total_tokens)
    return text and f"{text} tokens"
