"""What pytest does for the mutants: it tells how long tests take, and runs chosen ones in a given order."""

import json
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage

from mutants.trial import Noted


class Costs:
    """Write how many seconds each test takes, set-up and all, once the run ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """Have coverage.py know which test runs; what is imported meanwhile counts as that test's, once."""
        watching = Coverage.current()
        if watching is not None:
            watching.switch_context(item.nodeid)
        return (yield)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        watching = Coverage.current()
        if hasattr(session.config, "workerinput"):
            if watching is not None:
                watching.save()  # such a process is ended before it could do so by itself
        else:
            self.path.write_text(json.dumps(self.seconds))


class Chosen:
    """Run the tests named in a folder's file alone, in their order."""

    def __init__(self, folder: Path) -> None:
        self.order = {test: place for place, test in enumerate((folder / "tests").read_text().splitlines())}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self.order]
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in self.order])
        items[:] = sorted(chosen, key=lambda item: self.order[item.nodeid])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--costs", type=Path, help="file to write how many seconds each test takes to")
    parser.addoption("--chosen", type=Path, help="folder whose file `tests` names those to run")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--costs"):
        config.pluginmanager.register(Costs(config.getoption("--costs")))
    if config.getoption("--chosen"):
        folder = config.getoption("--chosen")
        config.pluginmanager.register(Chosen(folder))
        config.pluginmanager.register(Noted(folder))
