"""Task names, apart from the Celery app so that the store can write them to the outbox."""

ROLLOUT = "rewardloop.rollout"
ADVANCE = "rewardloop.advance"
RECONCILE = "rewardloop.reconcile"
PROMPTS = "rewardloop.prompts"
ASSESS = "rewardloop.assess"
EVALUATE = "rewardloop.evaluate"
