# make art    environment, requirements, one artwork: its path and caption stand at the end
# make test   the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROCESSES ?= 2  # of make test
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: art test test-slow test-parity samples benchmark benchmarks-all report serve docs colab lint clean

art: $(VENV)/.art
	@mkdir -p outputs
	$(BIN)/papermill main.ipynb outputs/main.ipynb -f config.yaml -k python3 --stdout-file outputs/main.txt
	@cat outputs/main.txt

test: $(VENV)/.test
	$(BIN)/python -m pytest tests --ignore tests/parity -m "not slow" --numprocesses $(PROCESSES) --dist loadfile

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest tests --ignore tests/parity -m slow

# Against the reference implementations. Where no CPU build of torch is at hand, its own package index has one.
test-parity: $(VENV)/.parity
	$(BIN)/python -m pytest tests/parity

# The artworks in outputs/, made again by the committed weights.
samples: $(VENV)/.art
	$(BIN)/python -m atelier samples

# The REST API and the web demo, at http://127.0.0.1:8000.
serve: $(VENV)/.extras
	$(BIN)/python -m atelier serve

# The badge in README.md that opens the web demo in Colab, once the repository has a place on GitHub.
COLAB := https://colab.research.google.com
colab:
	@test -n "$(REPOSITORY)" || { echo "make colab REPOSITORY=owner/name, of its place on GitHub"; exit 1; }
	@perl -pi -e 's|^<!-- colab -->(\[!\[.*?\]\(.*?\)\]\(.*?\) )?|<!-- colab -->[![Open in Colab]($(COLAB)/assets/colab-badge.svg)]($(COLAB)/github/$(REPOSITORY)/blob/main/notebooks/demo.ipynb) |' README.md
	@perl -pi -e 's|REPOSITORY = \\"[^"]*\\"|REPOSITORY = \\"$(REPOSITORY)\\"|' notebooks/demo.ipynb

benchmark: $(VENV)/.art
	$(BIN)/python benchmarks/studio.py

# Beside torch, transformers and datasets, as ratios; it takes long, and wants a machine with nothing else to do.
benchmarks-all: $(VENV)/.benchmark
	$(BIN)/python benchmarks/all.py

# docs/report.html from what the evaluations and benchmarks left in runs/, and the figures in README.md and docs/cards.
report: $(VENV)/.art
	$(BIN)/python -m atelier report

# The documentation with its API reference, in site/; in an environment of its own, since it shares nothing with the rest.
docs: $(VENV)-docs/.docs
	$(VENV)-docs/bin/mkdocs build --quiet

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Atelier needs Python 3.11 or newer; try: make art PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.art: requirement.txt | $(VENV)/bin/python
	@echo "Installing the requirements (about two minutes the first time) ..."
	@$(PIP) -r requirement.txt
	@# Notebooks and programs run from any folder with this environment find the package here.
	@$(BIN)/python -c "import site; open(site.getsitepackages()[0] + '/atelier.pth', 'w').write('$(CURDIR)\n')"
	@touch $@

# The service, the demo, the data preparation and the search for settings.
$(VENV)/.extras: extras/service.txt extras/prepare.txt extras/tune.txt $(VENV)/.art
	@$(PIP) -r requirement.txt -r extras/service.txt -r extras/prepare.txt -r extras/tune.txt
	@touch $@

$(VENV)/.test: tests/requirement.txt $(VENV)/.extras
	@$(PIP) -r tests/requirement.txt
	@touch $@

$(VENV)/.parity: tests/parity/requirement.txt $(VENV)/.test
	@$(PIP) -r tests/parity/requirement.txt
	@touch $@

$(VENV)/.benchmark: extras/benchmark.txt $(VENV)/.parity
	@$(PIP) -r extras/benchmark.txt
	@touch $@

$(VENV)-docs/.docs: extras/docs.txt
	$(PYTHON) -m venv $(VENV)-docs
	@$(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check -r extras/docs.txt
	@touch $@

$(VENV)/.lint: | $(VENV)/bin/python
	@$(PIP) ruff==0.17.5
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-docs site .pytest_cache .hypothesis
