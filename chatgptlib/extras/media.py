"""Build the content of a user's message from text, images, audio and files.

The server fetches an image by its http URL. Anything else is read here and sent in base64.
Images, audio and PDF are recognised by their first bytes, other files by their name.
https://platform.openai.com/docs/guides/images-vision
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterable, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ..codec import is_mapping
from ..errors import ConfigError, excerpt
from ..models import ContentPart

if TYPE_CHECKING:
    from mimetypes import MimeTypes
    from typing import TypeAlias

    from ..models import Media

    Part: TypeAlias = ContentPart | Mapping[str, Any]

_IMAGE = "not an image that can be sent (the API takes PNG, JPEG, GIF and WebP)"
_AUDIO = "not audio that can be sent (the API takes wav and mp3)"
_FILE = "not a file that can be sent"

_KIND_OF_START = {
    rb"\x89PNG\r\n\x1a\n": "image/png",
    rb"\xff\xd8\xff": "image/jpeg",
    rb"GIF8[79]a": "image/gif",
    rb"RIFF....WEBP": "image/webp",
    rb"BM....\0{4}": "image/bmp",
    rb"II\*\0|MM\0\*": "image/tiff",
    rb"....ftyp(?:hei[cx]|hev[cx]|mif1)": "image/heic",
    rb"....ftypavi[fs]": "image/avif",
    rb"RIFF....WAVE": "audio/wav",
    # A tag, or the first frame of layer III. In a frame of AAC the layer is 0.
    rb"ID3[\0-\4]|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]": "audio/mpeg",
    rb"(?:\xef\xbb\xbf)?\s*%PDF-": "application/pdf",
}

_OFFICE = "application/vnd.openxmlformats-officedocument."
_KIND_OF_NAME = {  # types that Python's table lacks or has differently
    ".docx": _OFFICE + "wordprocessingml.document",
    ".pptx": _OFFICE + "presentationml.presentation",
    ".xlsx": _OFFICE + "spreadsheetml.sheet",
    ".md": "text/markdown",
}

_IMAGE_KINDS = ("image/png", "image/jpeg", "image/gif", "image/webp")
_AUDIO_FORMATS = {"audio/wav": "wav", "audio/mpeg": "mp3"}


def user_content(
    text: str,
    images: Media | Iterable[Media],
    audio: Media | Iterable[Media],
    files: Media | Iterable[Media],
    detail: str | None,
) -> str | list[Part]:
    """The text, or a list of parts if there are images, audio or files.

    Raises ConfigError for a file that can't be read, or whose type can't be sent.
    """
    parts = [
        *_parts(images, _IMAGE, lambda image: _image_part(image, detail)),
        *_parts(audio, _AUDIO, _audio_part),
        *_parts(files, _FILE, _attachment_part),
    ]
    if not parts:
        return text
    return [{"type": "text", "text": text}, *parts] if text else parts


def _parts(given: Any, complaint: str, part_of: Callable[[Media], Part]) -> list[Part]:
    things: Iterable[Any] = [given] if _is_one(given) else given
    parts: list[Part] = []
    for thing in things:
        try:
            own = is_mapping(thing) or isinstance(thing, ContentPart)
            parts.append(thing if own else part_of(thing))
        except (OSError, ValueError) as error:  # ValueError also for a null character in a path
            reason = getattr(error, "strerror", None) or error
            cause = error if isinstance(error, OSError) else None
            raise ConfigError(f"{complaint}: {_named(thing)}: {reason}") from cause
    return parts


def _is_one(given: object) -> bool:
    """Whether a value is a single item. An open file is, although it iterates over lines."""
    one = (str, bytes, bytearray, memoryview, os.PathLike, Mapping, ContentPart)
    return isinstance(given, one) or hasattr(given, "read") or not isinstance(given, Iterable)


# What follows raises ValueError with the reason.


def _image_part(given: Media, detail: str | None) -> Part:
    url = _url(given)
    if not url or url[:5].lower() == "data:":
        url = _data_url(_checked(given, _IMAGE_KINDS))
    sent = {"url": url} if detail is None else {"url": url, "detail": detail}
    return {"type": "image_url", "image_url": sent}


def _audio_part(given: Media) -> Part:
    clip = _checked(given, _AUDIO_FORMATS)
    sent = {"data": _base64(clip.data), "format": _AUDIO_FORMATS[clip.kind]}
    return {"type": "input_audio", "input_audio": sent}


def _attachment_part(given: Media) -> Part:
    if isinstance(given, str) and _is_file_id(given):
        return {"type": "file", "file": {"file_id": given}}
    file = _loaded(given)
    kind = file.kind or _kind_of_name(file.name) or file.declared
    if kind in ("", "application/octet-stream"):
        raise ValueError("its type is known neither by its first bytes nor by its name")
    if not file.kind and kind in _KIND_OF_START.values():
        raise ValueError(f"its first bytes are not those of {kind}")
    name = file.name or "file" + (_media_types().guess_extension(kind) or "")
    return {"type": "file", "file": {"filename": name, "file_data": _data_url(file, kind)}}


def _is_file_id(text: str) -> bool:
    """Whether a text is the id of an uploaded file. A name with a dot is a missing file."""
    return bool(re.fullmatch("file-[A-Za-z0-9_-]+", text)) and not os.path.exists(text)


def _url(given: Media) -> str:
    is_url = isinstance(given, str) and re.match("(?i)https?://|data:", given)
    return str(given) if is_url else ""


class _Loaded(NamedTuple):
    data: bytes
    kind: str  # the media type by the first bytes, or ""
    name: str  # of the file, or ""
    declared: str  # the media type in a data: URL, or ""


def _checked(given: Media, kinds: Container[str]) -> _Loaded:
    """Load an item, and check that its first bytes are of one of these types."""
    loaded = _loaded(given)
    if loaded.kind not in kinds:
        raise ValueError(f"its first bytes are those of {loaded.kind or 'another type'}")
    return loaded


def _loaded(given: Media) -> _Loaded:
    declared = name = ""
    if isinstance(given, (bytes, bytearray, memoryview)):
        data = bytes(given)
    elif url := _url(given):
        data, declared = _unpacked(url)
    else:
        data, name = _read(given)
    if not data:
        raise ValueError("empty")
    starts = (kind for start, kind in _KIND_OF_START.items() if re.match(start, data, re.DOTALL))
    return _Loaded(data, next(starts, ""), name, declared)


def _read(given: Any) -> tuple[bytes, str]:
    """The content and the file name of a path, an open file or a Pillow image."""
    if isinstance(given, (str, os.PathLike)):
        path = os.path.expanduser(os.fsdecode(cast("str", given)))
        if os.path.isdir(path):  # to open one on Windows is "Permission denied"
            raise ValueError("it is a folder")
        with open(path, "rb") as file:
            return file.read(), os.path.basename(path)
    if hasattr(given, "read"):
        data, name = given.read(), getattr(given, "name", "")
        if not isinstance(data, bytes):
            raise ValueError("open the file in binary mode")
        return data, os.path.basename(name) if isinstance(name, str) else ""
    if hasattr(given, "save"):
        drawn = BytesIO()
        given.save(drawn, "PNG")
        return drawn.getvalue(), ""
    raise ValueError(
        "give a URL, a path, bytes, an open binary file or a Pillow image "
        "(of an array: Image.fromarray(array))"
    )


def _unpacked(url: str) -> tuple[bytes, str]:
    """The bytes and the media type in a data: URL."""
    from base64 import b64decode
    from urllib.parse import unquote_to_bytes

    if url[:5].lower() != "data:":
        raise ValueError("the API does not accept a URL here: give the content")
    head, _, body = url[5:].partition(",")
    kind, *marks = head.lower().replace(" ", "").split(";")
    data = unquote_to_bytes(body)
    if "base64" in marks:
        try:
            data = b64decode(b"".join(data.split()), validate=True)
        except ValueError as error:
            raise ValueError(f"invalid base64: {error}") from None
    return data, kind


def _kind_of_name(name: str) -> str:
    """The media type by the extension of a name, or ""."""
    extension = os.path.splitext(name)[1].lower()
    guess, packed = _media_types().guess_type("name" + extension, strict=False)
    return guess if guess and not packed else ""


def _media_types() -> MimeTypes:
    """Python's own table, which does not depend on the machine."""
    from mimetypes import MimeTypes

    types = MimeTypes()
    for extension, kind in _KIND_OF_NAME.items():
        types.add_type(kind, extension)
    return types


def _data_url(loaded: _Loaded, kind: str = "") -> str:
    return f"data:{kind or loaded.kind};base64,{_base64(loaded.data)}"


def _base64(data: bytes) -> str:
    from base64 import b64encode

    return b64encode(data).decode("ascii")


def _named(given: Media) -> str:
    """The item in an error message, without its data."""
    if isinstance(given, (bytes, bytearray, memoryview)):
        return f"{len(bytes(given))} bytes"
    if not isinstance(given, (str, os.PathLike)):
        return f"of type {type(given).__name__}"
    path = os.fsdecode(given)
    name = path.partition(",")[0] if path[:5].lower() == "data:" else path
    return excerpt(name) or repr("")
