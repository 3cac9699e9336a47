"""A real Prometheus process on loopback that scrapes the addresses it is given, and what it is asked."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from rollway_cluster import binaries
from rollway_testing.processes import Server, free_port
from rollway_testing.waiting import eventually

Targets = Mapping[str, Mapping[str, Mapping[str, str]]]
"""For each job its addresses (``host:port``), and for each address the labels that its series get.

What a service discovery can set can be set: ``{"__metrics_path__": "/other"}`` too.
"""
Series = dict[str, Any]
"""One element of an answer: ``metric`` (labels by name) and ``value`` (unix time, and the number as a string)."""


class Prometheus(Server):
    """Prometheus with its data in a folder, which ``stop()`` and ``start()`` keep, as its port."""

    def __init__(
        self,
        path: Path,
        *,
        targets: Targets,
        scrape_interval: str = "1s",
        rule_files: Sequence[Path] = (),
    ) -> None:
        """Scrape, and evaluate rules, once in an interval such as ``1s``."""
        super().__init__(path)
        self._port = free_port()
        self._targets = path / "targets"
        self._targets.mkdir(exist_ok=True)
        self.aim(targets)
        scrape = [
            # What a target calls itself never replaces what is known of it: as in the operator's PodMonitors.
            {
                "job_name": job,
                "honor_labels": False,
                "file_sd_configs": [{"files": [str(self._file(job))]}],
            }
            for job in targets
        ]
        configuration = {
            "global": {
                "scrape_interval": scrape_interval,
                "scrape_timeout": scrape_interval,
                "evaluation_interval": scrape_interval,
            },
            "rule_files": [str(file.resolve()) for file in rule_files],
            "scrape_configs": scrape,
        }
        # JSON is YAML.
        self._configuration.write_text(json.dumps(configuration, indent=1))

    @property
    def url(self) -> str:
        """The address of its API."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def health_urls(self) -> list[str]:
        """Its own check that it answers queries."""
        return [f"{self.url}/-/ready"]

    @property
    def _configuration(self) -> Path:
        return self.path / "prometheus.yml"

    def command(self) -> list[str]:
        """Return Prometheus, built first if need be."""
        return [
            str(binaries.command("prometheus")),
            f"--config.file={self._configuration}",
            f"--storage.tsdb.path={self.path / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]

    def aim(self, targets: Targets) -> None:
        """Scrape these addresses from now on, for jobs that were named at the beginning."""
        for job, addresses in targets.items():
            groups = [{"targets": [address], "labels": dict(labels)} for address, labels in addresses.items()]
            # Whole or not at all: the file is watched.
            unfinished = self._file(job).with_suffix(".unfinished")
            unfinished.write_text(json.dumps(groups))
            unfinished.rename(self._file(job))

    def query(self, expression: str) -> list[Series]:
        """Ask for an expression's value now; an answer that is no vector fails the test."""
        answer = httpx.post(
            f"{self.url}/api/v1/query", data={"query": expression}, timeout=10, trust_env=False
        )
        body = answer.json()
        assert answer.status_code == 200, f"{expression}: {body.get('error')}"
        assert body["data"]["resultType"] == "vector", f"{expression}: {body['data']['resultType']}"
        result: list[Series] = body["data"]["result"]
        return result

    def await_up(self, count: int, *, within: float = 30.0) -> None:
        """Wait until so many targets were scraped, each with success."""
        eventually(
            lambda: self.query("up"),
            lambda found: [each["value"][1] for each in found] == ["1"] * count,
            within=within,
            what=f"{count} targets are up",
        )

    def _file(self, job: str) -> Path:
        return self._targets / f"{job}.json"


@contextmanager
def running(
    folder: Path,
    *,
    targets: Targets,
    scrape_interval: str = "1s",
    rule_files: Sequence[Path] = (),
) -> Iterator[Prometheus]:
    """Run one with its data under ``folder``."""
    with Prometheus(
        folder, targets=targets, scrape_interval=scrape_interval, rule_files=rule_files
    ) as prometheus:
        yield prometheus


def promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run promtool, built first if need be, in ``folder``; its code and what it printed."""
    command = [str(binaries.command("promtool")), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
