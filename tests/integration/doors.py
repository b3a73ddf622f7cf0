"""What stands before a server: certificates, and a proxy that asks for a bearer token."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Authority:
    """A private certificate authority, which keeps what it makes in a folder.

    Parameters
    ----------
    folder : pathlib.Path
        Where its certificates and keys go.
    name : str
        What it is called.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._signed(name, self._key, is_authority=True, days=30)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(_pem(self._certificate))

    def issue(self, name: str, *, days: int = 30) -> Path:
        """Return a file with a new certificate of 127.0.0.1 and its key; old ones have no days."""
        key = ec.generate_private_key(ec.SECP256R1())
        path = self._folder / f"{name}-by-{self._name}.pem"
        path.write_bytes(_pem(self._signed(name, key, is_authority=False, days=days)) + _pem(key))
        return path

    def _signed(
        self, name: str, key: ec.EllipticCurvePrivateKey, *, is_authority: bool, days: int
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=is_authority,
                    crl_sign=is_authority,
                    encipher_only=False,
                    decipher_only=False,
                    **usage,
                ),
                critical=True,
            )
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(what: x509.Certificate | ec.EllipticCurvePrivateKey) -> bytes:
    if isinstance(what, x509.Certificate):
        return what.public_bytes(serialization.Encoding.PEM)
    return what.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Gate(ThreadingHTTPServer):
    """A proxy that lets through who brings a bearer token, and answers 401 to everyone else.

    Parameters
    ----------
    behind : int
        The port of the server behind it, on 127.0.0.1.
    token : str
        What it asks for; tokens expire as this is changed.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, behind: int, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.token = behind, token
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"
        self.refused = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gate

    def _pass_on(self) -> None:
        given = self.headers.get("Authorization", "")
        if given != f"Bearer {self.server.token}":
            self.server.refused += 1
            # some repeat what was given
            self._refuse(f"this is no token: {given.removeprefix('Bearer ')}".encode())
            return
        real = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=120)
        headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        real.request(self.command, self.path, body=body, headers=headers)
        answer = real.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        real.close()

    def _refuse(self, body: bytes) -> None:
        self.close_connection = True
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        with suppress(OSError):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815 - its base's names

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def gate(behind: int, token: str) -> Iterator[Gate]:
    """Run a proxy that asks for a token, until the block ends."""
    with Gate(behind, token) as opened:
        thread = threading.Thread(target=opened.serve_forever, daemon=True)
        thread.start()
        try:
            yield opened
        finally:
            opened.shutdown()
            thread.join(10)
