"""Job: one request on its way from the queue to its files, and everything that is told about it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from engine import schema
from engine.profiler import monotonic, wall
from engine.types import Artifact, LoraRef, Request

Kind = Literal["image", "edit", "video"]
Status = Literal["queued", "running", "done", "failed", "cancelled"]
KINDS: tuple[Kind, ...] = get_args(Kind)
STATUSES: tuple[Status, ...] = get_args(Status)
FINAL: tuple[Status, ...] = ("done", "failed", "cancelled")
PREFIXES: Mapping[Kind, str] = {"image": "img", "edit": "img", "video": "video"}

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: text order is number order
TIME_DIGITS, RANDOM_DIGITS = 10, 16  # 48 bits of milliseconds, 80 bits that nobody can guess


class _Clock:
    """Gives numbers that grow, also within a millisecond."""

    def __init__(self) -> None:
        self.lock, self.last = threading.Lock(), 0

    def next(self) -> int:
        with self.lock:
            fresh = int(wall() * 1000) << 80 | secrets.randbits(80)
            self.last = fresh if fresh >> 80 > self.last >> 80 else self.last + 1 + secrets.randbits(40)
            return self.last


_clock = _Clock()


def new_id(prefix: str) -> str:
    """Return an id: sortable by creation, URL-safe, unguessable."""
    number, digits = _clock.next(), []
    for _ in range(TIME_DIGITS + RANDOM_DIGITS):
        number, digit = divmod(number, 32)
        digits.append(ALPHABET[digit])
    return f"{prefix}_{''.join(reversed(digits))}"


def order_of(job_id: str) -> str | None:
    """Return the part of an id that sorts by creation; None when it is no id."""
    _, _, order = job_id.rpartition("_")
    known = len(order) == TIME_DIGITS + RANDOM_DIGITS and set(order) <= set(ALPHABET)
    return order if known and job_id.removesuffix(f"_{order}") in PREFIXES.values() else None


@dataclass(slots=True, eq=False)
class Job:
    """One request: asked for, resolved, drawn, kept. The queue alone changes it; others read.

    `request` is what was asked, with input images as files of the server, `resolved` what is drawn. A job that is not
    `detached` ends with the connection that waits for it. `notes` belong to the door that took the job in.
    """

    id: str
    kind: Kind
    model: str  # the name that requests know it by
    model_path: str
    request: Request
    resolved: Request
    status: Status = "queued"
    detached: bool = True
    priority: int = 0
    starred: bool = False
    created_at: float = field(default_factory=wall)
    started_at: float | None = None
    completed_at: float | None = None
    expires_at: float | None = None
    loras: tuple[LoraRef, ...] = ()  # the set of the server when the job was taken in
    setting: int | None = None  # the same set as the worker of today knows it
    percent: int = 0
    stage: str = ""
    step: int = 0
    steps: int = 0
    eta_s: float | None = None
    recipes: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)
    error: dict[str, str] | None = None
    inputs: tuple[str, ...] = ()  # files that were saved for it
    files: tuple[str, ...] = ()  # what was made beside the artifacts: thumbnails, sprite sheets
    expired: bool = False  # its files are not offered any more
    removed: bool = False  # and are gone
    waited_s: float | None = None  # in the queue, once that is over
    inference_s: float = 0.0
    peak_memory_mb: float = 0.0
    usage: dict[str, int] = field(
        default_factory=dict
    )  # tokens: of the prompt (text), of input images (image), of what was drawn (latents)
    stages: dict[str, float] = field(default_factory=dict)  # milliseconds by stage
    steps_ms: list[float] = field(default_factory=list)  # the first denoising steps, of one output after another
    notes: dict[str, Any] = field(default_factory=dict)
    preview: bytes | None = field(default=None, repr=False)
    cancelled: bool = False  # somebody asked for it, the worker has not answered yet
    deleted: bool = False  # likewise, and nothing of it is to stay
    texts: tuple[dict[str, Any], dict[str, Any]] | None = field(default=None, repr=False)  # of `plain_requests`
    taken: float | None = field(default_factory=monotonic)  # by the clock of this process, which nobody sets
    began: float | None = None  # likewise
    drawn: int = 0  # outputs that the worker has handed over; those that are not artifacts yet are being encoded

    @property
    def order(self) -> str:
        """Sorts jobs by creation, of whatever kind."""
        return self.id.rpartition("_")[2]

    @property
    def finished(self) -> bool:
        return self.status in FINAL

    @property
    def queue_s(self) -> float:
        """Seconds that it waited."""
        if self.waited_s is not None:
            return self.waited_s
        if self.taken is not None and self.started_at is None and self.completed_at is None:
            return monotonic() - self.taken
        return max(0.0, (self.started_at or self.completed_at or wall()) - self.created_at)

    @property
    def outputs(self) -> int:
        """How many outputs it has when it is done."""
        return self.resolved.num_outputs_per_prompt


KEPT_OUT = ("setting", "preview", "cancelled", "deleted", "texts", "taken", "began", "drawn", "eta_s")
KEPT = tuple(name for name in Job.__slots__ if name not in KEPT_OUT)


def plain_requests(job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what was asked and what is drawn as JSON-able data, made once: it is written more than once."""
    if job.texts is None:
        job.texts = schema.given(job.request), schema.given(job.resolved)
    return job.texts


def to_json(job: Job) -> dict[str, Any]:
    """Return a job as the store keeps it."""
    request, resolved = plain_requests(job)
    rest = {name: schema.plain(getattr(job, name)) for name in KEPT if name not in ("request", "resolved")}
    return {**rest, "request": request, "resolved": resolved}


def from_json(kept: Mapping[str, Any]) -> Job:
    """Return a job that the store kept. Raises UsageError when another version of the program wrote it."""
    values = {name: value for name, value in kept.items() if name in Job.__slots__}
    values |= {name: schema.read(Request, values[name]) for name in ("request", "resolved")}
    values["loras"] = tuple(schema.read(LoraRef, entry) for entry in values["loras"])
    values["artifacts"] = [Artifact(**entry) for entry in values["artifacts"]]
    values |= {name: tuple(values[name]) for name in ("inputs", "files")}
    return Job(**{**values, "taken": None})
