# Everything happens in environments of its own (.venv, .venv-wheel); stamp files make a second run quick.
#   make demo         compress the built-in example for a Raspberry Pi 4
#   make test         run the tests
#   make test-avx2    run the tests that train once more, as on a processor without AVX-512
#   make test-zoos    export, cut and compare networks of torchvision and timm (an environment of 6 GB, an hour)
#   make lint         formatting, lint rules, types, import contracts
#   make docs         build the documentation site, warnings as errors
#   make wheel-check  install the wheel alone into a clean environment and use it there

PYTHON ?= python3
DEVICE ?= raspberry-pi-4
MAX_MB ?= 0.12
MAX_LATENCY_MS ?= 1.0
JOBS ?= $(shell n=$$(nproc 2> /dev/null || echo 2); echo $$((n < 2 ? 2 : n > 4 ? 4 : n)))

# Hundreds of short commands are run: where nothing may be compiled ahead, each compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
WHEEL_VENV := .venv-wheel
ZOOS_VENV := .venv-zoos
WHEEL_BIN := $(CURDIR)/$(WHEEL_VENV)/bin
DEMO_RUN := demo-run
SITE := docs/_build/html

.PHONY: help demo test test-avx2 test-zoos lint docs wheel-check clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.installed-compress
	@rm -rf $(DEMO_RUN)
	$(BIN)/n2n-edge compress --device $(DEVICE) --max-mb $(MAX_MB) --max-latency-ms $(MAX_LATENCY_MS) \
	    --effort quick --out $(DEMO_RUN)
	@echo
	@echo "student  $(DEMO_RUN)/student.onnx"
	@echo "report   $(DEMO_RUN)/report.html"

# Two processes (up to four, where there are as many cores) share the tests out by file; JOBS=0 runs all in one.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# oneDNN chooses other kernels there, and has had faults in them that end or hang the process.
test-avx2: $(VENV)/.installed-dev
	ONEDNN_MAX_CPU_ISA=AVX2 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "processor and not slow"

# PyPI's torchvision goes with a torch of its own, which is none of the pinned set.
test-zoos: $(ZOOS_VENV)/.installed
	$(ZOOS_VENV)/bin/python -m pytest -m zoos tests/training/test_torch_zoos.py tests/training/test_torch_teachers.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Links and anchors between pages are checked by the build, those of the other Markdown files by a test.
docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build --fresh-env --fail-on-warning --keep-going --nitpicky --quiet -b html docs $(SITE)
	@echo "site     $(SITE)/index.html"

# A board installs the wheel without extras: what it needs must work there, and `compress` must say what is missing.
wheel-check: $(VENV)/.installed-dev
	@rm -rf $(WHEEL_VENV)
	$(PYTHON) -m venv $(WHEEL_VENV)
	$(BIN)/python -m build --wheel --outdir $(WHEEL_VENV)/dist .
	$(WHEEL_BIN)/pip install --quiet -c constraints.txt $(WHEEL_VENV)/dist/*.whl
	cd $(WHEEL_VENV) && $(WHEEL_BIN)/n2n-edge --version
	cd $(WHEEL_VENV) && $(WHEEL_BIN)/n2n-edge doctor
	cd $(WHEEL_VENV) && $(WHEEL_BIN)/n2n-edge --help
	cd $(WHEEL_VENV) && $(WHEEL_BIN)/n2n-edge profiles list
	cd $(WHEEL_VENV) && \
	    $(WHEEL_BIN)/python -c 'from n2n_edge._example import teacher_path; print(teacher_path())' > teacher-path && \
	    $(WHEEL_BIN)/n2n-edge inspect "$$(cat teacher-path)" && \
	    $(WHEEL_BIN)/n2n-edge bench "$$(cat teacher-path)" && \
	    $(WHEEL_BIN)/n2n-edge gate "$$(cat teacher-path)" --max-mb 2
	cd $(WHEEL_VENV) && $(WHEEL_BIN)/pip install --quiet -c $(CURDIR)/constraints.txt pillow && \
	    $(WHEEL_BIN)/python -c 'import numpy; numpy.savez("images.npz", x=numpy.zeros((90, 16, 16), "u1"), y=numpy.arange(90) % 10)' && \
	    $(WHEEL_BIN)/n2n-edge gate "$$(cat teacher-path)" --min-score 0.01 --data images.npz
	cd $(WHEEL_VENV) && status=0; $(WHEEL_BIN)/n2n-edge compress --max-mb 0.1 2> stderr || status=$$?; \
	    cat stderr; \
	    test $$status -eq 3 || { echo "compress without torch: exit $$status, not 3"; exit 1; }; \
	    test "$$(wc -l < stderr)" -eq 1 || { echo "compress without torch: not one line"; exit 1; }; \
	    grep -q 'n2n-edge\[compress' stderr || { echo "compress without torch: the line names no extra"; exit 1; }
	@echo "wheel-check passed"

clean:
	rm -rf $(VENV) $(WHEEL_VENV) $(ZOOS_VENV) $(DEMO_RUN) docs/_build dist

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("n2n-edge needs Python 3.11 or newer; set PYTHON=" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-compress: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[compress,example]"
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[compress,example,png,dev]"
	@touch $@ $(VENV)/.installed-compress

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	@touch $@

$(ZOOS_VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(ZOOS_VENV)
	grep -vE '^(torch|triton|nvidia.*|setuptools)==' constraints.txt > $(ZOOS_VENV)/constraints.txt
	$(ZOOS_VENV)/bin/python -m pip install --quiet -c $(ZOOS_VENV)/constraints.txt \
	    torch==2.14.1 torchvision==0.29.1 timm==1.0.31 -e ".[compress,example,png,dev]"
	@touch $@
