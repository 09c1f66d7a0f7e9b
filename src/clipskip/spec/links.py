"""Links to models, as users type them: a Civitai link, an AIR, a hash or a Hugging Face link.

Only the hosts named here are ever contacted, whatever a text says.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from clipskip.errors import SpecError

CIVITAI_HOSTS = frozenset({"civitai.com", "www.civitai.com", "civitai.red", "www.civitai.red"})
HUB_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
EMPTY_HASH = "e3b0c44298fc"
"""The first digits of the sha256 of nothing, which some repackagers write as a LoRA's hash: thousands of files share
it."""
HASH_DIGITS = (8, 10, 12, 64)
"""The lengths of AutoV1 and CRC32; AutoV2; AutoV3; SHA256 and BLAKE3."""
AIR = re.compile(
    r"(?:urn:)?(?:air:)?(?P<ecosystem>[a-z0-9]+):(?P<type>[a-z]+):(?P<source>[a-z0-9-]+):(?P<id>[^@+\s]+?)"
    r"(?:@(?P<version>[^+.\s]+))?(?:\+(?P<file>\d+))?(?:\.(?P<format>[a-z]+))?",
    re.IGNORECASE,
)
"""https://developer.civitai.com/site/guide/air"""
PICKS = ("type", "format", "size", "fp")
REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CivitaiLink:
    """A model on Civitai, by its version, by its page or by a hash of its file; one of the three is given."""

    model_id: int | None = None
    version_id: int | None = None
    file_id: int | None = None
    hash: str = ""
    """8, 10, 12 or 64 hex digits, in lower case."""
    picks: tuple[tuple[str, str], ...] = ()
    """Which of several files is meant, as a download link says it: ("format", "safetensor"), ("size", "pruned"), ("fp", "fp16")."""
    red: bool = False
    """Whether the link is to civitai.red, which also shows what civitai.com leaves out."""

    def __str__(self) -> str:
        if self.hash:
            return f"hash {self.hash}"
        return f"Civitai version {self.version_id}" if self.version_id else f"Civitai model {self.model_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubLink:
    """A repository on Hugging Face, or one file in it."""

    repo: str
    """owner/name."""
    file: str = ""
    """Path in the repository; empty means its only checkpoint, or its diffusers folder."""
    revision: str = ""
    """Branch, tag or commit; empty means the main branch."""

    def __str__(self) -> str:
        file, revision = self.file and f"/{self.file}", self.revision and f"@{self.revision}"
        return f"{self.repo}{file}{revision}"


Link = CivitaiLink | HubLink


def parse_link(text: str) -> Link | None:
    """Parse a link or an AIR; None for any other text.

    Raises SpecError for a link to a host that is not contacted, or one that names no model.
    """
    plain = text.strip()
    if re.match(r"https?://", plain, re.IGNORECASE):
        return _parse_url(plain)
    host = plain.partition("/")[0].lower()
    if "/" in plain and host in CIVITAI_HOSTS | HUB_HOSTS:
        return _parse_url(f"https://{plain}")
    if re.match(r"(urn:)?air:", plain, re.IGNORECASE) or re.fullmatch(r"\w+:\w+:(civitai|huggingface):.+", plain):
        return _parse_air(plain)
    return None


def parse_bare(text: str) -> Link | None:
    """Parse a name that no file has: a hash, the number of a Civitai version, or owner/repo[/file][@revision]."""
    plain = text.strip()
    if re.fullmatch(r"[0-9a-fA-F]+", plain) and len(plain) in HASH_DIGITS:
        return by_hash(plain)
    if re.fullmatch(r"\d{1,9}", plain):
        return CivitaiLink(version_id=int(plain))
    path, _, revision = plain.partition("@")
    owner, _, behind = path.partition("/")
    name, _, file = behind.partition("/")
    if REPO.fullmatch(f"{owner}/{name}") and _is_inside(file) and re.fullmatch(r"[\w./-]*", revision):
        return HubLink(repo=f"{owner}/{name}", file=file, revision=revision)
    return None


def by_hash(digits: str) -> CivitaiLink:
    """Return the link to the file with this hash; SpecError for an invalid hash."""
    plain = digits.strip().lower()
    if plain.startswith(EMPTY_HASH[:8]):
        raise SpecError(
            f"the hash {digits} is that of an empty file, which many files carry by mistake; give a name or a link",
            field="hash",
        )
    if not re.fullmatch(r"[0-9a-f]+", plain) or len(plain) not in HASH_DIGITS:
        raise SpecError(f"{digits[:80]!r} is not a hash; give 8, 10, 12 or 64 hex digits", field="hash")
    return CivitaiLink(hash=plain)


def _parse_url(text: str) -> Link:
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise SpecError(f"{text[:120]!r} is not a link; copy the model's link again", field="link") from None
    if host not in CIVITAI_HOSTS | HUB_HOSTS:
        raise SpecError(
            f"{text[:120]!r} is a link to {host[:80] or 'nowhere'}, but models are fetched only from civitai.com, civitai.red and "
            "huggingface.co; download the file yourself and give its path",
            field="link",
        )
    if port not in (None, 443) or parts.username is not None:
        raise SpecError(f"the link {text[:120]!r} contains a port or a user name; remove it", field="link")
    path = [unquote(part) for part in parts.path.split("/") if part]
    return _civitai(text, path, parts.query, host) if host in CIVITAI_HOSTS else _hub(text, path)


def _civitai(text: str, path: list[str], query: str, host: str) -> CivitaiLink:
    """Parse /models/ID[/name][?modelVersionId=ID], /model-versions/ID, /api/download/models/ID[?fileId=ID],
    /api/v1/..."""
    asked = {name: values[-1] for name, values in parse_qs(query).items()}
    numbers = {name: _id_in(value) for name, value in asked.items()}
    red = host.endswith(".red")
    number = next((_id_in(part) for part in path if part.isdigit()), None)
    file_id = numbers.get("fileId")
    if number is not None and path[:1] == ["models"]:
        return CivitaiLink(model_id=number, version_id=numbers.get("modelVersionId"), file_id=file_id, red=red)
    if number is not None and (path[:3] == ["api", "download", "models"] or "model-versions" in path):
        said = {name: asked[name].lower() for name in PICKS if name in asked and asked[name] != "Model"}
        picks = () if file_id else tuple(said.items())
        return CivitaiLink(version_id=number, file_id=file_id, picks=picks, red=red)
    if number is not None and path[:3] == ["api", "v1", "models"]:
        return CivitaiLink(model_id=number, red=red)
    raise SpecError(
        f"{text[:120]!r} names no model: give a link such as https://civitai.com/models/16615", field="link"
    )


def _hub(text: str, path: list[str]) -> HubLink:
    """Parse /owner/repo, /owner/repo/tree/revision[/folder] and /owner/repo/blob|resolve|raw/revision/file."""
    if len(path) < 2 or not REPO.fullmatch("/".join(path[:2])) or path[0] in ("datasets", "spaces", "docs"):
        raise SpecError(
            f"{text[:120]!r} names no model: give a link such as https://huggingface.co/owner/repo", field="link"
        )
    repo, behind = "/".join(path[:2]), path[2:]
    if behind[1:2] == ["refs"]:  # refs/pr/3, refs/convert/parquet: branches with slashes of their own
        behind[1:4] = ["/".join(behind[1:4])]
    if not behind:
        return HubLink(repo=repo)
    if behind[0] in ("tree", "blob", "resolve", "raw") and len(behind) > 1 and _is_inside("/".join(behind[2:])):
        return HubLink(repo=repo, revision=behind[1], file="/".join(behind[2:]))
    raise SpecError(f"{text[:120]!r} is not a link to a file of {repo}; copy the link of the file itself", field="link")


def _parse_air(text: str) -> Link:
    match = AIR.fullmatch(text)
    source = match["source"].lower() if match else ""
    if match and source == "civitai" and match["id"].isdigit() and (match["version"] or "0").isdigit():
        version, file_id = match["version"], match["file"]
        return CivitaiLink(
            model_id=_id_in(match["id"]),
            version_id=_id_in(version) if version else None,
            file_id=_id_in(file_id) if file_id else None,
        )
    if match and source == "huggingface" and REPO.fullmatch(match["id"]):
        return HubLink(repo=match["id"], revision=match["version"] or "")
    raise SpecError(
        f"{text[:120]!r} is not an AIR of Civitai or Hugging Face; write it like urn:air:sd1:lora:civitai:16615@19565",
        field="link",
    )


def _id_in(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text) else None


def _is_inside(path: str) -> bool:
    """Return whether a path stays inside its repository."""
    return all(part not in ("", ".", "..") for part in path.split("/")) if path else True
