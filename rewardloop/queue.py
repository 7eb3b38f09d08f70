"""The Celery app and the outbox's way onto it.

Postgres is the truth and a message is a hint: messages carry ids only, there is
no result backend, and each task may run twice or never without harm. A task
takes a few minutes at most, far below the broker's visibility timeout of an hour,
after which Redis brokers hand a message out again (celery issue 5935).
"""

import asyncio
from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from kombu import Connection
from kombu.exceptions import OperationalError

from rewardloop.config import Settings
from rewardloop.errors import UpstreamUnavailable
from rewardloop.store import Store, outbox
from rewardloop.store.outbox import ADVANCE, ASSESS, EVALUATE, PROMPTS, ROLLOUT

QUEUES = {
    **dict.fromkeys((ROLLOUT, PROMPTS, ASSESS), "rollout"),
    # An evaluation brings the replicas to one version after the other, which is the controller's
    # to do; meanwhile no iteration runs that it would have to advance.
    **dict.fromkeys((ADVANCE, EVALUATE), "control"),
}
RECONNECT_SECONDS = 2.0
"""The longest pause between two tries of a worker to reach a broker that is away."""
HINT_SECONDS = 60.0
"""Workers drop older messages: while they were busy, the reconciler has sent for the same again."""


class QuickConnection(Connection):  # type: ignore[misc]
    """Kombu's own pauses grow to half a minute, which no setting changes: a broker that was
    away for a minute would be found again up to fourteen seconds late."""

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        pauses = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": RECONNECT_SECONDS}
        return super().ensure_connection(*args, **{**pauses, **kwargs})


class QuickAMQP(AMQP):  # type: ignore[misc]
    Connection = QuickConnection


def make_app(settings: Settings) -> Celery:
    """The app that producers and workers share."""
    app = Celery("rewardloop", broker=settings.broker_url.get_secret_value(), amqp=QuickAMQP)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_routes={task: {"queue": queue} for task, queue in QUEUES.items()},
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a worker waits for its broker, however long
        broker_transport_options={
            "visibility_timeout": 3600,
            "socket_timeout": 30,
            # A producer gives up at once: the message stays in the outbox.
            "socket_connect_timeout": 2,
            "max_retries": 1,
            "interval_start": 0,
            "interval_max": 0.1,
        },
        worker_hijack_root_logger=False,
    )
    return app


async def relay(store: Store, app: Celery) -> int:
    """Send what committed transactions left in the outbox; returns how many messages.

    A message is deleted in the transaction that sent it, so a crash between the
    two sends it twice, never not at all.

    Raises:
        UpstreamUnavailable: the broker does not answer; the messages stay in the outbox.
    """
    async with store.transaction() as session:
        messages = await outbox.take(session)
        for task, subject_id in messages:
            try:
                await asyncio.to_thread(
                    app.send_task,
                    task,
                    args=[str(subject_id)],
                    retry=False,
                    expires=HINT_SECONDS,
                )
            except OperationalError as error:
                raise UpstreamUnavailable(
                    f"the broker does not answer ({error}); check REWARDLOOP_BROKER_URL"
                ) from error
    return len(messages)
