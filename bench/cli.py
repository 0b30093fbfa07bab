"""The command line: verbs, options and examples. What the verbs do is in ``bench.verbs`` and the modules that it calls."""
from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ltcore.errors import UsageError
from ltcore.names import nearest

SCALES = ("smoke", "quick", "paper")
app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Run the experiments of lottery-ticket papers again and hold the results against the published ones.",
                  epilog="Examples:  python -m bench replicate frankle2019   ·   python -m bench list")  # fmt: skip


def _examples(first: str, second: str) -> str:
    return f"Examples:  python -m bench {first}   ·   python -m bench {second}"


def _scale(value: Optional[str]) -> Optional[str]:
    if value is not None and value not in SCALES:
        raise UsageError(f"unknown scale {value!r}{nearest(value, SCALES)}")
    return value


PaperArg = Annotated[str, typer.Argument(metavar="PAPER", help="Key of a paper, such as frankle2019.")]
StoreOpt = Annotated[Optional[Path], typer.Option("--store", metavar="DIR", help="Where results are kept; default $LTCORE_STORE, else results-store.")]
ScaleOpt = Annotated[str, typer.Option("--scale", callback=_scale, metavar="smoke|quick|paper", help="How much of the paper is run.")]
LastScaleOpt = Annotated[Optional[str], typer.Option("--scale", callback=_scale, metavar="smoke|quick|paper", help="Default: what was run last.")]
ExperimentOpt = Annotated[Optional[list[str]], typer.Option("--experiment", metavar="ID", help="A protocol or variant id of the paper; may be given again.")]
TrialsOpt = Annotated[Optional[int], typer.Option("--trials", min=1, metavar="N", help="Seeds 0 … N-1 instead of the scale's own number.")]
LevelsOpt = Annotated[Optional[int], typer.Option("--levels", min=0, metavar="N", help="Prunings, instead of the scale's own number.")]
DataOpt = Annotated[str, typer.Option("--data", metavar="auto|local|DIR", help="auto: $LTCORE_DATA, download, fall-back; local: no download, no fall-back.")]
SetOpt = Annotated[Optional[list[str]], typer.Option("--set", metavar="PROTOCOL.FIELD=VALUE", help="Changes a field of a recipe; rows are then not compared.")]
WithOpt = Annotated[Optional[Path], typer.Option("--with", metavar="FILE.py", help="Adds the dicts CRITERIA, MODELS, DATASETS, ARMS of your file.")]
DeviceOpt = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to train.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")]


def _flags(scale, experiment, trials, levels, data, sets, with_file):
    from bench.flags import Flags

    path = str(with_file.resolve()) if with_file else None
    return Flags(scale, tuple(experiment or ()), trials, levels, data, tuple(sets or ()), path)


def _wanted(scale, experiment, trials, levels, sets, with_file):
    """Flags of the runs to be read, the latest of which counts: one a scale; none where nothing but the scale is named."""
    found = [_flags(s, experiment, trials, levels, "auto", sets, with_file) for s in ([scale] if scale else SCALES)]
    return () if found[0].plain else tuple(found)


@app.command("list", epilog=_examples("list", "list --json"))
def list_(as_json: JsonOpt = False) -> None:
    """Papers, their experiments, what each scale covers, and what is data only."""
    from bench import verbs

    verbs.list_papers(as_json)


@app.command(epilog=_examples("explain frankle2019", "explain frankle2019 --scale paper"))
def explain(paper: PaperArg, scale: ScaleOpt = "quick", as_json: JsonOpt = False) -> None:
    """The protocol card: the paper's value, the official code's, ours, and why they differ."""
    from bench import verbs

    verbs.explain(paper, scale, as_json)


@app.command(epilog=_examples("plan frankle2019", "plan frankle2019 --scale paper --experiment lenet-mnist"))
def plan(paper: PaperArg, experiment: ExperimentOpt = None, scale: ScaleOpt = "quick", trials: TrialsOpt = None, levels: LevelsOpt = None,
         data: DataOpt = "auto", store: StoreOpt = None, device: DeviceOpt = "auto", sets: SetOpt = None, with_file: WithOpt = None,
         as_json: JsonOpt = False) -> None:  # fmt: skip
    """Dry run: the stages, which of them are done, and the time that the rest would take here."""
    from bench import verbs

    verbs.show_plan(paper, _flags(scale, experiment, trials, levels, data, sets, with_file), store, device, as_json)


@app.command(epilog=_examples("replicate frankle2019", "replicate frankle2019 --scale paper --experiment lenet-mnist --max-time 9m"))
def replicate(paper: PaperArg, experiment: ExperimentOpt = None, scale: ScaleOpt = "quick", trials: TrialsOpt = None, levels: LevelsOpt = None,
              data: DataOpt = "auto", store: StoreOpt = None, device: DeviceOpt = "auto",
              max_time: Annotated[Optional[str], typer.Option("--max-time", metavar="9m", help="Stop cleanly after so long (exit code 75).")] = None,
              sets: SetOpt = None, with_file: WithOpt = None,
              executor: Annotated[str, typer.Option("--executor", metavar="local|ray", help="Where stages run.")] = "local",
              keep: Annotated[str, typer.Option("--keep", metavar="needed|all", help="all: also weights that nothing waits for.")] = "needed",
              as_json: JsonOpt = False) -> None:  # fmt: skip
    """Run a paper's experiments and print measured beside published numbers with a verdict on each claim."""
    from bench import verbs

    flags = _flags(scale, experiment, trials, levels, data, sets, with_file)
    raise typer.Exit(verbs.replicate(paper, flags, store, device, max_time, executor, keep, as_json))


@app.command(epilog=_examples("status", "status frankle2019 --store my-store"))
def status(paper: Annotated[Optional[str], typer.Argument(metavar="PAPER")] = None, scale: LastScaleOpt = None, store: StoreOpt = None,
           as_json: JsonOpt = False) -> None:  # fmt: skip
    """What was run, and how much of it is done."""
    from bench import verbs

    verbs.status(paper, scale, store, as_json)


@app.command(epilog=_examples("compare frankle2019", "compare frankle2019 --scale paper --json"))
def compare(paper: PaperArg, experiment: ExperimentOpt = None, scale: LastScaleOpt = None, trials: TrialsOpt = None, levels: LevelsOpt = None,
            store: StoreOpt = None, sets: SetOpt = None, with_file: WithOpt = None, as_json: JsonOpt = False,
            show_all: Annotated[bool, typer.Option("--all", help="Every row, those that were not run too.")] = False) -> None:  # fmt: skip
    """Measured beside published numbers, and the verdicts, from what is in the store: the latest run, or that of the same flags."""
    from bench import verbs

    verbs.compare(paper, _wanted(scale, experiment, trials, levels, sets, with_file), scale, store, as_json, show_all)


@app.command(epilog=_examples("export frankle2019 --format md", "export frankle2019 --format latex -o table.tex"))
def export(paper: PaperArg, fmt: Annotated[str, typer.Option("--format", metavar="md|csv|latex|html|json")],
           output: Annotated[Optional[Path], typer.Option("-o", "--output", metavar="FILE", help="Default: stdout.")] = None,
           experiment: ExperimentOpt = None, scale: LastScaleOpt = None, trials: TrialsOpt = None, levels: LevelsOpt = None,
           store: StoreOpt = None, sets: SetOpt = None, with_file: WithOpt = None) -> None:  # fmt: skip
    """The comparison as a document: of the latest run, or that of the same flags."""
    from bench import verbs

    verbs.export(paper, fmt, output, _wanted(scale, experiment, trials, levels, sets, with_file), scale, store)


@app.command(epilog=_examples("plot frankle2019 -o plots", "plot frankle2019 --scale paper -o plots"))
def plot(paper: PaperArg, output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR")], experiment: ExperimentOpt = None,
         scale: LastScaleOpt = None, trials: TrialsOpt = None, levels: LevelsOpt = None, store: StoreOpt = None, sets: SetOpt = None,
         with_file: WithOpt = None) -> None:  # fmt: skip
    """Our curves drawn over the paper's: of the latest run, or that of the same flags."""
    from bench import verbs

    verbs.plot(paper, output, _wanted(scale, experiment, trials, levels, sets, with_file), scale, store)


@app.command(epilog=_examples("check", "check --update --baseline baselines.json"))
def check(baseline: Annotated[Optional[Path], typer.Option("--baseline", metavar="FILE", help="Default: the committed one.")] = None,
          update: Annotated[bool, typer.Option("--update", help="Write the baseline anew instead of comparing.")] = False,
          store: StoreOpt = None, as_json: JsonOpt = False) -> None:  # fmt: skip
    """Run the smoke scale of every paper and compare with the committed baseline; exit code 1 where something moved."""
    from bench import regress

    raise typer.Exit(regress.check(baseline, update, store, as_json))


@app.command(epilog=_examples("data list", "data verify mnist"))
def data(action: Annotated[str, typer.Argument(metavar="list|fetch|verify")] = "list",
         names: Annotated[Optional[list[str]], typer.Argument(metavar="NAME…", help="Data sets; all where none is named.")] = None,
         folder: Annotated[Optional[Path], typer.Option("--folder", metavar="DIR")] = None, as_json: JsonOpt = False) -> None:  # fmt: skip
    """Which data sets are here; fetch them; verify their files."""
    from bench import verbs

    raise typer.Exit(verbs.data(action, names or [], folder, as_json))


@app.command(epilog=_examples("ticket show my.ticket", "ticket export my.ticket --paper frankle2019 --level 7 --trial 0"))
def ticket(action: Annotated[str, typer.Argument(metavar="show|export")], file: Annotated[Path, typer.Argument(metavar="FILE")],
           paper: Annotated[str, typer.Option("--paper", help="export: which paper's run.")] = "frankle2019",
           experiment: Annotated[Optional[str], typer.Option("--experiment", metavar="ID", help="export: default the first that was run.")] = None,
           arm: Annotated[str, typer.Option("--arm")] = "ticket", level: Annotated[int, typer.Option("--level", min=1)] = 1,
           trial: Annotated[int, typer.Option("--trial", min=0)] = 0,
           source: Annotated[Optional[str], typer.Option("--source", help="export: where the ticket was found, if several.")] = None,
           scale: LastScaleOpt = None, store: StoreOpt = None, as_json: JsonOpt = False) -> None:  # fmt: skip
    """A ticket as one file: show what is in it, or write one from a finished run."""
    from bench import ticket_verb

    ticket_verb.run(action, file, ticket_verb.Which(paper, experiment, arm, level, trial, scale, source), store, as_json)


@app.command(epilog=_examples("perf --model resnet20", "perf --seconds 5 --json"))
def perf(model: Annotated[str, typer.Option("--model", help="lenet, conv2, resnet20, vgg19, lstm, transformer or a2c.")] = "lenet",
         seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Time spent on each figure.")] = 4.0,
         device: DeviceOpt = "auto", as_json: JsonOpt = False) -> None:  # fmt: skip
    """Throughput of the engine beside a usual DataLoader loop, a plain in-memory loop and the machine's own ceiling."""
    from bench import perf as bench_perf

    bench_perf.run(seconds, device, as_json, model)


@app.command(epilog=_examples("doctor", "doctor --store my-store"))
def doctor(store: StoreOpt = None, as_json: JsonOpt = False) -> None:
    """What this machine has and lacks, and what to do about it."""
    from bench import verbs

    raise typer.Exit(verbs.doctor(store, as_json))
