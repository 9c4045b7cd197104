"""Cloud storage behind `generate` and the jobs of a server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engine.storage_server import S3Server

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def storage() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


@pytest.fixture
def _uploads(storage: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in storage.variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def draw(cli: Cli, flux_folder: Path) -> Cli:
    words = ("generate", "--model-path", flux_folder, "--size", "32x32", "--steps", "1", "--prompt", "x")
    return lambda *more: cli(*words, *more)


@pytest.mark.usefixtures("_uploads")
def test_generate_prints_the_url_instead_of_the_path(draw: Cli) -> None:
    answer = draw("--output-file-name", "here.png")
    assert answer.status == 0
    assert httpx.get(answer.out.strip()).content == Path("outputs/here.png").read_bytes()
    entry = json.loads(draw("--output-file-name", "there.png", "--json").out)["outputs"][0]
    assert entry["path"] == "outputs/there.png" and httpx.get(entry["url"]).status_code == 200


@pytest.mark.usefixtures("_uploads")
def test_generate_keeps_the_file_when_the_upload_fails(draw: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_S3_BUCKET_NAME", "nowhere")
    answer = draw("--output-file-name", "kept.png")
    assert (answer.status, answer.out.strip()) == (0, "outputs/kept.png")
    assert "warning: the upload to cloud storage failed: NoSuchBucket; the file stays here: outputs/kept.png" in (
        answer.err
    )
    assert Path("outputs/kept.png").exists()


@pytest.mark.parametrize("words", [("generate", "--prompt", "x"), ("serve", "--headless", "--port", "0")])
def test_a_missing_bucket_is_refused_at_the_start(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("SGDIFF_CLOUD_STORAGE_TYPE", "s3")
    more = ("--data-dir", "data") if words[0] == "serve" else ()
    message = refused(*words, *more)
    assert message == "SGLANG_S3_BUCKET_NAME: required with SGDIFF_CLOUD_STORAGE_TYPE=s3"
    assert not list(Path().rglob("*.sqlite3"))
