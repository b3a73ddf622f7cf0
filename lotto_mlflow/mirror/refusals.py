"""Who was refused, by whom, and what helps: by the answers of servers and object stores."""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import requests
from mlflow.environment_variables import (
    MLFLOW_TRACKING_CLIENT_CERT_PATH,
    MLFLOW_TRACKING_INSECURE_TLS,
    MLFLOW_TRACKING_PASSWORD,
    MLFLOW_TRACKING_SERVER_CERT_PATH,
    MLFLOW_TRACKING_TOKEN,
    MLFLOW_TRACKING_USERNAME,
)
from mlflow.exceptions import MlflowException, RestException

from lotto_mlflow import advice
from lotto_mlflow.text import without_secrets

WANTS_CERTIFICATE = (
    "a server that asks for the certificate of its clients may end connections so: "
    "MLFLOW_TRACKING_CLIENT_CERT_PATH names the file with this client's own and its key"
)
_CERTIFICATES = (
    "MLFLOW_TRACKING_SERVER_CERT_PATH names the certificate of the authority that signed the "
    "server's, MLFLOW_TRACKING_CLIENT_CERT_PATH the file with this client's own certificate and key"
)
_UNKNOWN = (
    "the server does not know who asks: check MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, which may have expired"
)
_NOT_ALLOWED = (
    "the server knows who asks, and does not allow it: ask whoever runs it for the right (of what "
    "is not there, MLflow's basic auth says the same)"
)
_OBJECT_STORE = (
    "the object store refuses: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
    "AWS_SESSION_TOKEN, which may have expired, and what the account may do in the bucket"
)
_CODES = {
    "UNAUTHENTICATED": _UNKNOWN,
    "CUSTOMER_UNAUTHORIZED": _UNKNOWN,
    "PERMISSION_DENIED": _NOT_ALLOWED,
}
_BY_STATUS = {401: _UNKNOWN, 403: _NOT_ALLOWED}
_STATUS = re.compile(r"failed with error code (40[13]) != 200")
_OF_OBJECT_STORE = re.compile(
    r"An error occurred \((?:40[13]|Forbidden|AccessDenied|InvalidAccessKeyId|"
    r"SignatureDoesNotMatch|ExpiredToken|InvalidToken|AllAccessDisabled|AccountProblem)\)"
    r"|Unable to locate credentials"
)
_OF_OTHERS = re.compile(
    r"failed with error code (?:404|405) != 200|the response body was not in a valid JSON format"
)
"""What MLflow's client says of answers that no MLflow server gives."""
_DEEPEST = 8
_LONGEST_REASON = 200
_LONGEST_MESSAGE = 10_000


def tls_settings() -> dict[str, Any]:
    """Return how MLflow's settings have certificates checked, and shown, by ``requests``."""
    settings: dict[str, Any] = {
        "verify": MLFLOW_TRACKING_SERVER_CERT_PATH.get() or not MLFLOW_TRACKING_INSECURE_TLS.get()
    }
    own = MLFLOW_TRACKING_CLIENT_CERT_PATH.get()
    if own is not None:
        settings["cert"] = own
    return settings


def credentials() -> dict[str, str]:
    """Return the header by which a server knows who asks, as MLflow's client sends it.

    Notes
    -----
    MLflow's own file of credentials is not read: it has no public call for that.
    """
    user, password = MLFLOW_TRACKING_USERNAME.get(), MLFLOW_TRACKING_PASSWORD.get()
    token = MLFLOW_TRACKING_TOKEN.get()
    if user and password:
        coded = base64.standard_b64encode(f"{user}:{password}".encode()).decode()
        return {"Authorization": f"Basic {coded}"}
    return {"Authorization": f"Bearer {token}"} if token else {}


def is_of_certificates(cause: BaseException) -> bool:
    """Return whether an error is one of certificates, or of the files that hold them.

    Notes
    -----
    For a file that is missing, ``requests`` raises an `OSError` that is none of its own kinds.
    """
    kinds = (requests.exceptions.SSLError, ssl.SSLError)
    is_file = not isinstance(cause, requests.RequestException) and "certificate" in str(cause)
    return is_file or any(isinstance(each, kinds) for each in _chain(cause))


def of_certificates(cause: BaseException) -> str:
    """Return what is wrong with certificates, and what helps."""
    reason = next((e for e in _chain(cause) if isinstance(e, ssl.SSLError)), cause)
    return f"{reason}; {_CERTIFICATES}"


def is_cut(cause: BaseException) -> bool:
    """Return whether a server took a connection and ended it without an answer."""
    return any(isinstance(each, ConnectionResetError | BrokenPipeError) for each in _chain(cause))


def reason_of(cause: BaseException) -> str:
    """Return what was at the bottom of an error of a connection, in short."""
    *_, first = _chain(cause)
    lines = str(first).strip().splitlines()
    return lines[0][-_LONGEST_REASON:] if lines else type(first).__name__


def advice_of(cause: BaseException) -> str:
    """Return what helps whoever was refused.

    Parameters
    ----------
    cause : BaseException
        What MLflow, ``requests`` or the client of an object store raised.

    Returns
    -------
    str
        Empty where nobody was refused.
    """
    for each in _chain(cause):
        if isinstance(each, requests.exceptions.SSLError | ssl.SSLError):
            return _CERTIFICATES
        found = _CODES.get(str(getattr(each, "error_code", None)))
        response = getattr(each, "response", None)
        found = found or _BY_STATUS.get(getattr(response, "status_code", 0))
        message = str(each)
        if found is None and (status := _STATUS.search(message)):
            found = _BY_STATUS[int(status[1])]
        if _OF_OBJECT_STORE.search(message):
            found = _OBJECT_STORE
        if found is not None:
            return found
    return ""


def is_of_others(cause: MlflowException) -> bool:
    """Return whether an answer is that of a server which knows nothing of MLflow."""
    if isinstance(cause, RestException):
        return "error_code" not in cause.json and "not found" in str(cause).lower()
    return _OF_OTHERS.search(str(cause)) is not None


def end_of_message(cause: BaseException, explain: Callable[[], str]) -> str:
    """Return the end of a message of an error: what helps, or may be behind it, or nothing.

    Parameters
    ----------
    cause : BaseException
        The error.
    explain : callable
        Asked where nothing is known that helps.
    """
    helps = advice_of(cause)
    if not helps and advice.number_of(cause) is not None:
        helps = advice.of_error(cause)
    helps = helps or explain()
    return f"; {helps}" if helps else ""


def said(cause: Exception) -> str:
    """Return what another library said, in short: its kind, and the first line of its message.

    Notes
    -----
    Secrets are masked before the message is cut, since half a secret is no longer known as one.
    """
    message = without_secrets(str(cause)[:_LONGEST_MESSAGE]).strip()
    lines = [line for line in message.splitlines() if line and not line.startswith("#####")]
    first_line = lines[0] if lines else type(cause).__name__
    if first_line.endswith(":") and len(lines) > 1:  # of a list of failures, the first
        first_line = f"{first_line} {lines[1]}"
    return f"{type(cause).__name__}: {first_line:.500}"


def _chain(cause: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, the nearest first."""
    found: BaseException | None = cause
    for _ in range(_DEEPEST):
        if found is None:
            return
        yield found
        inner = next((each for each in found.args if isinstance(each, BaseException)), None)
        reason = getattr(inner, "reason", None)
        nearest = reason if isinstance(reason, BaseException) else inner
        found = found.__cause__ or nearest or found.__context__
