"""What the server adds to the time of the engine: many small requests at a model that computes nothing.

    .venv/bin/python scripts/bench/serve.py [--soak]

Server, worker and clients share the cores of this machine. Two loads take turns: 32 clients that each send a request as
soon as the last one is answered (so that the latency is the number of clients by the rate), and the same clients at 300
requests a second in all. Latencies are told as they are, and without the engine's own times, which every answer tells:
`queue_time_s` (waiting for a turn of the worker) and `inference_time_s`. --soak has 200
clients for 60 seconds at a queue of 64, and looks at every accepted id afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

CONNECTIONS, SECONDS, ROUNDS, RATE = 32, 10.0, 3, 300.0
SOAK_CLIENTS, SOAK_SECONDS = 200, 60.0
BODY = json.dumps({"prompt": "a boat", "size": "64x64", "seed": 1, "num_inference_steps": 1}).encode()
POST = (
    b"POST /v1/images/generations HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    b"content-length: " + str(len(BODY)).encode() + b"\r\n\r\n" + BODY
)


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, bytes]:
    """Send a request on a connection that stays open; return status and body."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    return int(lines[0].split()[1]), await reader.readexactly(length)


async def client(port: int, end: float, found: list[tuple[int, float, float]], ids: list[str], pace: float) -> None:
    """Send one request after another until `end`; note status, latency and what of it was the engine's.

    With a pace, a request is due every so many seconds, and its latency counts from then.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    due = time.perf_counter() + random.random() * pace
    while time.perf_counter() < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()) if pace else 0)
        start = due if pace else time.perf_counter()
        due += pace
        status, body = await exchange(reader, writer, POST)
        elapsed, engine = time.perf_counter() - start, 0.0
        if status == 200:
            answer = json.loads(body)
            engine = answer["inference_time_s"] + answer["queue_time_s"]
            ids.append(answer["id"])
        else:
            await asyncio.sleep(0.05)
        found.append((status, elapsed, engine))
    writer.close()


async def load(
    port: int, connections: int, seconds: float, rate: float = 0.0
) -> tuple[list[tuple[int, float, float]], list[str], float]:
    """Load the server, as much as it takes or at so many requests a second.

    Returns what was found, the ids that were answered, and the seconds it took.
    """
    found: list[tuple[int, float, float]] = []
    ids: list[str] = []
    start, pace = time.perf_counter(), connections / rate if rate else 0.0
    await asyncio.gather(*(client(port, start + seconds, found, ids, pace) for _ in range(connections)))
    return found, ids, time.perf_counter() - start


def summary(found: list[tuple[int, float, float]], seconds: float) -> dict[str, Any]:
    """Return rate and latencies, in milliseconds."""
    done = [(latency * 1000, (latency - engine) * 1000) for status, latency, engine in found if status == 200]
    latencies, above = ([row[i] for row in done] for i in (0, 1))
    return {
        "per_second": round(len(done) / seconds, 1),
        "latency_p50_ms": round(statistics.median(latencies), 2),
        "above_engine_p50_ms": round(statistics.median(above), 2),
        "above_engine_p99_ms": round(statistics.quantiles(above, n=100)[-1], 2),
        "statuses": dict(collections.Counter(str(status) for status, *_ in found)),
    }


async def jobs(port: int, ids: list[str]) -> dict[str, int]:
    """Return how many of the accepted jobs are in which state."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    states: collections.Counter[str] = collections.Counter()
    for job in ids:
        request = f"GET /v1/jobs/{job} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()
        status, body = await exchange(reader, writer, request)
        states[json.loads(body)["status"] if status == 200 else str(status)] += 1
    for state in ("queued", "running"):
        request = f"GET /v1/jobs?status={state} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()
        _, body = await exchange(reader, writer, request)
        states[f"still {state}"] = len(json.loads(body)["data"])
    writer.close()
    return dict(states)


def server(folder: Path, *flags: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start the server in a process of its own, with the null worker; return it and its port when it is ready."""
    code = (
        "import sys; from engine.jobs import child; from sgdiff_app import cli; "
        f"child.COMMAND = (sys.executable, {str(Path(__file__).parent / 'null_worker.py')!r}); "
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    argv = ["serve", "--headless", "--port", "0", "--data-dir", str(folder / "data")]
    argv += ["--output-path", str(folder / "outputs"), "--log-format", "text", *flags]
    errors = folder / "stderr"
    with errors.open("w") as file:
        process = subprocess.Popen([sys.executable, "-c", code, *argv], stderr=file, cwd=ROOT)
    while (found := re.search(r"http://[^:\s]+:(\d+)", errors.read_text())) is None:
        assert process.poll() is None, errors.read_text()
        time.sleep(0.1)
    port = int(found[1])
    asyncio.run(ready(port))
    return process, port


async def ready(port: int) -> None:
    """Wait until the server can draw."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (await exchange(reader, writer, b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"))[0] != 200:
        await asyncio.sleep(0.2)
    writer.close()


def cpu_s(process: subprocess.Popen[bytes]) -> list[float]:
    """Return the processor seconds of the server and of its worker so far."""
    import psutil

    server_process = psutil.Process(process.pid)
    return [sum(each.cpu_times()[:2]) for each in (server_process, *server_process.children())]


def main() -> None:
    """Measure, print and store."""
    import common

    parser = argparse.ArgumentParser()
    parser.add_argument("--soak", action="store_true")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"size": "64x64", "format": "png", "connections": CONNECTIONS}
    with tempfile.TemporaryDirectory() as folder:
        process, port = server(Path(folder))
        try:
            asyncio.run(load(port, 4, 2.0))
            found, _, seconds = asyncio.run(load(port, 1, SECONDS / 2))
            result["one_connection"] = summary(found, seconds)
            rounds: dict[str, list[dict[str, Any]]] = {"as_fast_as_it_goes": [], "at_a_pace": []}
            for _ in range(ROUNDS):
                for name, rate in (("as_fast_as_it_goes", 0.0), ("at_a_pace", RATE)):
                    before = cpu_s(process)
                    found, _, seconds = asyncio.run(load(port, CONNECTIONS, SECONDS, rate))
                    spent = [(after - then) * 1000 for after, then in zip(cpu_s(process), before, strict=True)]
                    row = summary(found, seconds)
                    done = row["statuses"]["200"]
                    row |= {"server_cpu_ms": round(spent[0] / done, 2), "worker_cpu_ms": round(spent[1] / done, 2)}
                    rounds[name].append(row)
            result |= {"rate": RATE, **rounds}
            if arguments.soak:
                found, ids, seconds = asyncio.run(load(port, SOAK_CLIENTS, SOAK_SECONDS))
                result["soak"] = {**summary(found, seconds), "clients": SOAK_CLIENTS, "seconds": round(seconds, 1)}
                result["soak"]["jobs"] = asyncio.run(jobs(port, ids))
        finally:
            process.terminate()
            process.wait(30)
    common.store("serve", result)


if __name__ == "__main__":
    main()
