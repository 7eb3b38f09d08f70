"""`make security`: the whole suite, which ends in one JSON object.

    python -m tests.security [--examples 500] [--mebibytes 400]

Every count but `requests` and `cases` must be 0, and `rss_growth_mb` at most 20; else the exit
status is 1, and what was found stands above the object.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.security import access, contract, floods
from tests.security.services import Services, running

MAX_GROWTH_MB = 20.0
WHOLE = "coverage,fuzzing"


def examined(services: Services, folder: Path, examples: int, mebibytes: int) -> dict[str, Any]:
    growth = floods.rss_growth_mb(services, mebibytes, key=None)
    print("rss_growth_mb", growth, file=sys.stderr)
    num_asked, holes = access.holes(services)
    found = [
        contract.fuzz(service, services.api_key, folder, num_examples=examples, phases=WHOLE)
        for service in (services.judge, services.api)
    ]
    for told in (*holes, *(text for one in found for text in one.server_errors + one.violations)):
        print(told, file=sys.stderr)
    return {
        "server_errors": sum(len(one.server_errors) for one in found),
        "contract_violations": sum(len(one.violations) for one in found),
        "cases": sum(one.num_cases for one in found),
        "access_holes": len(holes),
        "requests": num_asked,
        "rss_growth_mb": round(max(growth.values()), 1),
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--mebibytes", type=int, default=400)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder) / "home") as services:
            result = await asyncio.to_thread(
                examined, services, Path(folder), options.examples, options.mebibytes
            )
    print(json.dumps(result))
    bad = ("server_errors", "contract_violations", "access_holes")
    sys.exit(any(result[name] for name in bad) or result["rss_growth_mb"] > MAX_GROWTH_MB)


if __name__ == "__main__":
    asyncio.run(main())
