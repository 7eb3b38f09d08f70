"""The commands and how errors look in a terminal."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from rewardloop import presets
from rewardloop.cli import control, importing, listing, remote
from rewardloop.cli import dead as dead_command
from rewardloop.cli import demo as demo_command
from rewardloop.cli import doctor as doctor_command
from rewardloop.cli import export_model as export_model_command
from rewardloop.cli import keys as keys_command
from rewardloop.cli.terminal import print_traceback, shown_json
from rewardloop.config import load_settings
from rewardloop.datasets import Format
from rewardloop.embedded.home import DEFAULT, Home
from rewardloop.errors import EvaluationFailed, RewardloopError
from rewardloop.lifecycle import Ask
from rewardloop.process.exits import known_errors_told
from rewardloop.records import JudgementMode, Scope
from rewardloop.store import Store

app = typer.Typer(
    help="Language models that improve on their own feedback.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

HomeOption = Annotated[
    Path,
    typer.Option("--home", envvar="REWARDLOOP_HOME", help="Folder that holds all that is written."),
]


@app.command()
def demo(
    prompts: Annotated[int, typer.Option(min=2, help="Prompts in each iteration.")] = 32,
    iterations: Annotated[
        int, typer.Option(min=1, max=100, help="Iterations, one after the other.")
    ] = 1,
    home: HomeOption = DEFAULT,
    keep: Annotated[bool, typer.Option(help="Leave the stack running until Ctrl-C.")] = False,
) -> None:
    """Run whole self-rewarding iterations on this machine, with real parts."""
    asyncio.run(demo_command.run(Home(home), prompts, iterations, keep))


@app.command()
def up(
    home: HomeOption = DEFAULT,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The API's port.")] = 8000,
    env_file: Annotated[
        Path | None, typer.Option(help="NAME=value lines that name engines from elsewhere.")
    ] = None,
) -> None:
    """Run the stack in the foreground until Ctrl-C."""
    asyncio.run(demo_command.up(Home(home), port, env_file))


FileArgument = Annotated[
    Path, typer.Argument(help="A file of prompts, answers or rankings; docs/reference/formats.md.")
]
FormatOption = Annotated[
    Format, typer.Option(help="Take only rows of this format; each row is recognised.")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Refuse a file with rows that cannot be understood.")
]
LanguageOption = Annotated[
    str, typer.Option(help="Keep prompts and answers of this language, where known.")
]


@app.command()
def inspect(
    file: FileArgument,
    dataset: Annotated[str, typer.Option(help="The dataset to compare with.")] = "seed",
    format: FormatOption = Format.AUTO,
    strict: StrictOption = False,
    language: LanguageOption = "en",
    as_json: Annotated[bool, typer.Option("--json", help="All of it, as JSON.")] = False,
    home: HomeOption = DEFAULT,
) -> None:
    """Show what would be read of a file, and what would not; stores nothing."""
    asyncio.run(importing.inspect(Home(home), file, dataset, format, strict, language, as_json))


@app.command(name="import")
def import_(
    file: FileArgument,
    dataset: Annotated[str, typer.Option(help="Name of the dataset to fill.")] = "seed",
    format: FormatOption = Format.AUTO,
    strict: StrictOption = False,
    language: LanguageOption = "en",
    home: HomeOption = DEFAULT,
) -> None:
    """Import a file's prompts, with the answers that are good enough to learn."""
    asyncio.run(importing.import_file(Home(home), file, dataset, format, strict, language))


@app.command()
def import_ranked(
    file: FileArgument,
    dataset: Annotated[str, typer.Option(help="Name of the dataset to fill.")] = "ranked",
    format: FormatOption = Format.AUTO,
    strict: StrictOption = False,
    language: LanguageOption = "en",
    home: HomeOption = DEFAULT,
) -> None:
    """Import a file's prompts whose answers people put in order: ranks, ratings, preferences."""
    asyncio.run(importing.import_ranked(Home(home), file, dataset, format, strict, language))


@app.command()
def start(
    config: Annotated[
        Path | None, typer.Argument(help="A RunConfig as YAML or JSON; its keys win.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"Begin with a preset: {', '.join(presets.names())}.")
    ] = None,
    iterations: Annotated[
        int, typer.Option(min=1, max=100, help="Besides a bootstrap, where there is one.")
    ] = 1,
    home: HomeOption = DEFAULT,
) -> None:
    """Create a run on the running stack and start iterations; prints the run's id."""
    asyncio.run(remote.start(Home(home), preset, config, iterations))


@app.command()
def runs(home: HomeOption = DEFAULT) -> None:
    """List the newest runs and where they stand."""
    asyncio.run(listing.list_runs(Home(home)))


@app.command()
def models(home: HomeOption = DEFAULT) -> None:
    """List the model versions."""
    asyncio.run(listing.list_models(Home(home)))


@app.command()
def watch(
    run: Annotated[str | None, typer.Argument(help="Run id; the newest if left out.")] = None,
    home: HomeOption = DEFAULT,
) -> None:
    """Follow a run until its iterations have ended."""
    asyncio.run(remote.watch(Home(home), run))


IterationArgument = Annotated[
    str, typer.Argument(help="Iteration id; `rewardloop iterations` lists them.")
]


@app.command()
def iterations(
    run: Annotated[str | None, typer.Argument(help="Run id; the newest if left out.")] = None,
    home: HomeOption = DEFAULT,
) -> None:
    """List a run's iterations, where each stands, and what it waits for."""
    asyncio.run(listing.list_iterations(Home(home), run))


@app.command()
def pause(iteration: IterationArgument, home: HomeOption = DEFAULT) -> None:
    """Let an iteration finish what is in flight, and give the engines back."""
    asyncio.run(control.ask(Home(home), iteration, Ask.PAUSE))


@app.command()
def resume(iteration: IterationArgument, home: HomeOption = DEFAULT) -> None:
    """Let a paused iteration go on when it is its turn."""
    asyncio.run(control.ask(Home(home), iteration, Ask.RESUME))


@app.command()
def cancel(iteration: IterationArgument, home: HomeOption = DEFAULT) -> None:
    """Stop an iteration within seconds; what it stored stays."""
    asyncio.run(control.ask(Home(home), iteration, Ask.CANCEL))


@app.command()
def retry(iteration: IterationArgument, home: HomeOption = DEFAULT) -> None:
    """Let an iteration that failed or was cancelled go on from what is stored."""
    asyncio.run(control.ask(Home(home), iteration, Ask.RETRY))


@app.command()
def dead(
    iteration: Annotated[
        str | None, typer.Argument(help="Iteration id; the newest that has begun if left out.")
    ] = None,
    home: HomeOption = DEFAULT,
) -> None:
    """List the prompts that an iteration leaves out since they failed, with their errors."""
    asyncio.run(dead_command.list_dead(Home(home), iteration))


@app.command()
def retry_prompts(
    iteration: Annotated[str, typer.Argument(help="Iteration id.")],
    prompts: Annotated[
        list[int] | None, typer.Argument(help="Ids of dead prompts; all if left out.")
    ] = None,
    home: HomeOption = DEFAULT,
) -> None:
    """Try an iteration's dead prompts again, once what failed them is mended."""
    asyncio.run(dead_command.retry(Home(home), iteration, prompts or []))


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Run id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSONL in TRL's format.")],
    home: HomeOption = DEFAULT,
) -> None:
    """Write a run's preference pairs to a file."""
    asyncio.run(remote.export(Home(home), run, output))


@app.command()
def evaluate(
    version_a: Annotated[str, typer.Argument(help="Model version whose wins are counted.")],
    version_b: Annotated[str, typer.Argument(help="Model version that it meets.")],
    dataset: Annotated[str, typer.Option(help="Held-out prompts.")] = "evaluation",
    prompts: Annotated[int, typer.Option(min=1, help="How many of them.")] = 256,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 512,
    mode: Annotated[JudgementMode, typer.Option(help="How the judge judges.")] = JudgementMode.FREE,
    judge_version: Annotated[
        str | None, typer.Option(help="Version that judges; the newer of the two if left out.")
    ] = None,
    home: HomeOption = DEFAULT,
) -> None:
    """Let two model versions meet head to head, judged in both orders."""
    config = {
        "dataset": dataset,
        "num_prompts": prompts,
        "max_tokens": max_tokens,
        "mode": mode,
        "judge_version": judge_version,
    }
    found = asyncio.run(remote.evaluate(Home(home), version_a, version_b, config))
    if found["result"] is None:
        raise EvaluationFailed(found["error"] or "the evaluation was cancelled")
    print(shown_json(found["result"], indent=1))


@app.command()
def export_answers(
    version: Annotated[str, typer.Argument(help="Model version that answered.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="AlpacaEval's outputs format.")],
    dataset: Annotated[str, typer.Option(help="The evaluation's prompts.")] = "evaluation",
    home: HomeOption = DEFAULT,
) -> None:
    """Write a version's answers for alpaca_eval."""
    asyncio.run(remote.export_answers(Home(home), version, dataset, output))


@app.command()
def export_model(
    version: Annotated[str, typer.Argument(help="Model version; adapters are merged.")],
    folder: Annotated[
        Path | None, typer.Argument(help="A new folder; named as the version if left out.")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            envvar="REWARDLOOP_CHECKPOINT_ROOT",
            help="Where versions lie; the home's checkpoints if left out.",
        ),
    ] = None,
    home: HomeOption = DEFAULT,
) -> None:
    """Write a version's whole weights as a Hugging Face folder."""
    export_model_command.export_model(
        root or Home(home).checkpoints, version, folder or Path(version)
    )


@app.command()
def report(
    run: Annotated[str | None, typer.Argument(help="Run id; the newest if left out.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file.")] = Path(
        "report.html"
    ),
    home: HomeOption = DEFAULT,
) -> None:
    """Write a run's report, from M0 to the newest model, as one HTML page."""
    asyncio.run(remote.report(Home(home), run, output))


@app.command()
def conformance(
    run: Annotated[str | None, typer.Argument(help="Run id; the newest if left out.")] = None,
    home: HomeOption = DEFAULT,
) -> None:
    """List every value of the paper beside what the run ran with."""
    asyncio.run(remote.show_conformance(Home(home), run))


@app.command()
def policies(
    run: Annotated[str | None, typer.Argument(help="Run id; the newest if left out.")] = None,
    min_margin: Annotated[
        float, typer.Option(min=0, max=5, help="A pair's scores must differ by more than this.")
    ] = 0.0,
    home: HomeOption = DEFAULT,
) -> None:
    """Compare the pair policies over a run's stored scores."""
    asyncio.run(remote.compare_policies(Home(home), run, min_margin))


keys_app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")


@keys_app.command(name="create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whom or what the key is for.")],
    scope: Annotated[
        list[Scope], typer.Option(help="What the key may do; give the option once for each.")
    ],
    home: HomeOption = DEFAULT,
) -> None:
    """Make a key and print it; it cannot be shown again."""
    asyncio.run(keys_command.create(Home(home), name, scope))


@keys_app.command(name="list")
def list_keys(home: HomeOption = DEFAULT) -> None:
    """List the keys, what they may do and when they were used last."""
    asyncio.run(keys_command.list_all(Home(home)))


@keys_app.command(name="revoke")
def revoke_key(
    name: Annotated[str, typer.Argument(help="The key's name.")], home: HomeOption = DEFAULT
) -> None:
    """Let a key open nothing any more."""
    asyncio.run(keys_command.revoke(Home(home), name))


@app.command()
def dsn(home: HomeOption = DEFAULT) -> None:
    """Print a libpq address of the database."""
    print(Home(home).addresses().database)


@app.command()
def doctor(home: HomeOption = DEFAULT) -> None:
    """Say what is wrong with this machine and how to mend it."""
    raise typer.Exit(doctor_command.run(Home(home)))


@app.command()
def migrate() -> None:
    """Bring the database in REWARDLOOP_DATABASE_URL to this version's schema."""
    asyncio.run(Store(load_settings("migrate").database_url.get_secret_value()).migrate())


def main() -> None:
    """The console script."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with known_errors_told():
        try:
            app()
        except RewardloopError:
            raise
        except Exception:
            print_traceback()
            sys.exit(1)
