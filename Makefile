# Everything a developer runs. `make` alone lists the targets.
#   make demo    install, fetch the demo model, fine-tune it, show it before and after
#   make test    the quick suite: lint, types, import directions, unit tests
#   make ci      the quick and the slow suite, each timed
#   make test-faults  runs that are killed, starved and damaged, in an hour
#   make test-api  the API, with an older client as well
#   make test-optimizers  optimizers against those of others
#   make test-media  processors of models that see or hear, with a table for docs/multimodal.md
#   make test-methods  every method in every precision, with a table for docs/methods.md
#   make test-lm-eval  tasks of lm-evaluation-harness
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two cores are what the quick suite is timed on.
WORKERS ?= 2

# One thread per process (the models of the tests are too small to share), and never the network.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false \
	HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 MPLBACKEND=Agg

.PHONY: help setup test lint test-slow test-faults test-faults-again test-api test-lm-eval test-optimizers test-media test-methods test-vllm test-sglang test-clients test-schemathesis ci demo bench-startup clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 27

setup: $(STAMP) ## create .venv and install the tested versions

# Runs again only when what is to be installed has changed.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the tested versions into $(VENV) (the first time takes minutes) ..."
	@PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 $(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

lint: $(STAMP) ## ruff, mypy, import-linter
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "run: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo

test: lint ## the quick suite
	@$(TEST_ENV) $(BIN)/python -m pytest -m "not slow and not faults" -n $(WORKERS) --dist loadgroup

test-slow: $(STAMP) ## the slow suite: demo, learning tests, the wheel
	@$(TEST_ENV) $(BIN)/python -m pytest -m "slow and not faults" -n $(WORKERS) --dist loadfile

test-faults: $(STAMP) ## the whole fault matrix: every kill, full disk and damaged file
	@$(TEST_ENV) $(BIN)/python -m pytest -p tests.faults.record -m row -n $(WORKERS) --dist loadgroup \
		--fault-results bench/results/faults.json

test-faults-again: $(STAMP) ## what failed in the fault matrix, once more
	@$(TEST_ENV) $(BIN)/python -m pytest -p tests.faults.record -m row -n $(WORKERS) --dist loadgroup \
		--fault-results bench/results/faults.json --fault-again --last-failed --last-failed-no-failures none

# The last client of the 1.x series, and what it needs beside what is there.
OLD_CLIENT := build/openai-1
test-api: $(STAMP) ## the API with an older official client, and with 5,000 bodies of any kind
	@$(BIN)/python -m pip install -q --upgrade --no-deps --target $(OLD_CLIENT) openai==1.109.1 httpx==0.28.1 httpcore==1.0.9
	@PYTHONPATH=$(OLD_CLIENT) $(TEST_ENV) $(BIN)/python -m pytest tests/unit/serve/test_client.py
	@$(TEST_ENV) $(BIN)/python -m pytest -m "slow or not slow" tests/property/test_api_fuzz.py tests/unit/serve tests/e2e/test_api_real.py

# The harness and what it needs, beside the packages that are there.
LM_EVAL := build/lm-eval
PACKAGES := "import sysconfig; print(sysconfig.get_path('purelib'))"
test-lm-eval: $(STAMP) ## tasks of lm-evaluation-harness, which gets an environment of its own
	@test -x $(LM_EVAL)/bin/python || $(BIN)/python -m venv $(LM_EVAL)
	@$(BIN)/python -c $(PACKAGES) > "$$($(LM_EVAL)/bin/python -c $(PACKAGES))/base.pth"
	@$(LM_EVAL)/bin/python -m pip install -q --constraint constraints.txt lm-eval==0.4.13
	@PYTHONPATH=src HF_DATASETS_CACHE=$(LM_EVAL)/cache $(TEST_ENV) $(LM_EVAL)/bin/python -m pytest -n 0 tests/unit/evaluate/test_harness.py

# Optimizers of others, which ours are compared with.
OPTIMIZERS := build/optimizers
test-optimizers: $(STAMP) ## our optimizers against pytorch-optimizer and schedulefree
	@$(BIN)/python -m pip install -q --upgrade --no-deps --target $(OPTIMIZERS) pytorch-optimizer==4.1.0 schedulefree==1.4.1
	@PYTHONPATH=$(OPTIMIZERS) $(TEST_ENV) $(BIN)/python -m pytest -n 0 tests/unit/train/optimizers/test_witnesses.py

test-methods: $(STAMP) ## every method in every precision; writes docs/methods.md
	@$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) tests/matrix --method-results bench/results/methods.json
	@$(BIN)/python scripts/generate_methods_doc.py

# Processors that are written with torchvision run with one beside torch (tests/torchvision_oracle.py).
MEDIA_WITNESSES := build/torchvision

test-media: $(STAMP) ## processors of images, videos and sound; writes docs/multimodal.md
	@test -d $(MEDIA_WITNESSES)/torchvision || $(BIN)/python -m pip install -q --no-deps --target $(MEDIA_WITNESSES) torchvision==0.28.0 num2words docopt
	@$(TEST_ENV) $(BIN)/python -m tests.media_checks bench/results/multimodal.json $(MEDIA_WITNESSES)
	@$(BIN)/python scripts/generate_multimodal_doc.py

# Clients of others in an environment of their own, against a server of this one; and the oldest official client that works.
CLIENTS := build/clients
OLDEST_CLIENT := build/openai-oldest
CHECK_CLIENTS = SERVER_PYTHON=$(abspath $(BIN)/python) $(TEST_ENV) $(CLIENTS)/bin/python -m pytest -c tests/clients/pytest.ini \
	--rootdir tests/clients -p no:cacheprovider
test-clients: $(STAMP) ## langchain-openai, litellm and the oldest openai against the API
	@test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip install -q --constraint tests/clients/constraints.txt langchain-openai litellm pytest
	@$(CLIENTS)/bin/python -m pip install -q --upgrade --no-deps --target $(OLDEST_CLIENT) openai==1.2.3 httpx==0.27.2
	@$(CHECK_CLIENTS) tests/clients --ignore tests/clients/check_schemathesis.py
	@PYTHONPATH=$(OLDEST_CLIENT) $(CHECK_CLIENTS) tests/clients/check_openai.py

# Calls made of /openapi.json, in an environment of its own: a quarter of an hour.
SCHEMATHESIS := build/schemathesis
test-schemathesis: $(STAMP) ## 5,000 calls made of the API's own description
	@test -x $(SCHEMATHESIS)/bin/python || $(PYTHON) -m venv $(SCHEMATHESIS)
	@$(SCHEMATHESIS)/bin/python -m pip install -q --constraint tests/clients/schemathesis.txt schemathesis pytest
	@SERVER_PYTHON=$(abspath $(BIN)/python) $(TEST_ENV) $(SCHEMATHESIS)/bin/python -m pytest -c tests/clients/pytest.ini \
		--rootdir tests/clients -p no:cacheprovider tests/clients/check_schemathesis.py

# Engines for GPUs, which pin their own torch: each in an environment of its own.
define test-engine
	@test -x build/$(1)/bin/python || $(PYTHON) -m venv build/$(1)
	@build/$(1)/bin/python -m pip install -q --editable '.[$(1)]' hypothesis pytest pytest-timeout
	@$(TEST_ENV) HF_HUB_OFFLINE=0 TRANSFORMERS_OFFLINE=0 build/$(1)/bin/python -m pytest -m "slow or not slow" -k $(1) \
		tests/contracts/test_outside_names.py tests/contracts/test_real_engines.py
endef
test-vllm: ## the vLLM engine: its names, and where there is a GPU what it says
	$(call test-engine,vllm)
test-sglang: ## the same for SGLang
	$(call test-engine,sglang)

ci: ## both suites, each timed; fails if one does
	@$(PYTHON) scripts/ci.py

demo: $(STAMP) ## fine-tune a real chat model and show what it learnt
	@$(BIN)/python -m tunesmith demo

bench-startup: $(STAMP) ## how long the quick verbs take to start
	@$(BIN)/python bench/startup.py

clean: ## remove caches and build output, keep .venv
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
