"""One holder at a time, until it closes or its process ends."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from engine.jobs import lock
from engine.jobs.lock import Lock

HOLDER = """
import sys
from pathlib import Path
from engine.jobs.lock import Lock
held = Lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    first = Lock(tmp_path / "x")
    with pytest.raises(BlockingIOError):
        Lock(tmp_path / "x")
    first.close()
    Lock(tmp_path / "x").close()


def test_another_process_holds_it_until_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "x")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError):
            Lock(tmp_path / "x")
        process.kill()
        process.wait()
    Lock(tmp_path / "x").close()


def test_a_file_system_without_locks_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lacking(number: int) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(lock, "_take", lacking)
    Lock(tmp_path / "x").close()
    assert "has no locks" in caplog.text
