"""Civitai's REST API: which file a link, a version or a hash means, and whether it can be downloaded.

Facts from developer.civitai.com and the site's source: a version is Published or 404, a hash is looked up whatever its
kind, `files[].hashes` may be empty, sizes are floats in KiB, and an archived model has no files.
"""

import os
import re
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, final
from urllib.parse import urlencode

from clipskip.errors import ClipskipError, FetchError, NotFound, UnsafeFile
from clipskip.fetch.remote import RemoteFile
from clipskip.fetch.web import IN_CIRCLES, Refusal, Wait, Web, token_of
from clipskip.spec import CivitaiLink
from clipskip.weights import FileKind

HOSTS_VARIABLE = "CLIPSKIP_CIVITAI"
"""The variable with other addresses of the API, separated by spaces, in the order in which they are tried."""
HOSTS = "https://civitai.com https://civitai.red"
TOKENS = ("CIVITAI_API_TOKEN", "CIVITAI_TOKEN")
KINDS = {
    "checkpoint": FileKind.CHECKPOINT,
    "lora": FileKind.LORA,
    "locon": FileKind.LORA,
    "lycoris": FileKind.LORA,
    "dora": FileKind.LORA,
    "textualinversion": FileKind.EMBEDDING,
    "embedding": FileKind.EMBEDDING,
    "vae": FileKind.VAE,
}
MODEL_FILES = ("Model", "Pruned Model", "VAE", "Negative")
REFUSED_SCANS = ("Danger", "Error")
PICKLED = (".ckpt", ".pt", ".pth", ".bin")
Card = Mapping[str, Any]  # JSON of a foreign server: every field is checked where it is read


@final
class Civitai:
    """Civitai, at each of its addresses."""

    def __init__(self, *, red_first: bool = False, wait: Wait = time.sleep) -> None:
        bases = os.environ.get(HOSTS_VARIABLE, HOSTS).split()
        token = token_of(*TOKENS)
        ordered = sorted(bases, key=lambda base: ".red" not in base) if red_first else bases
        self._webs = [Web(base=base, token=token, wait=wait) for base in ordered]

    def close(self) -> None:
        """Close the connections."""
        for web in self._webs:
            web.close()

    def find(self, link: CivitaiLink, *, kind: FileKind | None = None, allow_pickle: bool = False) -> RemoteFile:
        """Find the file that a link means; `kind` is its intended use.

        Errors say why there is none: no such model, archived, flagged by a scan, a pickle, another kind.
        """
        web, card = self._version(link)
        actual_kind = _kind_on_card(card)
        if kind is not None and actual_kind is not kind:
            raise FetchError(
                f"{_title(card)} is {_a(actual_kind)} on Civitai, but {_a(kind)} was asked for; give it with "
                f"{'--' + _option(actual_kind) if _option(actual_kind) else 'another command'}",
                field=_option(kind) or "link",
            )
        file = _file_of(card, link, allow_pickle=allow_pickle)
        _check_scans(file, card)
        hashes = file.get("hashes")
        sha256 = str(hashes.get("SHA256", "") if isinstance(hashes, dict) else "").lower()
        has_hash = re.fullmatch(r"[0-9a-f]{64}", sha256) is not None
        notes = () if has_hash else ("Civitai has no SHA256 of this file, so it cannot be verified",)
        number = card.get("id")
        query = {"fileId": file["id"]} if isinstance(file.get("id"), int) else {}
        kilobytes = file.get("sizeKB")
        return RemoteFile(
            url=f"{web.base}/api/download/models/{number}?{urlencode(query)}".rstrip("?"),
            name=_safe_name(file, card),
            kind=actual_kind,
            size=round(kilobytes * 1024) if isinstance(kilobytes, (int, float)) else 0,
            is_rounded=True,
            sha256=sha256 if has_hash else "",
            title=_title(card),
            card=card,
            hash="" if _has(file, link.hash) else link.hash,
            notes=notes,
        )

    def web_for(self, file: RemoteFile) -> Web:
        """Return the address at which a file was found."""
        return next(web for web in self._webs if file.url.startswith(web.base))

    def _version(self, link: CivitaiLink) -> tuple[Web, Card]:
        """Return the version and where it was found; an address without it is not final."""
        if link.hash:
            path = f"/api/v1/model-versions/by-hash/{link.hash.upper()}"
        elif link.version_id:
            path = f"/api/v1/model-versions/{link.version_id}"
        else:
            path = f"/api/v1/models/{link.model_id}"
        refusal: Refusal | None = None
        for web in self._webs:
            answer = web.read_json(path)
            if isinstance(answer, Refusal):
                refusal = answer if refusal is None or answer.status != 404 else refusal
                if answer.status not in (404, 0, IN_CIRCLES) and answer.status < 500:
                    break
                continue
            if not isinstance(answer, dict):
                raise FetchError(f"{web.host} answered about {link} in an unknown form; try again later", field="link")
            return web, answer if link.hash or link.version_id else _newest(answer, link)
        assert refusal is not None
        raise refused(refusal, str(link), [web.host for web in self._webs], has_token=self._webs[0].has_token)


def refused(refusal: Refusal, what: str, hosts: list[str], *, has_token: bool) -> ClipskipError:
    """Return the error for each way in which Civitai refuses."""
    quoted = f' ("{refusal.message}")' if refusal.message else ""
    where = " and ".join(hosts)
    token = "the token in CIVITAI_API_TOKEN is not accepted" if has_token else "put your API key in CIVITAI_API_TOKEN"
    text = {
        0: f"{what} was not fetched: {refusal.message}; check the connection and try again",
        400: f"Civitai does not understand {what}{quoted}; check the link",
        404: f"{where} have no {what}{quoted}: it was removed, is not published, or its host has a failure; check the link, "
        "or try again later",
        IN_CIRCLES: f"{what} was not fetched: {where} sends the request in circles ({refusal.message}); try again later",
        410: f"{what} is archived on Civitai, and its file was removed{quoted}; look for another copy by its hash",
    }.get(refusal.status)
    if refusal.status == 401:
        disabled = "disabled" in refusal.message.lower()
        text = (
            f"the maker of {what} has disabled downloads{quoted}; use another model, or use this one on the site"
            if disabled
            else f"Civitai gives {what} only to signed-in users{quoted}: {token}"
        )
    if refusal.status == 403:
        early = refusal.deadline or "early access" in refusal.message.lower()
        until = f" until {refusal.deadline}" if refusal.deadline else ""
        text = (
            f"{what} is in early access{until}{quoted}; buy it on the site, or wait"
            if early
            else f"Civitai does not give {what} to you{quoted}: {token}, and see the page of the model"
        )
    if refusal.status == 429:
        pause = f"; it asks to wait {refusal.retry_after_s:.0f} s" if refusal.retry_after_s else ""
        text = f"Civitai limits your downloads at the moment{quoted}{pause}; try again later"
    error = NotFound if refusal.status == 404 else FetchError
    return error(
        text or f"{what} was not fetched: {where} answered {refusal.status}{quoted}; try again later", field="link"
    )


def _newest(model: Card, link: CivitaiLink) -> Card:
    """Return the version that a model's page shows first."""
    versions = model.get("modelVersions")
    if not isinstance(versions, list) or not versions or not isinstance(versions[0], dict):
        raise FetchError(f"{link} has no published version; look at its page on Civitai", field="link")
    name = {name: model.get(name) for name in ("name", "type", "nsfw", "poi", "mode")}
    return {"modelId": model.get("id"), "model": name, **versions[0]}


def _kind_on_card(card: Card) -> FileKind:
    model = card.get("model")
    name = str(model.get("type", "")) if isinstance(model, dict) else ""
    kind = KINDS.get(name.lower())
    if kind is None:
        raise FetchError(
            f"{_title(card)} is of the type {name[:40] or 'unknown'} on Civitai, which is not used here; give a link to "
            "a checkpoint, LoRA, embedding or VAE",
            field="link",
        )
    return kind


def _file_of(card: Card, link: CivitaiLink, *, allow_pickle: bool) -> Card:
    """Return the file asked for, else safetensors before pickles, the primary one first."""
    files = [file for file in card.get("files") or () if isinstance(file, dict)]
    model = card.get("model")
    if not files:
        archived = isinstance(model, dict) and model.get("mode") == "Archived"
        raise FetchError(
            f"{_title(card)} is {'archived' if archived else 'without files'} on Civitai; look for another copy by its hash",
            field="link",
        )
    candidates = [file for file in files if link.file_id is None or file.get("id") == link.file_id]
    if link.hash:
        candidates = [file for file in candidates if _has(file, link.hash)] or candidates  # else seen when it is here
    for name, value in link.picks:
        candidates = [file for file in candidates if _trait(file, name) == value]
    if not candidates:
        told = (
            f"the number {link.file_id}" if link.file_id else ", ".join(f"{name} {value}" for name, value in link.picks)
        )
        raise NotFound(f"{_title(card)} has no file with {told}; its page lists them", field="link")
    if link.file_id is None and not link.hash and "type" not in dict(link.picks):
        candidates = [file for file in candidates if file.get("type") in MODEL_FILES] or candidates
    ordered = sorted(candidates, key=lambda file: (_is_pickle(file), not file.get("primary")))
    if _is_pickle(ordered[0]) and not allow_pickle:
        raise UnsafeFile(
            f"{_title(card)} is a pickle ({str(ordered[0].get('name'))[:80]}), which can contain code; add --allow-pickle if you "
            "trust its maker",
            field="link",
        )
    return ordered[0]


def _trait(file: Card, name: str) -> str:
    """Return what a file is by one of the words in links to it: its type, or its format, size and precision."""
    metadata = file.get("metadata")
    said = file.get(name) if name == "type" else metadata.get(name) if isinstance(metadata, dict) else None
    return str(said or "").lower()


def _has(file: Card, digits: str) -> bool:
    """Return whether Civitai says that a file has this hash, whatever its kind."""
    hashes = file.get("hashes")
    return isinstance(hashes, dict) and any(str(known).lower().startswith(digits) for known in hashes.values())


def _is_pickle(file: Card) -> bool:
    return str(file.get("name", "")).lower().endswith(PICKLED)


def _check_scans(file: Card, card: Card) -> None:
    for field, what in (("pickleScanResult", "pickle scan"), ("virusScanResult", "virus scan")):
        if file.get(field) in REFUSED_SCANS:
            raise UnsafeFile(
                f"Civitai's {what} of {_title(card)} says {file[field]}, so it is not fetched; look at its page before you trust it",
                field="link",
            )


def _safe_name(file: Card, card: Card) -> str:
    """Return the file's name without folders and without characters that some file systems refuse."""
    name = PurePosixPath(str(file.get("name", "")).replace("\\", "/")).name
    plain = re.sub(r'[\x00-\x1f\x7f<>:"|?*]', "_", name).strip(". ")[:200]
    return plain or f"civitai-{card.get('id')}.safetensors"


def _title(card: Card) -> str:
    model = card.get("model")
    name = str(model.get("name", "")) if isinstance(model, dict) else ""
    return " ".join(part for part in (name[:80], str(card.get("name", ""))[:40]) if part) or f"version {card.get('id')}"


def _a(kind: FileKind) -> str:
    return f"{'an' if str(kind)[0] in 'aeiou' else 'a'} {kind}"


def _option(kind: FileKind) -> str:
    return {FileKind.CHECKPOINT: "model", FileKind.LORA: "lora", FileKind.VAE: "vae"}.get(kind, "")
