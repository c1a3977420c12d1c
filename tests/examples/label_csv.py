"""Label the rows of a CSV: stop it at any moment, start it again, and no row is paid for twice.

Run:     python label_csv.py reviews.csv labels.csv     (with a key in OPENAI_API_KEY)
Change:  the constants and Label. Answers are kept in labels.jsonl: delete it to ask again.
"""

import csv
import json
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from chatgptlib import (
    AuthenticationError,
    ChatMessage,
    ConfigError,
    CreateChatCompletionRequest,
    NotFoundError,
    OpenAIClient,
    OpenAIError,
    QuotaExceededError,
    parse_chat_completion,
)

COLUMN = "review"  # what the model reads
INSTRUCTIONS = "Label this review of an ice cream shop."
MODEL = "gpt-4o-mini"
DOLLARS_IN, DOLLARS_OUT = 0.15, 0.60  # the model's price for a million tokens
AT_ONCE = 8  # requests; after a crash these have to be paid for again
FATAL = (AuthenticationError, ConfigError, NotFoundError, QuotaExceededError)


@dataclass
class Label:
    sentiment: Literal["good", "bad", "mixed"]
    topic: str


class Answers:
    """The answers by the text of their row, kept in a file."""

    def __init__(self, path: Path) -> None:
        self.by_text: dict[str, dict[str, Any]] = {}
        self._path, self._lock = path, Lock()
        for line in path.read_text("ascii").splitlines() if path.exists() else []:
            with suppress(ValueError):  # a crash cut this line short
                answer = json.loads(line)
                self.by_text[answer["text"]] = answer

    def keep(self, answer: dict[str, Any]) -> None:
        with self._lock, self._path.open("a", encoding="ascii") as file:
            # The line break comes first, to end a line that a crash cut short.
            file.write("\n" + json.dumps(answer, default=str))  # str: for dates and the like
            self.by_text[answer["text"]] = answer


def ask(client: OpenAIClient, answers: Answers, text: str) -> None:
    """Ask for the label of a text, and keep every answer that was paid for, also a refusal."""
    messages = [ChatMessage.system(INSTRUCTIONS), ChatMessage.user(text)]
    request = CreateChatCompletionRequest(model=MODEL, messages=messages)
    label, problem = None, None
    try:
        found = parse_chat_completion(client, request, Label, with_response=True)
        label, usage = asdict(found.value), found.usage
    except FATAL:
        raise
    except OpenAIError as error:
        sys.stderr.write(f"{text[:40]!r}: {error}\n")  # print() would mix the lines of threads
        if error.partial is None:  # there was no answer: the next run asks again
            return
        problem, usage = str(error), error.partial.usage
    tokens = (usage.prompt_tokens or 0, usage.completion_tokens or 0) if usage else (0, 0)
    answers.keep({"text": text, "label": label, "problem": problem, "tokens": tokens})


def ask_all(client: OpenAIClient, answers: Answers, texts: list[str]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for job in as_completed([pool.submit(ask, client, answers, text) for text in texts]):
                job.result()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            print("stopping:", str(error) or "Ctrl-C", file=sys.stderr, flush=True)
            raise  # when the answers that are on their way are there


def main(source: str, target: str) -> int:
    with open(source, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), reader.fieldnames or []
    if COLUMN not in columns or any(None in row for row in rows):
        sys.exit(f"{source} needs a column {COLUMN!r}, and no row longer than its first: {columns}")
    answers = Answers(Path(target).with_suffix(".jsonl"))
    texts = dict.fromkeys(row[COLUMN] for row in rows if row[COLUMN])
    with OpenAIClient(timeout=60, max_retries=5) as client, suppress(KeyboardInterrupt, *FATAL):
        ask_all(client, answers, [text for text in texts if text not in answers.by_text])
    labelled = 0
    with open(target, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [*columns, *Label.__annotations__, "problem"])
        table.writeheader()
        for row in rows:
            answer = answers.by_text.get(row[COLUMN], {"label": None, "problem": "no answer"})
            labelled += answer["label"] is not None
            table.writerow({**row, **(answer["label"] or {}), "problem": answer["problem"]})
    paid = [answer["tokens"] for answer in answers.by_text.values()]
    tokens_in, tokens_out = sum(one for one, _ in paid), sum(one for _, one in paid)
    dollars = (tokens_in * DOLLARS_IN + tokens_out * DOLLARS_OUT) / 1_000_000
    print(f"{labelled} of {len(rows)} rows have a label.")
    print(f"{tokens_in} tokens in, {tokens_out} out, in all runs: ${dollars:.6f}")
    return 0 if labelled == len(rows) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]) if len(sys.argv) == 3 else __doc__)
    except (OpenAIError, OSError) as problem:
        sys.exit(f"error: {problem}")
