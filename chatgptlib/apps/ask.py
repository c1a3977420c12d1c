"""The command line: `python -m chatgptlib "Write a tagline."`

With a prompt it prints one answer; without a prompt, on a terminal, it starts a chat; `batch`
sends each line of a file. Answers, and what a chat says itself, go to stdout; errors to stderr.
Exit codes: 0 for a complete answer, 1 for an error, a refusal or an answer without text, 2 for
wrong usage, 3 for an answer that is cut off, 4 for an answer that does not match --schema or -x,
130 for Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import re
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ..client import OpenAIClient, __version__
from ..codec import is_dict, is_list
from ..errors import ConfigError, DeserializeError, OpenAIError, excerpt
from ..extras.conversations import ChatOptions, Conversations, checked_conversation_id
from ..extras.partial import json_in
from ..extras.stores import MemoryStore, SQLiteStore
from ..models import ChatMessage, CreateChatCompletionResponse, Model
from ..replies import parsed
from .chat import InteractiveChat
from .mismatch import schema_mismatch, unchecked_keywords
from .printing import (
    escaped,
    explained,
    print_answer,
    print_message,
    report_ending,
    shown_message,
    shown_text,
    shown_usage,
)

_OFFLINE_DELAY = 0.03  # seconds between chunks, to make the streaming visible
_NO_PROXY = {"http": "", "https": "", "all": ""}
_UNNAMED = "unnamed"  # the id of a conversation that is not stored
_COMMANDS = ("chat", "batch", "models", "serve", "vendor")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. `arguments` defaults to `sys.argv[1:]`."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    output = sys.stdout
    if isinstance(output, io.TextIOWrapper):
        output.reconfigure(errors="replace")  # for terminals that lack a character
    try:
        try:
            return _command(given)
        except OpenAIError as error:
            # A partial answer on a terminal has not ended its line.
            print(end="\n" if output.isatty() else "", flush=True)
            print_message(explained(error))
            return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # as when `head` has read enough
            print_message(f"input or output failed: {error}")
        with suppress(OSError):  # stdout may have no file
            # At exit Python flushes stdout, which would fail and be reported again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
        return 1


def _command(given: list[str]) -> int:
    match given:
        case ["batch", *rest]:
            from .batch import batch_command

            return batch_command(rest, _common(), _client)
        case ["vendor", *rest]:
            from .vendor import main as vendor

            return vendor(rest)
        case ["serve", *rest]:
            from .serve import main as serve

            return serve(rest)
        case ["models", *rest]:
            return _list_models(rest)
        case ["chat", *rest]:
            return _run(_options(rest))
        case _:
            return _run(_options(given))


# Options


def _of_server() -> argparse.ArgumentParser:
    """The options of every command that sends requests."""
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument
    add("--base-url", metavar="URL", help="the server, including /v1")
    add("--offline", action="store_true", help="use a local stand-in server; needs no key")
    add("-v", "--verbose", action="store_true", help="log each request to stderr")
    return parser


def _common() -> argparse.ArgumentParser:
    """The options of every command that sends prompts."""
    common = argparse.ArgumentParser(add_help=False, parents=[_of_server()])
    add = common.add_argument
    model = os.environ.get("CHATGPTLIB_MODEL") or Model.GPT_4O_MINI
    add("-m", "--model", default=model, help="or CHATGPTLIB_MODEL; default: %(default)s")
    add("-s", "--system", metavar="TEXT", type=_text, help="instructions for the model")
    add("-t", "--temperature", type=float, metavar="N", help="0 to 2")
    add("--max-tokens", type=int, metavar="N", help="limit of the answer's length")
    add("--schema", metavar="FILE", type=_schema, help="a JSON Schema for the answer, or its file")
    add("--param", action="append", default=[], metavar="KEY=JSON", type=_parameter,
        help="any other parameter of the API; repeatable")  # fmt: skip
    return common


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chatgptlib",
        usage="%(prog)s [options] [PROMPT ...]",
        parents=[_common()],
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28),
        description="Send PROMPT to a chat model, or start a chat if there is none. The API key "
        "is OPENAI_API_KEY. Piped text follows the prompt: git diff | chatgptlib 'Review this:'",
        epilog=f"Commands: {', '.join(_COMMANDS)} (see COMMAND --help). Put -- before a PROMPT "
        "that begins with one of these words. Exit codes: 0 answered, 1 error or no text, 2 wrong "
        "usage, 3 answer cut off, 4 answer does not match --schema or -x, 130 Ctrl-C.",
    )
    add = parser.add_argument
    add("prompt", nargs="*", metavar="PROMPT", type=_text, help="the question")
    add("-i", "--image", action="append", default=[], metavar="FILE",
        help="an image file, URL, or -")  # fmt: skip
    add("-f", "--file", action="append", default=[], metavar="FILE", help="a text file or PDF")
    add("-x", "--extract", action="store_true", help="print only the first code block, or JSON")
    add("--no-stream", action="store_true", help="print the answer when it is complete")
    add("--json", action="store_true", help="print the complete response as JSON")
    add("--usage", action="store_true", help="print the token counts on stderr")
    add("--version", action="version", version=f"chatgptlib {__version__}")
    keep = parser.add_argument_group("stored conversations")
    which = keep.add_mutually_exclusive_group()
    which.add_argument("-c", "--conversation", metavar="ID", help="continue or start this one")
    which.add_argument("-C", "--newest", action="store_true", help="continue the one used last")
    keep.add_argument("--store", metavar="FILE", type=Path, help="default: in your data folder")
    task = keep.add_mutually_exclusive_group()
    tasks = {"list": "print the ids", "history": "print the messages", "delete": "delete it"}
    for name, about in tasks.items():
        task.add_argument(f"--{name}", dest="task", action="store_const", const=name, help=about)
    return parser


def _options(given: Sequence[str]) -> argparse.Namespace:
    """The parsed options. Exits with code 2 if they contradict each other."""
    parser = _parser()
    options = parser.parse_args(given)
    options.no_stream |= options.json or options.extract
    task, is_stored = options.task, options.conversation or options.newest
    if options.prompt and (word := options.prompt[0]) in _COMMANDS and "--" not in given:
        parser.error(
            f"a command comes first: chatgptlib {word} ... To send a prompt that begins with "
            f"{word!r}, put -- before it: chatgptlib ... -- {word} ..."
        )
    if options.conversation == "":
        parser.error("-c: the id must not be empty")
    if task and task != "list" and not is_stored:
        parser.error(f"--{task} takes no prompt; name the conversation with -c ID, or use -C")
    if task and (options.prompt or options.image or options.file or options.json):
        parser.error(f"--{task} takes no prompt, image, file or --json")
    if options.store and not (task or is_stored):
        parser.error("--store needs a conversation: -c ID or -C")
    return options


def _parameter(text: str) -> tuple[str, Any]:
    key, _, written = text.partition("=")
    value, broken = parsed(written)
    if not key or broken is not None:
        hint = f"""; for text: '{key}="{written}"'""" if key and written else ""
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=JSON{hint}")
    if key in ("model", "messages", "stream"):
        raise argparse.ArgumentTypeError(f"{key} can't be a --param: see -m, -s and --no-stream")
    return key, value


def _text(argument: str) -> str:
    if re.search(r"[\ud800-\udfff]", argument):  # bytes that Python could not decode
        raise argparse.ArgumentTypeError("it is not valid UTF-8")
    return argument


def _schema(name: str) -> dict[str, Any]:
    """The response_format for a JSON Schema, bare or inside a `json_schema` object."""
    is_json = name.lstrip().startswith("{")
    try:
        schema, broken = parsed(name if is_json else Path(name).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {name!r}: {error.strerror}") from None
    except ValueError as error:  # it is not UTF-8
        schema, broken = None, error
    if broken is not None:
        raise argparse.ArgumentTypeError(f"{name!r} is not JSON: {broken}")
    if not isinstance(schema, dict):
        raise argparse.ArgumentTypeError(f"{name!r} is not a JSON object")
    if isinstance(inner := schema.get("json_schema"), dict):
        schema = inner
    if "schema" not in schema:
        title = "" if is_json else re.sub("[^a-zA-Z0-9_-]", "_", Path(name).stem)[:64]
        strict = schema.get("additionalProperties") is False
        schema = {"name": title or "answer", "schema": schema, "strict": strict}
    return {"type": "json_schema", "json_schema": schema}


# One question, or a chat


def _run(options: argparse.Namespace) -> int:
    store = _store(options)
    if options.newest:
        if not (ids := store.ids()):
            raise ConfigError("-C: no conversation is stored yet; start one with -c ID")
        options.conversation = ids[-1]
    if options.task:
        return _run_on_store(options, store)
    given = options.prompt or options.image or options.file
    is_chat = not given and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    question = ChatMessage.user("") if is_chat else _question(options)
    if not (question.content or is_chat):
        print_message("there is no prompt: give one, or pipe one in (see --help)")
        return 2
    with _client(options) as client:
        conversations = Conversations(client, store)
        conversation = options.conversation or _UNNAMED
        settings = _chat_options(options)
        if is_chat:
            InteractiveChat(conversations, conversation, settings).run()
            return 0
        if options.no_stream:
            try:
                response = conversations.chat_completion(conversation, question, settings).response
            except OpenAIError as error:  # perhaps the answer came, but could not be stored
                if error.partial is not None:
                    _print_response(error.partial, options)
                raise
            _print_response(response, options)
        else:
            with conversations.chat_completion_stream(conversation, question, settings) as stream:
                response = print_answer(stream)
        sys.stdout.flush()
        if options.usage:
            print_message(shown_usage(response.usage) or "the server did not report the usage")
    code = report_ending(response, is_json=options.json)
    return code or _report_mismatch(response.text, options)


def _print_response(response: CreateChatCompletionResponse, options: argparse.Namespace) -> None:
    text = _first_block_in(response.text) if options.extract else response.text
    if options.json:
        print(escaped(json.dumps(response.to_dict(), indent=2, ensure_ascii=False)))
    elif text is not None:
        print(shown_text(text))


def _question(options: argparse.Namespace) -> ChatMessage:
    """The message to send: the prompt, text files and piped text, with images and other files."""
    parts, files = [" ".join(options.prompt)], list[str]()
    for name in options.file:
        text = _text_of_file(name)
        parts.append(text)
        files += [] if text else [name]
    images = [open(0, "rb", closefd=False) if name == "-" else name for name in options.image]  # noqa: SIM115
    piped = None if "-" in options.image or sys.stdin is None or sys.stdin.isatty() else sys.stdin
    if piped is not None and options.prompt and piped.seekable() and piped.tell():
        print_message(
            "stdin is not sent: a part of the file has been read already, so a shell loop may "
            "need the rest. To send it, use cat FILE | ...; else add </dev/null"
        )
    elif piped is not None:
        if isinstance(piped, io.TextIOWrapper):
            piped.reconfigure(errors="strict")  # reject broken characters
        try:
            parts.append(piped.read())
        except UnicodeDecodeError as error:
            raise ConfigError(f"the piped text is not {error.encoding}: {error}") from error
    trimmed = (part.rstrip().lstrip("\r\n") for part in parts)  # code keeps its indentation
    prompt = "\n\n".join(filter(None, trimmed))
    return ChatMessage.user(prompt, images=images, files=files)


def _text_of_file(name: str) -> str:
    """A text file as a part of the prompt; "" for any other, which is attached or rejected."""
    try:
        path = Path(name).expanduser()
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, RuntimeError, ValueError):
        return ""
    is_text = "\0" not in text and not text.lstrip().startswith("%PDF-")
    return f'<file name="{path.name}">\n{text}\n</file>' if is_text and text else ""


def _first_block_in(text: str) -> str | None:
    """The first code block in an answer, else the first JSON value; None if it has neither."""
    if block := re.search(r"(?ms)^([ \t]*)(```+|~~~+)[^\n`]*\n(.*?)^[ \t]*\2", text):
        indented = rf"(?m)^[ \t]{{1,{len(block[1])}}}" if block[1] else "(?!)"
        return re.sub(indented, "", block[3]).removesuffix("\n")
    found = (json.dumps(value, indent=2, ensure_ascii=False) for value in json_in(text))
    return next(found, None)


def _report_mismatch(answer: str, options: argparse.Namespace) -> int:
    """Report on stderr an answer that does not match -x or --schema; return the exit code."""
    text, mismatch = _first_block_in(answer) if options.extract else answer, ""
    if text is None:
        mismatch = f"-x: it has no code block and no JSON: {excerpt(answer)}"
    elif options.schema:
        value, broken = parsed(text)
        schema = options.schema["json_schema"]["schema"]
        if unchecked := unchecked_keywords(schema):
            print_message(f"--schema: not checked: {', '.join(unchecked)}")
        mismatch = schema_mismatch(value, schema)
        mismatch = f"it is not JSON: {broken}" if broken else mismatch
        mismatch = mismatch and f"--schema: {mismatch}"
    if mismatch:
        print_message(f"the answer does not match {mismatch}")
    return 4 if mismatch else 0


def _chat_options(options: argparse.Namespace) -> ChatOptions:
    extra = dict(options.param)
    if options.usage and not options.no_stream:
        extra.setdefault("stream_options", {"include_usage": True})
    return ChatOptions(
        model=options.model,
        system_prompt=options.system,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        response_format=options.schema,
        extra=extra,
    )


class _EscapingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return escaped(super().format(record))


@contextmanager
def _client(options: argparse.Namespace, **more: Any) -> Generator[OpenAIClient, None, None]:
    if options.verbose:
        handler = logging.StreamHandler()
        handler.setFormatter(_EscapingFormatter("%(name)s: %(message)s"))
        logging.basicConfig(handlers=[handler])
        logging.getLogger((__package__ or "").partition(".")[0]).setLevel(logging.DEBUG)
    settings: dict[str, Any] = {"base_url": options.base_url, **more}
    with ExitStack() as opened:
        if options.offline:  # ignore the environment's server, key and proxies
            from ..extras.offline import OfflineServer

            server = opened.enter_context(OfflineServer(delay=_OFFLINE_DELAY))
            settings |= {"base_url": server.url, "api_key": "offline", "proxies": _NO_PROXY}
        yield opened.enter_context(OpenAIClient(**settings))


def _list_models(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("chatgptlib models", parents=[_of_server()])
    parser.description = "Print the names of the server's models."
    with _client(parser.parse_args(arguments)) as client:
        found = client.get("models")
    models = found.get("data") if is_dict(found) else None
    if not is_list(models):
        raise DeserializeError(f"{client.base_url}/models did not return a list of models")
    for name in sorted(str(model["id"]) for model in models if is_dict(model) and "id" in model):
        print(shown_text(name))
    return 0


# Stored conversations


def _run_on_store(options: argparse.Namespace, store: SQLiteStore | MemoryStore) -> int:
    if options.task == "list":
        for name in map(str, store.ids()):  # a damaged id may be bytes
            print(name if name.isprintable() else json.dumps(name))
        return 0
    name = checked_conversation_id(options.conversation)
    if options.task == "delete" and store.delete(name):  # even if it can't be loaded
        return 0
    if options.task == "delete" or (found := store.load(name)) is None:
        print_message(f"there is no conversation {name!r}")
        return 1
    system, messages = found
    history = [ChatMessage.system(system)] if system else []
    for message in (*history, *map(ChatMessage.from_dict, messages)):
        print(shown_text(f"{message.role}: {shown_message(message)}\n"))
    return 0


def _store(options: argparse.Namespace) -> SQLiteStore | MemoryStore:
    needs_file = options.task or options.newest
    if not (options.conversation or needs_file):
        return MemoryStore()
    path: Path = options.store or data_folder() / "conversations.db"
    if needs_file and not path.exists():
        return MemoryStore()
    if not options.store:
        with suppress(OSError):  # the store reports it
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return SQLiteStore(path)


def data_folder() -> Path:
    """Where a user's data is kept: XDG_DATA_HOME, LOCALAPPDATA on Windows, or ~/.local/share."""
    named = os.environ.get("XDG_DATA_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        return Path(named or Path.home() / ".local" / "share") / "chatgptlib"
    except RuntimeError as error:
        raise ConfigError("there is no home folder: name a file with --store") from error
