"""What runs live is what was trained: engine and ONNX against torch offline."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rtsep.errors import ContractError
from rtsep.models import build
from rtsep.nn.frontend import Frontend, separate
from rtsep.nn.onnx import check_parity, export
from rtsep.nn.streaming import Streaming
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step
from rtsep.spec import Spec
from tests.support.random_cases import cases

TEXTS = {"name": "t", "model": "m", "training": "none", "licence": "MIT", "quality": "none"}
SPECS = {
    "speech": Spec(16000, 1, "stft", "hann", 512, 128, 1, 4, ("speech", "noise")),
    "music": Spec(44100, 2, "stft", "blackmanharris", 1024, 256, 1, 0, ("vocals", "drums", "rest")),
    "early chunks": Spec(
        16000, 1, "stft", "hann", 512, 32, 3, 2, ("speech", "noise"), synthesis_length=96
    ),
}
OPTIONS = {
    "speech": {"compression": 0.3, "level_frames": 125.0},
    "music": {},
    "early chunks": {"size": "speech"},
}


@pytest.fixture(scope="module")
def made() -> dict[str, tuple[Streaming, Bundle]]:
    """Each model with random weights, and its bundle."""
    torch.manual_seed(0)
    models = {name: build("chandna", spec, OPTIONS[name]).eval() for name, spec in SPECS.items()}
    return {name: (model, export(model, SPECS[name], TEXTS)) for name, model in models.items()}


def signal(samples: int, channels: int) -> np.ndarray:
    """Noise at full scale with a pause."""
    x = np.random.default_rng(1).uniform(-1, 1, (samples, channels)).astype(np.float32)
    x[samples // 3 : samples // 2] = 0.0
    return x


def offline(model: Streaming, spec: Spec, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return separate(model, Frontend(spec), torch.from_numpy(x)[None])[0].numpy()


def live(bundle: Bundle, x: np.ndarray, sizes: list[int], block: int) -> np.ndarray:
    spec, channels = bundle.spec, x.shape[1]
    engine = Engine(make_step(bundle, spec.streams(channels)), spec, channels, block)
    parts, start, turn = [], 0, 0
    while start < len(x):
        part = x[start : start + sizes[turn % len(sizes)]]
        parts.append(engine.process(np.ascontiguousarray(part)))
        start, turn = start + len(part), turn + 1
    return np.concatenate([*parts, engine.flush()])[engine.latency_samples :]


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(
    "block", [7, 128, 480, *(pytest.param(n, marks=pytest.mark.soak) for n in (1, 64, 100, 4096))]
)
def test_engine_with_onnx_equals_torch_offline(
    made: dict[str, tuple[Streaming, Bundle]], name: str, block: int
) -> None:
    model, bundle = made[name]
    samples = max(6000, 2 * block) // block * block
    x = signal(samples, SPECS[name].channels)
    difference = live(bundle, x, [block], block) - offline(model, SPECS[name], x)
    assert difference.shape[0] == samples
    assert np.max(np.abs(difference)) <= 1e-5


@given(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=6).filter(any))
@cases(6)
def test_blocks_of_any_size_equal_torch_offline(
    made: dict[str, tuple[Streaming, Bundle]], sizes: list[int]
) -> None:
    model, bundle = made["speech"]
    x = signal(8000, 1)
    difference = live(bundle, x, sizes, 1) - offline(model, SPECS["speech"], x)
    assert np.max(np.abs(difference)) <= 1e-5


def test_channels_of_a_mono_model_are_streams_of_their_own(
    made: dict[str, tuple[Streaming, Bundle]],
) -> None:
    _, bundle = made["speech"]
    x = signal(5000, 3)
    together = live(bundle, x, [500], 1)
    for channel in range(3):
        alone = live(bundle, np.ascontiguousarray(x[:, [channel]]), [500], 1)
        assert np.max(np.abs(together[:, :, [channel]] - alone)) <= 1e-6


def test_interleaved_engines_are_independent(made: dict[str, tuple[Streaming, Bundle]]) -> None:
    _, bundle = made["speech"]
    x = signal(4096, 2)
    spec = bundle.spec
    alone = [live(bundle, np.ascontiguousarray(x[:, [c]]), [4096], 1) for c in range(2)]
    engines = [Engine(make_step(bundle), spec, 1, 128) for _ in range(2)]
    parts: list[list[np.ndarray]] = [[], []]
    for start in range(0, 4096, 128):
        for c, engine in enumerate(engines):
            parts[c].append(engine.process(np.ascontiguousarray(x[start : start + 128, [c]])))
    for c, engine in enumerate(engines):
        late = engine.latency_samples
        y = np.concatenate([*parts[c], engine.flush()])[late:]
        assert np.array_equal(y, alone[c])


def test_another_models_graph_is_refused(made: dict[str, tuple[Streaming, Bundle]]) -> None:
    torch.manual_seed(1)
    other = build("chandna", SPECS["speech"], OPTIONS["speech"]).eval()
    with pytest.raises(ContractError, match="the ONNX graph differs from the module by"):
        check_parity(other, made["speech"][1])
