"""Read docstrings in the style of Google, NumPy or reST."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from itertools import takewhile

_SECTION = re.compile(
    r"(?:(?:Keyword )?(?:Args|Arguments)|(?:Other )?(?:Params|Parameters)|Attributes|Returns?"
    r"|Raises|Yields?|Warns|Examples?|Notes?|References|See Also|Todo|Warnings?):\s*$"
    r"|:(?![\w.:+-]+:`)\w"  # a field, not a role
)
_UNDERLINE = re.compile("-{3,}$")
_GOOGLE_TITLE = re.compile(r"(?:(?:Keyword )?(?:Args|Arguments)|Params|Parameters|Attributes):$")
_GOOGLE_ENTRY = re.compile(r"(?:[-*+] +)?[`*]*(\w+)[`*]*\s*(?:\(.*?\))?\s*:\s*(.*)")
_NUMPY_TITLES = ("Parameters", "Other Parameters", "Attributes")
_NUMPY_ENTRY = re.compile(r"[`*]*(\w+(?:\s*,\s*\w+)*)[`*]*\s*(?::.*)?$")
_REST_ENTRY = re.compile(
    r"^:(?:param|parameter|arg|argument|key|keyword)\s+(?:[^:\n]*\s)?(\w+)\s*:"
    r"[ \t]*(.*(?:\n(?:[ \t]+\S|[^\s:]).*)*)",
    re.M,
)


def prose_of(doc: str | None) -> str:
    """The text of a docstring before its first section, and the lines of parameter sections
    that describe no parameter.

    A line that begins with a letter is joined to the line before it; a list item is not.
    """
    prose: list[str] = []
    for line in inspect.cleandoc(doc or "").splitlines():
        if _UNDERLINE.match(line):
            title = prose[-1] if prose else ""
            if len(prose) > 1 or _SECTION.match(f"{title}:"):
                prose.pop()  # the title of a section, not of the docstring
                break
        elif _SECTION.match(line):
            break
        else:
            prose.append(line.rstrip())
    text = "\n".join(prose).strip() + "\n\n" + parameter_notes(doc or "").get("", "")
    return re.sub(r"(?<=[^\n])\n(?=[^\W\d])", " ", text.strip())


def parameter_notes(doc: str) -> dict[str, str]:
    """The description of each parameter or attribute; lines that describe none are under ""."""
    first, *others = inspect.cleandoc(doc).splitlines() or [""]
    if _GOOGLE_TITLE.match(first) and others and not others[0][:1].isspace():
        others = [f"  {line}" for line in others]  # the docstring is one section
    lines = [first, *others]
    found = {name: " ".join(text.split()) for name, text in _REST_ENTRY.findall("\n".join(lines))}
    for number, line in enumerate(lines):
        following = lines[number + 1 :]
        if _GOOGLE_TITLE.match(line.strip()):
            body = takewhile(lambda line: not line or line[0].isspace(), following)
            _add_notes(found, body, _GOOGLE_ENTRY)
        elif line in _NUMPY_TITLES and _UNDERLINE.match((*following, "")[0]):
            _add_notes(found, _until_next_title(following[1:]), _NUMPY_ENTRY)
    return {name: text for name, text in found.items() if text}


def _until_next_title(lines: list[str]) -> list[str]:
    titles = (i for i, line in enumerate(lines[1:]) if _UNDERLINE.match(line))
    return lines[: next(titles, len(lines))]


def _add_notes(found: dict[str, str], body: Iterable[str], entry: re.Pattern[str]) -> None:
    """Add the entries of a section. Each begins at the margin and continues indented."""
    names = [""]
    for line in inspect.cleandoc("\n" + "\n".join(body)).splitlines():
        text = line.strip()
        if text and not line[0].isspace():
            match = entry.match(line)
            names = re.split(r"\s*,\s*", match[1]) if match else [""]
            if match:
                text = match[2].strip() if entry is _GOOGLE_ENTRY else ""
                found |= dict.fromkeys(names, "")
        found |= {name: f"{found.get(name, '')} {text}".strip() for name in names}
