"""
What every test shares: the asyncio backend for `anyio`, the databases of `tests/servers.py`, and `--fail-on-skip` for
continuous integration.
"""

import pytest

pytest_plugins = ["tests.servers"]

# Skips that stay skips under --fail-on-skip: the start of a node id, and why no runner can be asked to do better.
ALLOWED_SKIPS: dict[str, str] = {}

SKIPPED = pytest.StashKey[dict[str, str]]()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=3, help="how often the tests that kill servers do so; soaks take 500")
    parser.addoption("--pause", type=float, default=1.0, help="seconds without a database; soaks take 30")
    parser.addoption("--fail-on-skip", action="store_true", help="a skipped test fails the run, unless it is listed")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SKIPPED] = {}
    config.pluginmanager.register(SkipRecorder(config.stash[SKIPPED]), "tollway-skips")


class SkipRecorder:
    """Remembers every skipped test or module that no entry of ALLOWED_SKIPS covers, with its reason."""

    def __init__(self, skipped: dict[str, str]) -> None:
        self.skipped = skipped

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # An expected failure is also reported as skipped; `wasxfail` tells them apart.
        if report.skipped and not hasattr(report, "wasxfail"):
            self.note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.note(report)

    def note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.nodeid.startswith(tuple(ALLOWED_SKIPS)):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skipped[report.nodeid] = reason


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--fail-on-skip") and session.config.stash[SKIPPED] and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--fail-on-skip") and config.stash[SKIPPED]:
        terminalreporter.section("skipped, and skipping is a failure here")
        for nodeid, reason in config.stash[SKIPPED].items():
            terminalreporter.write_line(f"{nodeid}: {reason}")
