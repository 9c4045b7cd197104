"""JobStore: jobs in SQLite. Written on every change of state; progress stays in memory."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from engine import log
from engine.errors import OutputError, UsageError
from engine.jobs.job import Job, from_json, order_of, to_json
from engine.profiler import wall

logger = log.get(__name__)

TABLES = """
create table if not exists jobs (
    id text primary key, ord text not null unique, kind text not null, status text not null, starred integer not null,
    expires_at real, body text not null
);
create index if not exists by_kind on jobs (kind, ord);
create index if not exists by_status on jobs (status, ord);
create index if not exists by_expiry on jobs (expires_at) where expires_at is not null;
create table if not exists requests (key text primary key, digest text not null, job text not null, at real not null);
"""
REMEMBERED_S = 24 * 3600


class JobStore:
    """Every job that was ever taken in and not deleted. Safe in several threads."""

    def __init__(self, path: str | Path) -> None:
        """Open the database, made when missing; ":memory:" keeps nothing. Raises OutputError."""
        self.lock = threading.Lock()
        try:
            if str(path) != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self.db.execute("pragma journal_mode = wal")
            self.db.execute("pragma synchronous = normal")
            self.db.executescript(TABLES)
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"{path}: the job database cannot be opened: {error}") from error

    def add(self, job: Job) -> None:
        """Write a job that is new."""
        with self.lock:
            self.db.execute("insert into jobs values (?, ?, ?, ?, ?, ?, ?)", (job.id, job.order, job.kind, *_row(job)))

    def save(self, job: Job) -> None:
        """Write a job as it is now; one that was deleted stays so."""
        change = "update jobs set status = ?, starred = ?, expires_at = ?, body = ? where id = ?"
        with self.lock:
            self.db.execute(change, (*_row(job), job.id))

    def mark(self, job: Job) -> None:
        """Write the status of a job alone."""
        with self.lock:
            self.db.execute("update jobs set status = ? where id = ?", (job.status, job.id))

    def get(self, job_id: str) -> Job | None:
        """Return a job, or None."""
        return next(self._read("where id = ?", (job_id,)), None)

    def delete(self, job_id: str) -> None:
        """Forget a job."""
        with self.lock:
            self.db.execute("delete from jobs where id = ?", (job_id,))

    def page(
        self,
        kind: str | None = None,
        status: str | None = None,
        after: str | None = None,
        limit: int = 20,
        descending: bool = True,
        starred: bool | None = None,
    ) -> tuple[list[Job], bool]:
        """Return jobs in the order of their creation, and whether there are more.

        `after` is the last id of the page before, which may be deleted by now. Raises UsageError when it is no id.
        """
        wanted, values = ["1"], list[str | int]()
        for column, value in (("kind", kind), ("status", status), ("starred", starred)):
            if value is not None:
                wanted.append(f"{column} = ?")
                values.append(value)
        if after is not None:
            order = order_of(after)
            if order is None:
                raise UsageError(f"after: must be the id of a job, got '{after}'", code="invalid_cursor", param="after")
            wanted.append(f"ord {'<' if descending else '>'} ?")
            values.append(order)
        direction = "desc" if descending else "asc"
        clause = f"where {' and '.join(wanted)} order by ord {direction} limit {limit + 1:d}"
        found = list(self._read(clause, tuple(values)))
        return found[:limit], len(found) > limit

    def unfinished(self) -> list[Job]:
        """Return the jobs that were queued or running when the last process ended, the oldest first."""
        return list(self._read("where status in ('queued', 'running') order by ord", ()))

    def expired(self, now: float) -> list[Job]:
        """Return the jobs whose files are to go."""
        return list(self._read("where expires_at <= ?", (now,)))

    def remember(self, key: str, digest: str, job_id: str) -> tuple[str, str] | None:
        """Bind a key of a client to a job; return the (digest, job) that it was bound to within a day, if any."""
        with self.lock:
            self.db.execute("delete from requests where at < ?", (wall() - REMEMBERED_S,))
            found = self.db.execute("select digest, job from requests where key = ?", (key,)).fetchone()
            if found is None:
                self.db.execute("insert into requests values (?, ?, ?, ?)", (key, digest, job_id, wall()))
            return (str(found[0]), str(found[1])) if found else None

    def forget(self, key: str) -> None:
        """Free a key whose request came to nothing."""
        with self.lock:
            self.db.execute("delete from requests where key = ?", (key,))

    def close(self) -> None:
        """Close the database."""
        with self.lock:
            self.db.close()

    def _read(self, clause: str, values: tuple[str | int | float, ...]) -> Iterator[Job]:
        with self.lock:
            rows = self.db.execute(f"select id, body from jobs {clause}", values).fetchall()
        for name, body in rows:
            try:
                yield from_json(json.loads(body))
            except (UsageError, TypeError, KeyError, ValueError):
                logger.warning("job %s: written by another version of this program, passed over", name)


def _row(job: Job) -> tuple[str, bool, float | None, str]:
    """Return what changes of a job's row; a job that has expired needs no second look."""
    return job.status, job.starred, None if job.expired else job.expires_at, json.dumps(to_json(job))
