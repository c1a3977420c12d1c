"""Stores for conversations: in memory, in an SQLite file, or of the user's own.

    store = SQLiteStore("chats.db")
    store.append("ann", [question, answer], system_prompt=None, restart=False)
    system_prompt, messages = store.load("ann")

A store needs no knowledge of models. Its messages are JSON objects, and it keeps all messages
of a turn or none.
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
    """A place to keep conversations: any object with these four methods.

    Messages are JSON objects, as plain dicts. Several threads, and processes that share the
    store, may call at the same time. The messages of one `append` must stay complete and
    adjacent. MemoryStore is an example.
    """

    def load(self, conversation_id: str, limit: int | None = None) -> Kept | None:
        """The system prompt and the messages, the oldest first; None for an unknown id.

        With a `limit`, which may be 0, only that many of the newest messages are needed.
        """
        ...

    def append(
        self, conversation_id: str, messages: Messages, *, system_prompt: str | None, restart: bool
    ) -> None:
        """Add all messages of a turn or none. A new id begins a conversation.

        A `system_prompt` replaces the stored one, unless it is None. `restart` deletes the
        earlier messages and the system prompt in the same step.
        """
        ...

    def delete(self, conversation_id: str) -> bool:
        """Delete a conversation. Returns whether it existed."""
        ...

    def ids(self) -> list[str]:
        """The ids of all conversations; the one with the newest message comes last."""
        ...


class MemoryStore:
    """Keep conversations until the program ends. Any number of threads may share one."""

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
        """Add all messages of a turn, or none."""
        written = [json.dumps(message) for message in messages]  # copies
        with self._lock:
            before = self._kept.pop(conversation_id, None)  # to put it last
            known_prompt, earlier = before if before and not restart else (None, [])
            prompt = known_prompt if system_prompt is None else system_prompt
            earlier += written  # in place, since load() returns copies
            self._kept[conversation_id] = (prompt, earlier)

    def delete(self, conversation_id: str) -> bool:
        """Delete a conversation. Returns whether it existed."""
        with self._lock:
            return self._kept.pop(conversation_id, None) is not None

    def ids(self) -> list[str]:
        """The ids of all conversations; the one with the newest message comes last."""
        with self._lock:
            return list(self._kept)


_STORE_ID = 0x63687473  # "chts", in the header of the file
# The statements from each version of the tables to the next. Only append to these.
_STORE_MIGRATIONS = (
    (
        """CREATE TABLE conversation (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            system_prompt TEXT  -- as JSON, which can hold any text
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
    """Keep conversations in an SQLite file that threads and processes may share.

    A new file is readable by its owner only (0600), as are the files -wal and -shm that SQLite
    puts beside it. It must be on a local disk. If a process is killed, or the disk is full,
    only the current turn is lost.

    Each call opens the file and closes it again. So the store works after a fork, needs no
    closing, and can be pickled.

    busy_timeout: seconds to wait for a lock before the call fails with a ConfigError.

    Raises ConfigError, with the path, for a file that is not such a store, or is of a newer
    version; the file stays unchanged. The methods raise it for an error of SQLite, and for a
    damaged row, with its number.
    """

    def __init__(self, path: str | os.PathLike[str], *, busy_timeout: float = 30.0) -> None:
        if os.fspath(path) in ("", ":memory:"):
            raise ConfigError("SQLiteStore needs a file: for memory, use MemoryStore()")
        self.path: str = os.path.abspath(os.path.expanduser(os.fsdecode(path)))
        self.busy_timeout = busy_timeout
        folder = os.path.dirname(self.path)
        if os.path.isdir(self.path):
            raise ConfigError(f"cannot keep conversations in {self.path}: it is a folder")
        if not os.path.isdir(folder):
            raise ConfigError(f"cannot keep conversations in {self.path}: no folder {folder}")
        for place in (folder, self.path):  # SQLite would only fail at the first save
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
            db.text_factory = bytes  # a damaged row may not be UTF-8
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
        """Add all messages of a turn, or none."""
        written = [(json.dumps(message), conversation_id) for message in messages]
        for text, _ in written:
            if broken := parsed(text)[1]:  # load() would call such a message damaged
                raise ConfigError(str(broken))

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
        """Delete a conversation. Returns whether it existed."""
        return self._run(lambda db: _delete_rows(db, conversation_id), begin="BEGIN IMMEDIATE")

    def ids(self) -> list[str]:
        """The ids of all conversations; the one with the newest message comes last."""
        newest = "SELECT max(number) FROM message WHERE conversation = conversation.number"
        query = f"SELECT id FROM conversation ORDER BY ({newest}), number"
        return self._run(lambda db: [found for (found,) in db.execute(query)])

    def close(self) -> None:
        """Do nothing: no file stays open. It allows a `with` block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    def _value(self, table: str, row: tuple[int, Any], *kinds: type) -> Any:
        """The JSON value in a row. Raises ConfigError for a value of another kind."""
        number, written = row
        value, broken = parsed(written) if isinstance(written, bytes) else (written, None)
        if isinstance(value, kinds) and not broken:
            return value
        raise ConfigError(
            f"cannot read the conversations in {self.path}: row {number} of its table {table} is "
            f"damaged ({broken or f'it holds {value!r:.40}'}): delete that row, or the conversation"
        )

    def _create(self, folder: str) -> None:
        """Create the file readable by its owner only: SQLite can copy the mode of another file,
        but can't be given one."""
        from tempfile import NamedTemporaryFile
        from urllib.parse import quote

        try:
            with NamedTemporaryFile(dir=folder) as private:
                os.chmod(private.name, 0o600)  # a umask may have removed the owner's rights
                mode = f"rwc&modeof={quote(private.name)}"
                self._run(self._migrate, begin="BEGIN IMMEDIATE", mode=mode)
        except OSError as error:
            raise ConfigError(f"cannot keep conversations in {self.path}: {error}") from error

    def _look(self) -> None:
        """Raise ConfigError for a file that is not such a store, without a write to it.

        Let SQLite read the file, not open(): when a process closes a file, it loses all its
        locks on that file, including those of a transaction in another thread.
        """
        import sqlite3

        try:
            self._run(self._version, begin="BEGIN", mode="ro")
        except ConfigError as error:
            # A writer was killed, and SQLite can't roll back in read-only mode. The header
            # alone says whether the file is a store.
            cause = error.__cause__
            if not isinstance(cause, sqlite3.OperationalError) or "readonly" not in str(cause):
                raise
            self._run(self._version, mode="ro&immutable=1")

    def _version(self, db: sqlite3.Connection) -> int:
        """The version of the tables, 0 for an empty file. Raises ConfigError for a foreign file."""
        ((mark,), (version,)) = (
            db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        if mark != _STORE_ID:
            tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if mark or version or tables:
                raise ConfigError(f"{self.path} is another program's database; it was not changed")
        if version > len(_STORE_MIGRATIONS):
            raise ConfigError(
                f"{self.path} was written by a newer version of this library (tables {version}, "
                f"known {len(_STORE_MIGRATIONS)}); it was not changed"
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
        """Run `work` on the file, in a transaction that `begin` starts."""
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
                # SQLite waits for most locks, but not for those held while the first
                # connection to the file opens or the last one closes.
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
