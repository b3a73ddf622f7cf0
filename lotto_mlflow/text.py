"""Text for people: addresses without secrets, names that may have been meant, sizes."""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 3
_UNITS = ("B", "kB", "MB", "GB", "TB")


def masked(uri: str) -> str:
    """Return a URI without user, password, and values of its query."""
    if "://" not in uri:
        return uri
    from urllib.parse import urlsplit, urlunsplit  # imported lazily

    parts = urlsplit(uri)
    if not parts.netloc and not parts.query:
        return uri  # a file; some Pythons drop slashes when they put it together again
    host = f"***@{parts.netloc.rpartition('@')[2]}" if "@" in parts.netloc else parts.netloc
    query = "&".join(f"{pair.partition('=')[0]}=***" for pair in parts.query.split("&") if pair)
    return urlunsplit((parts.scheme, host, parts.path, query, parts.fragment))


def one_line(text: str) -> str:
    """Return a text as one line that a terminal shows and does not obey.

    Parameters
    ----------
    text : str
        Any text, such as the name of a file or a tag that somebody set.

    Returns
    -------
    str
        The text with control, format, bidirectional and unpaired surrogate characters and the ends
        of lines escaped as Python writes them.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def nearest(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the names nearest to one, at most three, the nearest first.

    Parameters
    ----------
    name : str
        What was asked for.
    known : iterable of str
        The names there are; of equally near ones, an earlier one comes first.

    Notes
    -----
    A name that contains what was asked for, such as a date, counts as near.
    """
    import difflib  # imported lazily

    candidates = list(dict.fromkeys(known))
    containing = [found for found in candidates if name and name.lower() in found.lower()]
    similar = difflib.get_close_matches(name, candidates, n=_MOST)
    return tuple(dict.fromkeys([*containing, *similar]))[:_MOST]


def question(names: Iterable[str]) -> str:
    """Return a sentence that asks for the names, empty where there are none."""
    quoted = [repr(name) for name in names]
    return f"; did you mean {' or '.join(quoted)}?" if quoted else ""


def size_as_text(size_bytes: int) -> str:
    """Return a size as people read it, in powers of 1000.

    Examples
    --------
    >>> size_as_text(104_857_600)
    '104.9 MB'
    """
    if size_bytes < 1000:
        return f"{size_bytes} B"
    power = min((len(str(size_bytes)) - 1) // 3, len(_UNITS) - 1)
    return f"{size_bytes / 1000**power:.1f} {_UNITS[power]}"
