"""Start the judge service: `python -m services.judge --host 127.0.0.1 --port 8002`."""

import argparse

import uvicorn

from rewardloop import telemetry
from rewardloop.config import load_settings
from services.judge.app import make_app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8002)
    options = parser.parse_args()
    telemetry.log_json()
    uvicorn.run(
        make_app(load_settings()),
        host=options.host,
        port=options.port,
        log_config=None,
        access_log=False,
    )


if __name__ == "__main__":
    main()
