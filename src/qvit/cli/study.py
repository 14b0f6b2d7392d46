"""`qvit study`: do many runs from one file with several workers, and write one report on them."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qvit.cli.console import Group, heavy_imports, print_json, print_table, say
from qvit.cli.data import Root
from qvit.cli.options import Json, Memory, Offline

if TYPE_CHECKING:
    from qvit.study.driver import StudyProgress
    from qvit.study.spec import Study

app = typer.Typer(cls=Group, help="Plan, run and report whole comparisons.")

File = Annotated[Path, typer.Argument(help="A study's YAML file, or the name of a shipped one: see `qvit study list`.")]
Folder = Annotated[Path, typer.Argument(help="The folder of a study.")]
Datasets = Annotated[
    list[str] | None, typer.Option("--dataset", help="Only this dataset of the study; may be repeated.")
]
Seeds = Annotated[int | None, typer.Option("--seeds", help="Only this number of the study's seeds.")]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Runs at a time.", show_default="as many as there are cores")
]


@app.callback(invoke_without_command=True)
def group(context: typer.Context) -> None:
    """Plan, run and report whole comparisons."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_studies(json: Json = False) -> None:
    """List the studies that come with qvit."""
    from qvit.study.reading import read_study, shipped_studies

    studies = [read_study(name) for name in shipped_studies()]
    if json:
        print_json([{"name": s.name, "title": s.title, "runs": len(s.jobs)} for s in studies])
        return
    print_table("Studies", ["name", "what it asks", "runs"], [[s.name, s.title, str(len(s.jobs))] for s in studies])


@app.command()
def plan(
    file: File,
    dataset: Datasets = None,
    seeds: Seeds = None,
    workers: Workers = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """Print a study's runs, the time they may take on this machine (from a short timing), and their disk space."""
    with heavy_imports():
        from qvit.study.estimate import estimate

    study = _read(file, dataset, seeds)
    with _timing(quiet=json) as on_timed:
        planned = estimate(study, workers=workers, root=root, on_timed=on_timed)
    if json:
        print_json(planned.as_json())
        return
    rows = [
        [
            f"{row.dataset}: {row.model}",
            row.regime,
            str(row.runs),
            str(row.together),
            _duration(row.seconds),
            _duration(row.total),
        ]
        for row in planned.rows
    ]
    print_table(f"{study.name}: {study.title}", ["runs", "regime", "number", "at once", "each", "all"], rows)
    say(
        f"{planned.runs} run{'s' * (planned.runs != 1)}, {_duration(planned.seconds)} of computing: about "
        f"{_duration(planned.wall)} by {planned.workers} worker{'s' * (planned.workers != 1)} here, and "
        f"{planned.megabytes:,.0f} MB of disk."
    )
    say(f"Estimated from steps of {planned.timed} kind{'s' * (planned.timed != 1)} of models, as many at once as told.")


@app.command()
def run(
    file: File,
    out: Annotated[Path | None, typer.Option(help="The study's folder.", show_default="runs/study-NAME")] = None,
    workers: Workers = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS|local", help="Run as tasks of a Ray cluster (pip install 'qvit[ray]')."),
    ] = None,
    dataset: Datasets = None,
    seeds: Seeds = None,
    memory: Memory = 1.0,
    root: Root = None,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Do all runs of a study that are not done yet; after an interruption the same command continues.

    A run that crashes is recorded with its error and does not stop the others. `qvit study report` shows the results.
    """
    with heavy_imports():
        from qvit.study.runner import run_study

    study = _read(file, dataset, seeds)
    folder = out or Path("runs") / f"study-{study.name}"
    with _news(study.name, quiet=json) as on_news:
        summary = run_study(
            study,
            folder,
            workers=workers,
            ray=ray,
            root=root,
            download=not offline,
            memory=memory,
            on_news=on_news,
            on_wait=say,
        )
    if json:
        print_json({"folder": str(folder), **vars(summary)})
    else:
        say(
            f"{summary.finished} of {summary.total} runs are done, {summary.done_now} of them now, in "
            f"{_duration(summary.seconds)}. Report: qvit study report {folder}"
        )
        for name, error in summary.failed.items():
            say(f"Failed: {name}: {error}")
    if summary.finished < summary.total:
        raise typer.Exit(1)


@app.command()
def status(folder: Folder, json: Json = False) -> None:
    """Print how many runs of a study are done, and the errors of those that failed."""
    from qvit.study.store import Store

    with Store.read(folder, on_wait=say) as store:
        jobs, title = {job.identity: job for job in store.jobs()}.values(), store.get("title")
    counts = {state: sum(job.status == state for job in jobs) for state in ("finished", "running", "waiting", "failed")}
    failed = {job.name: job.error for job in jobs if job.status == "failed"}
    if json:
        print_json({"title": title, **counts, "errors": failed})
        return
    print_table(str(title or folder.name), list(counts), [[str(count) for count in counts.values()]])
    for name, error in failed.items():
        say(f"Failed: {name}: {error}")


@app.command()
def report(
    folder: Folder,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report.", show_default="the study's, in report/")
    ] = None,
    json: Json = False,
) -> None:
    """Write the study's report: one HTML file, Markdown, and the tables as CSV and LaTeX."""
    with heavy_imports():
        from qvit.report.page import write_report

    written = write_report(folder, out, on_news=None if json else say, on_wait=say)
    if json:
        print_json({"report": str(written.html), "answer": written.answer})
        return
    for line in written.answer:
        typer.echo(line)
    say(f"Report: {written.html}")


def _read(file: Path, datasets: list[str] | None, seeds: int | None) -> "Study":
    from qvit.study.reading import read_study
    from qvit.study.spec import restrict

    return restrict(read_study(file), datasets=datasets, seeds=seeds)


def _duration(seconds: float) -> str:
    """Return a duration as text, in seconds, minutes or hours."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


@contextmanager
def _timing(*, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    def on_timed(done: int, total: int) -> None:
        sys.stderr.write(f"\rTiming {done} of {total} …" + "\n" * (done == total))
        sys.stderr.flush()

    yield None if quiet or not sys.stderr.isatty() else on_timed


@contextmanager
def _news(label: str, *, quiet: bool) -> Iterator[Callable[["StudyProgress"], None] | None]:
    """Yield a callback that shows a study's progress on stderr."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _live(label) as callback:
            yield callback
    else:
        yield _plain


def _remaining(progress: "StudyProgress") -> str:
    if progress.left is None or progress.finished + progress.failed == progress.total:
        return ""
    return f", about {_duration(progress.left)} left"


def _plain(progress: "StudyProgress") -> None:
    if progress.news:
        done = progress.finished + progress.failed
        say(f"[{done}/{progress.total}] {progress.news}{_remaining(progress)}")


@contextmanager
def _live(label: str) -> Iterator[Callable[["StudyProgress"], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    words = [TextColumn(f"{{task.{what}}}", markup=False) for what in ("description", "fields[news]")]
    columns = (words[0], BarColumn(), MofNCompleteColumn(), words[1])
    with Bars(*columns, console=Console(stderr=True)) as bars:
        whole = bars.add_task(label, total=None, news="")
        tasks: dict[str, Any] = {}
        last = 0.0

        def callback(progress: "StudyProgress") -> None:
            nonlocal last
            if progress.news:
                bars.console.print(progress.news, highlight=False, markup=False)
            elif time.monotonic() - last < 0.1:
                return
            last = time.monotonic()
            bars.update(
                whole,
                total=progress.total,
                completed=progress.finished + progress.failed,
                news=_remaining(progress)[2:],
            )
            for name in [name for name in tasks if name not in progress.doing]:
                bars.remove_task(tasks.pop(name))
            for name, (stage, epoch, epochs) in progress.doing.items():
                if name not in tasks:
                    tasks[name] = bars.add_task(f"  {name}", total=epochs, news="")
                bars.update(tasks[name], completed=epoch, total=epochs, news=stage)

        yield callback
