# Two commands from a fresh clone do everything: `make run` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# Python compiles what it imports; compiling all that is installed takes longer.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
# Told not to keep that, each of the many processes of the tests would compile all of it again.
export PYTHONDONTWRITEBYTECODE :=
# One metric is compiled when it is installed; without a C compiler its tests say so and skip.
TEST_EXTRAS := train,musdb,wer,ui,serve,livekit,webrtc,wyoming,docs,test$(shell command -v cc >/dev/null && echo ,pesq)

# Pipecat asks for other versions of protobuf and soxr than the rest and for a second ONNX Runtime, so
# its tests use it without its dependencies, except those that extra [test] names.

# What is compiled: an edit or a pull of one of these compiles all of them again.
KERNELS := $(shell grep -rl --include='*.py' rtsep.dsp.kernel rtsep)

# Files with tests that work in real time, which run alone; collecting the others takes half a minute.
DEVICE_TESTS := $(shell grep -rl --include='test_*.py' mark.device tests)

.PHONY: run test soak docs check clean

run: .venv/runtime
	@.ci/portaudio
	$(BIN)/rtsep run --device demo --record out/

test: .venv/tests check
	@.ci/portaudio
	$(BIN)/python -m pytest -m "not device" --numprocesses logical --dist loadfile
	$(BIN)/python -m pytest -m device $(DEVICE_TESTS)

# Long tests and many random cases, before a release.
soak: .venv/tests
	$(BIN)/python -m pytest --soak -m "(soak or hypothesis) and not device" --numprocesses logical
	$(BIN)/python -m pytest --soak -m "soak and device" $(DEVICE_TESTS)

docs: .venv/tests
	$(BIN)/python -m export.listening build/listening
	$(BIN)/mkdocs build --strict

check: .venv/tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.venv/bin/python:
	$(PYTHON) -m venv .venv

# Kernels need these three packages, so they are compiled while the others are installed.
.venv/runtime: .venv/bin/python pyproject.toml constraints.txt $(KERNELS)
	$(PIP) numpy numba soundfile
	@echo "compiling the kernels, once"
	@.ci/kernels $(BIN)/python & kernels=$$!; $(PIP) --editable . && wait $$kernels
	@$(BIN)/python -c "import rtsep.cli.run"
	@touch $@

.venv/tests: .venv/runtime
	$(PIP) --editable '.[$(TEST_EXTRAS)]'
	$(PIP) --no-deps pipecat-ai
	@touch $@

clean:
	rm -rf .venv out site
	find . -name __pycache__ -exec rm -rf {} +
