"""The chat in a terminal, when `python -m chatgptlib` is given nothing to ask.

Lines come in through `input`, which edits them with readline where there is one; those
that begin with a slash are commands, all others are said to the model. Ctrl-C stops the
answer that is coming, and leaves the conversation as it was before the question.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TextIO

from ..errors import OpenAIError
from ..extras.conversations import ChatOptions, Conversations
from ..extras.results import added_usage
from ..models import ChatCompletionUsage, ChatMessage, CreateChatCompletionResponse

_HELP = """\
/restart       begin a new conversation
/system TEXT   instructions for the model from here on; without TEXT none
/model NAME    ask another model
/save FILE     write the conversation down: as JSON into a .json, else as text
/usage         the tokens used so far, where the server tells them
/quit          leave, as Ctrl-D does
Ctrl-C stops an answer."""


class InteractiveChat:
    """A chat with a person at a terminal.

    `told_of_end` is called with each answer, for what its text does not show.
    """

    def __init__(
        self,
        conversations: Conversations,
        conversation_id: str,
        options: ChatOptions,
        told_of_end: Callable[[CreateChatCompletionResponse], object],
    ) -> None:
        self._conversations = conversations
        self._id = conversation_id
        self._options = options
        self._told_of_end = told_of_end
        self._usage: ChatCompletionUsage | None = None

    def run(self) -> None:
        """Chat until the person leaves."""
        _enable_line_editing()
        print(f"Chatting with {self._options.model}. /help tells more, Ctrl-D leaves.")
        while True:
            try:
                line = input("> ").strip()
            except EOFError:
                print()
                return
            except KeyboardInterrupt:  # a line that is given up
                print()
                continue
            except UnicodeDecodeError as error:
                print(f"chatgptlib: that is no {error.encoding} text", file=sys.stderr)
                continue
            if line in ("/quit", "/exit"):
                return
            if line.startswith("/"):
                self._command(*line.partition(" ")[::2])
            elif line:
                self._say(line)

    def _say(self, line: str) -> None:
        try:
            with self._conversations.chat_completion_stream(
                self._id, line, self._options
            ) as stream:
                for text in stream.text_deltas():
                    print(shown_text(text, sys.stdout), end="", flush=True)
                print()
                response = stream.response()
        except KeyboardInterrupt:
            print("\n(stopped; the question and this answer are not kept)")
            return
        except OpenAIError as error:
            print(shown_text(f"\nchatgptlib: {error}", sys.stderr), file=sys.stderr)
            return
        self._options = dataclasses.replace(self._options, restart=False)
        self._usage = added_usage(self._usage, response.usage)
        self._told_of_end(response)

    def _command(self, name: str, argument: str) -> None:
        argument = argument.strip()
        if name == "/help":
            print(_HELP)
        elif name == "/restart":
            self._options = dataclasses.replace(self._options, restart=True)
            print("(a new conversation begins with the next question)")
        elif name == "/system":
            self._options = dataclasses.replace(self._options, system_prompt=argument)
            print("(from here on)" if argument else "(none from here on)")
        elif name == "/model" and argument:
            self._options = dataclasses.replace(self._options, model=argument)
            print(f"(asking {argument} from here on)")
        elif name == "/save" and argument:
            self._save(argument)
        elif name == "/usage":
            print(shown_usage(self._usage) or "(the server told none; --usage asks it to)")
        else:
            print(f"not a command: {name} {argument}".rstrip() + " (/help tells which there are)")

    def _save(self, name: str) -> None:
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
            reason = getattr(error, "strerror", None) or error
            print(f"chatgptlib: cannot write {name!r}: {reason}", file=sys.stderr)
        else:
            print(f"({len(history)} messages written to {path})")


def shown_text(text: str, stream: TextIO) -> str:
    """Text as it can be printed: to a terminal without what would steer it, such as the
    sequences that an answer could hold to rename the window or write to the clipboard."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text) if stream.isatty() else text


def shown_message(message: ChatMessage) -> str:
    """A message as text, with what it holds beside text in brackets."""
    parts = [message.text] if message.text else []
    if isinstance(message.content, list):
        kinds = (
            part.get("type") if isinstance(part, Mapping) else part.type for part in message.content
        )
        parts += [f"[{kind}]" for kind in kinds if kind != "text"]
    for call in message.tool_calls or ():
        if function := call.function:
            parts.append(f"[calls {function.name}({function.arguments})]")
        if custom := call.custom:
            parts.append(f"[calls {custom.name}({custom.input})]")
    if function := message.function_call:
        parts.append(f"[calls {function.name}({function.arguments})]")
    if audio := message.audio:
        parts.append(f"[says: {audio.transcript}]" if audio.transcript else "[audio]")
    if message.refusal:
        parts.append(f"[refuses: {message.refusal}]")
    return " ".join(parts)


def shown_usage(usage: ChatCompletionUsage | None) -> str:
    """The tokens used, in words; "" where they were not told."""
    if usage is None:
        return ""
    return (
        f"{usage.prompt_tokens} prompt + {usage.completion_tokens} completion"
        f" = {usage.total_tokens} tokens"
    )


def _enable_line_editing() -> None:
    try:
        import_module("readline")  # its import is what does it
    except ImportError:
        pass  # Windows has its own
