"""What pytest does for the mutants: it tells how long tests take, and runs chosen ones in a given order."""

import json
from pathlib import Path
from typing import Any

import pytest


class Costs:
    """Write how many seconds each test takes, set-up and all, once the run ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not hasattr(session.config, "workerinput"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.seconds))


class Chosen:
    """Run the chosen tests alone, in their order; say which began last, and which failed."""

    def __init__(self, tests: list[str], folder: Path) -> None:
        self.order = {test: place for place, test in enumerate(tests)}
        self.began, self.failed = folder / "began", folder / "failed"

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self.order]
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in self.order])
        items[:] = sorted(chosen, key=lambda item: self.order[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.began.write_text(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            with self.failed.open("a") as file:
                file.write(f"{report.nodeid}\n")

    def pytest_collectreport(self, report: Any) -> None:
        self.pytest_runtest_logreport(report)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--costs", type=Path, help="file to write how many seconds each test takes to")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--costs"):
        config.pluginmanager.register(Costs(config.getoption("--costs")))
