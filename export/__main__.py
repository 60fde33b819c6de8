"""Make a shipped bundle: train, export, evaluate, write the card.

python -m export speech --data ../shared/data [--steps N]

Training resumes the run in ``runs/NAME`` or, in a fresh clone, ``export/NAME.resume.safetensors``
if it exists. The best weights are saved as ``export/NAME.safetensors``. ``--steps 0`` makes the
bundle from these weights without training.
"""

from __future__ import annotations

import argparse
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from export import kept
from export.card import card, of_recipe
from rtsep.evaluate.evaluation import evaluate
from rtsep.models.checkpoint import load as load_checkpoint
from rtsep.nn.onnx import export, write
from rtsep.runtime.bundle import load
from rtsep.train.parallel import limit_threads
from rtsep.train.recipe import fit, read

HERE = Path(__file__).parent
WEIGHTS = HERE.parent / "rtsep" / "weights"


def make(recipe: dict[str, Any], checkpoint: Path, data: Path, target: Path) -> None:
    """Export the checkpoint, score the bundle, and write bundle and card."""
    description, model = load_checkpoint(checkpoint)
    floor = recipe.get("floor_db")  # the recipe's, which can be chosen after training
    texts = replace(description, floor_db=floor).texts()
    part = target.with_suffix(".measuring.onnx")
    try:
        write(export(model, description.spec, texts), part)
        if "evaluation" not in recipe:  # a voice that is kept
            texts["quality"] = kept.headline(kept.measure(data, str(part)))
        else:
            scored = evaluate(data / recipe["evaluation"]["folder"], str(part))
            count = len(scored.items)
            texts["quality"] = f"{scored.headline()}, means over {count} mixtures never heard"
    finally:
        part.unlink(missing_ok=True)
    write(export(model, description.spec, texts), target)
    text = card(load(target), of_recipe(recipe, description.training))
    target.with_suffix(".md").write_text(text, "utf-8")
    print(f"{target}: {texts['quality']}")


def main() -> None:
    """Run the recipe named on the command line."""
    names = sorted(path.stem for path in HERE.glob("*.toml"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=names)
    parser.add_argument("--data", type=Path, default=os.environ.get("RTSEP_DATA"))
    parser.add_argument("--steps", type=int, help="training steps, in place of the recipe's number")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--threads", type=int, default=1, help="threads of training; 1")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("the data folder is missing: use --data or RTSEP_DATA")
    limit_threads(arguments.threads)
    recipe = read(HERE / f"{arguments.name}.toml")
    if arguments.steps is not None:
        recipe["schedule"]["steps"] = arguments.steps
    checkpoint = HERE / f"{arguments.name}.safetensors"
    if arguments.steps != 0:
        folder = arguments.runs / arguments.name
        resume, kept = folder / "resume.safetensors", HERE / f"{arguments.name}.resume.safetensors"
        if kept.exists() and not resume.exists():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(kept, resume)
        try:
            best = fit(recipe, Path(arguments.data), folder)
        except ValueError as error:  # invalid input, divergence or Ctrl-C
            parser.exit(1, f"{error}\n")
        shutil.copyfile(best, checkpoint)
    target = WEIGHTS / f"{arguments.name}.onnx"
    make(recipe, checkpoint, Path(arguments.data), target)


if __name__ == "__main__":
    main()
