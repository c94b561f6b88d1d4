"""The alerts and the dashboard: they parse, they fire when they should, and they ask for figures that exist."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from tollway.config.secret import Secret
from tollway.config.settings import Settings
from tollway.gateway.app import Tollway
from tollway.gateway.redis import RedisLimiter, RedisMetrics

Document = dict[str, Any]
Tool = Callable[[str, str], str]

OF_PROMETHEUS = {"up"}
MIB = 1024 * 1024
NAME = re.compile(r"\b(?:tollway_\w+|up)\b")


@pytest.fixture(scope="module")
def folder(deploy: Path) -> Path:
    return deploy / "prometheus"


@pytest.fixture(scope="module")
def rules(folder: Path) -> list[Document]:
    (group,) = yaml.safe_load((folder / "rules.yml").read_text(encoding="utf-8"))["groups"]
    return group["rules"]


@pytest.fixture(scope="module")
def dashboard(deploy: Path) -> Document:
    return json.loads((deploy / "grafana/dashboards/tollway.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def panels(dashboard: Document) -> list[Document]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def promtool(tool: Tool) -> str:
    return tool("promtool", "prometheus")


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of all series that Tollway may show, histograms in their parts."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("metrics"), access_log=False)

    async def collected() -> set[str]:
        tollway, of_redis = Tollway(settings), CollectorRegistry()
        async with tollway.lifespan(), RedisLimiter.opened(Secret("redis://127.0.0.1:1")) as limiter:
            of_redis.register(RedisMetrics(limiter))
            metrics = [*tollway.registry.collect(), *of_redis.collect()]
        return {name for metric in metrics for name in names(metric)}

    return asyncio.run(collected())


def names(metric: Metric) -> list[str]:
    if metric.type == "counter":
        return [f"{metric.name}_total"]
    if metric.type == "histogram":
        return [f"{metric.name}_{part}" for part in ("bucket", "count", "sum")]
    return [metric.name]


def expressions(rules: list[Document], panels: list[Document], dashboard: Document) -> list[str]:
    return [
        *(rule["expr"] for rule in rules),
        *(target["expr"] for panel in panels for target in panel["targets"]),
        *(each["definition"] for each in dashboard["templating"]["list"]),
        *(each["expr"] for each in dashboard["annotations"]["list"]),
    ]


def test_prometheus_takes_its_configuration_and_the_rules(promtool: str, folder: Path) -> None:
    subprocess.run([promtool, "check", "config", "--lint-fatal", folder / "prometheus.yml"], check=True)
    subprocess.run([promtool, "check", "rules", "--lint-fatal", folder / "rules.yml"], check=True)


def test_alerts_fire_when_they_should(promtool: str, folder: Path, checkout: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "rules.yml", tmp_path)
    tests = shutil.copy(checkout / "tests/packaging/prometheus_rules.yml", tmp_path)
    done = subprocess.run([promtool, "test", "rules", tests], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test(rules: list[Document], checkout: Path) -> None:
    tests = (checkout / "tests/packaging/prometheus_rules.yml").read_text(encoding="utf-8")
    assert not [rule["alert"] for rule in rules if rule["alert"] not in tests]


def test_every_alert_says_what_it_is_and_what_to_do(rules: list[Document]) -> None:
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"] == {"severity": rule["labels"]["severity"]}
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description"}, rule["alert"]
        assert re.fullmatch(r"\d+[sm]", rule["for"]), rule["alert"]


def test_every_figure_that_is_asked_for_exists(
    rules: list[Document], panels: list[Document], dashboard: Document, exposed: set[str]
) -> None:
    asked = {name for text in expressions(rules, panels, dashboard) for name in NAME.findall(text)}
    assert asked - exposed - OF_PROMETHEUS == set()


def test_alerts_look_at_the_job_that_is_scraped(rules: list[Document], folder: Path) -> None:
    configuration = yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))
    assert "tollway" in {each["job_name"] for each in configuration["scrape_configs"]}
    for rule in rules:
        asked = re.findall(r"\b(?:tollway_\w+|up)(\{[^}]*\})", rule["expr"])
        assert asked, rule["alert"]
        assert all('job="tollway"' in labels for labels in asked), rule["alert"]


def test_the_bound_of_the_journal_is_half_of_what_it_may_be(rules: list[Document]) -> None:
    (rule,) = (rule for rule in rules if rule["alert"] == "TollwayJournalFilling")
    (mebibytes,) = re.findall(r"> (\d+) \* 1024 \* 1024", rule["expr"])
    assert int(mebibytes) * MIB * 2 == Settings().journal_max_bytes


def test_memory_is_warned_of_before_a_node_is_ended_for_it(rules: list[Document], deploy: Path) -> None:
    (rule,) = (rule for rule in rules if rule["alert"] == "TollwayMemory")
    (mebibytes,) = re.findall(r"> (\d+) \* 1024 \* 1024", rule["expr"])
    compose = yaml.safe_load((deploy / "compose.yaml").read_text(encoding="utf-8"))
    assert compose["services"]["tollway-1"]["mem_limit"] == "1g"
    assert int(mebibytes) < 1024


def test_each_node_of_the_compose_file_is_scraped(folder: Path, deploy: Path) -> None:
    configuration = yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = (each for each in configuration["scrape_configs"] if each["job_name"] == "tollway")
    services = yaml.safe_load((deploy / "compose.yaml").read_text(encoding="utf-8"))["services"]
    nodes = [name for name, service in services.items() if service["image"].startswith("tollway:")]
    targets = [f"{name}:3000" for name in nodes if name != "migrate"]
    assert [target for each in job["static_configs"] for target in each["targets"]] == targets


def test_grafana_finds_the_data_source_and_the_dashboard(deploy: Path, panels: list[Document]) -> None:
    (source,) = yaml.safe_load((deploy / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((deploy / "grafana/provisioning/dashboards/tollway.yaml").read_text())["providers"]
    services = yaml.safe_load((deploy / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert source["url"] == "http://prometheus:9090"
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in services["grafana"]["volumes"]
    wanted = {"type": source["type"], "uid": source["uid"]}
    for panel in panels:
        assert panel["datasource"] == wanted
        assert all(target["datasource"] == wanted for target in panel["targets"]), panel["title"]


def test_panels_lie_beside_each_other(dashboard: Document) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_prometheus_understands_what_the_dashboard_asks(
    promtool: str, panels: list[Document], dashboard: Document, tmp_path: Path
) -> None:
    asked = expressions([], panels, {**dashboard, "templating": {"list": []}})
    recorded = [
        {"record": f"dashboard:{number}", "expr": text.replace("$__rate_interval", "1m")}
        for number, text in enumerate(asked)
    ]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    subprocess.run([promtool, "check", "rules", file], check=True)
