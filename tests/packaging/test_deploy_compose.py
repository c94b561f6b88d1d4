"""The compose file: what it mounts is there, what it sets exists, and nothing starts with a password of ours."""

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tollway.config.settings import VARIABLES, Settings

Document = dict[str, Any]

REQUIRED = re.compile(r"\$\{(\w+):\?[^}]+\}")
OPTIONAL = re.compile(r"\$\{(\w+):-([^}]*)\}")
ONE_SHOT = {"migrate"}
NODES = ("tollway-1", "tollway-2")


@pytest.fixture(scope="module")
def text(deploy: Path) -> str:
    return (deploy / "compose.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def compose(text: str) -> Document:
    return yaml.safe_load(text)


@pytest.fixture(scope="module")
def services(compose: Document) -> dict[str, Document]:
    return compose["services"]


@pytest.fixture(scope="module")
def example(deploy: Path) -> dict[str, str]:
    """The variables of .env.example."""
    lines = (deploy / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled(value: str, given: dict[str, str]) -> str:
    """As compose fills in variables."""
    return OPTIONAL.sub(lambda m: given.get(m[1]) or m[2], REQUIRED.sub(lambda m: given[m[1]], value))


def test_it_has_everything_a_gateway_of_two_nodes_needs(services: dict[str, Document]) -> None:
    assert set(services) == {*NODES, "migrate", "nginx", "postgres", "redis", "prometheus", "grafana"}


def test_every_service_comes_back_by_itself_and_says_how_it_is(services: dict[str, Document]) -> None:
    for name in services.keys() - ONE_SHOT:
        assert services[name]["restart"] == "unless-stopped", name
        assert services[name]["healthcheck"]["test"][0] == "CMD", name
    assert services["migrate"]["restart"] == "no"


def test_images_are_pinned(services: dict[str, Document], example: dict[str, str]) -> None:
    for name, service in services.items():
        _, _, tag = filled(service["image"], example).rpartition(":")
        assert re.match(r"v?\d+\.\d+", tag), name


def test_the_image_of_tollway_is_never_a_strangers(services: dict[str, Document]) -> None:
    for name in (*NODES, "migrate"):
        assert services[name]["pull_policy"] == "never"


def test_the_example_is_of_this_version_and_holds_no_secret(example: dict[str, str], release: str) -> None:
    chosen = {name: value for name, value in example.items() if value}
    assert chosen == {"TOLLWAY_VERSION": release, "PUBLISH": "127.0.0.1:8080"}


def test_what_compose_asks_for_is_in_the_example_and_the_other_way_round(text: str, example: dict[str, str]) -> None:
    asked = {match[1] for match in (*REQUIRED.finditer(text), *OPTIONAL.finditer(text))}
    assert asked == set(example)


def test_no_secret_has_a_default(text: str) -> None:
    """
    Also no `${NAME}` without `:?`, which compose takes for an empty password. Only the secret of before is mostly none.
    """
    without_shell = text.replace("$$", "")
    used = set(re.findall(r"\$\{?(\w+)", without_shell))
    assert used - {match[1] for match in REQUIRED.finditer(text)} == {"PUBLISH", "CRYPTO_SECRET_FORMER"}
    assert {match[2] for match in OPTIONAL.finditer(text) if match[1] == "CRYPTO_SECRET_FORMER"} == {""}


def test_what_is_mounted_from_here_exists(services: dict[str, Document], deploy: Path) -> None:
    mounts = [volume.split(":") for service in services.values() for volume in service.get("volumes", [])]
    for source, *_ in mounts:
        if source.startswith("."):
            assert (deploy / source).exists(), source
    assert ["./nginx/tollway.conf", "/etc/nginx/tollway.conf", "ro"] in mounts


def test_what_is_mounted_by_name_is_declared(services: dict[str, Document], compose: Document) -> None:
    mounts = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    assert {source for source in mounts if not source.startswith(".")} == set(compose["volumes"])


def test_each_node_has_a_volume_of_its_own_for_its_journal(services: dict[str, Document]) -> None:
    assert [services[node]["volumes"] for node in NODES] == [[f"{node}:/data"] for node in NODES]


@pytest.mark.parametrize("name", [*NODES, "migrate"])
def test_tollway_takes_the_environment_it_is_given(name: str, services: dict[str, Document]) -> None:
    secrets = dict.fromkeys(("POSTGRES_PASSWORD", "REDIS_PASSWORD", "CRYPTO_SECRET"), "0123456789abcdef")
    environ = {key: filled(value, secrets) for key, value in services[name]["environment"].items()}
    assert environ.keys() <= {variable.name for variable in VARIABLES}
    settings = Settings.from_environ(environ)
    assert settings.database == "postgresql://tollway:0123456789abcdef@postgres:5432/tollway"
    assert settings.redis_url.reveal() == "redis://:0123456789abcdef@redis:6379/0"


def test_the_forwarded_address_is_believed_of_the_network_that_nginx_is_in(
    compose: Document, services: dict[str, Document]
) -> None:
    (edge,) = compose["networks"]["edge"]["ipam"]["config"]
    assert services["tollway-1"]["environment"]["TRUSTED_PROXIES"] == edge["subnet"]
    addresses = [f"{node}:{services[node]['networks']['edge']['ipv4_address']}" for node in NODES]
    assert services["nginx"]["extra_hosts"] == addresses
    for address in addresses:
        assert ipaddress.ip_address(address.rpartition(":")[2]) in ipaddress.ip_network(edge["subnet"])
    assert {name for name in services if "edge" in (services[name]["networks"] or ())} == {*NODES, "nginx"}


def test_databases_are_reached_by_nodes_alone(compose: Document, services: dict[str, Document]) -> None:
    assert compose["networks"]["data"]["internal"] is True
    for name in ("postgres", "redis"):
        assert services[name]["networks"] == ["data"]
        assert "ports" not in services[name]


def test_nothing_is_published_beyond_this_machine(services: dict[str, Document]) -> None:
    published = [filled(port, {}) for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


@pytest.mark.parametrize("name", [*NODES, "nginx"])
def test_the_end_leaves_time_for_open_streams_and_the_last_charges(name: str, services: dict[str, Document]) -> None:
    assert int(services[name]["stop_grace_period"].removesuffix("s")) >= Settings().shutdown_timeout + 25


def test_nodes_start_when_the_schema_is_there(services: dict[str, Document]) -> None:
    assert services["migrate"]["command"] == ["tollway", "db", "upgrade"]
    for node in NODES:
        assert services[node]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
