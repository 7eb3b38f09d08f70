"""Alembic's entry: run the migrations on the given database."""

from alembic import context
from sqlalchemy import create_engine, pool

from rewardloop.store.models import Base

url = context.config.attributes["database_url"]
engine = create_engine(url, poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
