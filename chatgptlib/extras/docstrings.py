"""Read docstrings in the style of Google, NumPy or reST."""

from __future__ import annotations

import inspect
import re
from itertools import takewhile

_SECTION = re.compile(
    r"(?:(?:Keyword )?(?:Args|Arguments)|(?:Other )?(?:Params|Parameters)|Attributes|Returns?"
    r"|Raises|Yields?|Warns|Examples?|Notes?|References|See Also|Todo|Warnings?):\s*$|:\w"
)
_UNDERLINE = re.compile("-{3,}$")
_GOOGLE_TITLE = re.compile(r"(?:(?:Keyword )?(?:Args|Arguments)|Params|Parameters|Attributes):$")
_GOOGLE_ENTRY = re.compile(r"\*{0,2}(\w+)\s*(?:\(.*?\))?\s*:\s*(.*)")
_NUMPY_ENTRY = re.compile(r"(\w+(?:\s*,\s*\w+)*)\s*(?::.*)?$")
_REST_ENTRY = re.compile(
    r"^:(?:param|parameter|arg|argument)\s+(?:[^:\n]*\s)?(\w+)\s*:[ \t]*(.*(?:\n[ \t]+\S.*)*)", re.M
)


def prose_of(doc: str | None) -> str:
    """The text of a docstring before its first section.

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
    return re.sub(r"(?<=[^\n])\n(?=[^\W\d])", " ", "\n".join(prose).strip())


def parameter_notes(doc: str) -> dict[str, str]:
    """The description of each parameter of a function, or attribute of a class."""
    first, *others = inspect.cleandoc(doc).splitlines() or [""]
    if _GOOGLE_TITLE.match(first) and others and not others[0][:1].isspace():
        others = [f"  {line}" for line in others]  # the docstring is one section
    lines = [first, *others]
    found = {name: " ".join(text.split()) for name, text in _REST_ENTRY.findall("\n".join(lines))}
    for number, line in enumerate(lines):
        following = lines[number + 1 :]
        if _GOOGLE_TITLE.match(line.strip()):
            found |= _section_notes(_indented(following), _GOOGLE_ENTRY)
        elif line in ("Parameters", "Attributes") and _UNDERLINE.match((*following, "")[0]):
            found |= _section_notes(_until_next_title(following[1:]), _NUMPY_ENTRY)
    return {name: text for name, text in found.items() if text}


def _indented(lines: list[str]) -> list[str]:
    """The lines of an indented section."""
    body = takewhile(lambda line: not line or line[0].isspace(), lines)
    return inspect.cleandoc("\n" + "\n".join(body)).splitlines()


def _until_next_title(lines: list[str]) -> list[str]:
    titles = (i for i, line in enumerate(lines[1:]) if _UNDERLINE.match(line))
    return lines[: next(titles, len(lines))]


def _section_notes(lines: list[str], entry: re.Pattern[str]) -> dict[str, str]:
    """The entries of a section. Each begins at the margin and continues indented."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if line and not line[0].isspace():
            match = entry.match(line)
            names = re.split(r"\s*,\s*", match[1]) if match else []
            text = match[2].strip() if match and entry is _GOOGLE_ENTRY else ""
            found |= dict.fromkeys(names, text)
        else:
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return found
