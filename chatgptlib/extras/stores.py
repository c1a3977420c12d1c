"""Where conversations are kept: in memory, in a file of SQLite's, or where a user will.

    store = SQLiteStore("chats.db")
    store.append("ann", [question, answer], system_prompt=None, restart=False)
    system_prompt, messages = store.load("ann")

A store knows nothing of models: its messages are JSON objects, and it keeps those of a
turn all or none.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import ConfigError
from ..replies import parsed

if TYPE_CHECKING:
    import sqlite3

    from typing_extensions import Self

_R = TypeVar("_R")

Messages = Sequence[Mapping[str, Any]]
Kept = tuple[str | None, list[dict[str, Any]]]
"""The system prompt and the messages of a conversation."""


class ConversationStore(Protocol):
    """Where conversations are kept. Any object with these four methods does.

    Messages are JSON objects, as plain dicts. Several threads, and processes where they
    share the store, may call at once: each `append` has to come out whole, none of its
    messages missing or apart. MemoryStore is an example to follow.
    """

    def load(self, conversation_id: str, limit: int | None = None) -> Kept | None:
        """The system prompt and the messages, the oldest first; None for an unknown id.

        With a `limit`, no more than that many of the newest are needed; it may be 0.
        """
        ...

    def append(
        self, conversation_id: str, messages: Messages, *, system_prompt: str | None, restart: bool
    ) -> None:
        """Add the messages of a turn, all or none, and begin the conversation if need be.

        A `system_prompt` replaces the one that is kept; None does not. With `restart`
        all that was kept before, the system prompt too, is gone in the same step.
        """
        ...

    def delete(self, conversation_id: str) -> bool:
        """Forget a conversation; whether there was one."""
        ...

    def ids(self) -> list[str]:
        """The ids of all conversations; the one with the newest message comes last."""
        ...


class MemoryStore:
    """Keeps conversations as long as the program runs. For any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[str | None, list[str]]] = {}

    def load(self, conversation_id: str, limit: int | None = None) -> Kept | None:
        """The system prompt and the newest messages; None for an unknown id."""
        with self._lock:
            if conversation_id not in self._kept:
                return None
            system_prompt, messages = self._kept[conversation_id]
            skipped = 0 if limit is None else max(len(messages) - limit, 0)
            newest = messages[skipped:]
        return system_prompt, [json.loads(message) for message in newest]

    def append(
        self, conversation_id: str, messages: Messages, *, system_prompt: str | None, restart: bool
    ) -> None:
        """Add the messages of a turn, all or none."""
        written = [json.dumps(message) for message in messages]  # so nobody can change them
        with self._lock:
            before = self._kept.pop(conversation_id, None)  # to put it last
            known_prompt, earlier = before if before and not restart else (None, [])
            prompt = known_prompt if system_prompt is None else system_prompt
            earlier += written  # in place: only copies of it are given away
            self._kept[conversation_id] = (prompt, earlier)

    def delete(self, conversation_id: str) -> bool:
        """Forget a conversation; whether there was one."""
        with self._lock:
            return self._kept.pop(conversation_id, None) is not None

    def ids(self) -> list[str]:
        """The ids of all conversations; the one with the newest message comes last."""
        with self._lock:
            return list(self._kept)


_STORE_ID = 0x63687473  # "chts", in the header of the file
# The statements that lead from each version of the tables to the next: add, never change.
_STORE_MIGRATIONS = (
    (
        """CREATE TABLE conversation (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            system_prompt TEXT  -- as JSON, which has a form for any text
        )""",
        """CREATE TABLE message (
            number INTEGER PRIMARY KEY,  -- messages of a conversation are ordered by it
            conversation INTEGER NOT NULL REFERENCES conversation (number),
            body TEXT NOT NULL  -- as JSON
        )""",
        "CREATE INDEX message_of_conversation ON message (conversation)",
    ),
)


class SQLiteStore:
    """Keeps conversations in a file, for any number of threads and processes at once.

    The file is made if there is none, for its owner alone to read (0600), and is SQLite's;
    beside it there may be two more, its -wal and -shm, which belong to it and have its mode.
    It has to be on a disk of this machine. A process that is killed, or a disk that is
    full, costs the turn at work and no more.

    Each call opens the file and closes it again. So nothing is shared with a forked
    process, there is nothing to close, and a pickled store is its path.

    busy_timeout: seconds to wait for others who are writing; then it is a ConfigError.

    Raises ConfigError, with the path, for a file that is not such a store, or is one of
    a newer version; it is not changed then. So do the methods, for what SQLite can't do,
    and for a row that is damaged, with its number.
    """

    def __init__(self, path: str | os.PathLike[str], *, busy_timeout: float = 30.0) -> None:
        if os.fspath(path) in ("", ":memory:"):
            raise ConfigError("SQLiteStore needs a file: to keep nothing, use MemoryStore()")
        self.path: str = os.path.abspath(os.fsdecode(path))
        self.busy_timeout = busy_timeout
        folder = os.path.dirname(self.path)
        if os.path.isdir(self.path):
            raise ConfigError(f"cannot keep conversations in {self.path}: it is a folder")
        if not os.path.isdir(folder):
            raise ConfigError(f"cannot keep conversations in {self.path}: no folder {folder}")
        for place in (folder, self.path):  # SQLite itself finds out when there is an answer to keep
            if os.path.exists(place) and not os.access(place, os.W_OK):
                raise ConfigError(f"cannot keep conversations in {self.path}: {place} is read-only")
        if os.path.exists(self.path):
            if os.path.getsize(self.path):
                self._look()
            self._run(self._migrate, begin="BEGIN IMMEDIATE")
        else:
            self._create(folder)
        self._run(lambda db: db.execute("PRAGMA journal_mode = WAL").fetchone())

    def load(self, conversation_id: str, limit: int | None = None) -> Kept | None:
        """The system prompt and the newest messages; None for an unknown id."""

        def work(db: sqlite3.Connection) -> Kept | None:
            db.text_factory = bytes  # which may be no UTF-8, in a row that is damaged
            found = db.execute(
                "SELECT number, system_prompt FROM conversation WHERE id = ?", (conversation_id,)
            ).fetchone()
            if found is None:
                return None
            newest = db.execute(
                "SELECT number, body FROM message WHERE conversation = ? "
                "ORDER BY number DESC LIMIT ?",
                (found[0], -1 if limit is None else min(limit, 2**62)),
            ).fetchall()
            prompt = self._value("conversation", found, str, type(None))
            return prompt, [self._value("message", row, dict) for row in reversed(newest)]

        return self._run(work, begin="BEGIN")

    def append(
        self, conversation_id: str, messages: Messages, *, system_prompt: str | None, restart: bool
    ) -> None:
        """Add the messages of a turn, all or none."""
        written = [(json.dumps(message), conversation_id) for message in messages]

        def work(db: sqlite3.Connection) -> None:
            if restart:
                _delete_rows(db, conversation_id)
            db.execute("INSERT OR IGNORE INTO conversation (id) VALUES (?)", (conversation_id,))
            if system_prompt is not None:
                db.execute(
                    "UPDATE conversation SET system_prompt = ? WHERE id = ?",
                    (json.dumps(system_prompt), conversation_id),
                )
            db.executemany(
                "INSERT INTO message (body, conversation) "
                "SELECT ?, number FROM conversation WHERE id = ?",
                written,
            )

        self._run(work, begin="BEGIN IMMEDIATE")

    def delete(self, conversation_id: str) -> bool:
        """Forget a conversation; whether there was one."""
        return self._run(lambda db: _delete_rows(db, conversation_id), begin="BEGIN IMMEDIATE")

    def ids(self) -> list[str]:
        """The ids of all conversations; the one with the newest message comes last."""
        newest = "SELECT max(number) FROM message WHERE conversation = conversation.number"
        query = f"SELECT id FROM conversation ORDER BY ({newest}), number"
        return self._run(lambda db: [found for (found,) in db.execute(query)])

    def close(self) -> None:
        """Does nothing, since nothing stays open: it is there for `with`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    def _value(self, table: str, row: tuple[int, Any], *kinds: type) -> Any:
        """What stands in a row, as JSON. Raises ConfigError where that is of no such kind."""
        number, written = row
        value, broken = parsed(written) if isinstance(written, bytes) else (written, None)
        if isinstance(value, kinds) and not broken:
            return value
        raise ConfigError(
            f"cannot read the conversations in {self.path}: row {number} of its table {table} is "
            f"damaged ({broken or f'it holds {value!r:.40}'}): delete that row, or the conversation"
        )

    def _create(self, folder: str) -> None:
        """Make the file, at once with the mode of another that only its owner can read."""
        from tempfile import NamedTemporaryFile
        from urllib.parse import quote

        try:
            with NamedTemporaryFile(dir=folder) as private:
                os.chmod(private.name, 0o600)  # a umask may have taken even the owner's rights
                mode = f"rwc&modeof={quote(private.name)}"
                self._run(self._migrate, begin="BEGIN IMMEDIATE", mode=mode)
        except OSError as error:
            raise ConfigError(f"cannot keep conversations in {self.path}: {error}") from error

    def _look(self) -> None:
        """Refuse a file that is not ours, with nothing written to it.

        It is SQLite that reads, not open(): a file that a process closes loses all the
        locks that the process has on it, those of another thread's transaction too.
        """
        import sqlite3

        try:
            self._run(self._version, begin="BEGIN", mode="ro")
        except ConfigError as error:
            # A writer was killed. What it left has to be undone, which is not for us to
            # do before we know that the file is ours; its header says so already.
            cause = error.__cause__
            if not isinstance(cause, sqlite3.OperationalError) or "readonly" not in str(cause):
                raise
            self._run(self._version, mode="ro&immutable=1")

    def _version(self, db: sqlite3.Connection) -> int:
        """The version of the tables, 0 if there are none yet. Raises for a foreign file."""
        ((mark,), (version,)) = (
            db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        if mark != _STORE_ID:
            tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if mark or version or tables:
                raise ConfigError(f"{self.path} is another program's database: it is left as it is")
        if version > len(_STORE_MIGRATIONS):
            raise ConfigError(
                f"{self.path} was written by a newer version of this library (tables {version}, "
                f"known {len(_STORE_MIGRATIONS)}): it is left as it is"
            )
        return int(version)

    def _migrate(self, db: sqlite3.Connection) -> None:
        version = self._version(db)
        if version == len(_STORE_MIGRATIONS):
            return
        for statements in _STORE_MIGRATIONS[version:]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {_STORE_ID}")
        db.execute(f"PRAGMA user_version = {len(_STORE_MIGRATIONS)}")

    def _run(
        self, work: Callable[[sqlite3.Connection], _R], *, begin: str = "", mode: str = "rw"
    ) -> _R:
        """Do some work on the file: all of it, in one transaction, or none."""
        import sqlite3

        address = f"{Path(self.path).as_uri()}?mode={mode}"
        until = time.monotonic() + self.busy_timeout
        while True:
            left = max(until - time.monotonic(), 0)
            try:
                opened = sqlite3.connect(address, uri=True, timeout=left, isolation_level=None)
                with closing(opened) as db:
                    if begin:
                        db.execute(begin)
                    result = work(db)
                    if begin:
                        db.execute("COMMIT")
                    return result
            except sqlite3.Error as error:
                # SQLite waits for locks by itself, but not for those that are held while
                # the last of several programs closes the file or the first one opens it.
                busy = "is locked" in str(error) or "locking protocol" in str(error)
                if not busy or time.monotonic() >= until:
                    raise ConfigError(
                        f"cannot keep conversations in {self.path}: {error}"
                    ) from error
                time.sleep(0.01)


def _delete_rows(db: sqlite3.Connection, conversation_id: str) -> bool:
    db.execute(
        "DELETE FROM message WHERE conversation IN (SELECT number FROM conversation WHERE id = ?)",
        (conversation_id,),
    )
    return db.execute("DELETE FROM conversation WHERE id = ?", (conversation_id,)).rowcount > 0
