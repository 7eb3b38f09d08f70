"""`make security`: the whole suite, which ends in one JSON object.

    python -m tests.security [--examples 500] [--mebibytes 400]

First the services over the stub engine: floods, keys, the fuzzed contract. Then each of `PARTS`,
a program of its own that ends in a JSON object, whose members join those of the whole. Every
count of faults must be 0, and `rss_growth_mb` at most 20; else the exit status is 1, and what
was found stands above the object.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.security import access, contract, floods, scripts
from tests.security.services import Services, running

PARTS = (
    "tests.security.scores",
    "tests.security.checkpoints",
    "tests.security.swaps",
    "tests.security.killers",
)
"""The last two start a real vLLM."""
MAX_GROWTH_MB = 20.0
WHOLE = "coverage,fuzzing"


def examined(services: Services, folder: Path, examples: int, mebibytes: int) -> dict[str, Any]:
    growth = floods.rss_growth_mb(services, mebibytes, key=None)
    print("rss_growth_mb", growth, file=sys.stderr)
    num_asked, holes = access.holes(services)
    scripts_through = scripts.through(services.api, services.api_key)
    found = [
        contract.fuzz(service, services.api_key, folder, num_examples=examples, phases=WHOLE)
        for service in (services.judge, services.api)
    ]
    for told in (
        *holes,
        *scripts_through,
        *(text for one in found for text in one.server_errors + one.violations),
    ):
        print(told, file=sys.stderr)
    return {
        "server_errors": sum(len(one.server_errors) for one in found),
        "contract_violations": sum(len(one.violations) for one in found),
        "cases": sum(one.num_cases for one in found),
        "access_holes": len(holes),
        "scripts_through": len(scripts_through),
        "requests": num_asked,
        "rss_growth_mb": round(max(growth.values()), 1),
    }


def ended(part: str) -> tuple[bool, dict[str, Any]]:
    """Whether a part ended well, and the object that its output ends in."""
    done = subprocess.run(
        [sys.executable, "-m", part], stdout=subprocess.PIPE, text=True, check=False
    )
    lines = done.stdout.strip().splitlines()
    print(part, *lines[-1:], file=sys.stderr)
    try:
        found: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        return False, {}
    return done.returncode == 0, found


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--mebibytes", type=int, default=400)
    parser.add_argument("--without-engines", action="store_true", help="leave PARTS out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder) / "home") as services:
            result = await asyncio.to_thread(
                examined, services, Path(folder), options.examples, options.mebibytes
            )
    bad = ("server_errors", "contract_violations", "access_holes", "scripts_through")
    is_well = not any(result[name] for name in bad) and result["rss_growth_mb"] <= MAX_GROWTH_MB
    for part in () if options.without_engines else PARTS:
        ended_well, found = ended(part)
        is_well = is_well and ended_well
        failures = [*result.get("failures", []), *found.get("failures", [])]
        result |= {**found, "requests": result["requests"], "failures": failures}
    print(json.dumps(result))
    sys.exit(not is_well)


if __name__ == "__main__":
    asyncio.run(main())
