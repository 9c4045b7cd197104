"""Webhooks: receivers are told of every video that ends, signed, and told again until they take it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import heapq
import hmac
import itertools
import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from engine import fetch, log, urls
from engine.errors import OutputError, UsageError
from engine.jobs import Job
from engine.jobs.job import new_id
from engine.profiler import monotonic, wall
from sgdiff_app.options import ServerOptions

logger = log.get(__name__)

PAUSES_S = (1.0, 5.0, 30.0, 120.0, 600.0)  # before each further try
TIMEOUT_S = 10.0
SECRET = "whsec_"


@dataclass(frozen=True, slots=True)
class Event:
    """What is told, and to whom."""

    id: str
    url: str
    body: bytes
    tries: int = 0


class Webhooks:
    """Tells each listed address of every video, or, of a video that names an address of its own, that one alone."""

    def __init__(
        self,
        addresses: Sequence[str],
        secrets: Iterable[bytes],
        rules: fetch.Rules,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self.secrets, self.rules, self.pauses_s = tuple(secrets), rules, tuple(pauses_s)
        self.receivers = {address: _Receiver(self) for address in addresses}

    def hear(self, job: Job) -> None:
        """Take note of a job that has ended; it returns at once."""
        if job.kind != "video":
            return
        own = job.notes.get("webhook_url")
        kind = "video.completed" if job.status == "done" else "video.failed"
        event_id = new_id("evt")
        told = {"id": event_id, "object": "event", "created_at": int(wall()), "type": kind, "data": {"id": job.id}}
        body = json.dumps(told, separators=(",", ":")).encode()
        for address in self.receivers if own is None else [self._listed(own)]:
            if address is not None:
                self.receivers[address].put(Event(event_id, own or address, body))

    def check(self, url: str) -> None:
        """Raise UsageError for an address of a request that is not below one of the listed ones."""
        if self._listed(url) is None:
            raise refusal(url)

    def _listed(self, url: str) -> str | None:
        return next((address for address in self.receivers if is_below(url, address)), None)

    def send(self, event: Event) -> bool:
        """Tell a receiver once, signed for now; return whether it took it."""
        moment = str(int(wall()))
        headers = {"content-type": "application/json", "webhook-id": event.id, "webhook-timestamp": moment}
        signatures = (sign(secret, event.id, moment, event.body) for secret in self.secrets)
        headers["webhook-signature"] = " ".join(signatures)
        try:
            status = fetch.post(event.url, event.body, headers, self.rules)
        except OutputError as error:
            logger.warning("webhook %s: %s", event.id, error.message)
            return False
        if not 200 <= status < 300:
            logger.warning("webhook %s: %s answered %d", event.id, urls.shown(event.url), status)
        return 200 <= status < 300

    def close(self, grace_s: float = TIMEOUT_S) -> None:
        """Tell what nobody was told yet, then stop; what failed before is given up."""
        end = monotonic() + grace_s
        for receiver in self.receivers.values():
            receiver.close()
        for receiver in self.receivers.values():
            receiver.join(max(0.0, end - monotonic()))


class _Receiver:
    """A thread for one address, so that a receiver that is dead holds up nobody else."""

    def __init__(self, hooks: Webhooks) -> None:
        self.hooks = hooks
        self.changed = threading.Condition()
        self.waiting: list[tuple[float, int, Event]] = []  # a heap by the time when each is due
        self.numbers = itertools.count()
        self.closing = False
        self.thread: threading.Thread | None = None

    def put(self, event: Event, pause_s: float = 0.0) -> None:
        """Send an event after a while."""
        with self.changed:
            if self.closing and event.tries:
                return
            heapq.heappush(self.waiting, (monotonic() + pause_s, next(self.numbers), event))
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, name="webhook", daemon=True)
                self.thread.start()
            self.changed.notify()

    def close(self) -> None:
        """Have the thread end as soon as it may."""
        with self.changed:
            self.closing = True
            self.waiting = [entry for entry in self.waiting if not entry[2].tries]
            heapq.heapify(self.waiting)
            self.changed.notify()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread."""
        if self.thread is not None:
            self.thread.join(timeout_s)

    def _run(self) -> None:
        while (event := self._next()) is not None:
            if self.hooks.send(event):
                continue
            if event.tries == len(self.hooks.pauses_s):
                logger.error("webhook %s: given up after %d tries", event.id, event.tries + 1)
                continue
            again = Event(event.id, event.url, event.body, event.tries + 1)
            self.put(again, self.hooks.pauses_s[event.tries])

    def _next(self) -> Event | None:
        """Wait for what is due; return None at the end."""
        with self.changed:
            while True:
                left = self.waiting[0][0] - monotonic() if self.waiting else None
                if left is not None and left <= 0:
                    return heapq.heappop(self.waiting)[2]
                if self.closing and left is None:
                    return None
                self.changed.wait(left)


def of_options(options: ServerOptions) -> Webhooks | None:
    """Return the webhooks that settings describe; None without any. Raises UsageError."""
    if not options.webhook_url:
        return None
    for address in options.webhook_url:
        check_address(address)
    if not options.webhook_secret:
        message = "webhook_url: needs a secret to sign with (SGDIFF_WEBHOOK_SECRET or --webhook-secret)"
        raise UsageError(message, code="missing_parameter", param="webhook_secret")
    secrets = [secret_of(entry.strip()) for entry in options.webhook_secret.split(",")]
    rules = fetch.Rules(allow_hosts=options.url_allow_hosts or (), connect_s=TIMEOUT_S, total_s=TIMEOUT_S)
    return Webhooks(options.webhook_url, secrets, rules)


def secret_of(text: str) -> bytes:
    """Return the key that a secret stands for. Raises UsageError, without the secret in it."""
    encoded = text.removeprefix(SECRET)
    try:
        key = base64.b64decode(encoded, validate=True) if encoded != text else b""
    except binascii.Error:
        key = b""
    if not key:
        message = f"webhook_secret: must have the form {SECRET}<base64>; several are separated by commas"
        raise UsageError(message, param="webhook_secret")
    return key


def sign(secret: bytes, event_id: str, moment: str, body: bytes) -> str:
    """Return one signature of what is sent at a moment (Unix seconds), as Standard Webhooks defines it."""
    signed = b".".join((event_id.encode(), moment.encode(), body))
    return f"v1,{base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()}"


def check_address(url: str) -> urls.Target:
    """Return an address that may be listed, taken apart. Raises UsageError."""
    if not url.lower().startswith(("http://", "https://")):
        raise UsageError(f"webhook_url: must be an http(s) URL, got '{urls.shown(url)}'", param="webhook_url")
    try:
        return urls.parse(url)
    except urls.InvalidURLError as error:
        raise UsageError(f"webhook_url: {urls.shown(url)}: {error}", param="webhook_url") from None


def is_below(url: str, listed: str) -> bool:
    """Say whether a URL is a listed address or continues it, at the same server and along whole steps of its path."""
    try:
        target, base = check_address(url), check_address(listed)
    except UsageError:
        return False
    place = (target.scheme, target.host.lower(), target.port)
    steps = unquote(target.path.partition("?")[0]).split("/")
    if place != (base.scheme, base.host.lower(), base.port) or {".", ".."} & set(steps):
        return False
    path = base.path if "?" in base.path else base.path.rstrip("/")
    return target.path == base.path or target.path.startswith((f"{path}/", f"{path}?"))


def refusal(url: str) -> UsageError:
    """Return the error of an address to which this server sends nothing."""
    message = f"webhook_url: {urls.shown(url)} is not below an address that this server sends to (--webhook-url)"
    return UsageError(message, param="webhook_url")
