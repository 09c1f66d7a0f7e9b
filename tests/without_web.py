"""A pytest plugin: what the command line and the server need besides the core cannot be imported."""

import sys

GONE = ("fastapi", "starlette", "uvicorn", "python_multipart", "multipart", "typer", "rich")
"""pydantic, httpx2 and huggingface_hub are not among them: diffusers and transformers import these themselves."""

assert not set(GONE) & set(sys.modules), "imported before this could hide it"
sys.modules.update(dict.fromkeys(GONE))  # type: ignore[arg-type]  # Python raises ModuleNotFoundError for None
