"""Celery workers. A task is a shell around `asyncio`; the domain code is async."""
