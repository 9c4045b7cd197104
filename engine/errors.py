"""Every error that a user can meet: message, machine-readable code, exit status of the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SgdiffError(Exception):
    """Base of all errors with a message meant for the user.

    `code` is the machine-readable name used in JSON and HTTP bodies; `param` names the field at fault, if one is.
    """

    code = "internal_error"
    exit_status = 1

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.param = param


class UsageError(SgdiffError):
    """What was asked cannot be: a wrong value, name or combination. Always raised before any weight is loaded."""

    code = "invalid_value"
    exit_status = 2


class NotAvailable(UsageError):
    """A setting that the contract names and this build does not have yet."""

    code = "unsupported_parameter"


class ModelError(SgdiffError):
    """The model is missing, gated, incomplete or of a kind that cannot be served."""

    code = "model_not_found"


class InputError(UsageError):
    """An input file (image, mask, recipe) cannot be read or does not fit."""

    code = "invalid_image"


class OutputError(SgdiffError):
    """A result cannot be written."""

    code = "output_not_writable"


class GenerationError(SgdiffError):
    """A run failed for a reason of its own; the engine stays usable."""

    code = "generation_failed"


class OutOfMemory(SgdiffError):
    """The device has too little memory; the message says what to try."""

    code = "out_of_memory"


class NotFound(SgdiffError):
    """There is no job, output or variant of that name."""

    code = "not_found"


class QueueFull(SgdiffError):
    """Too many jobs wait; `retry_after` is the number of seconds after which there is probably room."""

    code = "queue_full"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Draining(SgdiffError):
    """The process is about to end and takes nothing in."""

    code = "draining"


class WorkerDied(SgdiffError):
    """The process that draws is gone; unless `final`, another one is being started."""

    code = "worker_died"

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class UploadFailed(OutputError):
    """Cloud storage did not take a file."""

    code = "upload_failed"


class Cancelled(SgdiffError):
    """The run was cancelled between two steps, stages or VAE tiles."""

    code = "cancelled"
    exit_status = 130


SHOWN = 80  # characters of a wrong value that a message repeats


def shown(value: object) -> str:
    """Return a value as a message repeats it: cut short when it is long."""
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def listed(values: Iterable[object]) -> str:
    """Return the allowed values as one comma-separated text."""
    return ", ".join(str(value) for value in values)
