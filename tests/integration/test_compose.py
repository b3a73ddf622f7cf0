"""The compose file, as far as it can be checked where no containers run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.objects import BUCKET, KEY_ID

PATH = Path(__file__).with_name("compose.yaml")
_SERVICE_KEYS = {"image", "environment", "command", "entrypoint", "depends_on", "healthcheck"}
_SERVICE_KEYS |= {"ports", "volumes"}
_CONDITIONS = {"service_healthy", "service_completed_successfully"}


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    return found


def test_it_has_the_keys_of_a_compose_file_and_every_image_a_version(
    content: dict[str, Any],
) -> None:
    assert set(content) == {"services", "volumes"}
    for name, service in content["services"].items():
        assert set(service) <= _SERVICE_KEYS, name
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", service["image"]), name
        if "healthcheck" in service:
            assert set(service["healthcheck"]) == {"test", "interval", "timeout", "retries"}
            assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    images = {service["image"].partition(":")[0] for service in content["services"].values()}
    assert {"postgres", "chrislusf/seaweedfs", "ghcr.io/mlflow/mlflow"} <= images


def test_what_it_refers_to_is_there(content: dict[str, Any]) -> None:
    services = content["services"]
    volumes = [volume for each in services.values() for volume in each.get("volumes", ())]
    mounted = {volume.partition(":")[0] for volume in volumes}
    assert mounted == set(content["volumes"])
    for name, service in services.items():
        for other, wait in service.get("depends_on", {}).items():
            assert other in services, name
            assert wait["condition"] in _CONDITIONS, name
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in services[other], other
    # hosts in addresses are names of services
    hosts = re.findall(r"(?:http://|@)(\w+):\d+", PATH.read_text(encoding="utf-8"))
    assert set(hosts) - {"localhost"} <= set(services)


def test_it_has_the_bucket_and_the_options_of_the_tests_and_says_that_it_was_not_run(
    content: dict[str, Any],
) -> None:
    (command,) = content["services"]["mlflow"]["command"]
    assert f"--serve-artifacts --artifacts-destination s3://{BUCKET}/" in command
    assert content["services"]["mlflow"]["environment"]["AWS_ACCESS_KEY_ID"] == KEY_ID
    assert "never run" in PATH.read_text(encoding="utf-8").partition("services:")[0]
