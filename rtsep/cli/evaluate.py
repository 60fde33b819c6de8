"""``rtsep eval``: score a model on mixtures with known sources."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from rtsep.cli import fail
from rtsep.cli.options import stem_options
from rtsep.errors import AudioFileError, EvaluationError, SpecError
from rtsep.evaluate import report, words
from rtsep.evaluate.evaluation import Evaluation
from rtsep.evaluate.score import missing_packages
from rtsep.runtime.engine import StemOptions

FILE = click.Path(path_type=Path)


@click.command()
@click.option("--data", required=True, type=FILE, help="Folder of mixtures and their sources.")
@click.option(
    "-m", "--model", help="Shipped model's name, a bundle's path, or oracle:ibm, irm, wiener, psm."
)
@stem_options
@click.option("--wer", is_flag=True, help="Count the words that a recogniser gets wrong.")
@click.option("--json", "json_path", type=FILE, help="Write all scores to this file.")
@click.option(
    "--csv", "csv_path", type=FILE, help="Write a line per mixture and source to this file."
)
@click.option("--plot", "plot_path", type=FILE, help="Draw box plots to this PNG file.")
def eval(
    data: Path,
    model: str | None,
    wer: bool,
    json_path: Path | None,
    csv_path: Path | None,
    plot_path: Path | None,
    full_band: bool,
    floor_db: float | None,
) -> None:
    """Score a model on the mixtures of a folder, with the live engine.

    DATA contains NNN_mixture.flac with NNN_<source>.flac (or other formats), or one folder per
    mixture with mixture.flac and <source>.flac. One source may lack its files: it is the mixture
    minus the others. Sources whose names differ only in a number, like speaker1 and speaker2, are
    scored in their best order. PESQ and STOI are computed for sources named speech, speaker, voice,
    talker or s, with or without a number.

    An oracle mask is computed from the true sources and gives an upper bound for its kind of mask;
    oracle:irm:512 sets its window in samples, by default the largest power of two within 32 ms.

    --wer adds the word error rate of the mixture, of each stem and of the true source alone, by
    PocketSphinx and its English model: pip install 'rtsep[wer]'. The texts are in list.csv or
    transcripts.csv, columns id and text (text_SOURCE for several speakers), or in a .txt beside
    each source file.

    A mixture that can't be read is named and left out; the exit code is then 2.

    \b
    Examples:
      rtsep eval --data bench/speech_noise
      rtsep eval --data bench/music --model oracle:irm --plot music.png
      rtsep eval --data read-sentences --wer
      rtsep eval --data my-set --model my-model.onnx --json scores.json --csv scores.csv
    """  # noqa: D301
    for path in (json_path, csv_path, plot_path):
        if path is not None:
            report.check_target(path)
    options = StemOptions(full_band, floor_db)
    evaluation = Evaluation(data, model, words.PocketSphinx() if wer else None, options)
    for sentence in missing_packages():
        fail(sentence)
    failures: list[str] = []
    with Progress(transient=True) as progress:
        for item in progress.track(evaluation.items, description="mixtures"):
            try:
                evaluation.add(item)
            except (AudioFileError, SpecError) as error:
                fail(error)
                failures.append(str(error))
    if not evaluation.rows:
        raise EvaluationError(f"nothing in {data} could be scored")
    Console().print(report.table(evaluation))
    done = len(evaluation.items) - len(failures)
    click.echo(f"{evaluation.name}, {done} mixtures: {evaluation.headline()}")
    if evaluation.unscored:
        click.echo(f"{evaluation.unscored} sources left out: silent, or alone in their mixture")
    for sentence in evaluation.words.sentences() if evaluation.words else []:
        click.echo(sentence)
    if json_path is not None:
        text = report.as_json(evaluation, failures)
        report.write(json_path, lambda file: file.write(text.encode()))
    if csv_path is not None:
        lines = report.as_csv(evaluation)
        report.write(csv_path, lambda file: file.write(lines.encode()))
    if plot_path is not None:
        report.write(plot_path, lambda file: report.draw(evaluation, file))
    if failures:
        fail(f"{len(failures)} of {len(evaluation.items)} mixtures were left out")
        click.get_current_context().exit(2)
