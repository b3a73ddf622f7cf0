"""The names that may have been meant where one does not exist."""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 3


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
    import difflib  # here, because a name that exists needs no suggestion

    candidates = list(dict.fromkeys(known))
    containing = [found for found in candidates if name and name.lower() in found.lower()]
    similar = difflib.get_close_matches(name, candidates, n=_MOST)
    return tuple(dict.fromkeys([*containing, *similar]))[:_MOST]


def question(names: Iterable[str]) -> str:
    """Return a sentence that asks for the names, empty where there are none."""
    quoted = [repr(name) for name in names]
    return f"; did you mean {' or '.join(quoted)}?" if quoted else ""
