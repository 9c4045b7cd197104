"""`serve`: from settings to a running server; drains on the first signal, ends at once on the second."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import log
from engine.config import EngineConfig
from engine.env import Environment
from engine.errors import Cancelled, SgdiffError, UsageError, WorkerDied
from engine.jobs import JobQueue, JobStore, served
from engine.jobs.delivery import Delivery
from engine.jobs.queue import QueueOptions
from sgdiff_app import desktop
from sgdiff_app.config import Settings
from sgdiff_app.options import OutputOptions, ServerOptions

if TYPE_CHECKING:
    import uvicorn

    from sgdiff_app.server.gate import Gate
    from sgdiff_app.server.service import Service

logger = log.get(__name__)
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
PORTS = 100  # so many ports are tried when the first is taken and need not be this one
BACKLOG = 2048  # connections that wait to be accepted
IDLE_S = 75  # longer than clients keep idle connections, so that none is closed while a request is on its way
CLOSING_S = 5  # what streams get to end once nothing runs any more
LOOK_S = 0.1  # between two looks at whether the model could be loaded


def duration(text: str, where: str) -> float:
    """Return the seconds of a duration such as 90, 90s, 15m, 24h. Raises UsageError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", text.strip())
    if found is None:
        raise UsageError(f"{where}: must be a duration such as 90s, 15m or 24h, got '{text}'", param=where)
    return float(found[1]) * UNITS[found[2] or "s"]


def is_headless(options: ServerOptions) -> bool:
    """Say whether the API alone is wanted."""
    return options.headless or options.webui is False


def limits_of(options: ServerOptions) -> QueueOptions:
    """Return the limits of the queue. Raises UsageError."""
    return QueueOptions(
        max_queue=options.max_queue,
        max_running=options.max_running,
        job_timeout_s=duration(options.job_timeout, "job_timeout") if options.job_timeout else None,
        output_ttl_s=duration(options.output_ttl, "output_ttl") if options.output_ttl else None,
        requeue=options.requeue_on_restart,
    )


def check(settings: Settings) -> tuple[str, ...]:
    """Refuse what a server refuses to start with; return the keys that it accepts. Raises UsageError."""
    from sgdiff_app.server import access, origins, webhooks

    options = settings.noun(ServerOptions)
    if options.headless and options.webui:
        raise UsageError("webui: contradicts --headless", param="webui")
    keys = access.keys_of(options)
    if not keys and not options.insecure_no_auth and not origins.is_loopback(options.host.strip("[]").lower()):
        message = (
            f"host: {options.host} can be reached from other machines: set a key with --api-key-file or "
            "SGDIFF_API_KEY, or allow everybody in with --insecure-no-auth"
        )
        raise UsageError(message, param="host")
    origins.origins_of(options)
    limits_of(options)
    duration(options.ready_timeout, "ready_timeout")
    webhooks.of_options(options)
    desktop.front_of(settings, data_of(options))
    return keys


def data_of(options: ServerOptions) -> Path:
    """Return the folder of the job database."""
    import platformdirs

    return Path(options.data_dir or platformdirs.user_data_path("sgdiff", appauthor=False)).expanduser()


def build(settings: Settings, environment: Environment, command: tuple[str, ...] | None = None) -> Service:
    """Return the service that settings describe; nothing is started. Raises UsageError and OutputError."""
    import tempfile

    from engine.cloud import Cloud
    from engine.jobs.child import COMMAND
    from sgdiff_app.server import webhooks
    from sgdiff_app.server.access import Access
    from sgdiff_app.server.metrics import Metrics
    from sgdiff_app.server.service import Service

    keys = check(settings)
    options, output = settings.noun(ServerOptions), settings.noun(OutputOptions)
    metrics = Metrics(options.metrics_namespace) if options.enable_metrics else None
    hooks = webhooks.of_options(options)
    data = data_of(options)
    folder = Path(output.output_path).expanduser() if output.output_path else None
    if folder is not None and not is_headless(options) and data.resolve().is_relative_to(folder.resolve()):
        message = f"data_dir: {data} lies in the output folder {folder}, whose files the page serves; choose another"
        raise UsageError(message, param="data_dir")
    cloud = Cloud.from_environment()
    store = JobStore(data / "jobs.sqlite3")
    scratch = Path(tempfile.mkdtemp(prefix="sgdiff-"))
    queue = JobQueue(
        settings.noun(EngineConfig),
        environment,
        store,
        Delivery(folder, scratch, cloud),
        limits_of(options),
        command or COMMAND,
    )
    ready = duration(options.ready_timeout, "ready_timeout")
    if hooks is not None:
        queue.observers.append(hooks.hear)
    if metrics is not None:
        metrics.watch(queue)
    return Service(
        queue,
        options,
        environment,
        data,
        ready_timeout_s=ready,
        webhooks=hooks,
        access=Access(keys),
        metrics=metrics,
    )


def run(settings: Settings, environment: Environment) -> int:
    """Serve until told to stop; return the exit status. Raises SgdiffError, before anything listens or when it ends."""
    options = settings.noun(ServerOptions)
    service = build(settings, environment)
    try:
        if service.queue.spec is None:  # say at once what is wrong, where no worker is needed to find it
            served.described(service.queue.served, environment, strict=True)
        from sgdiff_app.server.app import create

        listening = listen(options)
        if options.webui_port is not None:
            logger.info("--webui-port: there is one port for everything, %d", listening.getsockname()[1])
        with asyncio.Runner(loop_factory=_loop()) as runner:
            runner.run(_serve(create(service), service, listening, desktop.front_of(settings, service.data)))
    finally:
        service.queue.close()
    return 0


def listen(options: ServerOptions) -> socket.socket:
    """Return a socket that listens, on the next free port if the first need not be the one. Raises SgdiffError."""
    strict = is_headless(options) if options.strict_ports is None else options.strict_ports
    tries = 1 if strict or options.port == 0 else PORTS
    for port in range(options.port, min(options.port + tries, 1 << 16)):
        try:
            return _bound(options.host.strip("[]"), port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                message = f"host: cannot listen on {options.host}, port {port}: {error.strerror}"
                raise SgdiffError(message, code="address_not_available") from error
    hint = "--no-strict-ports takes the next free one" if strict else f"and so are the {tries - 1} after it"
    raise SgdiffError(f"port: {options.port} is taken on {options.host}; {hint}", code="port_taken")


def _bound(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def url_of(host: str, listening: socket.socket) -> str:
    """Return the URL under which this machine reaches a socket."""
    from sgdiff_app.server.origins import LOOPBACK, WILDCARDS

    name = host.strip("[]")
    name = LOOPBACK if name in WILDCARDS else f"[{name}]" if ":" in name else name
    return f"http://{name}:{listening.getsockname()[1]}"


async def _serve(gate: Gate, service: Service, listening: socket.socket, front: desktop.Front) -> None:
    """Listen, load, serve; drain when told to stop. Raises SgdiffError when the model or the window does not come."""
    options = service.options
    stopping = _signals(service)
    service.queue.start()  # first: the model takes the longest
    server = _server(gate)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    url = url_of(options.host, listening) + gate.root
    logger.info("%s: listening on %s", service.name, url)
    shown, stopped = asyncio.create_task(front.show(f"{url}/")), asyncio.create_task(stopping.wait())
    ends: list[asyncio.Task[Any]] = [shown, stopped]
    if is_headless(options):  # else the page says why, and another model can be chosen there
        ends.append(asyncio.create_task(_load_failure(service)))
    with contextlib.ExitStack() as page:
        if not is_headless(options):
            page.enter_context(desktop.told(service.data, f"{url}/", service.instance))
        done, _ = await asyncio.wait((serving, *ends), return_when=asyncio.FIRST_COMPLETED)
    if done & {shown, stopped}:
        why = "" if stopping.is_set() else " the window is closed;"
        logger.info("stopping:%s what runs has %d s to finish", why, options.http_graceful_shutdown_timeout)
    with ThreadPoolExecutor(1) as own:  # the threads of requests may all be taken
        await asyncio.get_running_loop().run_in_executor(
            own, service.queue.drain, float(options.http_graceful_shutdown_timeout)
        )
    if service.webhooks is not None:
        await service.aside(service.webhooks.close)
    server.should_exit = True
    await serving
    for task in ends:
        task.cancel()
    for failure in (task.exception() or task.result() for task in done):
        if isinstance(failure, SgdiffError):
            raise failure


def _server(gate: Gate) -> uvicorn.Server:
    import uvicorn

    from sgdiff_app.server.protocol import Protocol

    class Server(uvicorn.Server):
        """Leaves the signals to this program."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Server(
        uvicorn.Config(
            gate,
            http=Protocol,
            log_config=None,
            lifespan="on",
            access_log=False,
            server_header=False,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=CLOSING_S,
        )
    )


def _signals(service: Service) -> asyncio.Event:
    """Return what the first signal sets; a second one ends the process at once, and the worker with it."""
    stopping = asyncio.Event()

    def told() -> None:
        if stopping.is_set():
            child = service.queue.supervisor.child
            if child is not None:
                child.process.kill()
            shutil.rmtree(service.queue.delivery.scratch, ignore_errors=True)
            os._exit(Cancelled.exit_status)
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told)
    return stopping


async def _load_failure(service: Service) -> SgdiffError | None:
    """Return why the model that the server was started with cannot be loaded; None once it is."""
    supervisor = service.queue.supervisor
    while supervisor.health != "ready":
        if supervisor.given_up:
            return supervisor.reason or WorkerDied(supervisor.error, final=True)
        await asyncio.sleep(LOOK_S)
    await asyncio.Event().wait()
    return None


def _loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the event loop: uvloop where there is one, which is not on Windows."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
