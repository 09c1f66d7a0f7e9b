"""CLIP scores beside transformers' own: one picture and one text at a time, tokenized by its tokenizer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_reference import tokenizer
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from clipskip.advise import Wanted, advise
from clipskip.errors import NotFound, SpecError
from clipskip.measures.clip_score import Scorer
from clipskip.score import Scoring, score_sweep
from clipskip.spec import Request, parse_skips
from clipskip.sweep import SweepFolder, draw_missing, open_model, plan_sweep, read_sweep
from clipskip.weights import Library

TEXTS = ["a red frog left of a blue owl", "frog", "best quality, " * 40]
HALF = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP model with random weights, as a folder."""
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=HALF | {"eos_token_id": 49407, "bos_token_id": 49406},
        vision_config=HALF | {"image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    folder = tmp_path_factory.mktemp("clip")
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def pictures(count: int) -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 48, 64, 3), dtype=np.uint8))


@torch.no_grad()
def test_a_score_is_a_hundred_times_the_cosine(judge: Path) -> None:
    model, processor = CLIPModel.from_pretrained(judge).eval(), CLIPImageProcessor.from_pretrained(judge)
    found = Scorer.open(str(judge)).score(pictures(3), TEXTS)
    assert found.shape == (3, 3)
    for i, picture in enumerate(pictures(3)):
        for j, text in enumerate(TEXTS):
            out = model(
                **tokenizer()(text, return_tensors="pt", truncation=True, max_length=77),
                pixel_values=processor(images=picture, return_tensors="pt")["pixel_values"],
            )
            cosine = float(out.logits_per_image) / float(model.logit_scale.exp())
            assert float(found[i, j]) == pytest.approx(100 * max(cosine, 0), abs=1e-3)  # float32 in another batch


def test_advise_draws_the_prompt_at_each_clip_skip_and_scores_it(
    judge: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[tuple[Sequence[NDArray[np.uint8]], Tensor]] = []
    score = Scorer.score

    def watched(self: Scorer, drawn: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> Tensor:
        judged.append((drawn, score(self, drawn, texts)))
        return judged[-1][1]

    monkeypatch.setattr(Scorer, "score", watched)
    model = open_model("tiny", library=library)
    request = Request(prompt="swamp, ogre", steps=2, width=64, height=64)
    told: list[tuple[int, int]] = []
    wanted = Wanted(request=request, skips=(1, 12), clip=str(judge))
    found = advise(model, wanted, library, tell=lambda rows, most: told.append((rows, most)))
    assert found.clip is not None
    assert (found.clip.skips, [phrase for phrase, _ in found.clip.phrases]) == ((1, 12), ["swamp", "ogre"])
    ((drawn, scores),) = judged
    assert not np.array_equal(*drawn), "two pictures"
    assert found.clip.prompt == pytest.approx(scores[:, 0].tolist(), abs=0.005)  # rounded to two places
    assert found.rows == told[-1][0] <= told[-1][1]
    without = advise(model, Wanted(request=request, skips=(1, 12)), library)
    assert (without.clip, without.rows) == (None, found.rows - 2 * 2 * 2), "two pictures of two guided steps"
    assert without.verdict == found.verdict


def test_what_is_no_clip_model_and_a_missing_prompt_are_refused(tmp_path: Path, library: Library) -> None:
    with pytest.raises(NotFound, match="no CLIP model in"):
        Scorer.open(str(tmp_path))
    with pytest.raises(SpecError, match="give a prompt"):
        advise(open_model("tiny", library=library), Wanted(request=Request(prompt=""), skips=(1,), clip="x"), library)


@torch.no_grad()
def test_a_cell_of_a_sweep_has_the_clip_score_of_its_picture(judge: Path, library: Library, tmp_path: Path) -> None:
    model = open_model("tiny", library=library)
    request = Request(prompt="swamp, ogre", steps=1, seed=5, width=64, height=64)
    sweep, extras = plan_sweep(request, parse_skips("1-2"), model.facts, library)
    folder = SweepFolder.create(tmp_path / "sweep", sweep, model=model.facts)
    for _ in draw_missing(model, folder, extras):
        pass
    score_sweep(model, folder, extras, Scoring(sources=("clip",), clip=str(judge)))
    theirs, processor = CLIPModel.from_pretrained(judge).eval(), CLIPImageProcessor.from_pretrained(judge)
    for cell in read_sweep(folder.path).flat:
        with Image.open(cell.path) as picture:
            pixels = processor(images=picture.convert("RGB"), return_tensors="pt")["pixel_values"]
        out = theirs(**tokenizer()("swamp, ogre", return_tensors="pt"), pixel_values=pixels)
        cosine = float(out.logits_per_image) / float(theirs.logit_scale.exp())
        assert dict(cell.scores) == {"clip_score": pytest.approx(100 * max(cosine, 0), abs=1e-3)}  # float32
