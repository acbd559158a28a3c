# make demo: set everything up and run the main job.   make test: set everything up and test it.
PYTHON := .venv/bin/python
# Compiled RTL (hw/rtl_sim/cache.py); the user's own folder.
CACHE := $(if $(filter /%,$(XDG_CACHE_HOME)),$(XDG_CACHE_HOME),$(HOME)/.cache)/cosim/rtl
ROOMS := arch_models cosim workloads hw studies tests
# Numbers that are fitted must not depend on a processor's kernels, a seed, a zone or a language.
# numpy ignores the names of features that it does not know.
OTHER_MACHINE := OPENBLAS_CORETYPE=Prescott PYTHONHASHSEED=1 TZ=Asia/Tokyo LC_ALL=C \
	NPY_DISABLE_CPU_FEATURES="AVX2 FMA3 AVX512F AVX512_SKX AVX512_ICL AVX512_SPR X86_V3 X86_V4"
TEST_EXTRAS := torch,onnx,rtl,scale,page,video,quality,dev

.PHONY: demo test long docs benchmark lint clean

demo:
	scripts/setup.sh page
	$(PYTHON) -m cosim study demo --out out/demo
	@echo "From here on: . .venv/bin/activate, then cosim --help (or .venv/bin/cosim --help)."

test: lint
	$(PYTHON) -m pytest -n 2 --durations 15 -r s
	$(OTHER_MACHINE) $(PYTHON) -m pytest -n 2 -m "fitted and not long"

long: lint
	$(PYTHON) -m pytest -n 2 -m long --timeout 3600 --durations 15 -r s

lint:
	scripts/setup.sh $(TEST_EXTRAS)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

docs:
	scripts/setup.sh $(TEST_EXTRAS)
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict
	@echo "Open out/site/index.html, or: $(PYTHON) -m mkdocs serve"

benchmark:
	scripts/setup.sh
	$(PYTHON) -m cosim benchmark --json out/benchmark.json

clean:
	rm -rf out build .pytest_cache .mypy_cache .ruff_cache "$(CACHE)"
	find $(ROOMS) -name __pycache__ -prune -exec rm -rf {} +
