"""The chat in a terminal, and the formatting of all text that the command line prints.

Lines are read with `input`, so that readline, where it is available, edits them and treats
several pasted lines as one question. A line that begins with a slash is a command; any other is
sent to the model. Ctrl-C stops the current answer and removes its question from the
conversation. Control characters are printed escaped, so that no answer controls the terminal.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from ..codec import is_list
from ..dialects import with_whole_characters
from ..errors import AuthenticationError, ConfigError, NotFoundError, OpenAIError
from ..extras.conversations import ChatOptions, Conversations, ConversationStream
from ..extras.results import added_usage
from ..models import ChatCompletionUsage, ChatMessage, CreateChatCompletionResponse
from ..settings import NO_KEY

_HELP = """\
/restart       start a new conversation
/system TEXT   set the instructions for the model; without TEXT, remove them
/model NAME    use another model
/image FILE    send an image file or URL with the next question; without FILE, send none
/save FILE     write the conversation to a file, as JSON if it ends in .json
/usage         print the tokens used so far
/quit          leave; so do exit, quit and Ctrl-D
\"""            starts and ends a question of several lines
Ctrl-C stops an answer."""
_NEEDED = {"/model": "NAME", "/save": "FILE"}


class InteractiveChat:
    """A chat with a user at a terminal."""

    def __init__(
        self, conversations: Conversations, conversation_id: str, options: ChatOptions
    ) -> None:
        self._conversations = conversations
        self._id = conversation_id
        self._options = options
        self._images: list[Any] = []  # content parts of the next question
        self._usage: ChatCompletionUsage | None = None

    def run(self) -> None:
        """Read questions and print answers until the user leaves."""
        _enable_line_editing()
        earlier = len(self._conversations.history(self._id))
        so_far = f" ({earlier} messages so far)" if earlier else ""
        model = shown_text(self._options.model, sys.stdout)
        print(f"Chatting with {model}{so_far}. /help lists the commands, Ctrl-D leaves.")
        while True:
            try:
                line = _typed().strip()
            except EOFError:
                print()
                return
            except KeyboardInterrupt:  # discards the line
                print()
                continue
            except UnicodeDecodeError as error:
                complain(f"the line is not {error.encoding} text")
                continue
            if line in ("/quit", "/exit", "quit", "exit"):
                return
            try:
                if line.startswith("/") and "\n" not in line:
                    self._command(*line.partition(" ")[::2])
                elif line:
                    self._send(line)
            except OpenAIError as error:
                complain(explained(error))

    def _send(self, line: str) -> None:
        question = ChatMessage.user(line, images=self._images)
        try:
            with self._conversations.chat_completion_stream(
                self._id, question, self._options
            ) as stream:
                response = print_answer(stream)
        except KeyboardInterrupt:
            print("\n(stopped; the question and the answer are not kept)")
            return
        except OpenAIError:
            print()  # a partial answer has not ended its line
            raise
        self._images = []
        self._options = dataclasses.replace(self._options, restart=False)
        self._usage = added_usage(self._usage, response.usage)
        report_ending(response)

    def _command(self, name: str, argument: str) -> None:
        argument = argument.strip()
        if name == "/help":
            text = _HELP
        elif name == "/restart":
            self._options = dataclasses.replace(self._options, restart=True)
            text = "(the next question starts a new conversation)"
        elif name == "/system":
            self._options = dataclasses.replace(self._options, system_prompt=argument)
            text = "(instructions set)" if argument else "(instructions removed)"
        elif name in _NEEDED and not argument:
            raise ConfigError(f"{name} needs an argument: {name} {_NEEDED[name]}")
        elif name == "/model":
            self._options = dataclasses.replace(self._options, model=argument)
            text = f"(using {argument})"
        elif name == "/image":
            images = [*self._images, argument] if argument else []
            content = ChatMessage.user("", images=images).content
            self._images = [*content] if is_list(content) else []
            text = f"({len(self._images)} images to be sent with the next question)"
        elif name == "/save":
            text = self._save(argument)
        elif name == "/usage":
            extra = {"stream_options": {"include_usage": True}, **self._options.extra}
            self._options = dataclasses.replace(self._options, extra=extra)
            text = shown_usage(self._usage) or "(not known yet; requested from the next answer on)"
        else:
            raise ConfigError(f"unknown command {name}: /help lists the commands")
        print(shown_text(text, sys.stdout))

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
        # RuntimeError is for ~nobody, ValueError for a null character in the path.
        except (OSError, RuntimeError, ValueError) as error:
            reason = getattr(error, "strerror", "") or error
            raise ConfigError(f"cannot write {name!r}: {reason}") from error
        return f"({len(history)} messages written to {path})"


def _typed() -> str:
    """A line from the user, or the lines between triple quotes."""
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
        # Python disables this, which would make each pasted line a question.
        readline.parse_and_bind("set enable-bracketed-paste on")


# Printing

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


def shown_text(text: str, stream: TextIO) -> str:
    """Text as `stream` gets it: escaped for a terminal, unchanged for a program."""
    return escaped(text) if stream.isatty() else text


def complain(text: str) -> None:
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


_CUT = {
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
    """Print an answer as it arrives. Reasoning goes to stderr, dimmed, if that is a terminal."""
    held = ""  # a carriage return is escaped unless it begins a line end
    for text in with_whole_characters(_with_reasoning_printed(stream)):
        text, held = (held + text).removesuffix("\r"), "\r" * text.endswith("\r")
        print(shown_text(text, sys.stdout), end="", flush=True)
    print(shown_text(held, sys.stdout))
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
    """The token counts in words, or "" if the server did not report any."""
    if usage is None:
        return ""
    counts = {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens}
    text = " + ".join(f"{counts[name]} {name}" for name in counts if counts[name] is not None)
    if usage.total_tokens is not None:
        text += f" = {usage.total_tokens}" if text else str(usage.total_tokens)
    return text and f"{text} tokens"
