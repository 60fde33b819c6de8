"""Make a bundle of one or two ONNX files by others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from rtsep.adopt import mask_then_samples, samples, spectrum
from rtsep.adopt.body import Body
from rtsep.adopt.description import UNKNOWN, Description, Texts, known
from rtsep.adopt.network import Network, interface, make_network, open_model
from rtsep.adopt.sherpa import of_metadata
from rtsep.conformance.checks import BEFORE_WRITING, Subject
from rtsep.errors import AdoptError, BundleError, ContractError, SpecError
from rtsep.runtime.bundle import Bundle, describe, parse
from rtsep.version import __version__

DELAYED = "mixture"
"""Name of the state of past mixtures, from which a late estimate is subtracted."""


def adopt(paths: Sequence[Path], name: str, description: Description | None = None) -> Bundle:
    """Make a bundle of a streaming model by others.

    Parameters
    ----------
    paths
        Its ONNX files in order.
    name
        Name of the bundle.
    description
        What its inputs and outputs are; by default that of the known model with the same inputs
        and outputs, or that in the metadata of the file.

    Raises
    ------
    AdoptError
        A file can't be read, is not described, or contradicts its description; see
        `rtsep.adopt.network.make_network`.
    """
    models = [open_model(path) for path in paths]
    description = description or recognised(models, paths)
    spec = description.spec()
    if len(models) != len(description.networks):
        raise AdoptError(f"networks describes {len(description.networks)} files, not {len(models)}")
    networks = [
        make_network(model, each, path.name)
        for model, each, path in zip(models, description.networks, paths, strict=True)
    ]
    model = _graph(networks, description)
    hashes = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    digests = ", ".join(f"{path.name} {h}" for path, h in zip(paths, hashes, strict=True))
    texts = description.texts
    if description.sha256 and hashes != description.sha256:  # retrained, for example
        texts = Texts(texts.model, UNKNOWN, UNKNOWN)
    described = describe(
        spec,
        {
            "name": name,
            "model": texts.model,
            "training": f"weights by {texts.author}, not by rtsep, adopted as published "
            f"(SHA-256: {digests}); data: {texts.training}",
            "licence": texts.licence,
            "quality": texts.quality,
            "version": __version__,
        },
    )
    for key, value in described.items():
        model.metadata_props.add(key=key, value=value)
    try:
        return parse(model.SerializeToString())
    except (BundleError, SpecError) as error:
        raise AdoptError(f"{', '.join(p.name for p in paths)}: {error}") from None


def check(bundle: Bundle) -> None:
    """Check that an adopted model keeps the streaming contract.

    Raises
    ------
    AdoptError
        It does not, or ONNX Runtime can't run it.
    """
    subject = Subject(bundle, strictness=2)
    try:
        for examine in BEFORE_WRITING.values():
            examine(subject)
    except (BundleError, ContractError) as error:
        name = bundle.metadata["name"]
        raise AdoptError(f"{name} is refused: {str(error).removeprefix(f'{name}: ')}") from None


def recognised(models: Sequence[onnx.ModelProto], paths: Sequence[Path]) -> Description:
    """Return the description of a known model, or that in the metadata of the file.

    Raises
    ------
    AdoptError
        There is none.
    """
    for description in known().values():
        if len(description.networks) == len(models) and all(
            _fits(model, each) for model, each in zip(models, description.networks, strict=True)
        ):
            found = of_metadata(models[0]) if len(models) == 1 else None
            texts = {"texts": description.texts, "sha256": description.sha256}
            return replace(found, **texts) if found else description  # type: ignore[arg-type]
    if len(models) == 1:
        found = of_metadata(models[0])
        if found is not None:
            return found
    names = ", ".join(known())
    raise AdoptError(
        f"{', '.join(path.name for path in paths)}: inputs and outputs are those of no known model "
        f"({names}): describe them with --spec"
    )


def _fits(model: onnx.ModelProto, described: object) -> bool:
    """Return whether a graph has exactly the inputs of a description, and its outputs."""
    from rtsep.adopt.description import NetworkDescription

    assert isinstance(described, NetworkDescription)
    inputs = {value.name for value in model.graph.input}
    outputs = {*interface(model)} - inputs
    wanted = {described.input, *described.states, *described.options}
    return inputs == wanted and {described.output, *described.states.values()} <= outputs


def _graph(networks: Sequence[Network], description: Description) -> onnx.ModelProto:
    """Connect the networks and subtract the estimate from the mixture."""
    spec = description.spec()
    body = Body(spec)
    if description.kind == "spectrum":
        estimate = spectrum.wire(body, networks)
    elif description.kind == "samples":
        estimate = samples.wire(body, networks, description.delay)
    else:
        estimate = mask_then_samples.wire(body, networks)
    if description.gain != 1.0:
        estimate = body("Mul", estimate, body.number(description.gain))
    if description.rest:
        mixture = body.mixture
        if spec.lookahead:
            mixture = body.state(DELAYED, (1, 1, *spec.frame_shape), spec.lookahead)
            body.keep(DELAYED, body.mixture)
        rest = body("Sub", mixture, estimate)
        estimate = body("Concat", estimate, rest, axis=1)
    whole = (1, len(spec.sources), 1, *spec.frame_shape)
    return body.model(body.reshape(estimate, whole))
