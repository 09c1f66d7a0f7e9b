"""Hugging Face through its own library, with its cache, tokens and transfers, and errors in our words."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from clipskip.errors import FetchError, NotFound, UnsafeFile
from clipskip.spec import HubLink

SAFE, PICKLED = ".safetensors", (".ckpt", ".pt", ".pth", ".bin")
INDEX = "model_index.json"
FOLDER_FILES = ("*.json", "*.txt", "*.safetensors")


def fetch_from_hub(link: HubLink, *, allow_pickle: bool = False) -> Path:
    """Return the file or diffusers folder that a link means, from the cache of Hugging Face's tools where it is there.

    A repository without a named file must contain a diffusers folder, or one safetensors file at its top.
    """
    if link.file and not link.file.endswith(SAFE) and not (allow_pickle and link.file.endswith(PICKLED)):
        if link.file.endswith(PICKLED):
            raise UnsafeFile(
                f"{link} is a pickle, which can contain code; add --allow-pickle if you trust its maker", field="link"
            )
        raise FetchError(f"{link} is not a model file; name a .safetensors file of the repository", field="link")
    if link.file:
        return _ask_hub(link, lambda: Path(hf_hub_download(link.repo, link.file, revision=link.revision or None)))
    return _ask_hub(link, lambda: _download(link))


def _download(link: HubLink) -> Path:
    names = HfApi().list_repo_files(link.repo, revision=link.revision or None)
    if INDEX in names:
        return Path(snapshot_download(link.repo, revision=link.revision or None, allow_patterns=list(FOLDER_FILES)))
    top = [name for name in names if "/" not in name and name.endswith(SAFE)]
    if len(top) == 1:
        return Path(hf_hub_download(link.repo, top[0], revision=link.revision or None))
    shown = ", ".join(top[:5]) or "none at its top"
    raise FetchError(
        f"{link} contains no diffusers folder, and {len(top)} safetensors files at its top ({shown}); name the file, as in "
        f"{link.repo}/{top[0] if top else 'model.safetensors'}",
        field="link",
    )


def _ask_hub(link: HubLink, ask: Callable[[], Path]) -> Path:
    """Return the result of `ask`, with each of its errors in our words."""
    try:
        return ask()
    except (HfHubHTTPError, EntryNotFoundError, OfflineModeIsEnabled, httpx2.HTTPError, OSError) as error:
        message = _message(error, link)
        gone = (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError)
        is_gone = isinstance(error, gone) and not isinstance(error, (GatedRepoError, LocalEntryNotFoundError))
        raise (NotFound if is_gone else FetchError)(message, field="link") from None


def _message(error: Exception, link: HubLink) -> str:
    """Return what went wrong and what to do; subclasses are matched before their bases."""
    page = f"https://huggingface.co/{link.repo}"
    match error:
        case GatedRepoError():
            return f"{link} is available only to those who accepted its terms: accept them at {page}, and put your token in HF_TOKEN"
        case RevisionNotFoundError():
            return f"{link.repo} has no revision {link.revision or 'main'!r}; see {page}/tree/main"
        case RepositoryNotFoundError():
            has_token = bool(os.environ.get("HF_TOKEN"))
            token = (
                "the token in HF_TOKEN may have no access to it"
                if has_token
                else "a private one needs your token in HF_TOKEN"
            )
            return f"Hugging Face has no repository {link.repo}; check its spelling ({token})"
        case OfflineModeIsEnabled():
            return f"{link} is not on this machine, and HF_HUB_OFFLINE forbids fetching it; unset it, or give a path"
        case LocalEntryNotFoundError():
            return f"{link} was not fetched: huggingface.co cannot be reached, and the file is not on this machine; check the connection"
        case EntryNotFoundError():
            return (
                f"{link.repo} has no file {link.file!r}; its files are listed at {page}/tree/{link.revision or 'main'}"
            )
        case HfHubHTTPError() if error.response is not None and error.response.status_code == 429:
            pause = re.search(r"t=(\d+)", error.response.headers.get("ratelimit", ""))
            wait = f" in {pause[1]} s" if pause else " later"
            return f"Hugging Face limits how often you may ask; try again{wait}, or put your token in HF_TOKEN for more"
        case HfHubHTTPError() if error.response is not None:
            return f"{link} was not fetched: Hugging Face answered {error.response.status_code}; try again later"
    return f"{link} was not fetched: {type(error).__name__}: {str(error)[:160]}; check the connection and try again"
