"""Settings of this program alone, described like those of the engine: prompts, outputs, the server, the command."""

# No annotations as text here: evaluating two hundred of them would take a sixth of a help page.

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from engine.schema import Ge, Le, MaxLen, Opt
from engine.types import OUTPUT, PROFILING, SAMPLING

LOADING, COMPILE, SERVER, PROGRAM = "Model and loading", "Compile, graphs, warm-up", "Server", "Program"
MB = 10**6  # bytes, in every setting that ends in _mb
Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """What to draw, before it is split into one request per prompt."""

    prompt: Annotated[
        tuple[Annotated[str, MaxLen(32_000)], ...] | None,
        Opt("What to draw; several prompts run one after another", SAMPLING, metavar="TEXT"),
    ] = None
    prompt_path: Annotated[
        str | None, Opt("File with one prompt per line; excludes --prompt", SAMPLING, aliases=("prompt_file_path",))
    ] = None
    size: Annotated[str | None, Opt("Width and height in one", SAMPLING, metavar="WxH")] = None


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where results go."""

    output_path: Annotated[str, Opt("Folder, created when missing", OUTPUT)] = "outputs/"
    output_file_name: Annotated[str | None, Opt("File name, kept as typed", OUTPUT, metavar="NAME")] = None
    output_file_path: Annotated[str | None, Opt("Folder and name in one; excludes the other two", OUTPUT)] = None
    save_output: Annotated[bool, Opt("Write files; --no-save-output for timing runs", OUTPUT)] = True
    return_frames: Annotated[bool, Opt("Also write the raw frames as <name>.npy", OUTPUT)] = False
    perf_dump_path: Annotated[str | None, Opt("Write the timings to this JSON file", PROFILING)] = None


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """What goes to stderr."""

    log_level: Annotated[Level, Opt("Least important level that is shown", PROGRAM)] = "info"
    log_format: Annotated[
        Literal["text", "json"] | None, Opt("Default: text, but json for a server without a terminal", PROGRAM)
    ] = None


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """How the command itself behaves: settings like all others, but `config` cannot stand in a config file."""

    config: Annotated[str | None, Opt("Config file, .json or .yaml", PROGRAM, metavar="FILE")] = None
    print_config: Annotated[bool, Opt("Print every setting with its origin, load nothing", PROGRAM)] = False
    dry_run: Annotated[bool, Opt("Check everything, print the plan and the download size", PROGRAM)] = False
    json: Annotated[bool, Opt("Machine-readable result on stdout", PROGRAM)] = False


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """Running an output again."""

    from_file: Annotated[str | None, Opt("Run again what made this picture or video", PROGRAM, metavar="FILE")] = None


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """How often `bench` repeats its request."""

    repeat: Annotated[int, Ge(1), Opt("Measured runs", "Benchmark", later=True)] = 5
    warmup_runs: Annotated[int, Ge(0), Opt("Runs before them", "Benchmark", later=True)] = 1


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Network, queue and HTTP settings of `serve`; `generate` accepts and ignores them."""

    served_model_name: Annotated[str | None, Opt("Name shown by the API", SERVER)] = None
    model_alias: Annotated[tuple[str, ...] | None, Opt("Further names that a request's model may use", SERVER)] = None
    host: Annotated[str, Opt("Address; others than loopback need a key", SERVER)] = "127.0.0.1"
    port: Annotated[int, Ge(0), Le(65535), Opt("Port", SERVER)] = 30000
    strict_ports: Annotated[bool | None, Opt("Fail when the port is taken; default with --headless", SERVER)] = None
    headless: Annotated[bool, Opt("API only, no UI", SERVER)] = False
    webui: Annotated[bool | None, Opt("--webui false = --headless", SERVER)] = None
    webui_port: Annotated[int | None, Ge(0), Le(65535), Opt("Accepted; there is one port", SERVER)] = None
    root_path: Annotated[str, Opt("Prefix behind a reverse proxy", SERVER)] = ""
    public_base_url: Annotated[str | None, Opt("Base of absolute URLs", SERVER)] = None
    api_key: Annotated[
        tuple[str, ...] | None, Opt("Accepted keys; prefer the file", SERVER, env=("SGDIFF_API_KEY",))
    ] = None
    api_key_file: Annotated[str | None, Opt("File with one key per line", SERVER)] = None
    insecure_no_auth: Annotated[bool, Opt("Allow any address without a key", SERVER)] = False
    cors_origins: Annotated[tuple[str, ...] | None, Opt("Origins browsers may call from", SERVER)] = None
    allowed_hosts: Annotated[tuple[str, ...] | None, Opt("Accepted Host headers", SERVER)] = None
    model_switch: Annotated[bool, Opt("Let requests switch the model", SERVER)] = True
    input_save_path: Annotated[str, Opt('Uploaded inputs; "" keeps none', SERVER)] = "inputs/uploads"
    data_dir: Annotated[str | None, Opt("Job database and gallery index", SERVER)] = None
    output_ttl: Annotated[str | None, Opt("Delete outputs after this time, e.g. 24h", SERVER)] = None
    requeue_on_restart: Annotated[bool, Opt("Run interrupted jobs again", SERVER)] = False
    max_queue: Annotated[int, Ge(1), Opt("Waiting jobs before 429", SERVER)] = 64
    max_running: Annotated[int | None, Ge(1), Opt("Jobs whose steps may interleave", SERVER)] = None
    job_timeout: Annotated[str | None, Opt("Longest run of one job", SERVER)] = None
    ready_timeout: Annotated[str, Opt("Wait of a request for a loading model", SERVER)] = "120s"
    max_body_mb: Annotated[int, Ge(1), Opt("Largest request body", SERVER)] = 256
    max_image_mb: Annotated[int, Ge(1), Opt("Largest input image", SERVER)] = 50
    max_input_megapixels: Annotated[int, Ge(1), Opt("Largest decoded input image", SERVER)] = 64
    disable_url_inputs: Annotated[bool, Opt("Refuse http(s) inputs", SERVER)] = False
    url_allow_hosts: Annotated[tuple[str, ...] | None, Opt("Hosts exempt from the address and port rules", SERVER)] = (
        None
    )
    lora_allowed_dirs: Annotated[
        tuple[str, ...] | None, Opt("Folders from which clients may load LoRA files", SERVER)
    ] = None
    enable_profile_api: Annotated[bool, Opt("Allow profiling in requests", SERVER, later=True)] = False
    webhook_url: Annotated[tuple[str, ...] | None, Opt("Completion webhooks", SERVER)] = None
    webhook_secret: Annotated[str | None, Opt("Signs webhooks; prefer the variable", SERVER)] = None
    http_graceful_shutdown_timeout: Annotated[int, Ge(0), Opt("Seconds that running jobs get to finish", SERVER)] = 60
    batching_max_size: Annotated[
        int, Ge(1), Opt("Runs that may share one forward; may change rounding", SERVER, later=True)
    ] = 1
    batching_delay_ms: Annotated[float, Ge(0), Opt("Wait to fill a batch", SERVER, later=True)] = 0.0
    batching_mode: Annotated[Literal["dynamic"], Opt("The only mode", SERVER, later=True)] = "dynamic"
    batching_config: Annotated[
        dict[str, Any], Opt("Caps by model, resolution, memory", SERVER, later=True, metavar="JSON")
    ] = field(default_factory=dict)
    log_requests: Annotated[bool, Opt("Log each request", SERVER)] = False
    log_requests_level: Annotated[int, Ge(0), Le(3), Opt("Detail; prompts from 2", SERVER)] = 2
    uvicorn_access_log_exclude_prefixes: Annotated[
        tuple[str, ...] | None, Opt("Paths left out of the access log", SERVER)
    ] = None
    enable_metrics: Annotated[bool, Opt("Prometheus metrics", SERVER)] = False
    metrics_namespace: Annotated[Literal["sgdiff", "sglang"], Opt("Prefix of their names", SERVER)] = "sgdiff"
    enable_trace: Annotated[bool, Opt("OpenTelemetry traces", SERVER, later=True)] = False
    otlp_traces_endpoint: Annotated[str, Opt("Where they go", SERVER, later=True, metavar="HOST:PORT")] = (
        "localhost:4317"
    )
    open_browser: Annotated[bool | None, Opt("Open the UI; default at a desktop", SERVER)] = None
    window: Annotated[bool, Opt("Open it in a window of its own", SERVER)] = False


class Shorthand(NamedTuple):
    """A switch that stands for a value of another setting; `off` is the value when it is switched off."""

    target: str
    on: str
    off: str | None
    topic: str
    letter: str = ""


SHORTHANDS = {
    "720p": Shorthand("size", "1280x720", None, SAMPLING),
    "1080p": Shorthand("size", "1920x1080", None, SAMPLING),
    "2k": Shorthand("size", "2560x1440", None, SAMPLING),
    "4k": Shorthand("size", "3840x2160", None, SAMPLING),
    "warmup": Shorthand("warmup_mode", "request", "off", COMPILE),
    "quiet": Shorthand("log_level", "warning", None, PROGRAM, "q"),
    "verbose": Shorthand("log_level", "debug", None, PROGRAM, "v"),
}
SECRETS = ("api_key", "webhook_secret")
