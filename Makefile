# Everything from nothing: needs only python3 (3.11+) and make.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE := 1
NEGATIVE := lowres, worst quality, low quality, jpeg artifacts, text, signature, watermark, username, blurry, sketch, monochrome

.PHONY: demo test check fix bench docs clean

# The guide's grid from the embedded model: Clip Skip 1 to 5, without and with a LoRA.
demo: .venv/run
	$(BIN)/clipskip sweep "best quality, highest detail, 8k, swamp, fireflies, ogre, reeds" --negative "$(NEGATIVE)" \
	  --lora ogre --steps 20 --cfg 3 --seed 2 --out demo

# The tests: no network, no GPU, about two minutes.
test: .venv/dev
	$(BIN)/python -m pytest

# All that CI runs: style, types, tests.
check: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest

# Put the style right.
fix: .venv/dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The commands' own help, as a page. docs/render_pictures.py draws the pictures of clip-skip-in-full.md anew.
docs: .venv/dev
	$(BIN)/python docs/render_help.py > docs/commands.md

# Full-size benchmarks against the peers on the same weights (builds a 2.1 GB random checkpoint; half an hour and more).
bench: .venv/dev
	$(BIN)/python benchmarks/bench.py --folder build/bench

clean:
	rm -rf .venv build dist demo

.venv/run: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("clipskip needs Python 3.11 or newer; set PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/dev: .venv/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps sd-prompt-reader==1.3.5  # it pins an old Pillow
	touch $@
