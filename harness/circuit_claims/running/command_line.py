"""The `claims` command, from list and doctor to train and diff. Thin: every command calls one function."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from circuit_claims.errors import ClaimsError, InputError
from circuit_claims.running.devices import patient_threads

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Reproducibility of papers on attention heads. The claims themselves run with: pytest claims/",
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

ModelName = Annotated[str, typer.Argument(help="A registry name, a GGUF file or a Hugging Face folder.")]


def _models_dir(path: Path | None) -> Path | None:
    if path is None:
        return None
    from circuit_claims.running.run import refuse_missing

    return refuse_missing("--models-dir", path)


ModelsDir = Annotated[
    Path | None,
    typer.Option("--models-dir", callback=_models_dir, help="A folder with model files, looked at first."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Fetch nothing from anywhere.")]


def main() -> None:
    """Run the command line; an error that a person can mend is printed as its message and ends with status 2.

    Whatever else is raised is a bug of ours: its traceback is shown, the status is 1.
    """
    patient_threads()
    try:
        app()
    except ClaimsError as error:
        _refuse(str(error))
    except OSError as error:
        if error.errno is None:
            raise
        _refuse(
            f"a file could not be used\n  expected  one that can be read, in a folder with room\n  found     {error}"
        )


def _refuse(message: str) -> NoReturn:
    err.print(message, markup=False, soft_wrap=True)
    sys.exit(2)


@app.command("list")
def list_command(
    subjects: Annotated[bool, typer.Option("--subjects", help="List the models and training runs instead.")] = False,
    texts: Annotated[bool, typer.Option("--texts", help="List the texts instead of the claims.")] = False,
) -> None:
    """List the claims, or the models they can be asked of, or the texts they are measured on."""
    from circuit_claims.running.listing import claims_table, runs_table, subjects_table, texts_table

    out.print(texts_table() if texts else subjects_table() if subjects else claims_table())
    if subjects and not texts:
        out.print(runs_table())


@app.command()
def doctor(models_dir: ModelsDir = None) -> None:
    """Say what can run here, what cannot, and what to type to run the rest."""
    from circuit_claims.running.listing import doctor_lines

    for line in doctor_lines(models_dir):
        out.print(line, markup=False, soft_wrap=True)


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Registry names of models or texts, or: default")],
    models_dir: ModelsDir = None,
    again: Annotated[bool, typer.Option("--again", help="Fetch and convert anew, whatever the cache holds.")] = False,
    offline: Offline = False,
) -> None:
    """Fetch models, check every sha256, and keep them converted in the cache; fetch texts into the hub's cache."""
    from circuit_claims.models.registry import load_registry
    from circuit_claims.models.resolve import resolve
    from circuit_claims.texts import load_texts, open_text

    rows = load_registry()
    wanted = [name for name, row in rows.items() if row.default] if names == ["default"] else names
    for name in wanted:
        if name in load_texts():
            text = open_text(name, fetch=not offline)
            out.print(f"{name}: {text.label}, sha256 {text.digest}", markup=False, soft_wrap=True)
            continue
        model = resolve(name, models_dir=models_dir, offline=offline, again=again)
        out.print(f"{name}: verified in {model.folder}", markup=False, soft_wrap=True)


@app.command("sweep")
def sweep_command(
    model: ModelName,
    path: Annotated[str, typer.Option(help="Input path: mlp0, embed+mlp0, block0, residual or embed.")] = "mlp0",
    exclude_self: Annotated[bool, typer.Option(help="Leave the input token itself out of the comparison.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the whole result here.")] = None,
    models_dir: ModelsDir = None,
    offline: Offline = False,
    top: Annotated[int, typer.Option(min=1, help="How many heads to print.")] = 10,
) -> None:
    """Score every head of a model as a successor head. Ask this of any model: does it have one?"""
    from circuit_claims.models.resolve import resolve
    from circuit_claims.papers.successor_heads.succession.measures import sweep_model
    from circuit_claims.running.listing import sweep_table, write_json

    _refuse_unwritable(json_file)
    local = resolve(model, models_dir=models_dir, offline=offline)
    with err.status(f"scoring every head of {escape(local.name)}"):
        found = sweep_model(local, path=path, exclude_self=exclude_self).to_json(model)
    if json_file is not None:
        write_json(json_file, found)
    out.print(sweep_table(found, top))


def _refuse_unwritable(path: Path | None) -> None:
    """Say so before minutes of work are spent on a result that could not be kept."""
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                fine = not path.is_dir()
            if not fine:
                raise IsADirectoryError("it is a folder")
    except OSError as error:
        raise InputError(
            f"cannot write {path}\n  expected a file in a folder that can be written\n  found    {error}\n"
            "  Type the same command with another file."
        ) from None


@app.command()
def llc(
    model: ModelName,
    weights: Annotated[list[str], typer.Option(help='A slice: a head "1:6", "layer 0", "embed", "all"; repeatable.')],
    text: Annotated[str, typer.Option(help="A standard text, a text file, or an .npy file of token rows.")],
    n_beta: Annotated[float, typer.Option("--n-beta", min=0.0, help="Inverse temperature times sample size.")] = 30.0,
    gamma: Annotated[float, typer.Option(min=0.0, help="Strength of the pull towards w*.")] = 200.0,
    eps: Annotated[float, typer.Option(help="Step size.")] = 1e-3,
    chains: Annotated[int, typer.Option(min=1)] = 4,
    draws: Annotated[int, typer.Option(min=1)] = 200,
    batch: Annotated[int, typer.Option(min=1, help="Sequences a batch.")] = 8,
    length: Annotated[int, typer.Option(min=2, help="Tokens a sequence.")] = 128,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    trace_probes: Annotated[int, typer.Option(min=0, help="Probes of the Hessian's trace; 0: not measured.")] = 8,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the estimates here.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    models_dir: ModelsDir = None,
    offline: Offline = False,
) -> None:
    """Refined local learning coefficients of parts of a model by SGLD; a killed run goes on where it stopped."""
    from circuit_claims.keeping.store import Store
    from circuit_claims.running.devices import choose_device
    from circuit_claims.running.llc_command import estimate_lines, run_llc
    from circuit_claims.running.run import default_store

    _refuse_unwritable(json_file)
    found = run_llc(
        model, weights, text, n_beta=n_beta, gamma=gamma, eps=eps, chains=chains, draws=draws, batch=batch,
        length=length, seed=seed, trace_probes=trace_probes, device=choose_device(device), store=Store(default_store()),
        json_path=json_file, models_dir=models_dir, offline=offline, progress=_tell_progress,
    )  # fmt: skip
    for line in estimate_lines(found):
        out.print(line, markup=False, soft_wrap=True)


def _tell_progress(step: Any) -> None:
    kept = " (kept)" if step.stored else ""
    left = f"about {step.seconds_left:.0f} s left"
    what = "Hessian trace" if step.cell.chain is None else f"chain {step.cell.chain}"
    err.print(f"{step.done} of {step.total}: {step.cell.point.weights}, {what}{kept}; {left}", markup=False)


@app.command("record-cells")
def record_cells_command(
    folder: Annotated[Path | None, typer.Argument(help="A run's folder; this project's own unless given.")] = None,
    rows: Annotated[list[str] | None, typer.Option(help="NAME=FILE of token rows or documents; repeatable.")] = None,
    texts: Annotated[list[Path] | None, typer.Option(help="A folder of texts or the run's corpus; repeatable.")] = None,
    into: Annotated[Path | None, typer.Option(help="Where the table is written (beside the run unless given).")] = None,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 for the products with the vocabulary.")] = "fp32",
    hours: Annotated[float | None, typer.Option(min=0.0, help="Stop after so long; the same command goes on.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Measure the refined coefficients of a run's heads that ship with it; a killed recording goes on."""
    from circuit_claims.keeping.store import Store
    from circuit_claims.papers.refined_llc.curves.record import parse_rows, record_cells
    from circuit_claims.places import FIXTURES
    from circuit_claims.running.devices import choose_device
    from circuit_claims.running.run import default_store

    found = record_cells(
        folder or FIXTURES / "attention_only" / "two_layer", parse_rows(rows or []), Store(default_store()), into=into,
        folders=texts or [], device=choose_device(device), precision=precision, hours=hours,
        tell=lambda line: err.print(line, markup=False),
        progress=lambda step: err.print(
            f"{step.done} of {step.total}: {step.cell}; about {step.seconds_left / 3600:.1f} h left", markup=False
        ),
    )  # fmt: skip
    out.print(f"{found.cells} cells in {found.folder}, {found.missing} still to measure", markup=False, soft_wrap=True)


@app.command()
def train(
    text: Annotated[Path, typer.Option(help="A folder with the files of the mixture.")],
    run_dir: Annotated[Path, typer.Option("--run", help="Where the run is kept; the same folder goes on with it.")],
    layers: Annotated[int, typer.Option(min=1)] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Updates in all; the same run goes on to more.")] = 50_000,
    batch: Annotated[int, typer.Option(min=1, help="Rows a step.")] = 100,
    context: Annotated[int, typer.Option(min=2, help="Tokens a row.")] = 1024,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    seed: Annotated[int, typer.Option()] = 1,
    later: Annotated[
        list[str] | None, typer.Option(help="STEP:BATCH:RATE:DECAY from that step on; repeatable.")
    ] = None,
    mixture: Annotated[Path | None, typer.Option(help="Sources, shares and licences, as a TOML file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    stop_after: Annotated[int | None, typer.Option(min=1, help="Stop after so many updates; go on later.")] = None,
) -> None:
    """Train the attention-only model by the paper's recipe; a killed run goes on where it was last saved."""
    from circuit_claims.running.devices import choose_device
    from circuit_claims.toy.command import MIXTURE, progress_line, run_training, with_roomy_memory
    from circuit_claims.toy.training import Phase, Recipe

    phases = tuple(map(Phase.parse, later or []))
    recipe = Recipe(layers, steps, batch, context, seed=seed, precision=precision, later=phases)
    with_roomy_memory()
    told = {"mixture": mixture or MIXTURE, "device": choose_device(device), "most_steps": stop_after}
    for step in run_training(text, run_dir, recipe, tell=lambda line: err.print(line, markup=False), **told):
        if step.reported:
            err.print(progress_line(step, recipe), markup=False)
    out.print(f"run: {run_dir}", markup=False, soft_wrap=True)


@app.command("convert-checkpoint")
def convert_checkpoint(
    name: Annotated[str, typer.Argument(help="The published run: L2W256-3m-rr or L2W256-s-3.")],
    files: Annotated[list[Path], typer.Argument(help="The authors' files, named as they name them.")],
) -> None:
    """Turn the authors' .pth checkpoints, which are pickles, into safetensors: tensors only, no code is run."""
    from circuit_claims.papers.refined_llc.runs.published import convert_checkpoints

    with err.status("reading tensors, nothing else"):
        written = convert_checkpoints(name, files)
    for path in written:
        out.print(f"{name}: {path}", markup=False, soft_wrap=True)


@app.command()
def report(run_dir: Annotated[Path, typer.Argument(help="A run's folder, with events.jsonl in it.")]) -> None:
    """Write the report of a run again from its event stream, finished or not."""
    from circuit_claims.report import write_report

    if not (run_dir / "events.jsonl").exists():
        raise InputError(f"no run in {run_dir}\n  expected events.jsonl in it\n  Type: claims report reports/<run>")
    with err.status("writing the report"):
        written = write_report(run_dir)
    out.print(f"report: {written.index}", markup=False, soft_wrap=True)


@app.command("diff")
def diff_command(
    runs: Annotated[list[Path], typer.Argument(help="Two or more runs' folders, or one folder of runs with --all.")],
    html: Annotated[Path | None, typer.Option("--html", help="Write the comparison as a page here.")] = None,
    all_in: Annotated[bool, typer.Option("--all", help="Compare every run found in the folder given.")] = False,
) -> None:
    """Compare runs (torch versions, machines, dates): verdicts, values and environment that changed."""
    from circuit_claims.keeping.atomic import write_text_atomically
    from circuit_claims.report.diff import diff_runs, diff_text, render_diff

    paths = [found.parent for root in runs for found in sorted(root.glob("*/results.json"))] if all_in else runs
    if len(paths) < 2:
        raise InputError(f"claims diff needs two runs or more\n  found {len(paths)}\n  Type: claims diff RUN_A RUN_B")
    _refuse_unwritable(html)
    with err.status("comparing the runs"):
        compared = diff_runs(paths)
        if html is not None:
            write_text_atomically(html, render_diff(compared))
    out.print(diff_text(compared), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
