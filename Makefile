# Everything from nothing: needs only python3 (3.11+) and make.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE := 1
NEGATIVE := mutated, deformed, amateur drawing, lowres, worst quality, low quality, jpeg artifacts, text, error, signature, watermark, username, blurry, censorship, sketch, monochrome

.PHONY: demo test browser slow check fix bench docs site release clean

# The guide's grid from the embedded model: Clip Skip 1 to 5, without and with a LoRA.
demo: .venv/run
	$(BIN)/clipskip sweep "best quality, highest detail, 8k, swamp, fireflies, ogre, reeds" --negative "$(NEGATIVE)" \
	  --lora ogre --steps 30 --cfg 7 --seed 5 --out demo

# Style, types and the tests: no network, no GPU. Two processes of one thread each, which small models are fastest with.
test: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not browser"

# The page in Chromium (Debian: apt-get install chromium; without it these tests are skipped).
browser: .venv/dev
	$(BIN)/python -m pytest -m "browser and not slow"

# The full-size tests, and those that take long.
slow: .venv/dev
	$(BIN)/python -m pytest -m slow

# All that CI runs.
check: test browser slow

# Put the style right.
fix: .venv/dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The commands' own help, as a page. docs/render_pictures.py draws the pictures of clip-skip-in-full.md anew.
docs: .venv/dev
	$(BIN)/python docs/render_help.py > docs/commands.md

# Full-size benchmarks against the peers on the same weights (builds random checkpoints, 4 GB and 19 GB; an hour and more).
bench: .venv/dev
	$(BIN)/python benchmarks/bench.py --folder build/bench
	$(BIN)/python benchmarks/bench.py --folder build/bench --family sdxl

# The documentation as a site, in build/site.
site: .venv/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict --site-dir build/site

# Build and check the wheels and the sdist, and try each wheel in an empty environment: the core's with ComfyUI's nodes on it.
# CONTRIBUTING.md has the whole recipe.
release: .venv/dev
	rm -rf dist build/wheel-venv build/core-venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[release]'
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m build --wheel --outdir dist packaging/core
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv build/wheel-venv
	build/wheel-venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/clipskip-*.whl
	cd build && HOME=$$(mktemp -d) wheel-venv/bin/clipskip generate "swamp, frog" --steps 2 --seed 1 --out wheel-venv/tried
	$(PYTHON) -m venv build/core-venv
	build/core-venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/clipskip_core-*.whl
	build/core-venv/bin/python -c 'import clipskip.diffusers, importlib.util as u; assert not any(map(u.find_spec, ("typer", "fastapi")))'
	build/core-venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pytest beartype transformers
	build/core-venv/bin/python -m pytest tests/integrations/test_comfyui.py

clean:
	rm -rf .venv build dist demo

.venv/run: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("clipskip needs Python 3.11 or newer; set PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/dev: .venv/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	# One pins an old Pillow; the other wants a torchvision, which the CPU's torch has none of and its test stands in for.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps sd-prompt-reader==1.3.5 spandrel==0.4.2
	touch $@
