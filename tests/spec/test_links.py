"""Links, AIRs and hashes: which are understood, and what they mean."""

import pytest

from clipskip.errors import SpecError
from clipskip.spec import CivitaiLink, HubLink, by_hash, parse_bare, parse_link


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("https://civitai.com/models/16615", CivitaiLink(model_id=16615)),
        ("https://civitai.com/models/16615/shrek-lora", CivitaiLink(model_id=16615)),
        ("civitai.com/models/16615?modelVersionId=19565", CivitaiLink(model_id=16615, version_id=19565)),
        ("https://civitai.red/models/16615", CivitaiLink(model_id=16615, red=True)),
        ("https://www.civitai.com/api/download/models/19565?type=Model", CivitaiLink(version_id=19565)),
        ("https://civitai.com/api/download/models/19565?fileId=8", CivitaiLink(version_id=19565, file_id=8)),
        ("https://civitai.com/api/v1/model-versions/19565", CivitaiLink(version_id=19565)),
        ("https://civitai.com/model-versions/19565", CivitaiLink(version_id=19565)),
        ("urn:air:sd1:lora:civitai:16615@19565", CivitaiLink(model_id=16615, version_id=19565)),
        ("air:sdxl:checkpoint:civitai:16615@19565+7.safetensors", CivitaiLink(model_id=16615, version_id=19565, file_id=7)),
        ("sd15:lora:civitai:16615", CivitaiLink(model_id=16615)),
        ("urn:air:sdxl:checkpoint:huggingface:owner/repo@main", HubLink(repo="owner/repo", revision="main")),
        ("https://huggingface.co/owner/repo", HubLink(repo="owner/repo")),
        (
            "https://huggingface.co/owner/repo/blob/main/unet/x.safetensors?download=true",
            HubLink(repo="owner/repo", revision="main", file="unet/x.safetensors"),
        ),
        ("hf.co/owner/re.po-1", HubLink(repo="owner/re.po-1")),
        ("anything-v4.0-pruned", None),
        ("folder/model.safetensors", None),
        ("C:\\models\\x.safetensors", None),
    ],
)  # fmt: skip
def test_a_link_says_which_model(text: str, link: CivitaiLink | HubLink | None) -> None:
    assert parse_link(text) == link


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/model.safetensors",
        "http://169.254.169.254/latest/meta-data",
        "https://civitai.com.evil.example/models/1",
        "https://user@civitai.com/models/1",
        "https://civitai.com:8443/models/1",
        "https://civitai.com/user/somebody",
        "https://civitai.com/models/none",
        "https://huggingface.co/datasets/owner/repo",
        "https://huggingface.co/owner/repo/blob/main/../../x",
        "https://[::1",
        "urn:air:sd1:lora:orchestrator:1",
    ],
)
def test_a_link_elsewhere_or_to_nothing_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"link|AIR"):
        parse_link(text)


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("69528490DF", CivitaiLink(hash="69528490df")),
        ("0123456789ab", CivitaiLink(hash="0123456789ab")),
        ("19565", CivitaiLink(version_id=19565)),
        ("owner/repo", HubLink(repo="owner/repo")),
        ("owner/repo/a/x.safetensors@v1.0", HubLink(repo="owner/repo", file="a/x.safetensors", revision="v1.0")),
        ("../repo", None),
        ("owner/repo/../x", None),
        ("some name", None),
    ],
)
def test_a_name_that_no_file_has_may_mean_a_model_elsewhere(text: str, link: CivitaiLink | HubLink | None) -> None:
    assert parse_bare(text) == link


@pytest.mark.parametrize("digits", ["e3b0c44298fc", "e3b0c442", "xyz", "1234567"])
def test_a_hash_that_says_nothing_is_refused(digits: str) -> None:
    with pytest.raises(SpecError, match="hash"):
        by_hash(digits)
