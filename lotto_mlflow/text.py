"""Text for people: foreign text as one safe line, secrets masked, commands quoted for a shell.

What others wrote (names of files, tags, metadata, messages of other libraries) becomes one safe
line by `safe_line` before it is printed, logged or put in a message. Errors, findings and records
of the log see to that themselves. A command to be pasted is quoted by `shell_command` instead.
"""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

HIDDEN = "***"
_MOST = 3
_UNITS = ("B", "kB", "MB", "GB", "TB")
_SQL = frozenset({"sqlite", "postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle"})
_NO_USERS = frozenset({"databricks", "databricks-uc"})
"""Schemes in which a colon stands in the name of a profile."""
_QUERY = re.compile(r"\?[A-Za-z_][\w.-]*=")
_SCHEME = r"\b[A-Za-z][A-Za-z0-9+.-]{0,30}://"
_USER_IN_TEXT = re.compile(
    rf"({_SCHEME})[^\s/@:'\"<>]*:(?!\d*(?:[^\w@%]|$))(?!\s)(?:(?!://)[^\n@]){{1,500}}@"
    r"(?:[^\s@'\"<>]*@)*"
)
"""A user with a password that may hold anything, in a text that goes on after the URI."""
_URI_IN_TEXT = re.compile(rf"{_SCHEME}[^\s'\"<>`]+")
_PUNCTUATION = ".,;:!)]}"
_VALUE = (
    r"""(?:"(?:\\.|[^"\\]){0,999}"|'(?:\\.|[^'\\]){0,999}'|\{[^}]{0,999}\}"""
    r"""|\\?['"]?[^\s,;&'")\]}\\]+)"""
)
_AFTER_NAMES = tuple(
    re.compile(rf"(?i)({name}){value}")
    for name, value in (
        (
            r"\bauthorization\\?['\"]?\s*[=:]\s*\\?['\"]?(?:(?:bearer|basic|digest|token)\s+)?",
            r"[^\s,;'\"\\]+",
        ),
        (
            r"\b(?:bearer|basic)\s+(?=\S*(?:[\d=._~+/-]|(?-i:[a-z][A-Z])))",
            r"[A-Za-z0-9._~+/=-]{8,}",
        ),
        (
            r"(?:password|passwd|passphrase|secret|token|(?<=[?&])key|pwd(?=\s*=\s*[^/\s])|"
            r"(?:secret|access|account|api|private)[_-]?key)\\?['\"]?\s*[=:]\s*",
            _VALUE,
        ),
        (r"[?&;][\w-]{0,64}(?:signature|credential|sig|sslkey)=", _VALUE),
    )
)
"""Secrets that stand after their names: in headers, connection strings, dicts and queries."""
_SECRET_VARIABLE = re.compile(
    r"(?:MLFLOW|LOTTO|AWS|AZURE|GOOGLE|DATABRICKS|PG|MYSQL)\w*"
    r"(?:PASSWORD|PWD|TOKEN|SECRET|ACCESS_KEY|SECRET_KEY|API_KEY|CONNECTION_STRING)"
)
_URI_VARIABLE = re.compile(r"MLFLOW\w*_URI")
_SECRET_KEY = re.compile(r"(?i)pass|pwd|secret|token|key|sig|cred|auth")
_SHORTEST_SECRET = 4
_SHORTEST_PIECE = 6
_SURELY_NO_WORD = 8
"""Length from which a secret is masked inside of a longer word, too."""
_COMMON_WORDS = frozenset(
    {"true", "false", "none", "null", "lotto", "lotto_model", "mlflow", "password"}
)
"""Secrets that protect nobody, and would take words from every message."""
_MOST_REMEMBERED = 64
_LONGEST_USER = 500
_remembered: dict[str, None] = {}
"""URIs with secrets that this process has used, the newest last."""
_PASTED = re.compile(r"[\w@+=:,./~ -]", re.ASCII)


def safe_line(text: str) -> str:
    """Return a text as one line that a terminal shows and does not obey, with secrets masked."""
    return one_line(without_secrets(text))


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


def masked(uri: str) -> str:
    """Return a URI without user, password, and values of its query; the same for any of these.

    Notes
    -----
    A password in a database's URI may hold every character that ends one elsewhere. Where it is
    open what is password and what is path, it is hidden.
    """
    return _masked(uri, hides_query=True)


def _masked(uri: str, *, hides_query: bool) -> str:
    scheme, user, rest = _split(uri)
    mark = rest.find("?") if hides_query else -1
    if not _is_sql(scheme) and 0 <= rest.find("#") < mark:
        mark = -1  # inside of a fragment, as in links to the UI
    place, query = (rest, "") if mark < 0 else (rest[:mark], rest[mark + 1 :])
    if not scheme or (place.startswith("/") and not query):
        return uri
    pairs = [_masked_pair(pair) for pair in query.split("&") if pair]
    host = f"{HIDDEN}@{place}" if user and place else HIDDEN if user else place
    return f"{scheme.lower()}://{host}{'?' if pairs else ''}{'&'.join(pairs)}"


def _masked_pair(pair: str) -> str:
    name, separator, _ = pair.partition("=")
    return f"{name}={HIDDEN}" if separator else HIDDEN


def _is_sql(scheme: str) -> bool:
    return scheme.partition("+")[0].lower() in _SQL


def _split(uri: str) -> tuple[str, str, str]:
    """Return the scheme, the user with the password, and the rest of a URI."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return "", "", uri
    end = _end_of_user(scheme, rest)
    return (scheme, rest[:end].removesuffix("@"), rest[end:])


def _end_of_user(scheme: str, rest: str) -> int:
    if rest.startswith("/") or scheme.lower() in _NO_USERS:
        return 0
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    _, colon, port = re.sub(r"\[[^\]]*\]", "", authority).rpartition(":")
    has_password = bool(colon) and bool(port) and not port.isdecimal()
    query = _QUERY.search(rest)
    at = rest.rfind("@", 0, None if query is None else query.start())
    if at < 0 and has_password:
        at = rest.rfind("@")
        return at + 1 or len(rest)  # cut off, or no URI: nothing of it is sure to be public
    return at + 1 if "@" in authority or has_password or _is_sql(scheme) else 0


def remember(uri: str | None) -> None:
    """Have the secrets of a URI masked in every text, however they stand there."""
    if uri is None or masked(uri) == uri:
        return
    _remembered.pop(uri, None)
    _remembered[uri] = None
    while len(_remembered) > _MOST_REMEMBERED:
        _remembered.pop(next(iter(_remembered)), None)


def without_secrets(text: str) -> str:
    """Return a text with the secrets in it masked.

    Parameters
    ----------
    text : str
        Any text, such as the message of another library.

    Returns
    -------
    str
        The text without the users, passwords and secret values of URIs; without what stands after
        a name such as ``password=`` or ``Authorization:``; without the secrets of URIs that were
        given to `remember`, and those in the environment.
    """
    secrets: set[str] = set()
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    uris = list(_remembered)
    for name, value in os.environ.items():
        if value and _SECRET_VARIABLE.fullmatch(name):
            secrets |= {value, _basic(f"{user}:{value}")}
        elif value and _URI_VARIABLE.fullmatch(name):
            uris.append(value)
    for uri in uris:
        if uri in text:
            text = text.replace(uri, masked(uri))
        secrets |= _secrets_of(uri)
        text = _without_user_before(_host_with_user(uri), text)
    pattern = _pattern_of(frozenset(secrets))
    text = text if pattern is None else pattern.sub(HIDDEN, text)
    text = _USER_IN_TEXT.sub(rf"\1{HIDDEN}@", text)
    text = _URI_IN_TEXT.sub(_masked_in_text, text)
    for named in _AFTER_NAMES:
        text = named.sub(rf"\1{HIDDEN}", text)
    return text


def _masked_in_text(found: re.Match[str]) -> str:
    uri = found[0].rstrip(_PUNCTUATION)
    scheme = uri.partition("://")[0]
    return _masked(uri, hides_query=_is_sql(scheme)) + found[0][len(uri) :]


@lru_cache(maxsize=_MOST_REMEMBERED)
def _secrets_of(uri: str) -> frozenset[str]:
    """Return the secrets of a URI, and the pieces at which a wrong parser would cut them."""
    from urllib.parse import unquote, unquote_plus  # imported lazily

    scheme, user, rest = _split(uri)
    name, _, password = user.partition(":")
    if not password and not _is_sql(scheme):
        password = name  # a token
    pieces = re.split(r"[/?#@:%\s]+", password)
    found = {password, unquote(password), *(p for p in pieces if len(p) >= _SHORTEST_PIECE)}
    if user:
        found |= {_basic(unquote(user)), _basic(user)}
    for pair in rest.partition("?")[2].split("&"):
        key, _, value = pair.partition("=")
        if _SECRET_KEY.search(key):
            found |= {value, unquote_plus(value)}
    return frozenset(found)


@lru_cache(maxsize=_MOST_REMEMBERED)
def _host_with_user(uri: str) -> str:
    """Return the host of a URI after the mark that ends its user, empty where it has no user."""
    _, user, rest = _split(uri)
    host = re.split(r"[:/?#]", rest, maxsplit=1)[0]
    return f"@{host}" if user and host else ""


def _without_user_before(host: str, text: str) -> str:
    """Mask what stands before a host: a piece of its user, as another parser cuts it."""
    if not host or host not in text:
        return text
    *parts, last = text.split(host)
    for number, part in enumerate(parts):
        user = re.split(r"[\s'\"]|://", part[-_LONGEST_USER:])[-1]
        parts[number] = part.removesuffix(user) + HIDDEN
    return host.join([*parts, last])


def _basic(user: str) -> str:
    """Return a user and password as the header of basic authentication has them."""
    from base64 import b64encode  # imported lazily

    return b64encode(user.encode("utf-8", "surrogatepass")).decode("ascii")


@lru_cache(maxsize=_MOST_REMEMBERED)
def _pattern_of(secrets: frozenset[str]) -> re.Pattern[str] | None:
    """Return what finds secrets, also as Python, JSON and URIs write them."""
    import json  # imported lazily
    from urllib.parse import quote, quote_plus

    forms: set[str] = set()
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET and secret.lower() not in _COMMON_WORDS:
            as_bytes = secret.encode("utf-8", "surrogatepass")
            forms |= {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], one_line(secret)}
            forms |= {quote(as_bytes, safe=""), quote(as_bytes), quote_plus(as_bytes)}
    found = [
        re.escape(form)
        if len(form) >= _SURELY_NO_WORD
        else rf"(?<![A-Za-z0-9_]){re.escape(form)}(?![A-Za-z0-9_])"
        for form in sorted(forms, key=len, reverse=True)
    ]
    return re.compile("|".join(found)) if found else None


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an error with those that caused it, each line safe."""
    import traceback  # imported lazily

    text = without_secrets("".join(traceback.format_exception(error)))
    return "\n".join(one_line(line) for line in text.rstrip("\n").split("\n"))


def shell_command(words: Iterable[str]) -> str:
    """Return the command that has these words, on one line that can be pasted into any shell.

    Notes
    -----
    Where a word holds what a terminal would obey, the command is spelled out for ``printf``, whose
    octal numbers POSIX has for every byte, and evaluated. Nothing in it needs quoting again.
    """
    import shlex  # imported lazily

    command = shlex.join(words)
    if command.isprintable():
        return command
    return f"""eval "$(printf '{"".join(map(_for_printf, command))}')\""""


def _for_printf(character: str) -> str:
    if _PASTED.fullmatch(character) or (character > "\x7f" and character.isprintable()):
        return character
    is_byte = "\udc80" <= character <= "\udcff"  # of a name that is not UTF-8
    as_bytes = character.encode("utf-8", "surrogateescape" if is_byte else "surrogatepass")
    return "".join(f"\\{byte:03o}" for byte in as_bytes)


def composed(name: str) -> str:
    """Return a name in the one form that it has here: macOS decomposes Korean and accents."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def forms(name: str) -> tuple[str, ...]:
    """Return the forms in which a name may have been written down, the composed one first."""
    return tuple(dict.fromkeys((composed(name), unicodedata.normalize("NFD", name))))


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


def counted(count: int, one: str, many: str = "") -> str:
    """Return a count with what is counted, as in ``1 save`` and ``2 saves``."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


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


class _SafeRecords(logging.Filter):
    """Makes what is logged one safe line, before any handler sees it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.args:
            record.msg = safe_line(str(record.msg))
        elif isinstance(record.args, tuple):
            record.args = tuple(_safe_argument(value) for value in record.args)
        else:
            record.args = {name: _safe_argument(value) for name, value in record.args.items()}
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = traceback_of(record.exc_info[1])
        return True


def _safe_argument(value: Any) -> Any:
    """Return an argument of a record of the log: numbers as they are, all else as a safe line."""
    is_number = value is None or isinstance(value, (bool, int, float))
    return value if is_number else safe_line(str(value))


logging.getLogger("lotto_mlflow").addFilter(_SafeRecords())
