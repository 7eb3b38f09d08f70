"""The REST service in front: runs, iterations, pairs, prompts, models, and the dashboard."""
