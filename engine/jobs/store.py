"""JobStore: jobs in SQLite. Written on every change of state; progress stays in memory."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine import log
from engine.errors import OutputError, UsageError, shown
from engine.jobs.job import FINAL, Job, from_json, order_of, to_json
from engine.jobs.lock import Lock
from engine.profiler import wall

logger = log.get(__name__)

VERSION = 3  # of the tables; a database of a newer program is not opened
TABLES = """
create table if not exists jobs (
    id text primary key, ord text not null unique, kind text not null, status text not null, starred integer not null,
    expires_at real, body text not null
);
create index if not exists by_kind on jobs (kind, ord);
create index if not exists by_status on jobs (status, ord);
create index if not exists by_expiry on jobs (expires_at) where expires_at is not null;
create table if not exists told (
    ord text primary key, model text not null, words text not null, tab text not null
) without rowid;
create trigger if not exists forgotten after delete on jobs begin delete from told where ord = old.ord; end;
create table if not exists requests (key text primary key, digest text not null, job text not null, at real not null);
"""
SEARCHED = "ord in (select ord from told where {})"  # in a small table: bodies are long, and a search reads every row
TELL = "insert or replace into told (ord, model, words, tab) values (?, ?, ?, ?)"
MOST_SEARCHED = 500  # characters of a search
REMEMBERED_S = 24 * 3600
LAST = "~"  # after every id
BUSY_S = 1.0  # so long is waited for another program (a backup) that has the database; callers hold locks meanwhile
Value = str | int | float


class JobStore:
    """Every job that was ever taken in and not deleted. Safe in several threads; one process at a time has it.

    Whatever is read or written raises OutputError when the database cannot be used.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the database, made when missing; ":memory:" keeps nothing. Raises OutputError."""
        self.lock = threading.Lock()
        self.held: Lock | None = None
        try:
            if str(path) != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                self.held = Lock(Path(f"{path}.lock"))
            self.db = sqlite3.connect(path, BUSY_S, check_same_thread=False, isolation_level=None)
            self._prepare(path)
        except BlockingIOError as error:
            raise OutputError(f"{Path(path).parent}: is in use by another server; choose another --data-dir") from error
        except (OSError, sqlite3.Error) as error:
            self._release()
            raise OutputError(f"{path}: the job database cannot be opened: {error}") from error

    def _prepare(self, path: str | Path) -> None:
        """Make the tables. Raises OutputError for a database of a newer program, and leaves it as it is."""
        [version] = self.db.execute("pragma user_version").fetchone()
        if version > VERSION:
            self.db.close()
            self._release()
            message = f"format {version}, this one knows {VERSION}; update it, or choose another --data-dir"
            raise OutputError(f"{path}: the job database is of a newer version of this program: {message}")
        self.db.execute("pragma journal_mode = wal")
        self.db.execute("pragma synchronous = normal")
        if 0 < version < VERSION:  # which kept less to search in, or nothing
            self.db.execute("drop table if exists told")
        self.db.executescript(TABLES)
        if 0 < version < VERSION:
            rows = [_told(job) for job in _readable(self.db.execute("select id, body from jobs").fetchall())]
            self.db.executemany(TELL, rows)
        self.db.execute(f"pragma user_version = {VERSION}")  # last: else it is tried again

    def _release(self) -> None:
        if self.held is not None:
            self.held.close()

    def add(self, job: Job) -> None:
        """Write a job that is new."""
        change = "insert into jobs (id, ord, kind, status, starred, expires_at, body) values (?, ?, ?, ?, ?, ?, ?)"
        row = (job.id, job.order, job.kind, *_row(job))
        with self._use() as db, _whole(db):
            db.execute(change, row)
            db.execute(TELL, _told(job))

    def save(self, job: Job) -> None:
        """Write a job as it is now; one that was deleted stays so."""
        change = "update jobs set status = ?, starred = ?, expires_at = ?, body = ? where id = ?"
        row = (*_row(job), job.id)
        with self._use() as db:
            db.execute(change, row)

    def mark(self, job: Job) -> None:
        """Write the status of a job alone."""
        with self._use() as db:
            db.execute("update jobs set status = ? where id = ?", (job.status, job.id))

    def get(self, job_id: str) -> Job | None:
        """Return a job, or None."""
        return next(iter(self._read("where id = ?", (job_id,))), None)

    def delete(self, job_id: str) -> bool:
        """Forget a job, also one that cannot be read; return whether there was one."""
        with self._use() as db:
            return db.execute("delete from jobs where id = ?", (job_id,)).rowcount > 0

    def page(
        self, after: str | None = None, limit: int = 20, descending: bool = True, **wanted: Any
    ) -> tuple[list[Job], bool]:
        """Return jobs in the order of their creation, and whether there are more. `wanted` is as for `count`.

        `after` is the last id of the page before, which may be deleted by now. Raises UsageError when it is no id.
        """
        clause, values = _filters(**wanted)
        order = LAST if descending else ""
        if after is not None:
            given = order_of(after)
            if given is None:
                raise UsageError(
                    f"after: must be the id of a job, got '{shown(after)}'", code="invalid_cursor", param="after"
                )
            order = given
        sign, direction = ("<", "desc") if descending else (">", "asc")
        clause = f"where {clause} and ord {sign} ? order by ord {direction} limit ?"
        found, lack = list[Job](), limit + 1
        while lack:  # more than once where rows are passed over
            rows = self._rows(clause, (*values, order, lack))
            found += _readable(rows)
            if len(rows) < lack:
                break
            order, lack = rows[-1][0].rpartition("_")[2], limit + 1 - len(found)
        return found[:limit], len(found) > limit

    def count(self, **wanted: Any) -> int:
        """Return how many jobs there are of a `kind`, `status` or `model`, `starred`, `finished`, found by `search`,
        of a `tab` (see `Job.notes`) or of all but a `without_tab`.

        A search finds jobs with all its words, in whatever case, in the prompts, the model's name or the id. Raises
        UsageError for one that is too long.
        """
        clause, values = _filters(**wanted)
        with self._use() as db:
            return int(db.execute(f"select count(*) from jobs where {clause}", values).fetchone()[0])

    def models(self) -> list[str]:
        """Return the names of the models that jobs are of."""
        with self._use() as db:
            return [str(name) for (name,) in db.execute("select distinct model from told order by model")]

    def unfinished(self) -> list[Job]:
        """Return the jobs that were queued or running when the last process ended, the oldest first."""
        return self._read("where status in ('queued', 'running') order by ord", ())

    def expired(self, now: float) -> list[Job]:
        """Return the jobs whose files are to go."""
        return self._read("where expires_at <= ?", (now,))

    def remember(self, key: str, digest: str, job_id: str) -> tuple[str, str] | None:
        """Bind a key of a client to a job; return the (digest, job) that it was bound to within a day, if any."""
        with self._use() as db:
            db.execute("delete from requests where at < ?", (wall() - REMEMBERED_S,))
            found = db.execute("select digest, job from requests where key = ?", (key,)).fetchone()
            if found is None:
                change = "insert into requests (key, digest, job, at) values (?, ?, ?, ?)"
                db.execute(change, (key, digest, job_id, wall()))
            return (str(found[0]), str(found[1])) if found else None

    def forget(self, key: str, job_id: str) -> None:
        """Free a key whose request came to nothing, if it is still bound to that job."""
        with self._use() as db:
            db.execute("delete from requests where key = ? and job = ?", (key, job_id))

    def close(self) -> None:
        """Close the database and let another process have it."""
        with self.lock:
            self.db.close()
            self._release()

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to one thread. Raises OutputError for what the database refuses."""
        with self.lock:
            try:
                yield self.db
            except sqlite3.Error as error:
                raise OutputError(f"the job database cannot be used: {error}") from error

    def _rows(self, clause: str, values: tuple[Value, ...]) -> list[tuple[str, str]]:
        with self._use() as db:
            return db.execute(f"select id, body from jobs {clause}", values).fetchall()

    def _read(self, clause: str, values: tuple[Value, ...]) -> list[Job]:
        return list(_readable(self._rows(clause, values)))


@contextmanager
def _whole(db: sqlite3.Connection) -> Iterator[None]:
    """Have several changes made together or not at all."""
    db.execute("begin immediate")
    try:
        yield
        db.execute("commit")
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("rollback")
        raise


def _filters(
    kind: str | None = None,
    status: str | None = None,
    starred: bool | None = None,
    finished: bool | None = None,
    model: str | None = None,
    search: str | None = None,
    tab: str | None = None,
    without_tab: str | None = None,
) -> tuple[str, list[Value]]:
    """Return what SQL says of the jobs that are wanted. Raises UsageError."""
    clauses, values = ["1"], list[Value]()
    for column, value in (("kind", kind), ("status", status), ("starred", starred)):
        if value is not None:
            clauses.append(f"{column} = ?")
            values.append(value)
    if finished is not None:
        clauses.append(f"status {'in' if finished else 'not in'} ({', '.join('?' * len(FINAL))})")
        values += FINAL
    for clause, value in (("model = ?", model), ("tab = ?", tab), ("tab <> ?", without_tab)):
        if value is not None:
            clauses.append(SEARCHED.format(clause))
            values.append(_storable(value))
    if search is not None and len(search) > MOST_SEARCHED:
        raise UsageError(f"search: must have at most {MOST_SEARCHED} characters, got {len(search)}", param="search")
    words = _storable(search or "").casefold().split()
    if words:
        clauses.append(SEARCHED.format(" and ".join(["instr(words, ?)"] * len(words))))
        values += words
    return " and ".join(clauses), values


def _told(job: Job) -> tuple[str, str, str, str]:
    """Return what a job is searched by."""
    texts = (job.request.prompt, job.request.negative_prompt, job.model, job.id)
    words = _storable("\n".join(text for text in texts if text)).casefold()
    return job.order, _storable(job.model), words, _storable(str(job.notes.get("tab") or ""))


def _storable(text: str) -> str:
    """Return a text without the halves of characters that JSON may hold and UTF-8 may not."""
    return text.encode(errors="replace").decode()


def _readable(rows: list[tuple[str, str]]) -> Iterator[Job]:
    for name, body in rows:
        try:
            yield from_json(json.loads(body))
        except (UsageError, TypeError, KeyError, ValueError, AttributeError):
            logger.warning("job %s: written by another version of this program, passed over", name)


def _row(job: Job) -> tuple[str, bool, float | None, str]:
    """Return what changes of a job's row; one whose files are removed needs no second look."""
    return job.status, job.starred, None if job.removed else job.expires_at, json.dumps(to_json(job))
