"""When the training of a model began, as far as its metadata say so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone, tzinfo
from typing import Any

STARTED_AT, SECONDS = "training_started_at", "training_seconds"
"""Keys of the caller's metadata."""
_NS = 10**9
_LONGEST_SECONDS = 366 * 86_400
"""No training lasts longer: an earlier start is a mistake."""
_ROUNDED_NS = _NS
"""A moment that was rounded may lie so much after the call."""
_FRACTION = re.compile(r"([.,]\d{1,6})\d*")
_OFFSET = re.compile(r"([+-]\d{2}):?(\d{2})?$")
_DURATION = re.compile(
    r"P(?:(?P<weeks>N)W)?(?:(?P<days>N)D)?"
    r"(?:T(?:(?P<hours>N)H)?(?:(?P<minutes>N)M)?(?:(?P<seconds>N)S)?)?".replace(
        "N", r"\d+(?:[.,]\d+)?"
    )
)
_CLOCK = re.compile(
    r"(?:(?P<days>\d+) days?,? )?(?P<hours>\d+):(?P<minutes>\d\d):(?P<seconds>\d\d(?:\.\d+)?)"
)
"""What ``str`` makes of a duration: ``1 day, 2:03:04.5``."""
_UNIT_SECONDS = {"weeks": 604_800, "days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}
_EPOCH_UNITS = ((10**17, 1), (10**14, 10**3), (10**11, 10**6))
"""Least numbers that are no seconds since 1970, and the nanoseconds of their unit."""
_LEAST_SECONDS = 10**8
"""In 1973. A text of a smaller number is a day: ``20251103``."""


def training_started_ns(
    metadata: Mapping[str, Any],
    saved_at_ns: int,
    zone: tzinfo,
    *,
    called_at_ns: int | None = None,
    may_be_utc: bool = False,
) -> int | None:
    """Return when a training began, by the metadata of the save that followed it.

    Parameters
    ----------
    metadata : mapping of str to object
        Plain values. ``training_started_at`` is ISO 8601, or seconds since 1970 (or
        milli-, micro- or nanoseconds, by their size); ``training_seconds`` a number, a duration
        of ISO 8601, or hours, minutes and seconds. A number may be a text. The first wins.
    saved_at_ns : int
        Time of the save, in nanoseconds since 1970, at which the training had ended.
    zone : datetime.tzinfo
        A zone of which a text without an offset may be; the machine's own is another.
    called_at_ns : int, optional
        When the save began, by the clock that wrote such a text; by default ``saved_at_ns``.
    may_be_utc : bool, default False
        Whether such a text may be of UTC, too, as `is_without_zone` says.

    Returns
    -------
    int or None
        Nanoseconds since 1970; ``None`` where there is no such key, or its value makes no sense:
        no time, after the save, or more than a year before it.

    Notes
    -----
    Of the readings of a text without an offset, the latest that is not after the call is taken:
    ``datetime.now()`` is of the machine's zone, which need not be the one of the settings.
    """
    zones = (zone, None, timezone.utc) if may_be_utc else (zone, None)
    latest_ns = _ROUNDED_NS + (saved_at_ns if called_at_ns is None else called_at_ns)
    lasted = _duration(metadata.get(SECONDS))
    candidates = (
        moment_ns(metadata.get(STARTED_AT), zones, latest_ns),
        None if lasted is None else saved_at_ns - lasted,
    )
    earliest = max(0, saved_at_ns - _LONGEST_SECONDS * _NS)
    return next((one for one in candidates if one and earliest <= one < saved_at_ns), None)


def is_without_zone(metadata: Mapping[Any, Any]) -> bool:
    """Return whether the start, as the caller gave it, is of a type that knows no zones.

    Notes
    -----
    ``numpy.datetime64("now")`` is of UTC; one made of a datetime is of whatever that was of.

    References
    ----------
    NumPy 2, numpy.datetime64: "should be considered to be UTC".
    """
    given = (value for key, value in metadata.items() if isinstance(key, str) and key == STARTED_AT)
    return any(type(value).__name__ == "datetime64" for value in given)


def moment_ns(value: Any, zones: Iterable[tzinfo | None], latest_ns: int) -> int | None:
    """Return the moment that a value names, in nanoseconds since 1970.

    Parameters
    ----------
    value : object
        ISO 8601, or a number since 1970, whose size tells its unit; it may be a text.
    zones : iterable of datetime.tzinfo or None
        The zones that a text without an offset may be of, ``None`` for the machine's own.
    latest_ns : int
        Of the readings of such a text, the latest that is not after this moment is meant.

    Returns
    -------
    int or None
        ``None`` where it names none.
    """
    number = _number(value)
    if number is not None and not (isinstance(value, str) and number < _LEAST_SECONDS):
        return _in_ns(number, next((unit for least, unit in _EPOCH_UNITS if number >= least), _NS))
    moment = _moment(value) if isinstance(value, str) else None
    if moment is None:
        return None
    if moment.tzinfo is not None:
        return _timestamp_ns(moment)
    readings = (_timestamp_ns(moment.replace(tzinfo=zone)) for zone in zones)
    return max((one for one in readings if one is not None and one <= latest_ns), default=None)


def _timestamp_ns(moment: datetime) -> int | None:
    """Return nanoseconds since 1970; a moment without a zone is of the machine's own."""
    try:
        whole = int(moment.replace(microsecond=0).timestamp())
    except (OverflowError, ValueError, OSError):
        return None
    return whole * _NS + moment.microsecond * 1_000


def _moment(text: str) -> datetime | None:
    """Return the moment of a text of ISO 8601, in the forms that Python 3.10 does not read, too."""
    day, separator, clock = text.strip().replace("t", "T").partition("T")
    if not separator:
        day, separator, clock = text.strip().partition(" ")
    clock = _OFFSET.sub(lambda found: f"{found[1]}:{found[2] or '00'}", clock.replace(" ", ""))
    clock = re.sub("[zZ]$", "+00:00", clock)
    clock = _FRACTION.sub(lambda found: found[1].replace(",", ".").ljust(7, "0"), clock)
    try:
        return datetime.fromisoformat(f"{day}{separator}{clock}")
    except ValueError:
        return None


def _duration(value: Any) -> int | None:
    """Return a duration in nanoseconds."""
    seconds = _number(value)
    if seconds is None and isinstance(value, str):
        found = _DURATION.fullmatch(value.strip()) or _CLOCK.fullmatch(value.strip())
        given = {} if found is None else found.groupdict()
        parts = {unit: text.replace(",", ".") for unit, text in given.items() if text}
        if parts:
            seconds = sum(float(text) * _UNIT_SECONDS[unit] for unit, text in parts.items())
    return None if seconds is None else _in_ns(seconds, _NS)


def _number(value: Any) -> float | None:
    """Return a number, or that of a text, ``None`` for anything else; whole ones stay whole."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number else None


def _in_ns(number: float, unit_ns: int) -> int | None:
    if isinstance(number, int):
        return number * unit_ns
    product = number * unit_ns
    return round(product) if abs(product) < _NS**3 else None  # which no NaN is
