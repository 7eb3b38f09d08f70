"""Start a worker: `python -m services.worker rollout` or `python -m services.worker controller`.

`rollout` samples and judges; run as many as the engines can feed. `controller` advances
iterations, runs evaluations, and carries the reconciler's clock, a thread of its own; run one
(a second one does no harm: locks keep them apart).

Each is one process that runs one task at a time on one event loop (Celery's solo
pool): docs/decisions/0003-solo-workers.md.
"""

import argparse
import os
import socket

from celery.signals import worker_ready
from prometheus_client import start_http_server

from rewardloop import telemetry
from rewardloop.config import load_settings
from rewardloop.process.exits import known_errors_told
from services.worker import clock, tasks
from services.worker.garbage import collect_rarely
from services.worker.presence import present


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("role", choices=["rollout", "controller"])
    role = parser.parse_args().role
    with known_errors_told():
        settings = load_settings("worker" if role == "rollout" else role)
    telemetry.log_json()
    if settings.metrics_port:
        start_http_server(settings.metrics_port)
    app = tasks.bind(settings)
    worker_ready.connect(lambda **_: collect_rarely(), weak=False)
    name = f"{role}-{os.getpid()}@{socket.gethostname()}"
    # -q: no banner, which would be many lines that are none of the log.
    quiet = ["-q", "worker", "--loglevel=INFO", "--without-gossip", "--without-mingle"]
    common = [*quiet, "--pool=solo", "-n", name]
    if role == "rollout":
        with present(settings):
            app.worker_main([*common, "-Q", "rollout"])
        return
    with clock.ticking(settings):
        app.worker_main([*common, "-Q", "control"])


if __name__ == "__main__":
    main()
