"""Uploads against an S3-compatible server on loopback."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine import env
from engine.cloud import HINT, Cloud
from engine.errors import NotAvailable, OutputError, UploadFailed, UsageError
from tests.engine.storage_server import VARIABLES, S3Server


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


@pytest.fixture
def cloud(server: S3Server) -> Iterator[Cloud]:
    found = Cloud.from_environment(server.variables)
    assert found is not None
    yield found
    found.close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "img_1.png"
    path.write_bytes(b"pixels")
    return path


def test_what_is_uploaded_has_its_name_its_type_and_a_link(cloud: Cloud, server: S3Server, picture: Path) -> None:
    key = cloud.upload(picture, "image/png")
    assert key == "img_1.png"
    link = cloud.url(key)
    answer = httpx.get(link)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"pixels", "image/png")
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in link and "X-Amz-Expires=3600" in link
    assert picture.exists()
    assert cloud.read(key) == b"pixels"


def test_what_is_deleted_is_gone_and_may_be_deleted_again(cloud: Cloud, picture: Path) -> None:
    key = cloud.upload(picture, "image/png")
    cloud.delete(key)
    cloud.delete(key)
    with pytest.raises(OutputError, match="NoSuchKey"):
        cloud.read(key)


def test_prefix_public_base_and_lifetime_come_from_the_environment(server: S3Server, picture: Path) -> None:
    more = {"SGDIFF_S3_PREFIX": "a b/", "SGDIFF_S3_PUBLIC_BASE_URL": "https://cdn.example.com/x/"}
    cloud = Cloud.from_environment({**server.variables, **more})
    assert cloud is not None
    key = cloud.upload(picture, "image/png")
    assert (key, cloud.url(key)) == ("a b/img_1.png", "https://cdn.example.com/x/a%20b/img_1.png")
    cloud.close()
    brief = Cloud.from_environment({**server.variables, "SGDIFF_S3_PRESIGN_SECONDS": "60"})
    assert brief is not None and "X-Amz-Expires=60&" in brief.url(key)
    brief.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SGLANG_S3_BUCKET_NAME": "no-such-bucket"}, "NoSuchBucket"),
        ({"SGLANG_S3_ENDPOINT_URL": "http://127.0.0.1:9"}, "EndpointConnectionError"),
    ],
)
def test_a_failed_upload_says_why_and_no_secret(
    server: S3Server, picture: Path, changes: Mapping[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.cloud.ATTEMPTS", 1)
    cloud = Cloud.from_environment({**server.variables, **changes})
    assert cloud is not None
    with pytest.raises(UploadFailed) as caught:
        cloud.upload(picture, "image/png")
    assert caught.value.message == f"the upload to cloud storage failed: {reason}"
    assert caught.value.code == "upload_failed"
    cloud.close()


def test_a_file_that_is_gone_is_a_failed_upload(cloud: Cloud, tmp_path: Path) -> None:
    with pytest.raises(UploadFailed, match="No such file") as caught:
        cloud.upload(tmp_path / "gone.png", "image/png")
    assert str(tmp_path) not in caught.value.message


def test_secrets_are_not_shown() -> None:
    settings = env.cloud(VARIABLES)
    assert settings is not None and settings.secret_access_key == "the-secret"
    assert "the-secret" not in repr(settings) and "the-key" not in repr(settings)


def test_uploads_are_off_unless_asked_for() -> None:
    without = {name: value for name, value in VARIABLES.items() if name != "SGLANG_CLOUD_STORAGE_TYPE"}
    assert Cloud.from_environment({}) is None
    assert Cloud.from_environment(without) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SGLANG_CLOUD_STORAGE_TYPE": "gcs"}, "SGLANG_CLOUD_STORAGE_TYPE: must be s3, got 'gcs'"),
        ({"SGLANG_S3_BUCKET_NAME": ""}, "SGLANG_S3_BUCKET_NAME: required with SGLANG_CLOUD_STORAGE_TYPE=s3"),
        (
            {"SGLANG_S3_ACCESS_KEY_ID": ""},
            "SGLANG_S3_ACCESS_KEY_ID and SGLANG_S3_SECRET_ACCESS_KEY: give both or none",
        ),
        (
            {"SGLANG_S3_ENDPOINT_URL": "minio"},
            "SGLANG_S3_ENDPOINT_URL: must be a URL such as https://host, got 'minio'",
        ),
        (
            {"SGDIFF_S3_PRESIGN_SECONDS": "soon"},
            "SGDIFF_S3_PRESIGN_SECONDS: must be an integer from 1 to 604800, got 'soon'",
        ),
    ],
)
def test_wrong_settings(changes: Mapping[str, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Cloud.from_environment({**VARIABLES, **changes})
    assert caught.value.message == message


def test_without_the_library_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "boto3":
            raise ImportError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NotAvailable) as caught:
        Cloud.from_environment(VARIABLES)
    assert caught.value.message == HINT and "pip install 'sgdiff-app[s3]'" in HINT
