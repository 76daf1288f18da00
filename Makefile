# Every command runs in the development environment (dev/environment.py), which the first one builds
# in the user's cache: minutes and 9 GB once, no time after that. TANDEM_HOME moves it elsewhere.
PYTHON ?= python3
RUN := $(PYTHON) dev/environment.py run

.DEFAULT_GOAL := help
.PHONY: help demo host test quick check fmt bench proof loras recipes radial browser clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1	/' | expand -t 16

demo: ## train a LoRA pair on real clips in the real ComfyUI and sample with it
	$(RUN) dev demo

host: ## start ComfyUI with this pack, miniature models and clips
	$(RUN) dev host

test: ## all tests, in two processes of one thread each
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile

quick: ## the tests of seconds: no host, no browser, nothing slow
	$(RUN) -m pytest -m "not host and not comfy and not browser and not slow"

check: ## lint, format and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright

fmt: ## format, and mend what the linter can
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: ## the benchmarks
	$(RUN) benchmarks

proof: ## judge the miniature's LoRAs in the real ComfyUI (wan/miniature/REPORT.md), and kill a run 100 times (10 minutes, and some)
	$(RUN) benchmarks miniature.proof
	TANDEM_KILLS=100 $(RUN) -m pytest tests/training/test_random_kills.py tests/host/test_kills.py

loras: ## train those LoRAs again (25 minutes)
	$(RUN) benchmarks miniature.teaching

recipes: ## try the received recipes on the miniature and write docs/recipes.md (an hour or more; goes on where it was)
	$(RUN) benchmarks miniature.recipes

radial: ## radial attention on the miniature, and docs/radial.md (goes on where it was)
	$(RUN) benchmarks miniature.radial

browser: ## install a Chromium for the browser tests
	$(PYTHON) dev/environment.py browser

clean: ## delete demo/
	rm -rf demo
