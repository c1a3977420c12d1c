"""The chat in a terminal.

Lines are read with `input`, so that readline, where it is available, edits them and treats
several pasted lines as one question. A line that begins with a slash is a command; other lines
are sent to the model. Ctrl-C stops the current answer and removes its question from the
conversation.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..codec import is_list
from ..errors import ConfigError, OpenAIError
from ..extras.conversations import ChatOptions, Conversations
from ..extras.results import added_usage
from ..models import ChatCompletionUsage, ChatMessage
from .printing import (
    explained,
    print_answer,
    print_message,
    report_ending,
    shown_message,
    shown_text,
    shown_usage,
)

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
        model = shown_text(self._options.model)
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
                print_message(f"the line is not {error.encoding} text")
                continue
            if line in ("/quit", "/exit", "quit", "exit"):
                return
            try:
                if line.startswith("/") and "\n" not in line:
                    self._command(*line.partition(" ")[::2])
                elif line:
                    self._send(line)
            except OpenAIError as error:
                print_message(explained(error))

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
        self._options.restart = False
        self._usage = added_usage(self._usage, response.usage)
        report_ending(response)

    def _command(self, name: str, argument: str) -> None:
        argument = argument.strip()
        if name == "/help":
            text = _HELP
        elif name == "/restart":
            self._options.restart = True
            text = "(the next question starts a new conversation)"
        elif name == "/system":
            self._options.system_prompt = argument
            text = "(instructions set)" if argument else "(instructions removed)"
        elif name in _NEEDED and not argument:
            raise ConfigError(f"{name} needs an argument: {name} {_NEEDED[name]}")
        elif name == "/model":
            self._options.model = argument
            text = f"(using {argument})"
        elif name == "/image":
            images = [*self._images, argument] if argument else []
            content = ChatMessage.user("", images=images).content
            self._images = [*content] if is_list(content) else []
            text = f"({len(self._images)} images to be sent with the next question)"
        elif name == "/save":
            text = self._save(argument)
        elif name == "/usage":
            self._options.extra.setdefault("stream_options", {"include_usage": True})
            text = shown_usage(self._usage) or "(not known yet; requested from the next answer on)"
        else:
            raise ConfigError(f"unknown command {name}: /help lists the commands")
        print(shown_text(text))

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
