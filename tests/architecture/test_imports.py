"""The arrows of the house: which room may import what. Read from the source, not from a running process."""

import ast
import importlib.metadata
import inspect
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from caopd import errors

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "caopd"
HEAVY = {"torch", "lightning", "pytorch_lightning", "transformers", "vllm", "torchmetrics"}
LIGHT_ROOMS = ["types", "reading", "confidence", "prompts", "verifiers", "tasks", "methods"]
LIGHT_UNTIL_CALLED = [
    *(*LIGHT_ROOMS, "errors", "seeds", "cli", "files", "texts", "run_directory"),
    *("rounds.config", "rounds.statistics", "rounds.samples", "rounds.diagnostics", "rounds.buffer", "rounds.phases"),
    *("commands.command_line", "commands.outputs", "metrics.catalogue", "vllm_host.guard", "vllm_host.folders"),
]
MAX_LINES_OF_FILE, MAX_LINES_OF_FUNCTION = 400, 60


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree_of(module):
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def import_nodes(node, with_functions):
    """Import statements that run: not under TYPE_CHECKING, and on request not those inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif is_type_checking(child):
            for other in child.orelse:
                yield from import_nodes(other, with_functions)
        elif with_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from import_nodes(child, with_functions)


@cache
def imported(module, with_functions=True):
    """Names that a module imports, as ``package.module`` where that is one of ours."""
    names = set()
    for node in import_nodes(tree_of(module), with_functions):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, f"{module}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in MODULES else node.module)
    return frozenset(names)


@cache
def own_closure(module, with_functions=False):
    """Our modules that importing ``module`` runs, itself and parent packages included."""
    seen, waiting = set(), [module]
    while waiting:
        current = waiting.pop()
        if current in seen or current not in MODULES:
            continue
        seen.add(current)
        waiting += [current.rpartition(".")[0], *imported(current, with_functions)]
    return frozenset(seen - {""})


def outside(module, with_functions=False):
    """Top-level packages outside ours that importing ``module`` imports, with the module that does it."""
    return {
        name.partition(".")[0]: current
        for current in own_closure(module, with_functions)
        for name in imported(current, with_functions)
        if not name.startswith("caopd")
    }


def in_room(room):
    return [name for name in MODULES if name == f"caopd.{room}" or name.startswith(f"caopd.{room}.")]


def test_the_reader_of_imports_sees_them():
    """The checks below would pass on a reader that sees nothing."""
    assert "torch" in outside("caopd.losses")
    assert "transformers" in outside("caopd.rollouts")
    assert "caopd.types" in own_closure("caopd.methods.caopd")
    assert "matplotlib" not in outside("caopd.plots.reliability")
    assert "matplotlib" in outside("caopd.plots.reliability", with_functions=True)
    assert "caopd.training.lightning_cli" not in own_closure("caopd.cli")
    assert "caopd.training.lightning_cli" in own_closure("caopd.cli", with_functions=True)


@pytest.mark.parametrize("room", LIGHT_UNTIL_CALLED)
def test_rules_and_texts_import_nothing_heavy(room):
    modules = in_room(room)
    assert modules, f"no such room: {room}"
    for module in modules:
        found = outside(module)
        assert not HEAVY & set(found), {name: found[name] for name in HEAVY & set(found)}


@pytest.mark.parametrize("room", LIGHT_ROOMS)
def test_rules_and_texts_import_nothing_heavy_later_either(room):
    for module in in_room(room):
        assert not HEAVY & set(outside(module, with_functions=True)), module


ROOMS = {name.split(".")[1] for name in MODULES if name.count(".") >= 1}
MATHS_MAY_USE = {
    "losses": {"losses", "errors"},
    "metrics": {"metrics", "plots", "files", "texts", "errors"},
    "plots": {"plots", "files", "metrics", "texts", "errors"},
}


@pytest.mark.parametrize("room", MATHS_MAY_USE)
def test_the_maths_knows_no_tokenizer_task_or_method(room):
    for module in in_room(room):
        closure = own_closure(module, with_functions=True)
        used = {name.split(".")[1] for name in closure if "." in name}
        assert used <= MATHS_MAY_USE[room], module
        assert not {"transformers", "tokenizers", "datasets", "lightning"} & set(outside(module, True)), module


MAX_LOOSE_MODULES, MAX_ROOMS, MAX_IMPORTS_BETWEEN_ROOMS = 10, 24, 100
MAY_USE = {
    "errors": "",
    "types": "",
    "seeds": "",
    "files": "errors",
    "texts": "errors",
    "run_directory": "errors types",
    "distributed": "errors",
    "prompts": "types",
    "reading": "types",
    "confidence": "errors reading types",
    "metrics": "errors",
    "plots": "errors files metrics texts",
    "losses": "errors",
    "methods": "errors reading types",
    "verifiers": "confidence errors files reading types",
    "tasks": "confidence errors reading texts types verifiers",
    "models": "confidence errors prompts tasks",
    "vllm_host": "errors",
    "rollouts": "distributed errors models reading types vllm_host",
    "rounds": "confidence distributed errors files losses methods models prompts reading rollouts seeds tasks types"
    " verifiers",
    "evaluation": "errors methods metrics models rollouts rounds seeds tasks types verifiers",
    "commands": "confidence errors files metrics models plots rounds run_directory texts types verifiers",
    "training": "commands confidence distributed errors evaluation files losses methods metrics models plots prompts"
    " rollouts rounds run_directory seeds tasks texts types verifiers",
    "cli": "commands texts training",
}
"""Room by room, from the bottom to the top, what it imports; a room imports only rooms above it in this list."""


def rooms_used_by(room):
    names = {name for module in in_room(room) for name in imported(module) if name.startswith("caopd.")}
    return {name.split(".")[1] for name in names} - {room}


def test_rooms_import_what_this_list_says_and_all_of_it_is_below_them():
    assert set(MAY_USE) == ROOMS - {"__main__"}
    below = set()
    for room, used in MAY_USE.items():
        assert rooms_used_by(room) == set(used.split()), room
        assert set(used.split()) <= below, room
        below.add(room)


def test_the_house_stays_small():
    loose = [name for name in ROOMS if f"caopd.{name}" in MODULES and MODULES[f"caopd.{name}"].name != "__init__.py"]
    loose.remove("__main__")
    imports = sum(len(rooms_used_by(room)) for room in MAY_USE)
    print(f"{len(MAY_USE)} rooms, {len(loose)} of them loose modules; {imports} imports between rooms")
    assert len(loose) <= MAX_LOOSE_MODULES
    assert len(MAY_USE) <= MAX_ROOMS
    assert imports <= MAX_IMPORTS_BETWEEN_ROOMS


def test_unit_tests_mirror_the_package():
    unit = ROOT / "tests" / "unit"
    for path in unit.rglob("test_*.py"):
        folder = path.parent.relative_to(unit)
        assert (PACKAGE / folder).is_dir(), f"{path}: there is no caopd/{folder}"


ENGINES = {f"rollouts.{module}" for module in ("auto", "sampler", "transformers_engine", "vllm")}
MODEL_FILES = {f"models.{module}" for module in ("language_model", "source", "teacher", "weights")}
FORBIDDEN = {
    "caopd.rounds.splice": {"tasks", "methods", "models", "prompts"},
    "caopd.rounds.batches": {"tasks", "methods", "prompts", "rollouts", *MODEL_FILES},
    "caopd.rounds.parity": {"tasks", "methods", "prompts", *ENGINES},
    "caopd.training.module": {"tasks", "prompts", "verifiers", "rollouts", "training.datamodule", "training.callbacks"},
    "caopd.training.datamodule": {"training.callbacks", "losses", "metrics", "prompts"},
}


@pytest.mark.parametrize("module", FORBIDDEN)
def test_some_files_know_less_than_their_rooms(module):
    for name in imported(module):
        for forbidden in FORBIDDEN[module]:
            assert f"{name}.".startswith(f"caopd.{forbidden}.") is False, name


def test_only_vllms_host_imports_vllm():
    for module in MODULES:
        if not module.startswith("caopd.vllm_host"):
            assert not any(name.split(".")[0] == "vllm" for name in imported(module)), module


def test_vllm_and_matplotlib_are_imported_in_functions_only():
    for module in MODULES:
        assert not {"vllm", "matplotlib"} & {name.split(".")[0] for name in imported(module, False)}, module


def test_no_modules_import_each_other_in_a_circle():
    TopologicalSorter({module: imported(module, False) & set(MODULES) for module in MODULES}).prepare()


def test_the_loop_branches_on_no_method():
    """It knows the base class; the one exception is the default of the module's constructor."""
    loop = ["training.module", "training.datamodule", "evaluation.held_out"]
    for module in [*loop, *(name.removeprefix("caopd.") for name in in_room("rounds"))]:
        for node in import_nodes(tree_of(f"caopd.{module}"), with_functions=True):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("caopd.methods"):
                if node.module.startswith("caopd.methods.estimators"):
                    continue
                assert {alias.name for alias in node.names} <= {"Method", "CaOPD"}, module
        calls = [node for node in ast.walk(tree_of(f"caopd.{module}")) if isinstance(node, ast.Call)]
        checks = [ast.unparse(call) for call in calls if ast.unparse(call.func) in ("isinstance", "issubclass")]
        assert not [check for check in checks if "method" in check or "CaOPD" in check], module


def test_every_exception_of_ours_has_one_root():
    ours = {name for name, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.CaopdError)}
    for module in MODULES:
        for node in ast.walk(tree_of(module)):
            bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
            if any(base.endswith(("Error", "Exception")) for base in bases) and node.name != "CaopdError":
                assert ours & set(bases), f"{module}.{node.name}"


def test_nothing_is_printed_or_caught_bare():
    for module in MODULES:
        for node in ast.walk(tree_of(module)):
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{module}:{node.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{module}:{node.lineno}"


WRITING = {"write_text", "write_bytes", "savefig", "mkstemp", "NamedTemporaryFile", "to_csv", "touch"}
WRITE_BY_THEMSELVES = {
    "caopd.files": "it is how the others write",
    "caopd.rollouts.vllm.child": "vLLM's log, which is appended to",
}


def writes(node):
    """Whether a call writes to a file other than by :func:`caopd.files.written` and what is made of it."""
    if not isinstance(node, ast.Call):
        return False
    function, arguments = node.func, [ast.unparse(each) for each in node.args]
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    modes = [*arguments, *(ast.unparse(each.value) for each in node.keywords if each.arg == "mode")]
    if name in ("open", "fdopen"):
        return any(mode in {f"'{how}{kind}'" for how in "wax" for kind in ("", "b", "t")} for mode in modes)
    if name in ("save", "dump") and ast.unparse(function) in ("torch.save", "json.dump", "np.save", "pickle.dump"):
        return "file" not in arguments
    return name in WRITING and isinstance(function, ast.Attribute) and arguments[:1] != ["file"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("path.write_text(text)", True),
        ("write_text(path, text)", False),
        ("path.open('w')", True),
        ("open(path, mode='ab')", True),
        ("path.open('rb')", False),
        ("torch.save(state, path)", True),
        ("torch.save(state, file)", False),
        ("figure.savefig(file)", False),
    ],
)
def test_the_reader_of_writes_sees_them(code, expected):
    assert writes(ast.parse(code).body[0].value) is expected


def test_files_are_written_by_the_one_room_that_does_it_whole():
    found = {module for module in MODULES for node in ast.walk(tree_of(module)) if writes(node)}
    assert found <= WRITE_BY_THEMSELVES.keys(), found


def documentation(module):
    """The strings that stand as statements: docstrings of modules, classes, functions and attributes."""
    return {id(node.value) for node in ast.walk(tree_of(module)) if isinstance(node, ast.Expr)}


def test_the_string_of_the_confidence_field_has_one_owner():
    for module in MODULES.keys() - {"caopd.confidence"}:
        prose = documentation(module)
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                assert "Confidence:" not in node.value, f"{module}:{node.lineno}"


def test_files_and_functions_are_short():
    for module, path in MODULES.items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES_OF_FILE, module
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.FunctionDef):
                documented = ast.get_docstring(node) is not None
                first = node.body[1] if documented and len(node.body) > 1 else node.body[0]
                assert node.end_lineno - first.lineno < MAX_LINES_OF_FUNCTION, f"{module}.{node.name}"


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


LOADED = (
    "print(sorted({'torch', 'transformers', 'lightning', 'torchmetrics', 'vllm', 'matplotlib', 'numpy'}"
    " & set(sys.modules)))"
)


def test_importing_the_package_loads_nothing_heavy():
    assert python(f"import sys, caopd; {LOADED}") == "[]\n"


HELP = [["--help"], ["-h"], *([command, "--help"] for command in ("score", "report", "route", "export"))]


@pytest.mark.parametrize("arguments", [*HELP, [], ["--version"], ["no-such-command"]])
def test_help_answers_without_loading_anything_heavy(arguments):
    output = python(f"import sys; from caopd.cli import main; code = main({arguments!r}); {LOADED}; print(code)")
    assert output.splitlines()[-2:] == ["[]", "2" if arguments == ["no-such-command"] else "0"]


def test_the_functions_of_the_metrics_need_torch_alone():
    assert python(f"import sys, caopd.metrics.functional; {LOADED}") == "['numpy', 'torch']\n"


@pytest.mark.parametrize("task", [[], ["--task=science_qa"], ["--task=caopd.tasks.ToolUse"]])
def test_scoring_loads_no_model_and_none_of_the_libraries_around_it(tmp_path, task):
    file = tmp_path / "predictions.jsonl"
    file.write_text('{"confidence": 0.5, "correct": 1}\n{"confidence": 0.5, "correct": 0}\n')
    output = python(
        f"import sys; from caopd.cli import main; assert not main(['score', {str(file)!r}, *{task}]); {LOADED}"
    )
    assert output.splitlines()[-1] == "['numpy', 'torch']"


def test_routing_loads_no_model_either(tmp_path):
    file = tmp_path / "predictions.jsonl"
    file.write_text('{"prompt_id": 1, "confidence": 0.5, "correct": 1}\n')
    output = python(
        f"import sys; from caopd.cli import main; assert not main(['route', {str(file)!r}, {str(file)!r}]); {LOADED}"
    )
    assert output.splitlines()[-1] == "['numpy', 'torch']"


def test_the_command_is_installed_and_lists_its_commands():
    run = subprocess.run([Path(sys.executable).parent / "caopd", "--help"], capture_output=True, text=True, check=True)
    for command in ("fit", "validate", "test", "predict", "score", "report", "route", "plan", "export"):
        assert f"\n  {command} " in run.stdout
    assert importlib.metadata.version("caopd") in run.stdout


def test_the_module_runs_as_the_command():
    run = subprocess.run([sys.executable, "-m", "caopd", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == f"caopd {importlib.metadata.version('caopd')}"
