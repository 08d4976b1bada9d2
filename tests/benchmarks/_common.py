"""What the benchmark scripts share: where results go, what they were measured on, and a plain table."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cbd.realize.store import surroundings as machine_and_versions

BENCH = Path(__file__).resolve().parents[2] / "results" / "bench"


def surroundings() -> dict[str, Any]:
    """Versions, commit, machine and date of a measurement."""
    return machine_and_versions() | {"date": datetime.now(UTC).date().isoformat()}


def write(name: str, content: dict[str, Any]) -> Path:
    """Write results/bench/<name>.json."""
    BENCH.mkdir(parents=True, exist_ok=True)
    path = BENCH / f"{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def table(rows: list[dict[str, Any]]) -> None:
    """Print rows of equal columns."""
    widths = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in rows[0]}
    print("  ".join(name.ljust(width) for name, width in widths.items()))
    for row in rows:
        print("  ".join(str(row[name]).ljust(width) for name, width in widths.items()))
