# make demo: set everything up and run the main job.   make test: set everything up and test it.
PYTHON := .venv/bin/python
TEST_EXTRAS := torch,onnx,rtl,scale,dev

.PHONY: demo test long benchmark lint clean

demo:
	scripts/setup.sh
	$(PYTHON) -m studies.demo --out out/demo

test: lint
	$(PYTHON) -m pytest -n 2

long: lint
	$(PYTHON) -m pytest -n 2 -m long

lint:
	scripts/setup.sh $(TEST_EXTRAS)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

benchmark:
	scripts/setup.sh
	$(PYTHON) -m studies.speed.benchmark --json out/benchmark.json

clean:
	rm -rf out build .pytest_cache .mypy_cache .ruff_cache
