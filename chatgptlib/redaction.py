"""Keeps the key and other credentials out of messages, reprs and tracebacks."""

from __future__ import annotations

import functools
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .codec import is_list, is_mapping
from .errors import JSONValue, OpenAIError

if TYPE_CHECKING:
    import requests

F = TypeVar("F", bound=Callable[..., Any])

_HOST = r"(?:[\w.-]+|\[[\w:.%]+\])(?::[0-9]*)?"


class Secret:
    """The key, in an object whose repr hides it from tools that print variables."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "Secret(...)"


class Secrets:
    """The texts that no error may show: the key and other credentials."""

    def __init__(self, *texts: str) -> None:
        # A short key, such as "none" for a local server, would redact ordinary words.
        self._texts = frozenset(t for t in texts if len(t) >= 8 or t.startswith("sk-"))

    def __or__(self, other: Secrets) -> Secrets:
        return Secrets(*self._texts, *other._texts)

    def redacted(self, value: JSONValue) -> Any:
        """Text, or JSON that holds texts, with `***` in place of each secret."""
        if isinstance(value, str):
            return _pattern_of(self._texts).sub("***", value)
        if isinstance(value, list):
            return [self.redacted(item) for item in value]
        if isinstance(value, dict):
            return {self.redacted(key): self.redacted(item) for key, item in value.items()}
        return value


@functools.lru_cache(maxsize=8)
def _pattern_of(texts: frozenset[str]) -> re.Pattern[str]:
    longest_first = sorted(map(re.escape, texts), key=len, reverse=True)
    return re.compile("|".join(longest_first) or "(?!)", re.IGNORECASE)  # "(?!)" matches nothing


def secrets_in(
    key: object, query: Mapping[str, str], headers: Mapping[str, str], urls: Iterable[str] = ()
) -> Secrets:
    """The key if it is text, and the values that may be credentials."""
    from urllib.parse import quote, quote_plus

    texts = [key] if isinstance(key, str) else []
    # Any parameter of a query may be a key, whatever its name.
    found = [value for name, value in query.items() if name != "api-version"]
    secret = re.compile("(?i)auth|key|token|secret|password|cookie|sig")
    found += [value for name, value in headers.items() if secret.search(name)]
    for value in found:
        texts += (value, quote(value, safe=""), quote_plus(value))
        texts.append(value.rpartition(" ")[2])  # the part after "Bearer" or "Basic"
    return Secrets(*texts, *credentials_in(urls))


def secrets_of_session(session: requests.Session) -> Secrets:
    """The credentials that a user's session adds to a request."""
    auth: Any = session.auth
    user = auth if is_list(auth) else [getattr(auth, key, "") for key in ("username", "password")]
    urls = [*session.proxies.values(), f"//{':'.join(map(str, user))}@"]
    headers, query = (
        {str(name): str(value) for name, value in found.items()} if is_mapping(found) else {}
        for found in (session.headers, session.params)
    )
    return secrets_in(None, query, headers, urls)


def credentials_in(urls: Iterable[str]) -> Iterator[str]:
    """The users and passwords in URLs, valid or not, in each form that an error may show."""
    from base64 import b64encode
    from urllib.parse import unquote

    for url in urls:
        user = url.rpartition("@")[0].rpartition("//")[2]
        if user:
            yield f"//{user}@"  # long enough to be redacted, even if the user is not
        for text in (user, unquote(user)):
            yield from (text, *text.split(":"), b64encode(text.encode()).decode())


def shown_url(url: str) -> str:
    """`url` for a message: without query, fragment and user, since each may hold a key.

    In an invalid URL, whose user or password holds "/", "?" or "#", they end at the last "@".
    """
    return re.split("[?#]", re.sub(rf"//(?!{_HOST}(?:[/?#]|$)).*@", "//", url))[0]


def hides_variables(function: F) -> F:
    """Decorate a function so that the traceback of this library's errors, and of a TypeError for
    a wrong argument, ends in it.

    The frames below it have the key in their variables, which some tools print.
    """

    def call(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except OpenAIError as error:
            raise without_traceback(error) from error.__cause__
        except TypeError as error:
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            if frame.f_code is not call.__code__:  # it does not come from a wrong argument
                raise
            raise without_traceback(error) from None
        finally:
            del args, options

    return cast("F", functools.wraps(function)(call))


def without_traceback(error: Exception) -> Exception:
    """Return `error` without its traceback, whose frames' variables may hold the key."""
    error.__context__ = error.__traceback__ = None
    return error
