"""Inside the VM: every test report goes out as one line through the descriptor that the VM's runner made for it."""

import json
import os

import pytest

OF_XDIST = ("node", "worker_id", "testrun_uid", "item_index")
"""Which of the VM's workers a test ran in: no business of those outside."""


class Telling:
    """Only in the process that the VM's runner started: workers report to it."""

    def __init__(self, config: pytest.Config, fd: int) -> None:
        self._config = config
        self._out = os.fdopen(fd, "w")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        data = {key: value for key, value in data.items() if key not in OF_XDIST}
        print(json.dumps(data, default=str), file=self._out, flush=True)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and "NETLAB_VM_SAY" in os.environ:
        config.pluginmanager.register(Telling(config, int(os.environ["NETLAB_VM_SAY"])))
