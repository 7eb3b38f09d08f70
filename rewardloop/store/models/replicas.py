"""Generator replicas that registered themselves."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.orm import Mapped, mapped_column

from rewardloop.records import ReplicaState
from rewardloop.store.models.base import Base, one_of


class Replica(Base):
    """One replica, as it last said. Old rows are of replicas that died without a word."""

    __tablename__ = "replicas"
    control_url: Mapped[str] = mapped_column(primary_key=True)
    data_url: Mapped[str]
    instance: Mapped[UUID]
    """Of the process, so that one that ends does not take its successor's row away."""
    version_id: Mapped[str]
    """What it serves. No foreign key: one may be made to serve a version by hand."""
    state: Mapped[str]
    joined_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (one_of("state", *ReplicaState),)
