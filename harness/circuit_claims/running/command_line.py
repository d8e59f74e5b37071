"""The `claims` command, from list and doctor to train and diff. Thin: every command calls one function."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from circuit_claims.errors import ClaimsError, InputError
from circuit_claims.running.console import (
    ClaimsDir,
    ModelName,
    ModelsDir,
    Offline,
    claims_dir_of_pytest,
    command_context,
    err,
    out,
    refuse_unwritable,
)
from circuit_claims.running.machine import patient_threads

if TYPE_CHECKING:
    from circuit_claims.running.papers import Papers

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Reproducibility of papers on attention heads. The claims themselves run with: pytest claims/",
)


def main() -> None:
    """Run the command line; an error that a person can mend is printed as its message and ends with status 2.

    Whatever else is raised is a bug of ours: its traceback is shown, the status is 1.
    """
    patient_threads()
    try:
        if not asks_for_own(sys.argv[1:]):
            add_commands_of_papers(app)
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


def asks_for_own(words: list[str]) -> bool:
    """Whether the first word is a command of the harness's own: then no paper's code is needed, and none is run."""
    return bool(words) and words[0] in commands_of(app)


def commands_of(app: typer.Typer) -> set[str]:
    """The words after `claims` that an app knows, as typer spells a function's name."""
    return {each.name or getattr(each.callback, "__name__", "").replace("_", "-") for each in app.registered_commands}


def add_commands_of_papers(to: typer.Typer) -> None:
    """Add the sub-commands that papers bring: those that ship with the harness, and those of the current folder.

    Papers of the current folder that cannot be used are passed over: `claims list` says what is wrong with them, and
    `claims report` must work all the same. Raises `ContributionError` for a command of a name that is taken.
    """
    from circuit_claims.running.contributions import ContributionError, function_of
    from circuit_claims.running.papers import shipped_papers

    named = shipped_papers().named("commands")
    with suppress(ClaimsError):
        named = {**papers_here(claims_dir_of_pytest()).named("commands"), **named}
    for name, (paper, function) in named.items():
        if name in (taken := commands_of(to)):
            raise ContributionError(
                f"{paper.contribution}: the command {name!r} is taken\n  expected  a name that `claims` does not have\n"
                f"  found     one of {', '.join(sorted(taken))}\n  Rename it in `commands`."
            )
        to.command(name)(function_of(paper, function))


def papers_here(claims_dir: Path | None) -> Papers:
    """The papers of the current folder, of `claims_dir` where it is given, or what ships."""
    from circuit_claims.running.papers import find_papers

    return find_papers(Path.cwd(), given=() if claims_dir else (Path.cwd(),), claims_dir=claims_dir)


@app.command("list")
def list_command(
    subjects: Annotated[bool, typer.Option("--subjects", help="List the models and training runs instead.")] = False,
    texts: Annotated[bool, typer.Option("--texts", help="List the texts instead of the claims.")] = False,
    claims_dir: ClaimsDir = None,
) -> None:
    """List the claims, or the models they can be asked of, or the texts they are measured on."""
    from circuit_claims.running.commands.listing import claims_table, runs_table, subjects_table, texts_table

    papers = papers_here(claims_dir)
    out.print(texts_table(papers) if texts else subjects_table(papers) if subjects else claims_table(papers))
    if subjects and not texts and papers.runs:
        out.print(runs_table(papers))


@app.command()
def doctor(models_dir: ModelsDir = None, claims_dir: ClaimsDir = None) -> None:
    """Say what can run here, what cannot, and what to type to run the rest."""
    from circuit_claims.running.commands.listing import doctor_lines

    for line in doctor_lines(papers_here(claims_dir), models_dir):
        out.print(line, markup=False, soft_wrap=True)


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Registry names of models or texts, or: default")],
    models_dir: ModelsDir = None,
    again: Annotated[bool, typer.Option("--again", help="Fetch and convert anew, whatever the cache holds.")] = False,
    offline: Offline = False,
    claims_dir: ClaimsDir = None,
) -> None:
    """Fetch models, check every sha256, and keep them converted in the cache; fetch texts into the hub's cache."""
    from circuit_claims.models.resolve import resolve
    from circuit_claims.texts import open_text

    papers = papers_here(claims_dir)
    rows = papers.models
    wanted = [name for name, row in rows.items() if row.default] if names == ["default"] else names
    for name in wanted:
        if name in papers.texts:
            text = open_text(name, fetch=not offline, rows=papers.texts)
            out.print(f"{name}: {text.label}, sha256 {text.digest}", markup=False, soft_wrap=True)
            continue
        model = resolve(name, models_dir=models_dir, offline=offline, again=again, registry=rows)
        out.print(f"{name}: verified in {model.folder}", markup=False, soft_wrap=True)


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
    from circuit_claims.running.commands.llc import estimate_lines, run_llc

    refuse_unwritable(json_file)
    context = command_context(device)
    found = run_llc(
        model, weights, text, n_beta=n_beta, gamma=gamma, eps=eps, chains=chains, draws=draws, batch=batch,
        length=length, seed=seed, trace_probes=trace_probes, device=context.device, store=context.store,
        json_path=json_file, models_dir=models_dir, offline=offline, progress=_tell_progress,
    )  # fmt: skip
    for line in estimate_lines(found):
        out.print(line, markup=False, soft_wrap=True)


def _tell_progress(step: Any) -> None:
    kept = " (kept)" if step.stored else ""
    left = f"about {step.seconds_left:.0f} s left"
    what = "Hessian trace" if step.cell.chain is None else f"chain {step.cell.chain}"
    err.print(f"{step.done} of {step.total}: {step.cell.point.weights}, {what}{kept}; {left}", markup=False)


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
    fixed: Annotated[
        str | None, typer.Option("--recipe", help="A recipe of fixtures/recipes.toml; only layers and seed beside it.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    stop_after: Annotated[int | None, typer.Option(min=1, help="Stop after so many updates; go on later.")] = None,
) -> None:
    """Train the attention-only model by the paper's recipe; a killed run goes on where it was last saved."""
    from circuit_claims.running.machine import choose_device
    from circuit_claims.toy.command import MIXTURE, progress_line, run_training, with_roomy_memory
    from circuit_claims.toy.recipes import fixed_recipe
    from circuit_claims.toy.training import Phase, Recipe

    phases = tuple(map(Phase.parse, later or []))
    recipe = Recipe(layers, steps, batch, context, seed=seed, precision=precision, later=phases)
    texts = {"mixture": mixture or MIXTURE}
    if fixed is not None:
        known = fixed_recipe(fixed, recipe, mixture)
        recipe, texts = known.for_run(layers, seed), {"mixture": known.mixture_path, "tokenizer": known.tokenizer_path}
    with_roomy_memory()
    how = {**texts, "device": choose_device(device), "most_steps": stop_after}
    for step in run_training(text, run_dir, recipe, tell=lambda line: err.print(line, markup=False), **how):
        if step.reported:
            err.print(progress_line(step, recipe), markup=False)
    out.print(f"run: {run_dir}", markup=False, soft_wrap=True)


@app.command()
def landmarks(
    run_dir: Annotated[Path, typer.Argument(help="A run's folder, finished or not.")],
    fixed: Annotated[str, typer.Option("--recipe", help="The recipe of fixtures/recipes.toml it was trained by.")],
) -> None:
    """Show a run's loss and head scores over training, and which of its checkpoints ship by its recipe's rule."""
    from circuit_claims.heads.landmarks import curve_lines, landmark_steps, scored_run
    from circuit_claims.toy.checkpoints import RunFolder
    from circuit_claims.toy.recipes import known_recipe

    recipe, run = known_recipe(fixed), RunFolder.open(run_dir)
    curve = scored_run(run, progress=lambda line: err.print(line, markup=False))
    reached = landmark_steps(curve, recipe.ships)
    for line in curve_lines(curve, recipe.settings.batch * recipe.settings.n_ctx, reached):
        out.print(line, markup=False, soft_wrap=True)
    missing = [landmark.name for landmark in recipe.ships if landmark.name not in reached]
    out.print(f"not reached: {', '.join(missing) or 'none'}", markup=False, soft_wrap=True)


def _figures_here() -> Mapping[str, Any]:
    """How figures of the papers of the current folder are drawn; a run is reported whatever lies here now."""
    try:
        return papers_here(None).figures()
    except ClaimsError:
        return {}


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="What the paper is called: lower-case letters, digits and _.")],
    into: Annotated[Path, typer.Option("--into", help="The folder of papers, below this one.")] = Path("claims"),
) -> None:
    """Write a folder for a paper of your own, complete as it stands: one claim, its measure, controls and tests."""
    from circuit_claims.running.authoring.scaffold import new_paper

    written = new_paper(name, Path.cwd(), into)
    for file in written.files:
        out.print(f"wrote {file.relative_to(Path.cwd())}", markup=False, soft_wrap=True)
    out.print("Type next:", *written.next_lines, sep="\n  ", markup=False, soft_wrap=True)


@app.command()
def check(
    folders: Annotated[list[Path] | None, typer.Argument(help="Papers' folders (those of this folder).")] = None,
    claims_dir: ClaimsDir = None,
) -> None:
    """Read papers' folders without measuring, and say what is wrong with each; status 1 where something is."""
    from circuit_claims.running.authoring.check import check_papers

    checked = check_papers(folders or (), Path.cwd(), claims_dir)
    for fault in checked.faults:
        err.print(fault, markup=False, soft_wrap=True)
    out.print(checked.line(), markup=False, soft_wrap=True)
    if checked.faults:
        raise typer.Exit(1)


@app.command()
def report(run_dir: Annotated[Path, typer.Argument(help="A run's folder, with events.jsonl in it.")]) -> None:
    """Write the report of a run again from its event stream, finished or not."""
    from circuit_claims.report import write_report

    if not (run_dir / "events.jsonl").exists():
        raise InputError(f"no run in {run_dir}\n  expected events.jsonl in it\n  Type: claims report reports/<run>")
    with err.status("writing the report"):
        written = write_report(run_dir, brought=_figures_here())
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
    refuse_unwritable(html)
    with err.status("comparing the runs"):
        compared = diff_runs(paths)
        if html is not None:
            write_text_atomically(html, render_diff(compared))
    out.print(diff_text(compared), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
