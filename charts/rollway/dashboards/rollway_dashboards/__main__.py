"""Write each dashboard's JSON into a folder, for the chart to bring."""

import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from rollway_dashboards import fleet, model

DASHBOARDS = {"fleet": fleet.dashboard, "model": model.dashboard}


def main(folder: Path) -> None:
    """Write them; the same code writes the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, build in DASHBOARDS.items():
        text = JSONEncoder(sort_keys=True, indent=1).encode(build())
        (folder / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
