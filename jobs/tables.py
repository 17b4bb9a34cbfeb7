"""The tables of the job store, and how their database is opened."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    create_engine,
    event,
    func,
    make_url,
    select,
    text,
)
from sqlalchemy.engine import URL, Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from gen.errors import InvalidInput

LOCK_WAIT_S = 30  # far longer than any transaction here, shorter than a client's patience
CREATE_LOCK = 0x6D6564706861  # of PostgreSQL's advisory locks: any number that is ours alone


class State(StrEnum):
    """Where a job, or an item of it, has got to."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self not in (State.QUEUED, State.RUNNING)


class Base(DeclarativeBase):
    """Times are unix seconds, so that both databases and any test clock agree on them."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        float: Double(),
        dict[str, Any]: JSON(none_as_null=True),
        list[str]: JSON(),
        State: Enum(
            State,
            native_enum=False,
            length=16,
            values_callable=lambda states: [s.value for s in states],
        ),
    }


class JobRow(Base):
    """A job; its counters change in the transaction that changes an item."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    task: Mapped[str]
    owner: Mapped[str]
    state: Mapped[State] = mapped_column(default=State.QUEUED)
    spec: Mapped[dict[str, Any]]
    num_items: Mapped[int]
    num_queued: Mapped[int]
    num_running: Mapped[int] = mapped_column(default=0)
    num_succeeded: Mapped[int] = mapped_column(default=0)
    num_failed: Mapped[int] = mapped_column(default=0)
    num_cancelled: Mapped[int] = mapped_column(default=0)
    steps_done: Mapped[int] = mapped_column(default=0)
    num_steps: Mapped[int] = mapped_column(default=0)
    last_seq: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    expires_at: Mapped[float]
    leased_at: Mapped[float | None]
    turn_at: Mapped[float]  # when an item was last leased, at first when the job was made
    message: Mapped[str | None]

    __table_args__ = (
        Index("jobs_by_age", "created_at", "id"),
        Index("jobs_by_owner", "owner", "created_at", "id"),
        Index("jobs_by_expiry", "expires_at"),
        Index("jobs_by_service", "owner", "leased_at"),
        Index(
            "jobs_waiting",
            *("owner", "num_running", "turn_at", "id"),
            sqlite_where=text("num_queued > 0"),
            postgresql_where=text("num_queued > 0"),
        ),
        Index(
            "jobs_running",
            *("owner", "num_running"),
            sqlite_where=text("num_running > 0"),
            postgresql_where=text("num_running > 0"),
        ),
    )


class ItemRow(Base):
    """An image to make. `token` counts its leases: a smaller one has lost the item."""

    __tablename__ = "items"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[State] = mapped_column(default=State.QUEUED)
    spec: Mapped[dict[str, Any]]
    steps_done: Mapped[int] = mapped_column(default=0)
    num_steps: Mapped[int] = mapped_column(default=0)
    record: Mapped[dict[str, Any] | None]
    file: Mapped[str | None]
    sha256: Mapped[str | None]
    size: Mapped[int | None] = mapped_column(BigInteger)
    attempts: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None]
    token: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str | None]
    lease_until: Mapped[float | None]  # of running items only
    not_before: Mapped[float] = mapped_column(default=0.0)
    preview_seq: Mapped[int | None]

    __table_args__ = (
        Index("items_by_state", "job_id", "state", "index"),
        Index(
            "items_leased",
            *("lease_until", "job_id"),
            sqlite_where=text("lease_until IS NOT NULL"),
            postgresql_where=text("lease_until IS NOT NULL"),
        ),
    )


class EventRow(Base):
    """What happened to a job; `seq` counts up from 1 and is given out under the job's lock."""

    __tablename__ = "events"
    job_id: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    at: Mapped[float]
    data: Mapped[dict[str, Any]]

    __table_args__ = (ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),)


class KeyRow(Base):
    """An API key; `spent` is the work of the clock hour `hour` (unix time // 3600)."""

    __tablename__ = "keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    digest: Mapped[str]
    scopes: Mapped[list[str]]
    work_per_hour: Mapped[float | None]
    created_at: Mapped[float]
    last_used_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    hour: Mapped[int] = mapped_column(default=0)
    spent: Mapped[float] = mapped_column(default=0.0)


class FactRow(Base):
    """Something that all processes must agree on, settled by whoever comes first."""

    __tablename__ = "facts"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[dict[str, Any]]


class Database:
    """SQLite or PostgreSQL, for any number of threads and processes.

    Nothing can deadlock: a transaction locks one job's row, then items of that job, or one
    row alone.

    Args:
        url: `sqlite:///FILE` or `postgresql+psycopg://...`; missing tables are made.

    Raises:
        InvalidInput: the URL is of another kind, or SQLite's without a file.
    """

    def __init__(self, url: str) -> None:
        parsed = _check_url(url)
        self._engine = create_engine(
            parsed,
            hide_parameters=True,  # they are prompts and records, and errors are logged
            pool_pre_ping=True,
            json_serializer=partial(json.dumps, allow_nan=False),
        )
        if parsed.get_backend_name() == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        else:
            event.listen(self._engine, "connect", _prepare_postgres)
        self.writing = sessionmaker(self._engine, expire_on_commit=False).begin
        self._reader = self._engine.execution_options(reading=True)
        with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":  # CREATE TABLE races with itself
                connection.execute(select(func.pg_advisory_xact_lock(CREATE_LOCK)))
            Base.metadata.create_all(connection)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that changes nothing, and on SQLite waits for no writer."""
        with Session(self._reader) as session:
            yield session

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._engine.dispose()


def _check_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = URL.create("none")
    kind, file = parsed.drivername, parsed.database
    if kind == "sqlite" and file and file != ":memory:":
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        return parsed
    if kind == "postgresql+psycopg":
        return parsed
    raise InvalidInput(  # without the URL, which may hold a password
        f"store is a URL of the kind {kind!r} that is not supported;"
        " give sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
    )


def _prepare_sqlite(connection: DBAPIConnection, _: object) -> None:
    connection.isolation_level = None  # the driver begins nothing: see _begin_sqlite
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {LOCK_WAIT_S * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    # a job that was accepted outlives a power cut, too
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # a transaction that reads first and writes later cannot wait for the lock: it just fails
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _prepare_postgres(connection: DBAPIConnection, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"SET lock_timeout = '{LOCK_WAIT_S}s'")
    # a worker that hangs, or whose machine is gone, must not keep a job's row locked
    cursor.execute(f"SET idle_in_transaction_session_timeout = '{2 * LOCK_WAIT_S}s'")
    cursor.close()
    connection.commit()
