"""What went wrong below, as errors of ours: the one place that names its exceptions.

`requests` wraps what urllib3 wrapped of what the socket said; the causes are all looked
at, since the same loss comes in many wrappings. Imported when a request has failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .connection import Line
from .errors import (
    ConfigError,
    DeserializeError,
    HTTPError,
    OpenAIError,
    RequestTimeoutError,
    excerpt,
    redacted,
    shown_url,
)

if TYPE_CHECKING:
    import requests


def no_answer(
    error: Exception,
    request: requests.PreparedRequest,
    line: Line,
    timeout: Any,
    quick: bool,
    secrets: tuple[str, ...],
) -> OpenAIError:
    """The error of ours for a request that got no answer."""
    from ssl import SSLCertVerificationError

    from requests import exceptions as theirs

    where = f"[{request.method} {shown_url(request.url or '')}]"
    reason = redacted(innermost(error), secrets)
    links = list(_chain(error))
    made: HTTPError
    if line.late:
        return RequestTimeoutError(f"the deadline ran out before an answer came {where}")
    unsendable = (theirs.InvalidURL, theirs.InvalidSchema, UnicodeError)
    expected = (theirs.RequestException, TimeoutError)  # any other OSError: no such CA bundle
    if isinstance(error, unsendable) or (
        isinstance(error, OSError) and not isinstance(error, expected)
    ):
        return ConfigError(f"cannot be sent: {reason} {where}")
    if is_timeout(error):
        if isinstance(error, theirs.ConnectTimeout) or line.connecting:
            made = RequestTimeoutError(f"no connection within {timeout[0]:g} s {where}")
            made.may_retry = True
        else:
            made = RequestTimeoutError(f"no answer within {timeout[1]:g} s {where}")
    elif any(isinstance(link, SSLCertVerificationError) for link in links):
        made = HTTPError(
            f"the server's certificate was not accepted: {reason} {where}. For a company's own "
            "CA set REQUESTS_CA_BUNDLE, or verify='/path/to/ca.pem'"
        )
    elif isinstance(error, theirs.SSLError):
        made = HTTPError(f"no TLS connection: {reason} {where}")
        made.may_retry = line.connecting
    elif isinstance(error, theirs.ProxyError) and not (is_lost(error) and line.sent_at is not None):
        made = HTTPError(f"no connection through the proxy: {reason} {where}")
        made.may_retry = True
    elif is_lost(error):
        made = HTTPError(f"the connection was lost before an answer came: {reason} {where}")
        made.may_retry = quick
    elif line.connecting or any(type(link).__name__ in _NOT_CONNECTED for link in links):
        made = HTTPError(f"no connection: {reason} {where}")
        made.may_retry = isinstance(error, theirs.ConnectionError)
    else:
        made = HTTPError(f"no usable answer: {reason} {where}")
    return made


def broken_off(
    error: Exception | None,
    kind: type[HTTPError],
    where: str,
    *,
    late: bool,
    left: bool,
    secrets: tuple[str, ...],
) -> OpenAIError:
    """The error of ours for an answer that did not come to its end: a `kind`, mostly.

    `late`: the deadline has passed; `left`: we closed it ourselves.
    """
    from requests.exceptions import ContentDecodingError
    from urllib3.exceptions import DecodeError

    if late:
        return RequestTimeoutError(f"the deadline ran out while the answer came [{where}]")
    if left:
        return kind(f"closed before the answer was complete [{where}]")
    if error is not None and is_timeout(error):
        return RequestTimeoutError(f"the server fell silent in its answer [{where}]")
    if isinstance(error, (ContentDecodingError, DecodeError)):
        return DeserializeError(f"the answer could not be decompressed [{where}]")
    reason = redacted(innermost(error), secrets)
    return kind(f"the connection was lost in the middle of the answer: {reason} [{where}]")


# By name, since the second is not in every version of urllib3.
_NOT_CONNECTED = ("NewConnectionError", "NameResolutionError")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it was made from, however `requests` wrapped it."""
    seen: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting and len(seen) < 50:
        link = waiting.pop(0)
        if isinstance(link, BaseException) and not any(link is other for other in seen):
            seen.append(link)
            yield link
            waiting += [*link.args, getattr(link, "reason", None), link.__cause__, link.__context__]


def is_timeout(error: BaseException) -> bool:
    from requests.exceptions import Timeout
    from urllib3.exceptions import ReadTimeoutError

    kinds = (TimeoutError, ReadTimeoutError, Timeout)
    return any(isinstance(link, kinds) for link in _chain(error))


def is_lost(error: BaseException) -> bool:
    """The other side hung up: without a word, or in the middle of our request."""
    from ssl import SSLEOFError

    kinds = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, SSLEOFError)
    return any(isinstance(link, kinds) for link in _chain(error))


def innermost(error: BaseException | None) -> str:
    """What went wrong, in the words of whoever saw it first."""
    if error is None:
        return "nobody knows why"
    links = list(_chain(error))
    by_system = (link for link in links if isinstance(link, OSError) and link.errno)
    # A TypeError is urllib3 1.26 finding out how old Python is.
    told = (link for link in reversed(links) if str(link) and type(link) is not TypeError)
    link = next(by_system, None) or next(told, error)
    words = link.strerror if isinstance(link, OSError) and link.strerror else str(link)
    return f"{type(link).__name__}: {excerpt(words)}".removesuffix(": ")


def safe_cause(error: BaseException, secrets: tuple[str, ...]) -> BaseException | None:
    """`error` to be chained as a cause; None if a text in its chain holds a secret."""
    for link in _chain(error):
        shown = f"{link} {link!r} {getattr(link, 'doc', '')}"  # what broken JSON was
        if any(secret in shown for secret in secrets):
            return None
        if getattr(link, "request", None) is not None:
            link.request = None  # type: ignore[attr-defined]  # its headers hold the key
    return error
