"""Our CLIP text encoder against transformers'."""

import subprocess
import sys

import pytest
import torch
from clip_reference import CLIP_L, TINY, random_model, relative
from torch import Tensor
from transformers import CLIPTextModel

from clipskip.errors import DamagedFile
from clipskip.networks import Injection, TextEncoder, TextShape, build_text_encoder


def some_ids(shape: TextShape, *, batch: int = 2) -> Tensor:
    ids = torch.randint(0, shape.vocabulary - 2, (batch, 77), generator=torch.Generator().manual_seed(6))
    ids[:, 0], ids[:, -1] = shape.vocabulary - 2, shape.vocabulary - 1
    return ids


@pytest.fixture(scope="module")
def theirs() -> CLIPTextModel:
    return random_model(TINY)


@pytest.fixture(scope="module")
def ours(theirs: CLIPTextModel) -> TextEncoder:
    return build_text_encoder(theirs.state_dict(), TINY)


def test_every_layer_agrees_with_transformers(ours: TextEncoder, theirs: CLIPTextModel) -> None:
    ids = some_ids(TINY)
    expected = theirs(ids, output_hidden_states=True).hidden_states
    states = ours.layers(ids)
    assert len(states) == len(expected) == TINY.depth + 1
    for state, other in zip(states, expected, strict=True):
        assert relative(state, other) < 1e-5  # float32, sums in another order


def test_calling_the_encoder_gives_the_last_hidden_state(ours: TextEncoder, theirs: CLIPTextModel) -> None:
    ids = some_ids(TINY)
    assert relative(ours(ids), theirs(ids).last_hidden_state) < 1e-5


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_both_activations_agree_with_transformers(activation: str) -> None:
    shape = TextShape(depth=2, width=32, heads=2, mlp_width=48, vocabulary=50, activation=activation)
    other, ids = random_model(shape), some_ids(shape)
    assert relative(build_text_encoder(other.state_dict(), shape)(ids), other(ids).last_hidden_state) < 1e-5


@pytest.mark.parametrize("upto", range(TINY.depth + 1))
def test_stopping_early_changes_no_bit(ours: TextEncoder, upto: int) -> None:
    ids = some_ids(TINY)
    stopped = ours.layers(ids, upto=upto)
    assert len(stopped) == upto + 1
    assert all(torch.equal(a, b) for a, b in zip(stopped, ours.layers(ids), strict=False))


def test_the_layers_after_the_stop_are_not_run(theirs: CLIPTextModel) -> None:
    encoder = build_text_encoder({name: value.clone() for name, value in theirs.state_dict().items()}, TINY)
    encoder.encoder.layers[3].mlp.fc1.weight.fill_(torch.nan)
    assert torch.isfinite(encoder.layers(some_ids(TINY), upto=3)[-1]).all()


def test_a_token_does_not_see_those_after_it(ours: TextEncoder) -> None:
    ids = some_ids(TINY)
    changed = ids.clone()
    changed[:, 40:] = 7
    assert torch.equal(ours(ids)[:, :40], ours(changed)[:, :40])


def test_injected_token_vectors_equal_the_tokens_themselves(ours: TextEncoder) -> None:
    ids = some_ids(TINY)
    vectors = ours.embeddings.token_embedding(ids[1, 5:8])
    blank = ids.clone()
    blank[1, 5:8] = 0
    injected = ours.layers(blank, injected=[Injection(row=1, position=5, vectors=vectors)])
    assert all(torch.equal(a, b) for a, b in zip(injected, ours.layers(ids), strict=True))


def test_injection_leaves_the_weights_alone(ours: TextEncoder) -> None:
    before = ours.embeddings.token_embedding.weight.clone()
    ours.layers(some_ids(TINY), injected=[Injection(row=0, position=1, vectors=torch.ones(2, TINY.width))])
    assert torch.equal(ours.embeddings.token_embedding.weight, before)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: {k: v for k, v in s.items() if "layers.3." not in k}, "lacks encoder.layers.3"),
        (lambda s: s | {"encoder.layers.5.mlp.fc1.bias": torch.zeros(64)}, "has unknown encoder.layers.5"),
        (
            lambda s: s | {"final_layer_norm.bias": torch.zeros(16)},
            r"lacks final_layer_norm.bias of shape \[32\] \(it has \[16\]\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(theirs: CLIPTextModel, change, says: str) -> None:
    with pytest.raises(DamagedFile, match=says):
        build_text_encoder(change(dict(theirs.state_dict())), TINY)


@pytest.mark.slow
def test_full_size_clip_l_agrees_with_transformers_at_all_12_skips() -> None:
    theirs = random_model(CLIP_L)
    ours = build_text_encoder(theirs.state_dict(), CLIP_L)
    ids = some_ids(CLIP_L)
    expected = theirs(ids, output_hidden_states=True).hidden_states
    norm = theirs.final_layer_norm
    exact = ours.layers(ids)
    coarse = ours.to(torch.bfloat16).layers(ids)
    for skip in range(1, 13):
        assert relative(exact[13 - skip], expected[-skip]) < 1e-5  # float32, sums in another order
        assert relative(norm(exact[13 - skip]), norm(expected[-skip])) < 1e-5
        off = relative(ours.final_layer_norm(coarse[13 - skip]), norm(expected[-skip]))
        assert off < 2.5e-2, f"skip {skip}: {off}"  # bfloat16 keeps 8 bits: 0.9e-2 (skip 12) to 1.9e-2 here


def test_building_an_encoder_does_not_import_torchs_compiler() -> None:
    """It takes a second, and first values drawn on the meta device import it (torch 2.13)."""
    script = (
        "import sys; from clipskip.encode import open_text_encoder; from clipskip.sweep import find_model\n"
        "from clipskip.weights import Library\n"
        "open_text_encoder(find_model(None, hash=None, library=Library.of_user()))\n"
        "print([name for name in ('torch._dynamo', 'sympy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
