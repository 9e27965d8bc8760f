"""The Compose file says the same as the local stack, and is what the Compose specification allows."""

import json
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator, ValidationError

from ops.roles import LOOKERS_ON, ROLES

REPOSITORY = Path(__file__).parent.parent.parent
# What differs by nature between a process of this machine and a container.
ITS_OWN_PLACE = {
    "advertised.listeners",
    "controller.quorum.voters",
    "listeners",
    "log.dirs",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text("utf-8"))
    return loaded


@pytest.fixture(scope="module")
def specification() -> dict[str, Any]:
    """The schema that check-jsonschema carries; found by file, since importing the package costs a second."""
    files = distribution("check-jsonschema").files or []
    [schema] = [file for file in files if file.name == "compose-spec.json"]
    loaded: dict[str, Any] = json.loads(schema.read_text("utf-8"))
    return loaded


def test_it_is_what_the_compose_specification_allows(
    compose: dict[str, Any], specification: dict[str, Any]
) -> None:
    Draft7Validator(specification).validate(compose)


def test_the_specification_would_have_seen_a_mistake(
    compose: dict[str, Any], specification: dict[str, Any]
) -> None:
    broken = {**compose, "services": {"kafka": {"image": "apache/kafka", "healthchek": {}}}}
    with pytest.raises(ValidationError, match="healthchek"):
        Draft7Validator(specification).validate(broken)


def test_every_role_is_a_service_that_says_how_it_is(compose: dict[str, Any]) -> None:
    services = compose["services"]
    roles = {*ROLES, *LOOKERS_ON}
    assert {name for name, service in services.items() if service.get("command", [None])[0] == "run"} == roles
    for role in roles:
        assert services[role]["command"] == ["run", role]
        assert services[role]["healthcheck"]["test"][-1] == role
    servers = set(services) - roles - {"prepare"}
    assert servers == {"kafka", "cassandra", "redis"}
    assert all(services[server]["healthcheck"]["test"] for server in servers)


def test_the_broker_keeps_the_same_promises_as_the_local_one(compose: dict[str, Any]) -> None:
    lines = (REPOSITORY / "ops/stack/kafka.properties").read_text("utf-8").splitlines()
    local = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    theirs = compose["services"]["kafka"]["environment"]
    for name, value in local.items():
        if name not in ITS_OWN_PLACE:
            assert theirs[f"KAFKA_{name.upper().replace('.', '_')}"] == value


def test_every_room_is_in_the_image() -> None:
    image = (REPOSITORY / "Dockerfile").read_text("utf-8")
    for room in ("schemas", "commands", "projections", "streams", "api", "ops"):
        assert f"COPY {room} {room}\n" in image
