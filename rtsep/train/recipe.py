"""Read recipes: TOML files with a model, its mixtures and its schedule.

A recipe contains the description of the model (``name``, ``model``, ``[spec]``, ``[options]``,
``[training]``), a ``[schedule]`` with the fields of `rtsep.train.loop.Schedule`, and
``[mixtures]``: ``kind`` is one of `rtsep.train.mixers.MIXERS`, ``seconds`` the length of an
example, ``leave_out`` patterns of speakers, categories or songs that are not used, and the others
are fields of that mixer. ``start`` names a checkpoint beside the recipe, of a model with the same
weights; a new run starts from it. ``teacher`` names a bundle beside the recipe, for the loss
"taught".
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rtsep.errors import RecipeError
from rtsep.models.checkpoint import Description
from rtsep.train.corpus import Corpus
from rtsep.train.layouts import table
from rtsep.train.loop import Schedule, train
from rtsep.train.mixers import MIXERS, Mixer
from rtsep.train.parallel import group

VALIDATION_SEED = 2
VALIDATION_SIZE = 16
VALIDATION_S = 4.0


def read(path: Path) -> dict[str, Any]:
    """Read a recipe.

    Raises
    ------
    RecipeError
        The file can't be read or is not TOML.
    """
    try:
        recipe = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RecipeError(f"{path} can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is no recipe: {error}") from None
    for name in ("start", "teacher"):
        if name in recipe:
            recipe[name] = path.parent / str(recipe[name])
    return recipe


def parse(
    recipe: dict[str, Any], minutes: float | None = None
) -> tuple[Description, Schedule, dict[str, Any]]:
    """Split a recipe into the model, the schedule and the fields of the mixtures.

    Raises
    ------
    RecipeError
        A field is missing, unknown or invalid.
    """
    try:
        description = Description.parse(recipe)
        schedule = Schedule(**recipe["schedule"])
        if minutes is not None:
            schedule = replace(schedule, minutes=minutes)
        mixtures = {"kind": "speech", **recipe["mixtures"]}
        for name in ("seconds", "seed", "batch_size"):
            if not mixtures[name] > 0:
                raise ValueError(f"mixtures.{name} must be more than 0, not {mixtures[name]}")
        if mixtures["kind"] not in MIXERS:
            kinds = ", ".join(MIXERS)
            raise ValueError(f"unknown mixtures.kind {mixtures['kind']!r}; there are: {kinds}")
        if description.spec.channels != 1:
            raise ValueError(f"mixtures are mono, but spec.channels is {description.spec.channels}")
        if ("teacher" in recipe) is not (schedule.loss == "taught"):
            raise ValueError('a teacher and the loss "taught" need each other')
        description.build()
    except KeyError as error:
        raise RecipeError(f"the recipe has no {error.args[0]}") from None
    except (ValueError, TypeError) as error:
        raise RecipeError(f"the recipe is invalid: {error}") from None
    return description, schedule, mixtures


def mixer(
    description: Description, mixtures: dict[str, Any], data: Path, split: str, **changes: Any
) -> Mixer:
    """Make the mixer of a recipe for one split of a data folder.

    Raises
    ------
    CorpusError
        The data can't be read, or do not contain what the recipe mixes.
    RecipeError
        The mixer has no such field.
    """
    fields = {**mixtures, **changes}
    kind, rate = MIXERS[fields.pop("kind")], description.spec.sample_rate
    samples = round(fields.pop("seconds") * rate)
    without = fields.pop("leave_out", [])
    rows = [
        row
        for row in table(data)
        if row.split == split
        and row.role in kind.roles
        and not any(fnmatchcase(row.key, pattern) for pattern in without)
    ]
    corpus = Corpus.load(rows, rate)
    try:
        return kind(corpus, description.spec.sources, samples=samples, **fields)
    except TypeError as error:
        raise RecipeError(f"the recipe's mixtures are invalid: {error}") from None


def fit(
    recipe: dict[str, Any],
    data: Path,
    folder: Path,
    minutes: float | None = None,
    fresh: bool = False,
    workers: int = 1,
) -> Path:
    """Train a recipe; under ``torchrun``, together with its other processes.

    Parameters
    ----------
    recipe
        As returned by :func:`read`.
    data
        Folder with a layout that :func:`rtsep.train.layouts.table` recognises.
    folder
        Folder of the run; a run in it is resumed.
    minutes
        Duration of the training, in place of the recipe's number of steps.
    fresh
        Start over: remove the run in ``folder``.
    workers
        Number of processes that mix.

    Returns
    -------
    Path
        Path of the best checkpoint.

    Raises
    ------
    RecipeError, CorpusError, CheckpointError, NotFiniteError, StoppedError
        See :func:`parse`, :func:`mixer` and :func:`rtsep.train.loop.train`.
    """
    description, schedule, mixtures = parse(recipe, minutes)
    with group() as together:
        if mixtures["batch_size"] % together.size:
            raise RecipeError(
                f"a batch of {mixtures['batch_size']} cannot be shared by {together.size} processes"
            )
        if fresh and together.rank == 0:
            for name in ("best.safetensors", "resume.safetensors", "curve.csv", "curve.png"):
                (folder / name).unlink(missing_ok=True)
        together.agreed(False, 0.0)  # wait until the folder has been emptied
        training = mixer(description, mixtures, data, "train", part=(together.rank, together.size))
        checks = {"seed": VALIDATION_SEED, "batch_size": VALIDATION_SIZE, "seconds": VALIDATION_S}
        plain = {key: mixtures[key] for key in ("kind", "leave_out") if key in mixtures} | checks
        validation = mixer(description, plain, data, "val")
        given = {name: recipe.get(name) for name in ("start", "teacher")}
        return train(
            description, schedule, training, validation, folder, together, workers, **given
        )
