"""Asking a store, in a moment, whether it can be used; MLflow itself would try for minutes."""

from __future__ import annotations

import math
import re
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import requests
import sqlalchemy
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from mlflow.store import db_migrations

from lotto_mlflow import advice
from lotto_mlflow.errors import Fix, MirrorUnavailableError, OtherSchemaError
from lotto_mlflow.mirror import refusals
from lotto_mlflow.settings import sqlite_path
from lotto_mlflow.text import masked, shell_command, without_secrets

_SECONDS = 2.0
_PROBED_EVERY_SECONDS = 60.0
_ANSWERED: dict[tuple[str, ...], float] = {}
"""When the servers of a store answered last, by their addresses."""
_HTTP_SCHEMES = ("http://", "https://")
_SQL_SCHEMES = ("postgresql", "mysql", "mssql")
_TIMEOUT_ARGUMENTS = {"postgresql": "connect_timeout", "mysql": "connect_timeout"}
_RELEASE = re.compile(
    r"(\d{1,4}(?:\.\d{1,4}){1,3}(?:\.?(?:a|b|rc|dev|post)\d{0,4})?)(?:\+[A-Za-z0-9.]{1,40})?"
)
_LONGEST_RELEASE = 100
"""Bytes that are read of what a server says its release is."""
_FIRST_RELEASE = 3
_servers_that_fit: set[str] = set()
"""Those that were asked for their release; none takes an older one."""
_REVISION = "SELECT version_num FROM alembic_version"
_WRITE_NOTHING = "UPDATE alembic_version SET version_num = version_num"


def is_server(uri: str) -> bool:
    """Return whether a URI names a tracking server."""
    return uri.startswith(_HTTP_SCHEMES)


def is_sql(uri: str) -> bool:
    """Return whether a URI names a database that MLflow opens itself, without its own server."""
    return uri.startswith(("sqlite:", *_SQL_SCHEMES))


def is_there(uri: str, *, for_writing: bool) -> bool:
    """Return whether there is a store; nothing is created.

    Parameters
    ----------
    uri : str
        Tracking store or registry.
    for_writing : bool
        Whether it must be possible to write, too.

    Returns
    -------
    bool
        False for a database that has still to be made.

    Raises
    ------
    MirrorUnavailableError
        If a server gives no answer within two seconds, or one that says it is broken; if a file
        is no database, is locked, or cannot be written.
    OtherSchemaError
        If the database was made by another release of MLflow, which would fill in missing tables
        as soon as it opens it.
    """
    path = sqlite_path(uri)
    if uri.startswith(_HTTP_SCHEMES):
        _ask_http_server(uri)
        if for_writing:
            check_release(uri)
    elif path is not None:
        if not path.exists():
            return False
        _check_schema(_revision_of_file(path, for_writing=for_writing), uri)
    elif uri.startswith(_SQL_SCHEMES):
        revision = _revision_on_server(uri, for_writing=for_writing)
        if revision is None:
            return False
        _check_schema(revision, uri)
    return True


def answers_still(uris: tuple[str, ...]) -> bool:
    """Return whether servers answered this process not long ago, and none is down by now.

    Notes
    -----
    They are asked then without a request before, to see whether they can be: a lookup is bounded
    with one and without.
    """
    is_recent = time.monotonic() - _ANSWERED.get(uris, -math.inf) < _PROBED_EVERY_SECONDS
    return is_recent and all(map(_accepts, uris))


@contextmanager
def answers_noted(uris: tuple[str, ...]) -> Iterator[None]:
    """Note, for `answers_still`, how a question to servers ends."""
    try:
        yield
    except MirrorUnavailableError:
        _ANSWERED.pop(uris, None)
        raise
    _ANSWERED[uris] = time.monotonic()


def _accepts(uri: str) -> bool:
    """Return whether something on the host of a server's address accepts a connection.

    Notes
    -----
    This is no request. A server that is down refuses at once, which MLflow's client would try
    again for minutes; where a proxy leads to it nothing can be said of it, and the answer is no.
    """
    if not uri.startswith(_HTTP_SCHEMES) or requests.utils.get_environ_proxies(uri):
        return False
    try:
        parts = urlsplit(uri)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((str(parts.hostname), port), _SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def _ask_http_server(uri: str) -> None:
    try:
        settings = refusals.tls_settings()
        answer = requests.get(f"{uri}/health", timeout=_SECONDS, stream=True, **settings)
        answer.close()
    except OSError as cause:
        if refusals.is_of_certificates(cause):
            said = without_secrets(refusals.of_certificates(cause))
            message = f"{masked(uri)} and this client do not trust each other: {said}"
        else:
            said = f"{type(cause).__name__}: {without_secrets(refusals.reason_of(cause))}"
            message = f"{masked(uri)} does not answer: {said}"
            if uri.startswith("https:") and refusals.is_cut(cause):
                message = f"{message}; {refusals.WANTS_CERTIFICATE}"
        raise MirrorUnavailableError(message, error_code=None) from cause
    if answer.status_code >= 500:
        raise MirrorUnavailableError(
            f"{masked(uri)} answers with HTTP {answer.status_code}", error_code=None
        )
    kind = answer.headers.get("Content-Type", "")
    if answer.ok and kind.partition(";")[0].strip() == "application/json":
        raise MirrorUnavailableError(
            f"{masked(uri)} is no MLflow server: its /health answers with JSON; check the address",
            error_code=None,
        )


def _release_of(uri: str) -> str | None:
    """Return the release of MLflow that a server says it has, ``None`` where it says none."""
    try:
        with requests.get(
            f"{uri}/version",
            timeout=_SECONDS,
            stream=True,
            headers=refusals.credentials(),
            **refusals.tls_settings(),
        ) as answer:
            body = chain.from_iterable(answer.iter_content(_LONGEST_RELEASE))
            text = bytes(islice(body, _LONGEST_RELEASE)).decode("ascii", "replace")
            found = _RELEASE.fullmatch(text.strip()) if answer.ok else None
    except OSError:
        return None
    return None if found is None else found[1]


def other_releases(uris: Iterable[str]) -> str:
    """Return which releases of MLflow servers have, and what to do, if it is not the installed one.

    Returns
    -------
    str
        Empty where it is the installed one, but for the last number, or cannot be told.
    """
    return "; ".join(filter(None, map(_other_release, uris)))


def _other_release(uri: str) -> str:
    found = _release_of(uri) if uri.startswith(_HTTP_SCHEMES) else None
    if found is None or found.split(".")[:2] == mlflow.__version__.split(".")[:2]:
        return ""
    ours = mlflow.__version__
    return (
        f"the server has MLflow {found} and this client {ours}, which may not understand each "
        f"other: install mlflow=={found} here, or mlflow=={ours} there"
    )


def check_release(uri: str, *, takes_newer: bool = True) -> str | None:
    """Refuse a server whose MLflow has no logged models, before anything is written to it.

    Parameters
    ----------
    uri : str
        The server.
    takes_newer : bool
        Whether one of a newer major version than the installed MLflow will do.

    Returns
    -------
    str or None
        The release that it says it has; ``None`` where it says none, or said before that it fits.

    Raises
    ------
    MirrorUnavailableError
        If its release will not do; the message says which one it is, and what to install.
    """
    if takes_newer and uri in _servers_that_fit:
        return None
    found, ours = _release_of(uri), mlflow.__version__
    if found is None:
        return None
    reason, helps = "", f"install mlflow>={_FIRST_RELEASE} there"
    if _major(found) < _FIRST_RELEASE:
        reason = "which has no logged models"
    elif not takes_newer and _major(found) > _major(ours):
        reason, helps = "which is of a newer major version", f"install mlflow=={found} here"
    if reason:
        raise MirrorUnavailableError(
            f"{masked(uri)} has MLflow {found}, {reason}, and this client {ours}: {helps}",
            error_code=None,
        )
    _servers_that_fit.add(uri)
    return found


def _major(release: str) -> int:
    return int(release.partition(".")[0])


def _revision_of_file(path: Path, *, for_writing: bool) -> str:
    try:
        with closing(sqlite3.connect(path, timeout=_SECONDS, isolation_level=None)) as opened:
            opened.execute("BEGIN IMMEDIATE" if for_writing else "BEGIN")
            found = opened.execute(_REVISION).fetchone()
            if for_writing:  # a file that is read-only lets a transaction begin
                opened.execute(_WRITE_NOTHING)
            opened.execute("ROLLBACK")
    except sqlite3.Error as cause:
        if advice.number_of(cause) is not None:
            helps = advice.of_error(cause, path, reads=not for_writing)
            raise MirrorUnavailableError(
                f"the database {path} cannot be used: {cause}; {helps}", error_code=None
            ) from cause
        raise MirrorUnavailableError(
            f"the database {path} cannot be used: {cause}",
            fix=Fix(
                "sync",
                {"resend": True},
                before="if it is damaged, bring it back from a copy, or move it away: a new one "
                "is made, and",
                effect="fills it",
            ),
            error_code=None,
        ) from cause
    return "" if found is None else str(found[0])


def _revision_on_server(uri: str, *, for_writing: bool) -> str | None:
    """Return the revision of a database on a server, ``None`` where it has no tables yet."""
    dialect = sqlalchemy.make_url(uri).get_backend_name()
    timeout = _TIMEOUT_ARGUMENTS.get(dialect)
    engine = sqlalchemy.create_engine(
        uri,
        poolclass=sqlalchemy.NullPool,
        connect_args={timeout: int(_SECONDS)} if timeout else {},
    )
    try:
        with engine.connect() as opened:
            if not sqlalchemy.inspect(opened).has_table("alembic_version"):
                return None
            found = str(opened.execute(sqlalchemy.text(_REVISION)).scalar() or "")
            if for_writing:  # a stand-by, or an account without rights, lets a transaction begin
                opened.execute(sqlalchemy.text(_WRITE_NOTHING))
                opened.rollback()
            return found
    except sqlalchemy.exc.SQLAlchemyError as cause:
        raise MirrorUnavailableError(
            f"the database {masked(uri)} cannot be used: {str(cause).splitlines()[0]}",
            error_code=None,
        ) from cause


def _check_schema(revision: str, uri: str) -> None:
    """Refuse a database whose tables are not those of the installed MLflow.

    Raises
    ------
    OtherSchemaError
        If they are others; ``is_older`` says which way, and the message has the command.
    """
    scripts = _migrations()
    if revision == scripts.get_current_head():
        return
    try:
        scripts.get_revision(revision)
    except CommandError:
        is_older, maker, advice = False, "a newer MLflow than", "pip install --upgrade mlflow"
    else:
        is_older, maker, advice = (
            True,
            "an older MLflow than",
            _upgrade_command(uri),
        )
    raise OtherSchemaError(
        f"the database {masked(uri)} has the schema of {maker} the installed "
        f"{mlflow.__version__}: run {advice}",
        is_older=is_older,
        path=sqlite_path(uri),
        error_code=None,
    )


def _upgrade_command(uri: str) -> str:
    """Return the command; the secrets of a URI that has any are left to the reader."""
    shown = masked(uri)
    if shown == uri:
        return shell_command(["mlflow", "db", "upgrade", uri])
    return f"mlflow db upgrade {shown} with its secrets in the place of ***"


@lru_cache(maxsize=1)
def _migrations() -> ScriptDirectory:
    """Return the installed MLflow's migrations.

    Notes
    -----
    MLflow has no public call that returns its schema's revision without opening a database, which
    creates and fills in tables; its migrations are read by alembic, as ``mlflow db`` does.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(str(db_migrations.__file__)).parent))
    return ScriptDirectory.from_config(config)
