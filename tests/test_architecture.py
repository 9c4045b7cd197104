"""The rules of the house, read from the source: rows, rooms, sizes, a docstring and a test for every module."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Rooms of the engine, a line for each row from 0 up, as DESIGN.md section 1 draws them.
DRAWN = """
    errors schema types config catalog resolve env log yaml_text
    overlay hub remote media fetch urls video clips recipe_file recipe postprocess storage cloud profiler faults \
        settings_text infotext comfy strip editing downloads compare
    attention parallel kernels
    passes cache lora
    stages
    models
    pipeline loader dummy weights
    runtime
    engine worker jobs
"""
ROWS = {room: row for row, line in enumerate(DRAWN.split("\n")[1:]) for room in line.split()}
# Within a row: what is drawn with ->, and each that is not, with its reason. Row 0 and the modules of a room are free.
ARROWS = {
    ("overlay", "hub"),
    ("attention", "parallel"),
    ("attention", "kernels"),
    ("pipeline", "loader"),
    ("loader", "dummy"),  # dummy makes what no file holds
    ("loader", "weights"),  # weights reads what files hold
    ("dummy", "weights"),  # both fill modules that take no memory yet
    ("jobs", "engine"),
    ("jobs", "worker"),  # a queue without a worker hears of its engine in the same words
    ("worker", "engine"),  # the worker is an engine behind a channel
    ("hub", "remote"),  # remote is the network half of hub
    ("downloads", "hub"),  # hub says what a download brings, and fetches it,
    ("downloads", "remote"),  # remote how much of it is here,
    ("downloads", "profiler"),  # and the clock how long it takes
    ("media", "urls"),
    ("fetch", "urls"),  # urls says what may be fetched
    ("media", "fetch"),  # an input image may lie at a URL
    ("media", "video"),  # these two are the halves of media that know ffmpeg
    ("clips", "video"),  # pictures of a video are made of its frames
    ("media", "recipe_file"),  # and the fields of a file
    ("recipe_file", "video"),  # the recipe of an mp4 is an ffmpeg tag
    ("recipe", "hub"),  # a recipe names the folder that made the picture, with its hash
    ("recipe", "media"),  # a recipe is read out of a picture, and records its inputs by their hash
    ("editing", "video"),  # ffmpeg reads and writes frames,
    ("editing", "media"),  # Pillow a GIF file,
    ("editing", "recipe_file"),  # and an edited clip keeps its recipe
    ("strip", "video"),  # ffmpeg copies the streams of a clip
    ("settings_text", "recipe"),  # settings are found in recipes,
    ("settings_text", "recipe_file"),  # in files,
    ("settings_text", "infotext"),
    ("settings_text", "comfy"),  # and in what other programs write
    ("settings_text", "hub"),  # which name adapters that may be here
    ("storage", "media"),  # storage keeps what media encodes
}
# Imports to a higher row, inside a function only: the nouns have doors to what is done with them.
DOORS = {("engine.types", "engine.storage")}  # Output.save

HEAVY = ("torch", "pydantic", "numpy", "PIL", "diffusers", "transformers")
NEVER_FOR_DATA = (*HEAVY[:2], *HEAVY[4:], "gradio", "fastapi", "starlette")
# Loops that must outlive whatever one job or command raises.
BROAD_EXCEPT = (
    "sgdiff_app/cli.py",  # every error becomes one line and an exit status
    "sgdiff_app/generate.py",  # one prompt fails, the next is drawn
    "engine/runtime/scheduler.py",  # one run fails, the others go on
    "engine/worker.py",  # one control call fails, the worker goes on
    "engine/jobs/encoding.py",  # one output cannot be stored, the others are
    "engine/jobs/supervisor.py",  # one worker is lost, the next is started
    "engine/jobs/inline.py",  # one drawing fails, the next begins
    "engine/jobs/listeners.py",  # one door fails, the others hear
    "sgdiff_app/server/gate.py",  # one request fails, the next is answered
)
# profiler measures; faults pauses when a test asks for it. Everything else is told the time by the profiler.
CLOCKS = ("engine/profiler.py", "engine/faults.py")
MODULE_HOLDERS = re.compile(
    r"vae|network|transformer(_\d)?|unet|components?|text_encoders?(_\d)?|image_encoder|module|model|pipeline|pipe|net"
    r"|encoder|decoder|denoiser"
)
UNPICKLERS = ("pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
MAX_FILE, GOOD_FILE, MAX_FUNCTION, GOOD_FUNCTION = 500, 300, 80, 30


@dataclass(frozen=True, eq=False)
class Source:
    """A Python file: where it is, its dotted name, its tree."""

    path: str
    tree: ast.Module
    lines: int

    @functools.cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        return tuple(ast.walk(self.tree))

    @property
    def name(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def room(self) -> str:
        """The first part below the package."""
        return self.name.split(".")[1] if "." in self.name else ""

    def at(self, node: ast.AST) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


@functools.cache
def read(path: Path) -> Source | None:
    """Parse a Python file, or a script without a suffix; None for other files."""
    if path.suffix not in ("", ".py") or not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    if not path.suffix and not re.match(r"#!.*python", text):
        return None
    return Source(path.relative_to(ROOT).as_posix(), ast.parse(text), len(text.splitlines()))


@functools.cache
def sources(*folders: str) -> tuple[Source, ...]:
    """Every Python file below the folders."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts)
    return tuple(source for path in paths if (source := read(path)))


def nodes(tree: ast.AST, deferred: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Yield every node, and whether it waits for a call.

    `if TYPE_CHECKING:` is left out: what stands there is an annotation, is never imported, and draws no arrow.
    """
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield other, deferred
                yield from nodes(other, deferred)
            continue
        inside = deferred or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield child, inside
        yield from nodes(child, inside)


@functools.cache
def imports(source: Source) -> tuple[tuple[ast.AST, str, bool], ...]:
    """What a file imports, see `_imports`; one walk for all rules."""
    return tuple(_imports(source))


def _imports(source: Source) -> Iterator[tuple[ast.AST, str, bool]]:
    """Yield what a file imports: the node, the dotted module, and whether it waits for a call."""
    for node, deferred in nodes(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name, deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            if base in ("engine", "sgdiff_app", "ui"):  # `from engine import hub`: the package itself exports nothing
                yield from ((node, f"{base}.{alias.name}", deferred) for alias in node.names)
            else:
                yield node, base, deferred
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__") and node.args:
            text = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield node, text.value, deferred


def called(call: ast.Call) -> str:
    """The last name of what is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def holder(node: ast.expr) -> str:
    """The last name of an object, through subscripts: `self.components["vae"]` is `components`."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def functions(*folders: str) -> Iterator[tuple[str, int]]:
    """Every function with its place and its length."""
    for source in sources(*folders):
        for node in source.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{source.at(node)} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def nothing(offenders: Iterable[str]) -> None:
    """Fail with one offender a line."""
    found = sorted(set(offenders))
    assert not found, "\n" + "\n".join(found)


def crossings(source: Source) -> Iterator[str]:
    """Yield the imports of an engine module that go up a row, or aside without an arrow."""
    if source.room and source.room not in ROWS:
        yield f"{source.path}: in no row; draw it in DESIGN.md section 1 and in DRAWN"
        return
    row = ROWS.get(source.room, 0)
    for node, target, deferred in imports(source):
        top, _, rest = target.partition(".")
        room = rest.split(".")[0]
        if target.startswith(".") or top in ("ui", "sgdiff_app"):
            yield f"{source.at(node)}: the engine imports {target}"
        if top != "engine" or not rest or room == source.room or ((source.name, target) in DOORS and deferred):
            continue
        if room not in ROWS:
            yield f"{source.at(node)}: imports {target}, which is in no row"
        elif ROWS[room] > row or (ROWS[room] == row > 0 and (source.room, room) not in ARROWS):
            yield f"{source.at(node)}: {source.room} (row {row}) imports {room} (row {ROWS[room]})"


def test_a_row_imports_the_rows_below_it() -> None:
    nothing(line for source in sources("engine") for line in crossings(source))


def test_no_door_upwards_is_unused() -> None:
    used = {(source.name, target) for source in sources("engine") for _, target, _ in imports(source)}
    nothing(f"{low} no longer imports {high}: take it off DOORS" for low, high in DOORS - used)


def test_ui_does_not_import_the_program() -> None:
    nothing(
        f"{source.at(node)}: ui imports {target}"
        for source in sources("ui")
        for node, target, _ in imports(source)
        if target.split(".")[0] == "sgdiff_app"
    )


def test_row_0_imports_nothing_heavy() -> None:
    nothing(
        f"{source.at(node)}: imports {target} at module level"
        for source in sources("engine")
        for node, target, deferred in imports(source)
        if not ROWS.get(source.room, 0) and not deferred and target.split(".")[0] in HEAVY
    )


def test_row_0_loads_nothing_heavy() -> None:
    """Importing it, with whatever its own imports pull in."""
    names = [source.name for source in sources("engine") if not ROWS.get(source.room, 0)]
    code = f"import sys, {', '.join(names)}; print(*sorted(sys.modules.keys() & {set(NEVER_FOR_DATA)!r}))"
    assert len(names) > 6
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split() == []


def test_only_env_reads_the_environment() -> None:
    names = ("environ", "environb", "getenv", "putenv", "unsetenv")
    nothing(
        f"{source.at(node)}: {ast.unparse(node)}"
        for source in sources("engine", "sgdiff_app", "ui")
        for node in source.nodes
        if source.path != "engine/env.py"
        and (
            (isinstance(node, ast.Attribute) and node.attr in names and holder(node.value) == "os")
            or (isinstance(node, ast.ImportFrom) and node.module == "os" and {a.name for a in node.names} & set(names))
        )
    )


def test_web_libraries_stay_in_their_rooms() -> None:
    rooms = {"gradio": "ui/", "fastapi": "sgdiff_app/server/", "starlette": "sgdiff_app/server/"}
    nothing(
        f"{source.at(node)}: imports {target}"
        for source in sources("engine", "sgdiff_app", "ui", "scripts")
        for node, target, _ in imports(source)
        if not source.path.startswith(rooms.get(target.split(".")[0], ""))
    )


def test_stages_and_models_move_and_cast_no_module() -> None:
    """Only passes/ does. `tiny` is not a family: it makes the modules. Tensors follow a reference with `like`."""
    nothing(
        f"{source.at(node)}: {ast.unparse(node)}"
        for source in sources("engine/stages", "engine/models")
        for node in source.nodes
        if not source.path.startswith("engine/models/tiny/")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in ("cuda", "half", "bfloat16")
        or (node.func.attr == "to" and MODULE_HOLDERS.fullmatch(holder(node.func.value).lstrip("_")))
    )


def broad(node: ast.AST) -> bool:
    """Whether a node swallows every exception: an `except`, or `suppress`, of one of the two widest classes."""
    wide = {"Exception", "BaseException"}
    if isinstance(node, ast.ExceptHandler) and node.type is not None:
        return any(isinstance(part, ast.Name) and part.id in wide for part in ast.walk(node.type))
    return isinstance(node, ast.Call) and called(node) == "suppress" and any(holder(arg) in wide for arg in node.args)


def test_no_bare_except() -> None:
    nothing(
        f"{source.at(node)}: except:"
        for source in sources("engine", "sgdiff_app", "ui", "scripts", "tests")
        for node in source.nodes
        if isinstance(node, ast.ExceptHandler) and node.type is None
    )


def test_only_the_loops_catch_everything() -> None:
    nothing(
        f"{source.at(node)}: {ast.unparse(node).splitlines()[0]}"
        for source in sources("engine", "sgdiff_app", "ui")
        for node in source.nodes
        if source.path not in BROAD_EXCEPT and broad(node)
    )


def test_files_are_short() -> None:
    everything = sources("engine", "sgdiff_app", "ui", "scripts", "tests")
    nothing(f"{source.path}: {source.lines} lines" for source in everything if source.lines > MAX_FILE)
    ours = sources("engine", "sgdiff_app")
    long = sorted(f"{source.path}: {source.lines} lines" for source in ours if source.lines >= GOOD_FILE)
    assert len(long) <= 0.2 * len(ours), "\n" + "\n".join(long)


def test_functions_fit_on_a_screen() -> None:
    everything = functions("engine", "sgdiff_app", "ui", "scripts", "tests")
    nothing(f"{place}: {length} lines" for place, length in everything if length > MAX_FUNCTION)
    ours = list(functions("engine", "sgdiff_app", "ui"))
    long = sorted(f"{place}: {length} lines" for place, length in ours if length > GOOD_FUNCTION)
    assert len(long) <= 0.15 * len(ours), "\n" + "\n".join(long)


def opening(source: Source) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(source.tree, clean=False) or "").split("\n")[0].strip()


def test_a_module_opens_with_what_it_is_for() -> None:
    nothing(
        f"{source.path}: {opening(source) or 'no docstring'}"
        for source in sources("engine", "sgdiff_app", "ui", "tests")
        if not opening(source).endswith((".", ":")) or len(opening(source)) > 114  # 120 with the quotes
    )


def mirror(source: Source) -> str:
    """The test module of a module: engine/a/b.py -> tests/engine/a/test_b.py, a package's own code -> test_init.py."""
    path = Path(source.path)
    name = "init" if path.stem == "__init__" else path.stem
    return f"tests/{path.parent.as_posix()}/test_{name}.py"


def test_a_module_has_a_test_module() -> None:
    nothing(
        f"{source.path}: no {mirror(source)}"
        for source in sources("engine", "sgdiff_app")
        if len(source.tree.body) > 1
        and not source.path.endswith("__main__.py")
        and not source.path.startswith("engine/models/tiny/")  # its own test makes every model there is
        and not (ROOT / mirror(source)).exists()
    )


def test_only_the_profiler_knows_the_time() -> None:
    nothing(
        f"{source.at(node)}: imports {target}"
        for source in sources("engine")
        for node, target, _ in imports(source)
        if target == "time" and source.path not in CLOCKS
    )


def unsafe(node: ast.AST) -> bool:
    """Whether a node runs or unpickles what a file says."""
    if isinstance(node, ast.Call):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if keywords.get("allow_pickle") == "True" or keywords.get("weights_only") == "False":
            return True
        return isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec")
    if isinstance(node, ast.Attribute):
        return node.attr == "load" and holder(node.value) == "torch"
    return isinstance(node, ast.ImportFrom) and node.module == "torch" and any(a.name == "load" for a in node.names)


def test_nothing_is_unpickled_or_executed() -> None:
    nothing(
        f"{source.at(node)}: {ast.unparse(node)}"
        for source in sources("engine", "sgdiff_app", "ui")
        for node in source.nodes
        if unsafe(node)
    )
    nothing(
        f"{source.at(node)}: imports {target}"
        for source in sources("engine", "sgdiff_app", "ui")
        for node, target, _ in imports(source)
        if target.split(".")[0] in UNPICKLERS
    )


def tracked() -> list[str]:
    """The files of the project: those of git, or all of an unpacked archive."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode == 0:
        return [name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]
    return [source.path for source in sources("engine", "sgdiff_app", "ui", "scripts", "tests")]


def test_no_file_names_the_machine_it_was_written_on() -> None:
    """Paths of somebody's machine, and hosts that packages came from."""
    private = re.compile(
        r"(?<![\w.])/(?:home|Users|root|work)/[\w.][\w./-]*"
        r"|file:///\w[\w./-]*"
        r"|https?://[\w.-]*(?:artifactory|nexus|jfrog|devpi|mirror|registry)[\w.:-]*"
        r"|https?://[\w.:/@-]+/simple\b"
    )
    here = re.compile(re.escape(str(ROOT)) + r"\b") if len(ROOT.parts) > 2 else private
    found = []
    for name in tracked():
        raw = (ROOT / name).read_bytes()
        if b"\0" in raw[:8192] or name == "LICENSE":
            continue
        for number, line in enumerate(raw.decode("utf-8", errors="replace").splitlines(), 1):
            found += [f"{name}:{number}: {m.group()}" for pattern in (private, here) for m in pattern.finditer(line)]
    nothing(found)
