"""A trained model on disk: safetensors with a description in the header, as JSON.

Nothing in a checkpoint is executed: no pickles are read or written.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rtsep.errors import CheckpointError
from rtsep.files.atomic import replacing
from rtsep.models import architecture, build
from rtsep.nn.streaming import Streaming
from rtsep.spec import Spec


@dataclass(frozen=True)
class Description:
    """Description of a trained model.

    Attributes
    ----------
    name
        Name of the bundle.
    model, options
        Name of the architecture, and its constructor arguments.
    spec
        Rate, frames and sources of the stream.
    training
        Texts for the model card: ``data``, ``licence``, ``attribution``, ``steps``.
    floor_db
        Level at which other sources are left in each stem by default, in dB; none if None.
    """

    name: str
    model: str
    spec: Spec
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, str] = field(default_factory=dict)
    floor_db: float | None = None

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Description:
        """Read the fields of a recipe or a checkpoint header.

        Raises
        ------
        ValueError
            A field is missing or invalid.
        """
        try:
            spec = dict(fields["spec"])
            spec["sources"] = tuple(spec["sources"])
            return cls(
                name=str(fields["name"]),
                model=str(fields["model"]),
                spec=Spec(**spec),
                options=dict(fields.get("options", {})),
                floor_db=None if fields.get("floor_db") is None else float(fields["floor_db"]),
                training={str(k): str(v) for k, v in fields.get("training", {}).items()},
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"a field is missing or wrong: {error}") from None

    def texts(self) -> dict[str, str]:
        """Return the texts of a bundle of this model, see `rtsep.runtime.bundle.KEYS`."""
        told = self.training
        floor = {} if self.floor_db is None else {"floor": f"{self.floor_db:g}"}
        data = told.get("data", "")
        if "steps" in told:
            data = f"{data} Steps: {told['steps']}.".strip()
        return {
            "name": self.name,
            "model": f"{self.model} ({architecture(self.model).PAPER})",
            "training": "\n".join(filter(None, (data, told.get("attribution")))) or "not stated",
            "licence": told.get("licence", "not stated"),
            "quality": "not measured",
            **floor,
        }

    def build(self) -> Streaming:
        """Build the model, with random weights."""
        return build(self.model, self.spec, self.options)


def save(path: Path, description: Description, tensors: dict[str, Tensor]) -> None:
    """Write a checkpoint, atomically."""
    header = {"rtsep": json.dumps(asdict(description))}
    with replacing(path) as part:
        save_file({k: v.detach().contiguous() for k, v in tensors.items()}, part, header)


def read(path: Path) -> tuple[Description, dict[str, Tensor]]:
    """Read a checkpoint written by :func:`save`.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, or no checkpoint.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    try:
        with safe_open(path, "pt") as file:
            header = (file.metadata() or {}).get("rtsep")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header is None:
            raise CheckpointError(f"{path} is no checkpoint of rtsep: its header says nothing")
        return Description.parse(json.loads(header)), tensors
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no safetensors checkpoint: {error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def load(path: Path) -> tuple[Description, Streaming]:
    """Read a checkpoint and build its model, in evaluation mode.

    Raises
    ------
    CheckpointError
        See :func:`read`; or the weights don't fit the architecture.
    """
    description, tensors = read(path)
    try:
        model = description.build()
        model.load_state_dict(tensors)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path} does not fit model {description.model!r}: {reason}"
        ) from None
    return description, model.eval()
