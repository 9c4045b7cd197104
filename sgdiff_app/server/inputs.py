"""Input images of requests: uploads, URLs and data URIs, checked by their content and kept as files of the server."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.datastructures import UploadFile

from engine import fetch, media, urls
from engine.errors import InputError
from engine.jobs import Job
from sgdiff_app.options import MB
from sgdiff_app.server.errors import ApiError, invalid
from sgdiff_app.server.service import Service

SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "GIF": "gif", "BMP": "bmp"}
Given = UploadFile | str  # a file of a form, or a URL or data URI


@dataclass(slots=True)
class Inputs:
    """Files that were saved for one job, until it takes them over."""

    service: Service
    job_id: str
    saved: list[str] = field(default_factory=list)

    async def image(self, given: Given, param: str) -> str:
        """Return where an image is kept from now on. Raises ApiError, with what was saved before still there."""
        fetches = isinstance(given, str) and urls.is_url(given)
        away = self.service.apart if fetches else self.service.aside
        return await away(self._keep, given, f"{self.job_id}_{len(self.saved)}", param)

    def drop(self) -> None:
        """Remove what was saved: there is no job for it."""
        remove(self.saved)

    def _keep(self, given: Given, name: str, param: str) -> str:
        options = self.service.options
        bound = options.max_image_mb * MB
        label = "the file" if isinstance(given, UploadFile) else "the data URI"
        if isinstance(given, UploadFile):
            data = _uploaded(given, bound, param)
        else:
            data = _source(given, self.service, bound, param)
        try:
            kind = media.check_image(data, label, options.max_input_megapixels * 1e6, param)
        except InputError as error:
            if isinstance(given, str) and urls.is_url(given):
                raise fetch.failure(given, error.message.removeprefix(f"{param}: {label}: "), param) from error
            raise invalid(error.code, error.message, param) from error
        folder = self.service.options.input_save_path
        place = Path(folder).expanduser() if folder else self.service.queue.delivery.scratch
        place.mkdir(parents=True, exist_ok=True)
        path = (place / f"{name}.{SUFFIXES[kind]}").resolve()
        self.saved.append(str(path))
        path.write_bytes(data)
        return str(path)


def sources(values: Iterable[Any], param: str) -> list[str]:
    """Return the URLs and data URIs among the values of a JSON or form field. Raises ApiError `invalid_url`."""
    return [_url_of(value, param) for value in values]


def _url_of(value: Any, param: str) -> str:
    if isinstance(value, dict):
        inner = value.get("image_url")
        value = inner.get("url") if isinstance(inner, dict) else inner
        if not isinstance(value, str):
            message = f'{param}: must be a file, a URL, a data URI or {{"image_url": one of these}}'
            raise invalid("invalid_url", message, param)
    if media.is_data(value):
        return str(value)
    if not value.lower().startswith(("http://", "https://")):
        raise invalid("invalid_url", f"{param}: must be an http(s) URL or a data URI of an image", param)
    return str(value)


def _uploaded(upload: UploadFile, bound: int, param: str) -> bytes:
    if (upload.size or 0) > bound:
        raise _too_large(bound, param)
    upload.file.seek(0)
    data: bytes = upload.file.read(bound + 1)
    return data


def _source(source: str, service: Service, bound: int, param: str) -> bytes:
    options = service.options
    if not urls.is_url(source):
        if len(source) > bound * 3:  # percent-encoded at worst
            raise _too_large(bound, param)
        try:
            data = media.data_of(source, param)
        except InputError as error:
            raise invalid(error.code, error.message, param) from error
        if len(data) > bound:
            raise _too_large(bound, param)
        return data
    if options.disable_url_inputs:
        raise invalid(
            "invalid_url", f"{param}: this server fetches nothing (--disable-url-inputs); send the file", param
        )
    if service.queue.served.offline:
        raise fetch.failure(source, "--offline forbids to fetch it", param)
    return fetch.fetch(source, fetch.Rules(allow_hosts=options.url_allow_hosts or (), max_bytes=bound), param)


def _too_large(bound: int, param: str) -> ApiError:
    message = f"{param}: is larger than {bound / MB:g} MB (--max-image-mb)"
    return ApiError(413, "image_too_large", message, param)


def tidy(service: Service, job: Job) -> None:
    """Remove the inputs of a job that has ended, where the server keeps none."""
    if job.inputs and not service.options.input_save_path:
        remove(job.inputs)


def remove(saved: Iterable[str]) -> None:
    """Delete files that may be gone."""
    for path in saved:
        with suppress(OSError):
            Path(path).unlink()
