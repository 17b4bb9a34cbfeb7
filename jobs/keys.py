"""API keys: who may do what, and how much of it in an hour.

A secret is `mp_<id>_<43 characters>`, shown once. At rest there is only its SHA-256: unlike a
password it is drawn with 256 bits of entropy, so that nobody can find it by trying, and a slow
salted hash would protect nothing and cost every request.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from sqlalchemy import CursorResult, case, func, select, update

from gen.errors import Busy, InvalidInput, NotAllowed, NotFound
from jobs.tables import Database, KeyRow

SECRET = re.compile(r"mp_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
HOUR_S = 3600
ROUNDING = 1 + 1e-9  # so that ten tenths of a quota fit into it
TOUCH_S = 60  # so that a busy key does not cost a write with every request


class Scope(StrEnum):
    """What a key may be used for."""

    GENERATE = "generate"
    JOBS = "jobs"
    METRICS = "metrics"
    PACS = "pacs"  # name studies of patients in a PACS
    DATA = "data"  # name data sets of configured stores


@dataclass(frozen=True)
class Key:
    """A key without its secret. Times are unix seconds; work is in megapixel steps.

    One megapixel step is one denoising step of 1e6 pixels in one row of a forward pass. Without
    `work_per_hour` there is no quota.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    work_per_hour: float | None
    created_at: float
    last_used_at: float | None
    revoked_at: float | None


class KeyStore:
    """Keys in the database of the jobs, for any number of threads and processes.

    Args:
        url: `sqlite:///FILE` or `postgresql+psycopg://...`; missing tables are made.
        clock: unix time in seconds.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(url)
        self._clock = clock

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.close()

    def create(
        self, name: str, scopes: Sequence[Scope], work_per_hour: float | None
    ) -> tuple[Key, str]:
        """A new key and its secret, which cannot be shown again.

        Raises:
            InvalidInput: there is no name or no scope, or the quota is not above 0.
        """
        if not name.strip():
            raise InvalidInput("name is empty; say whose key it is")
        if not scopes:
            raise InvalidInput(f"scopes is empty; give some of {', '.join(Scope)}")
        if work_per_hour is not None and not work_per_hour > 0:
            raise InvalidInput(f"work_per_hour is {work_per_hour}, but must be above 0, or None")
        key_id = secrets.token_hex(6)
        secret = f"mp_{key_id}_{secrets.token_urlsafe(32)}"
        row = KeyRow(
            id=key_id,
            name=name,
            digest=_digest(secret),
            scopes=sorted(set(scopes)),
            work_per_hour=work_per_hour,
            created_at=self._clock(),
        )
        with self._database.writing() as session:
            session.add(row)
        return _key(row), secret

    def check(self, secret: str) -> Key:
        """The key of a secret; notes its use, to the minute.

        Raises:
            NotAllowed: the secret is none of ours, or its key was revoked.
        """
        match = SECRET.fullmatch(secret)
        with self._database.reading() as session:
            row = session.get(KeyRow, match[1]) if match else None
        # compared even if the id is unknown, so that the time taken does not tell which ids exist
        same = hmac.compare_digest(_digest(secret), row.digest if row else "0" * 64)
        if row is None or not same:
            raise NotAllowed("the API key is unknown; check it, or ask for a new one")
        if row.revoked_at is not None:
            raise NotAllowed(f"the API key {row.id} was revoked; ask for a new one")
        now = self._clock()
        if row.last_used_at is None or now - row.last_used_at >= TOUCH_S:
            self._update(row.id, last_used_at=now)
            row.last_used_at = now
        return _key(row)

    def spend(self, key: Key, work: float) -> None:
        """Take work from the quota of this clock hour, all of it or nothing.

        Raises:
            Busy: not so much is left; come back in the next hour.
            InvalidInput: it is more than the quota of a whole hour.
        """
        quota, now = key.work_per_hour, self._clock()
        if quota is None:
            return
        if work > quota:
            raise InvalidInput(
                f"this takes {work:.4g} megapixel steps, but the key may use {quota:.4g} an hour;"
                " ask for fewer, smaller or fewer-step images"
            )
        hour = int(now // HOUR_S)
        # another machine's clock may be in the next hour already: its hour then goes on
        spent = case((KeyRow.hour < hour, 0.0), else_=KeyRow.spent) + work
        with self._database.writing() as session:
            result = session.execute(
                update(KeyRow)
                .where(KeyRow.id == key.id, spent <= quota * ROUNDING)
                .values(spent=spent, hour=case((KeyRow.hour < hour, hour), else_=KeyRow.hour))
            )
        if cast("CursorResult[Any]", result).rowcount == 0:
            raise Busy(
                f"the key's {quota:.4g} megapixel steps of this hour are spent, or too few are"
                " left; come back in the next hour or ask for less",
                retry_after_s=(hour + 1) * HOUR_S - now,
                reason="quota",
            )

    def refund(self, key: Key, work: float) -> None:
        """Give back work that was spent and not done; what an earlier hour spent is gone."""
        hour = int(self._clock() // HOUR_S)
        rest = case((KeyRow.spent < work, 0.0), else_=KeyRow.spent - work)
        with self._database.writing() as session:
            session.execute(
                update(KeyRow).where(KeyRow.id == key.id, KeyRow.hour >= hour).values(spent=rest)
            )

    def revoke(self, key_id: str) -> Key:
        """End a key for good; saying so twice is fine. Raises NotFound."""
        with self._database.writing() as session:
            row = session.get(KeyRow, key_id, with_for_update=True)
            if row is None:
                raise NotFound(f"there is no key {key_id}; `medphantom keys list` shows all")
            if row.revoked_at is None:
                row.revoked_at = self._clock()
            return _key(row)

    def any(self) -> bool:
        """Whether there is a key that can be used."""
        with self._database.reading() as session:
            count = select(func.count()).where(KeyRow.revoked_at.is_(None))
            return bool(session.scalar(count))

    def _update(self, key_id: str, **values: float) -> None:
        with self._database.writing() as session:
            session.execute(update(KeyRow).where(KeyRow.id == key_id).values(values))

    def list(self) -> Sequence[Key]:
        """All keys, the revoked ones too, oldest first."""
        with self._database.reading() as session:
            rows = session.scalars(select(KeyRow).order_by(KeyRow.created_at, KeyRow.id))
            return [_key(row) for row in rows]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _key(row: KeyRow) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        scopes=frozenset(map(Scope, row.scopes)),
        work_per_hour=row.work_per_hour,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
