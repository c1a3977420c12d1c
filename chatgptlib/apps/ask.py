"""The command line: `python -m chatgptlib "Write a tagline."`

A prompt is answered and done; without one, on a terminal, there is a chat; `batch` asks
for every line of a file. Answers go to stdout as they come, everything else to stderr.
Exit codes: 0 for a whole answer, 1 for an error, 2 for wrong usage, 130 for Ctrl-C.
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
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ..client import OpenAIClient, __version__
from ..errors import AuthenticationError, ConfigError, JSONValue, OpenAIError
from ..extras.conversations import ChatOptions, Conversations, checked_conversation_id
from ..extras.offline import OfflineServer
from ..extras.stores import MemoryStore, SQLiteStore
from ..models import ChatMessage, CreateChatCompletionResponse, Model
from .batch import batch_command
from .chat import InteractiveChat, shown_message, shown_text, shown_usage

_OFFLINE_DELAY = 0.03  # seconds between pieces, so that one sees a stream
_NO_PROXY = {"http": "", "https": "", "all": ""}
_UNNAMED = "unnamed"  # the id of a conversation that is not kept


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with `arguments`, else those of the process; the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    output = sys.stdout
    if isinstance(output, io.TextIOWrapper):
        output.reconfigure(errors="replace")  # a terminal may not know every character
    try:
        try:
            if given[:1] == ["batch"]:
                return batch_command(given[1:], _common(), _client)
            if given[:1] == ["vendor"]:
                from .vendor import main as vendor

                return vendor(given[1:])
            if given[:1] == ["serve"]:
                from .serve import main as serve

                return serve(given[1:])
            return _run(_parsed(given))
        except OpenAIError as error:
            _end_answer()
            _complain(_explained(error))
            return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # else whoever read our output has stopped
            _complain(f"cannot write the answer: {error}")
        # Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


# What can be said on the command line


def _common() -> argparse.ArgumentParser:
    """The options of all that asks a model."""
    common = argparse.ArgumentParser(add_help=False)
    add = common.add_argument
    add("-m", "--model", default=Model.GPT_4O_MINI, help="default: %(default)s")
    add("-s", "--system", metavar="TEXT", help="instructions for the model")
    add("-t", "--temperature", type=float, metavar="NUMBER", help="0 to 2")
    add("--max-tokens", type=int, metavar="N", help="the longest answer")
    add("--schema", metavar="FILE", type=_schema, help="answer in JSON, by this JSON Schema")
    add("--param", action="append", default=[], metavar="KEY=JSON", type=_parameter,
        help="any parameter of the API; may be given several times")  # fmt: skip
    add("--base-url", metavar="URL", help="another server, up to and with /v1")
    add("--offline", action="store_true", help="ask a stand-in on this machine; needs no key")
    add("-v", "--verbose", action="store_true", help="log each request to stderr")
    return common


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chatgptlib",
        parents=[_common()],
        description="Ask a chat model, or chat with it if there is no PROMPT. The key is read "
        "from OPENAI_API_KEY.",
        epilog="Text that is piped in follows the prompt: git diff | chatgptlib 'Review this:'. "
        "To ask for each line of a file: chatgptlib batch --help",
    )
    add = parser.add_argument
    add("prompt", nargs="*", metavar="PROMPT", help="what to ask")
    add("-i", "--image", action="append", default=[], metavar="FILE", help="a file, or a URL")
    add("-f", "--file", action="append", default=[], metavar="FILE", help="a PDF, for one")
    add("--no-stream", action="store_true", help="print the answer when it is whole")
    add("--json", action="store_true", help="print the whole response as JSON")
    add("--usage", action="store_true", help="print the tokens used, to stderr")
    keep = parser.add_argument_group("conversations that are kept")
    keep.add_argument("-c", "--conversation", metavar="ID", help="go on with it, or begin it")
    keep.add_argument("--store", metavar="FILE", type=Path, help="where; default: your data folder")
    keep.add_argument("--list", action="store_true", help="print the ids")
    keep.add_argument("--history", action="store_true", help="print the conversation")
    keep.add_argument("--delete", action="store_true", help="forget the conversation")
    parser.add_argument("--version", action="version", version=f"chatgptlib {__version__}")
    return parser


def _parsed(given: Sequence[str]) -> argparse.Namespace:
    """The options; leaves with exit code 2 for those that contradict each other."""
    parser = _parser()
    options = parser.parse_args(given)
    tasks = [f"--{name}" for name in ("list", "history", "delete") if getattr(options, name)]
    if options.conversation == "":
        parser.error("-c: an id is not empty")
    if len(tasks) > 1:
        parser.error(f"{tasks[0]} and {tasks[1]}: one at a time")
    if tasks and (options.prompt or options.image or options.file or options.json):
        parser.error(f"{tasks[0]} asks nothing: leave the rest out")
    if tasks and tasks != ["--list"] and not options.conversation:
        parser.error(f"{tasks[0]} of which conversation? Say it with -c ID")
    if options.store and not (tasks or options.conversation):
        parser.error("--store is for conversations with an id: say it with -c ID")
    return options


def _parameter(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    try:
        if not key or not equals:
            raise ValueError
        return key, json.loads(value)
    except (ValueError, RecursionError):
        hint = f'{key}="{value}"' if equals and key else "KEY=JSON"
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=JSON; text: '{hint}'") from None


def _schema(name: str) -> dict[str, Any]:
    """The response_format for a file with a schema, or with what stands around it."""
    try:
        schema: JSONValue = json.loads(Path(name).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{name!r} holds no JSON: {error}") from None
    if not isinstance(schema, dict):
        raise argparse.ArgumentTypeError(f"{name!r} holds no JSON object")
    if isinstance(inner := schema.get("json_schema"), dict):
        schema = inner
    if "schema" not in schema:
        title = re.sub("[^a-zA-Z0-9_-]", "_", Path(name).stem)[:64]
        strict = schema.get("additionalProperties") is False
        schema = {"name": title or "answer", "schema": schema, "strict": strict}
    return {"type": "json_schema", "json_schema": schema}


# One question, or a chat


def _run(options: argparse.Namespace) -> int:
    if options.list or options.history or options.delete:
        return _run_on_store(options)
    try:
        prompt = _prompt(options.prompt)
    except UnicodeDecodeError as error:
        raise ConfigError(f"what is piped in is not {error.encoding} text: {error}") from error
    given = options.prompt or options.image or options.file
    person = not given and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    if not (prompt or given or person):
        _complain("nothing to ask: give a prompt, or pipe one in (--help tells more)")
        return 2
    with _client(options) as client:
        conversations = Conversations(client, _store(options))
        conversation = options.conversation or _UNNAMED
        if person:
            InteractiveChat(conversations, conversation, _chat_options(options), _told_of_end).run()
            return 0
        said = ChatMessage.user(prompt, images=options.image, files=options.file)
        response = _asked(conversations, conversation, said, options)
        if options.json:
            print(json.dumps(response.to_dict(), indent=2, ensure_ascii=False))
        sys.stdout.flush()
        if options.usage:
            _complain(shown_usage(response.usage) or "the server told no usage")
    return _told_of_end(response)


def _asked(
    conversations: Conversations,
    conversation: str,
    said: ChatMessage,
    options: argparse.Namespace,
) -> CreateChatCompletionResponse:
    asked = _chat_options(options)
    if options.no_stream or options.json:
        answer = conversations.chat_completion(conversation, said, asked)
        if not options.json:
            print(shown_text(answer.text, sys.stdout))
        return answer.response
    with conversations.chat_completion_stream(conversation, said, asked) as stream:
        for text in stream.text_deltas():
            print(shown_text(text, sys.stdout), end="", flush=True)
        print()
        return stream.response()


def _chat_options(options: argparse.Namespace) -> ChatOptions:
    extra = dict(options.param)
    if options.usage and not (options.no_stream or options.json):
        extra.setdefault("stream_options", {"include_usage": True})
    return ChatOptions(
        model=options.model,
        system_prompt=options.system,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        response_format=options.schema,
        extra=extra,
    )


@contextmanager
def _client(options: argparse.Namespace, **more: Any) -> Generator[OpenAIClient, None, None]:
    if options.verbose:
        logging.basicConfig(format="%(name)s: %(message)s", stream=sys.stderr)
        logging.getLogger((__package__ or "").partition(".")[0]).setLevel(logging.DEBUG)
    with OfflineServer(delay=_OFFLINE_DELAY) if options.offline else nullcontext() as server:
        settings: dict[str, Any] = {"base_url": options.base_url, **more}
        if server is not None:  # nothing of the environment is for the stand-in
            settings |= {"base_url": server.url, "api_key": "offline", "proxies": _NO_PROXY}
        with OpenAIClient(**settings) as client:
            yield client


def _prompt(words: list[str]) -> str:
    """The arguments, then what is piped in."""
    parts = [" ".join(words)]
    piped = sys.stdin
    if piped is not None and not piped.isatty():
        if isinstance(piped, io.TextIOWrapper):
            piped.reconfigure(errors="strict")  # not half a character to the server
        parts.append(piped.read())
    return "\n\n".join(part for part in map(str.strip, parts) if part)


def _told_of_end(response: CreateChatCompletionResponse) -> int:
    """Say on stderr what the text does not show: a refusal, a cut, an answer without text."""
    choice = response.choices[0]  # without one it is an error, and does not come here
    if choice.message.refusal:
        _complain(f"the model refused: {choice.message.refusal}")
        return 1
    if choice.finish_reason not in ("stop", None):
        _complain(f"the answer ended with finish_reason {choice.finish_reason!r}")
    elif not response.text:
        _complain("the answer holds no text (--json shows all of it)")
    return 0


# Conversations that are kept


def _run_on_store(options: argparse.Namespace) -> int:
    store = _store(options) if _store_path(options).exists() else MemoryStore()
    if options.list:
        for name in store.ids():
            print(name if name.isprintable() else json.dumps(name))
        return 0
    found = store.load(checked_conversation_id(options.conversation))
    if options.delete and found:
        store.delete(options.conversation)
        return 0
    if found is None:
        _complain(f"there is no conversation {options.conversation!r}")
        return 1
    system, messages = found
    if system:
        print(f"system: {system}\n")
    for message in map(ChatMessage.from_dict, messages):
        print(shown_text(f"{message.role}: {shown_message(message)}\n", sys.stdout))
    return 0


def _store_path(options: argparse.Namespace) -> Path:
    path: Path = options.store or data_folder() / "conversations.db"
    return path


def _store(options: argparse.Namespace) -> SQLiteStore | MemoryStore:
    if not (options.conversation or options.list):
        return MemoryStore()
    path = _store_path(options)
    try:
        if not options.store:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # What people say is for nobody else to read.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise ConfigError(
            f"cannot keep conversations in {str(path)!r}: {error.strerror}"
        ) from error
    return SQLiteStore(path)


def data_folder() -> Path:
    """Where this platform wants programs to keep a user's data."""
    try:
        home = Path.home()
    except RuntimeError as error:
        raise ConfigError("there is no home folder: say with --store FILE where") from error
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "chatgptlib"


# Words for people


def _explained(error: OpenAIError) -> str:
    if isinstance(error, AuthenticationError) or "OPENAI_API_KEY" in str(error):
        return f"{error} (or try --offline, which needs no key)"
    return str(error)


def _end_answer() -> None:
    """End the line of an answer that broke off, before the error is told."""
    sys.stdout.flush()
    if sys.stdout.isatty():
        print()


def _complain(text: str) -> None:
    print(shown_text(f"chatgptlib: {text}", sys.stderr), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
