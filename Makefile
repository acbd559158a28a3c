# make demo: set everything up and run the main job.   make test: set everything up and test it.
PYTHON := .venv/bin/python
# Compiled RTL (hw/rtl_sim/cache.py); the user's own folder.
CACHE := $(if $(filter /%,$(XDG_CACHE_HOME)),$(XDG_CACHE_HOME),$(HOME)/.cache)/cosim/rtl
ROOMS := arch_models cosim workloads hw studies tests
TEST_EXTRAS := torch,onnx,rtl,scale,dev

.PHONY: demo test long benchmark lint clean

demo:
	scripts/setup.sh
	$(PYTHON) -m cosim study demo --out out/demo
	@echo "From here on: . .venv/bin/activate, then cosim --help (or .venv/bin/cosim --help)."

test: lint
	$(PYTHON) -m pytest -n 2 --durations 15 -r s

long: lint
	$(PYTHON) -m pytest -n 2 -m long --timeout 3600 --durations 15 -r s

lint:
	scripts/setup.sh $(TEST_EXTRAS)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

benchmark:
	scripts/setup.sh
	$(PYTHON) -m cosim benchmark --json out/benchmark.json

clean:
	rm -rf out build .pytest_cache .mypy_cache .ruff_cache "$(CACHE)"
	find $(ROOMS) -name __pycache__ -prune -exec rm -rf {} +
