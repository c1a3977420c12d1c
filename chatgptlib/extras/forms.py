"""Forms with files in them, as `client.post(..., files=...)` sends them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from ..codec import is_list, is_mapping
from ..errors import ConfigError

if TYPE_CHECKING:
    from typing import TypeAlias

    _Upload: TypeAlias = (
        str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | tuple[Any, ...]
    )


def form_of(members: Mapping[str, Any], files: Mapping[str, Any]) -> tuple[bytes, str]:
    """The body of a form with these JSON values and files in it, and its Content-Type.

    Made whole, in memory, so that a retry sends the same bytes.
    """
    from urllib3.filepost import encode_multipart_formdata

    if not is_mapping(files):
        raise ConfigError(f"files must map names to files, not {type(files).__name__}")
    fields = [*_numbered(members, _form_text), *_numbered(files, _upload_part)]
    try:
        return encode_multipart_formdata(fields)
    except UnicodeEncodeError as error:
        raise ConfigError(f"cannot be sent in a form: {error}") from error


def _numbered(
    values: Mapping[Any, Any], made: Callable[[str, Any], Any]
) -> Iterator[tuple[str, Any]]:
    """The fields of a form, named as the API wants them: `name[]` each item of a list, and
    `name[key]` the member of an object."""
    for name, value in values.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"not the name of a form's field: {name!r}")
        if is_list(value) and not isinstance(value, tuple):  # a tuple is one file
            many = name if name.endswith("[]") else f"{name}[]"
            yield from ((many, made(name, item)) for item in value if item is not None)
        elif is_mapping(value):
            yield from _numbered({f"{name}[{key}]": item for key, item in value.items()}, made)
        elif value is not None:
            yield name, made(name, value)


def _form_text(name: str, value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _upload_part(name: str, given: _Upload) -> tuple[str, bytes] | tuple[str, bytes, str]:
    """The file name, content and media type of what a user gave as a file."""
    filename: Any = None
    media: list[Any] = []
    if isinstance(given, tuple):
        if len(given) not in (2, 3) or isinstance(given[1], str):
            raise ConfigError(
                f"files[{name!r}]: a tuple is (file name, bytes or open file[, media type])"
            )
        filename, given, *media = given
    found, content = _upload_read(name, given)
    filename = filename or found or name
    if not isinstance(filename, str):
        raise ConfigError(f"files[{name!r}]: a file name is text, not {type(filename).__name__}")
    if media and media[0] is not None:
        if not isinstance(media[0], str) or not re.fullmatch("[!-~]+/[ -~]+", media[0]):
            raise ConfigError(f"files[{name!r}]: not a media type: {media[0]!r}")
        return filename, content, media[0]
    return filename, content  # its media type is that of the file name


def _upload_read(name: str, given: _Upload) -> tuple[str | None, bytes]:
    """The name of a file, if it has one, and its content."""
    if isinstance(given, (bytes, bytearray, memoryview)):
        return None, bytes(given)
    path: Any = getattr(given, "name", None)
    content: Any = given
    try:
        if isinstance(given, (str, os.PathLike)):
            path = os.fspath(given)
            with open(given, "rb") as file:
                content = file.read()
        elif read := getattr(given, "read", None):
            content = read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"files[{name!r}]: {path!r} can't be read: {reason}") from error
    if not isinstance(content, bytes):
        raise ConfigError(
            f"files[{name!r}]: a file is a path, bytes, or a file open in binary mode, "
            f"not {type(given).__name__}"
        )
    return os.path.basename(os.fsdecode(path)) if isinstance(path, (str, bytes)) else None, content
