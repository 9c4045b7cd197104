"""Outputs in S3-compatible object storage: uploaded, linked to, read, deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engine import env
from engine.env import CloudSettings
from engine.errors import NotAvailable, OutputError, UploadFailed, UsageError

HINT = "uploads need boto3: pip install 'sgdiff-app[s3]'"
CONNECT_S, READ_S, ATTEMPTS = 10, 60, 3


class Cloud:
    """One bucket. Safe in several threads; every call waits for the network."""

    def __init__(self, settings: CloudSettings) -> None:
        """Prepare a client; nothing is sent. Raises NotAvailable without boto3, UsageError for a wrong endpoint."""
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise NotAvailable(HINT) from error
        self.settings = settings
        config = Config(
            signature_version="s3v4",
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            s3={"addressing_style": "path" if settings.endpoint_url else "auto"},  # no host names per bucket elsewhere
        )
        try:
            self.client: Any = boto3.session.Session().client(
                "s3",
                region_name=settings.region,
                endpoint_url=settings.endpoint_url,
                aws_access_key_id=settings.access_key_id,
                aws_secret_access_key=settings.secret_access_key,
                config=config,
            )
        except ValueError as error:
            message = f"SGLANG_S3_ENDPOINT_URL: must be a URL such as https://host, got '{settings.endpoint_url}'"
            raise UsageError(message) from error

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Cloud | None:
        """Return the storage that the environment names; None when uploads are off. Raises as `env.cloud` does."""
        settings = env.cloud(environ)
        return cls(settings) if settings is not None else None

    def upload(self, path: Path, media_type: str) -> str:
        """Upload a file under its own name and return its key. Raises UploadFailed."""
        key = f"{self.settings.prefix}{path.name}"
        with _told("the upload to cloud storage failed", UploadFailed), path.open("rb") as file:
            self.client.put_object(Bucket=self.settings.bucket, Key=key, Body=file, ContentType=media_type)
        return key

    def url(self, key: str) -> str:
        """Return where an object can be fetched: below the public base URL, else for a limited time."""
        if self.settings.public_base_url is not None:
            return f"{self.settings.public_base_url.rstrip('/')}/{quote(key)}"
        wanted = {"Bucket": self.settings.bucket, "Key": key}
        with _told("the link to cloud storage cannot be signed", OutputError):
            return str(
                self.client.generate_presigned_url("get_object", wanted, ExpiresIn=self.settings.presign_seconds)
            )

    def read(self, key: str) -> bytes:
        """Return the bytes of an object. Raises OutputError."""
        with _told("cloud storage did not give an output back", OutputError):
            found = self.client.get_object(Bucket=self.settings.bucket, Key=key)
            with found["Body"] as body:
                return bytes(body.read())

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is fine. Raises OutputError."""
        with _told("cloud storage did not delete an output", OutputError):
            self.client.delete_object(Bucket=self.settings.bucket, Key=key)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


@contextmanager
def _told(what: str, kind: type[OutputError]) -> Iterator[None]:
    """Turn the errors of the client library and the disk into one of ours, which names neither keys nor paths."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise kind(f"{what}: {error.response.get('Error', {}).get('Code', 'refused')}") from error
    except BotoCoreError as error:
        raise kind(f"{what}: {type(error).__name__}") from error
    except OSError as error:
        raise kind(f"{what}: {error.strerror or type(error).__name__}") from error
