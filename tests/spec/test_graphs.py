"""ComfyUI's graphs: what is drawn is what the graph says, what is not is named, and other models are refused."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from clipskip.errors import SpecError
from clipskip.sample import find_sampler, stable_diffusion
from clipskip.spec import ClipSkip, Family, LoraRef, Request, asked_negative_skip, asked_skip
from clipskip.spec.nodes import OUTPUTS
from clipskip.spec.sampler_names import COMFY_SAMPLERS, SCHEDULES
from clipskip.spec.settings import request_from_text

Json = dict[str, Any]
GOLDEN = Path(__file__).parents[1] / "golden"
CASES = GOLDEN / "cases"


def case(name: str) -> Json:
    graph: Json = json.loads((CASES / f"comfy_{name}.json").read_text("utf-8"))
    return graph


PLAIN = case("hash_comment")


def read(graph: Json) -> Request:
    return request_from_text(json.dumps(graph))


def with_nodes(inputs: Json | None = None, /, **nodes: Json) -> Json:
    """The plain graph with other inputs of its sampler, and more nodes, given as n30={"class_type": ...}."""
    graph = copy.deepcopy(PLAIN)
    graph["3"]["inputs"] |= inputs or {}
    return graph | {name.removeprefix("n"): node for name, node in nodes.items()}


def node(kind: str, **inputs: object) -> Json:
    return {"class_type": kind, "inputs": inputs}


def names(asked: Request) -> list[str]:
    return [name for name, _ in asked.unused]


def test_the_plain_graph_is_used_whole() -> None:
    asked = read(PLAIN)
    assert (asked.prompt, asked.negative_prompt, asked.model) == ("1girl, #1 fan, red dress", "dog", "m")
    assert (asked.clip_skip, asked.width, asked.height, asked.seed, asked.steps) == (ClipSkip(2), 512, 768, 7, 20)
    assert (asked.sampler, asked.scheduler, asked.emphasis, asked.rng) == ("Euler", "Normal", "ComfyUI", "CPU")
    assert asked.unused == ()


def test_a_switch_leads_to_the_clip_skip_that_it_chose() -> None:
    graph = case("bypassed_switch")
    assert read(graph).clip_skip == ClipSkip(2)
    graph["40"]["inputs"]["boolean"] = False
    asked = read(graph)
    assert (asked.clip_skip, asked.negative_clip_skip) == (ClipSkip(1), ClipSkip(2))


@pytest.mark.parametrize(
    "switch",
    [
        node("Any Switch (rgthree)", any_01=["10", 0], any_02=["4", 1]),
        node("ImpactSwitch", select=2, input1=["4", 1], input2=["10", 0]),
        node("ImpactSwitch", select=["42", 0], input1=["4", 1], input2=["10", 0]),
        node("CR Clip Input Switch", Input=2, clip1=["4", 1], clip2=["10", 0]),
        node("easy anythingIndexSwitch", index=1, value0=["4", 1], value1=["10", 0]),
        node("ComfySwitchNode", switch=["41", 0], on_false=["10", 0], on_true=["4", 1]),
        node("CLIP Input Switch", boolean=["41", 0], clip_a=["4", 1], clip_b=["10", 0]),
        node("Reroute", **{"": ["10", 0]}),
        node("SomebodysNode", clip=["10", 0], strength=0.5, model=["4", 0]),
        node("SomebodysNode", anything=["10", 0]),
    ],
)
def test_nodes_between_are_gone_through(switch: Json) -> None:
    graph = case("bypassed_switch")
    graph |= {"40": switch, "41": node("PrimitiveBoolean", value=False), "42": node("PrimitiveInt", value=2)}
    assert read(graph).clip_skip == ClipSkip(2)


@pytest.mark.parametrize(
    "switch",
    [
        node("SomebodysSwitch", a=["10", 0], b=["4", 1]),
        node("SomebodysSwitch", clip1=["10", 0], clip2=["4", 1]),
        node("SomebodysSwitch", Input="(", clip1=["10", 0], clip2=["4", 1]),
        node("ComfySwitchNode", switch="on", on_false=["10", 0], on_true=["4", 1]),
        node("SomebodysLoader", name="clip.safetensors"),
        node("SomebodysSkip", clip=["4", 1], clip_skip=-2),
        node("SomebodysLoraStack", clip=["4", 1], model=["4", 0], lora_1="ogre.safetensors"),
        node("CLIPLoader", clip_name="clip_l.safetensors", type="stable_diffusion"),
        node("CLIPMergeSimple", clip1=["10", 0], clip2=["4", 1], ratio=0.5),
        {**node("CLIPSetLastLayer", clip=["10", 0], stop_at_clip_layer=-3), "mode": 4},
        node("Reroute", clip=["40", 0]),
        node("Reroute", clip=["41", 0]),
    ],
)
def test_a_way_that_may_be_another_is_refused_by_the_nodes_name(switch: Json) -> None:
    graph = case("bypassed_switch")
    graph["40"] = switch
    with pytest.raises(SpecError) as caught:
        read(graph)
    assert switch["class_type"] in str(caught.value) or "node 41" in str(caught.value)


@pytest.mark.parametrize("other", ["40", "41"])
def test_switches_that_choose_by_each_other_are_refused(other: str) -> None:
    graph = case("bypassed_switch")
    for name, sign in (("40", other), ("41", "40")):
        graph[name] = node("ComfySwitchNode", switch=[sign, 0], on_false=["10", 0], on_true=["4", 1])
    with pytest.raises(SpecError, match="circle"):
        read(graph)


def test_ddim_is_eulers_on_the_schedule_that_is_named() -> None:
    asked = read(case("ddim_karras"))
    assert (asked.sampler, asked.scheduler) == ("Euler", "Karras")


@pytest.mark.parametrize(
    ("sampler", "schedule", "expected"),
    [
        ("ddim", "ddim_uniform", ("Euler", "DDIM")),
        ("uni_pc_bh2", "normal", ("UniPC bh2", "Normal")),
        ("uni_pc", "karras", ("UniPC bh1", "Karras")),
        ("sample_dpmpp_2m", "karras", ("DPM++ 2M", "Karras")),
        ("sample_euler_ancestral", "normal", ("Euler a", "Normal")),
        ("dpmpp_2m_sde_gpu", "sgm_uniform", ("DPM++ 2M SDE", "SGM Uniform")),
        ("dpm_adaptive", "karras", ("DPM adaptive", "Automatic")),
        ("heunpp2", "beta", ("heunpp2", "Beta")),
    ],
)
def test_samplers_have_a1111s_names(sampler: str, schedule: str, expected: tuple[str, str]) -> None:
    asked = read(with_nodes({"sampler_name": sampler, "scheduler": schedule}))
    assert (asked.sampler, asked.scheduler) == expected


def test_every_name_of_the_tables_is_comfyuis() -> None:
    facts = json.loads((GOLDEN / "comfyui-nodes.json").read_text("utf-8"))
    assert set(COMFY_SAMPLERS) <= set(facts["samplers"])
    assert {"normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta"} <= set(SCHEDULES)
    for kind, outputs in OUTPUTS.items():
        if kind in facts["nodes"]:
            assert list(outputs) == facts["nodes"][kind]["outputs"], kind


def test_noise_that_comfyui_draws_on_its_gpu_is_noted() -> None:
    assert names(read(with_nodes({"sampler_name": "euler_ancestral"}))) == ["the noise of Euler a's steps"]


def test_changes_of_the_model_are_named() -> None:
    asked = read(case("freeu"))
    assert asked.model == "m" and asked.unused == (("FreeU_V2", "b1 1.3, b2 1.4, s1 0.9, s2 0.2"),)
    graph = with_nodes(
        {"model": ["32", 0]},
        n30=node("SelfAttentionGuidance", model=["4", 0], scale=0.5, blur_sigma=2.0),
        n31=node("RescaleCFG", model=["30", 0], multiplier=0.7),
        n32=node("IPAdapter", model=["31", 0], ipadapter=["33", 0], image=["34", 0], weight=1.0),
        n33=node("IPAdapterModelLoader", ipadapter_file="ip.safetensors"),
        n34=node("LoadImage", image="a.png"),
    )
    assert names(read(graph)) == [
        "SelfAttentionGuidance",
        "RescaleCFG",
        "IPAdapter",
        "IPAdapterModelLoader",
        "LoadImage",
    ]


@pytest.mark.parametrize(
    ("sampling", "expected"), [("eps", "epsilon"), ("v_prediction", "v"), ("lcm", None), (5, None)]
)
def test_what_the_model_predicts_is_said_by_the_graph(sampling: object, expected: str | None) -> None:
    graph = with_nodes(
        {"model": ["30", 0]}, n30=node("ModelSamplingDiscrete", model=["4", 0], sampling=sampling, zsnr=True)
    )
    if expected is None:
        with pytest.raises(SpecError, match=str(sampling)):
            read(graph)
    else:
        asked = read(graph)
        assert (asked.prediction, asked.unused) == (expected, (("ModelSamplingDiscrete zsnr", "true"),))


@pytest.mark.parametrize(
    "loader",
    [
        node("ModelMergeSimple", model1=["4", 0], model2=["4", 0], ratio=0.5),
        node("ModelMergeBlocks", model1=["4", 0], model2=["4", 0]),
        node("HypernetworkLoader", model=["4", 0], hypernetwork_name="h.pt", strength=1),
        node("UnetLoaderGGUF", unet_name="m.gguf"),
        node("unCLIPCheckpointLoader", ckpt_name="m.safetensors"),
        node("SomebodysLoraNode", model=["4", 0]),
        node("SomebodysNode"),
        node("SomebodysNode", model_a=["4", 0], model_b=["4", 0]),
    ],
)
def test_another_model_is_refused_by_name(loader: Json) -> None:
    with pytest.raises(SpecError, match=loader["class_type"]):
        read(with_nodes({"model": ["30", 0]}, n30=loader))


def test_a_unet_of_its_own_is_refused() -> None:
    with pytest.raises(SpecError, match=r"UNETLoader \(a UNet of its own: 'foo_unet.safetensors'\)"):
        read(case("unetloader"))


def test_a_text_encoder_of_another_checkpoint_is_refused() -> None:
    graph = with_nodes({"model": ["30", 0]}, n30=node("CheckpointLoaderSimple", ckpt_name="other.safetensors"))
    with pytest.raises(SpecError, match="draws with other"):
        read(graph)


def test_a_vae_file_is_the_one_that_decodes() -> None:
    assert read(case("vaeloader")).vae == "vae-ft-mse" and read(case("vaeloader")).unused == ()
    own = with_nodes(n12=node("VAEDecode", samples=["3", 0], vae=["4", 2]))
    assert read(own).vae is None and read(own).unused == ()


@pytest.mark.parametrize(
    "nodes",
    [
        {"n12": node("VAEDecode", samples=["3", 0], vae=["13", 0]), "n13": node("SomebodysVae", file="x.pt")},
    ],
)  # fmt: skip
def test_a_vae_that_is_not_a_files_is_refused(nodes: Json) -> None:
    with pytest.raises(SpecError) as caught:
        read(with_nodes(**nodes))
    assert "VAE" in str(caught.value)


def test_a_run_that_ends_early_is_named() -> None:
    asked = read(case("ksampleradv_end"))
    assert asked.unused == (
        ("KSamplerAdvanced end_at_step", "10"),
        ("KSamplerAdvanced return_with_leftover_noise", "enable"),
    )
    graph = case("ksampleradv_end")
    graph["3"]["inputs"] |= {"end_at_step": 10000, "return_with_leftover_noise": "disable"}
    assert read(graph).unused == () and read(graph).steps == 20


def test_a_batch_and_a_part_of_the_noise_are_named() -> None:
    graph = with_nodes({"denoise": 0.6})
    graph["5"]["inputs"]["batch_size"] = 4
    assert read(graph).unused == (("EmptyLatentImage batch_size", "4"), ("KSampler denoise", "0.6"))


@pytest.mark.parametrize(
    "maker",
    [
        node("ConditioningZeroOut", conditioning=["6", 0]),
        node("ConditioningSetArea", conditioning=["6", 0], width=64, height=64, x=0, y=0, strength=1.0),
        node("ConditioningSetMask", conditioning=["6", 0], mask=["50", 0]),
        node(
            "GLIGENTextBoxApply", conditioning_to=["6", 0], clip=["4", 1], text="a fox", width=64, height=64, x=0, y=0
        ),
        node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["7", 0]),
        node("ConditioningAverage", conditioning_to=["6", 0], conditioning_from=["7", 0], conditioning_to_strength=0.5),
        node(
            "ConditioningAverage ", conditioning_to=["6", 0], conditioning_from=["7", 0], conditioning_to_strength=0.5
        ),
    ],
)
@pytest.mark.parametrize("side", ["positive", "negative"])
def test_conditioning_that_is_no_text_is_refused_by_name(maker: Json, side: str) -> None:
    with pytest.raises(SpecError, match=rf"{maker['class_type']} \("):
        read(with_nodes({side: ["30", 0]}, n30=maker))


def test_zeros_of_the_prompts_own_text_are_refused() -> None:
    with pytest.raises(SpecError, match=r"negative prompt with ConditioningZeroOut \(.*: 'cat'\)"):
        read(case("zeroout"))


def test_a_control_net_is_named_and_its_prompt_is_the_texts() -> None:
    control = node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], control_net=["31", 0], strength=1.0)
    graph = with_nodes(
        {"positive": ["30", 0], "negative": ["30", 1]},
        n30=control,
        n31=node("ControlNetLoader", control_net_name="c.pth"),
    )
    asked = read(graph)
    assert (asked.prompt, asked.negative_prompt) == ("1girl, #1 fan, red dress", "dog")
    assert names(asked) == ["ControlNetApplyAdvanced", "ControlNetLoader"]


def test_texts_that_go_on_beside_the_model_are_read_at_their_side() -> None:
    given: Json = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0]}
    instant = node("ApplyInstantID", **given, instantid=["31", 0], control_net=["32", 0], weight=0.8)
    brush = node("BrushNet", **given, vae=["4", 2], brushnet=["31", 0], scale=1.0)
    for between in (instant, brush):
        asked = read(with_nodes({"model": ["30", 0], "positive": ["30", 1], "negative": ["30", 2]}, n30=between))
        assert (asked.prompt, asked.negative_prompt) == ("1girl, #1 fan, red dress", "dog")


CUSTOM = {
    "add_noise": True, "noise_seed": 9, "cfg": 6.5, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0],
    "sampler": ["31", 0], "sigmas": ["32", 0], "latent_image": ["5", 0],
}  # fmt: skip
PARTS = {
    "31": node("KSamplerSelect", sampler_name="dpmpp_2m"),
    "32": node("BasicScheduler", model=["4", 0], scheduler="karras", steps=25, denoise=1.0),
}


def test_a_custom_sampler_is_read() -> None:
    asked = read(PLAIN | PARTS | {"3": node("SamplerCustom", **CUSTOM)})
    assert (asked.sampler, asked.scheduler, asked.steps, asked.cfg_scale) == ("DPM++ 2M", "Karras", 25, 6.5)
    assert (asked.seed, asked.width, asked.unused) == (9, 512, ())


def advanced(guider: Json) -> Json:
    sampler = node(
        "SamplerCustomAdvanced",
        noise=["33", 0],
        guider=["34", 0],
        sampler=["31", 0],
        sigmas=["32", 0],
        latent_image=["5", 0],
    )
    return PLAIN | PARTS | {"3": sampler, "33": node("RandomNoise", noise_seed=9), "34": guider}


def test_an_advanced_custom_sampler_is_read_with_its_guider() -> None:
    asked = read(advanced(node("CFGGuider", model=["4", 0], positive=["6", 0], negative=["7", 0], cfg=6.5)))
    assert (asked.sampler, asked.steps, asked.cfg_scale, asked.seed) == ("DPM++ 2M", 25, 6.5, 9)
    assert (asked.negative_prompt, asked.unused) == ("dog", ())


def test_a_guider_of_one_text_is_a_cfg_of_1() -> None:
    asked = read(advanced(node("BasicGuider", model=["4", 0], conditioning=["6", 0])))
    assert (asked.cfg_scale, asked.negative_prompt, asked.prompt) == (1.0, "", "1girl, #1 fan, red dress")
    assert names(asked) == ["CLIPTextEncode"]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("34", node("DualCFGGuider", model=["4", 0], cond1=["6", 0], cond2=["6", 0], negative=["7", 0])),
        ("31", node("SomebodysSampler", eta=1.0)),
        ("32", node("SomebodysScheduler", steps=9)),
        ("33", node("RandomNoise", noise_seed="x")),
    ],
)
def test_parts_of_a_custom_sampler_that_are_not_known_are_refused(name: str, part: Json) -> None:
    graph = advanced(node("CFGGuider", model=["4", 0], positive=["6", 0], negative=["7", 0], cfg=6.5)) | {name: part}
    with pytest.raises(SpecError):
        read(graph)


def test_samplers_of_their_own_node_have_their_eta() -> None:
    parts = PARTS | {"31": node("SamplerEulerAncestral", eta=0.5, s_noise=1.0)}
    asked = read(PLAIN | parts | {"3": node("SamplerCustom", **CUSTOM)})
    assert (asked.sampler, asked.eta) == ("Euler a", 0.5)


EFFICIENT: Json = {
    "1": node(
        "Efficient Loader", ckpt_name="m.safetensors", vae_name="Baked VAE", clip_skip=-2, lora_name="ogre.safetensors",
        lora_model_strength=0.8, lora_clip_strength=0.5, positive="a fox", negative="blurry", token_normalization="none",
        weight_interpretation="comfy", empty_latent_width=512, empty_latent_height=768, batch_size=1,
    ),
    "2": node(
        "KSampler (Efficient)", seed=7, steps=20, cfg=7.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        preview_method="auto", vae_decode="true", model=["1", 0], positive=["1", 1], negative=["1", 2], latent_image=["1", 3],
        optional_vae=["1", 4],
    ),
}  # fmt: skip


def test_efficient_loader_is_read() -> None:
    asked = read(EFFICIENT)
    assert (asked.prompt, asked.negative_prompt, asked.model) == ("a fox", "blurry", "m")
    assert (asked.clip_skip, asked.width, asked.height, asked.vae) == (ClipSkip(2), 512, 768, None)
    assert asked.loras == (LoraRef(name="ogre", unet=0.8, text_encoder=0.5),)
    assert set(names(asked)) == {
        "Efficient Loader token_normalization",
        "KSampler (Efficient) preview_method",
        "KSampler (Efficient) vae_decode",
    }


def test_its_texts_are_those_of_the_outputs_that_are_linked() -> None:
    graph = copy.deepcopy(EFFICIENT)
    graph["2"]["inputs"] |= {"positive": ["1", 2], "negative": ["1", 1]}
    assert (read(graph).prompt, read(graph).negative_prompt) == ("blurry", "a fox")


def test_a_clip_skip_may_come_over_a_link() -> None:
    graph = with_nodes(n60=node("PrimitiveInt", value=-3))
    graph["10"]["inputs"]["stop_at_clip_layer"] = ["60", 0]
    assert read(graph).clip_skip == ClipSkip(3)
    graph["60"] = node("SomebodysMath", a=-3, b=1)
    with pytest.raises(SpecError, match="SomebodysMath"):
        read(graph)


def test_weights_that_a_node_reads_as_a1111_does_are_read_so() -> None:
    graph = copy.deepcopy(EFFICIENT)
    graph["1"]["inputs"]["weight_interpretation"] = "A1111"
    assert read(graph).emphasis == "Original"


POWER = node(
    "Power Lora Loader (rgthree)", PowerLoraLoaderHeaderWidget={"type": "PowerLoraLoaderHeaderWidget"},
    lora_1={"on": True, "lora": "sd15/ogre.safetensors", "strength": 0.8},
    lora_2={"on": False, "lora": "ink.safetensors", "strength": 1},
    lora_3={"on": True, "lora": "gnome.safetensors", "strength": 0.5, "strengthTwo": 0.25},
    model=["4", 0], clip=["4", 1],
)  # fmt: skip


def test_rgthrees_power_lora_loader_is_read() -> None:
    graph = with_nodes({"model": ["30", 0]}, n30=POWER)
    graph["10"]["inputs"]["clip"] = ["30", 1]
    asked = read(graph)
    assert asked.loras == (
        LoraRef(name="ogre", unet=0.8, text_encoder=0.8),
        LoraRef(name="gnome", unet=0.5, text_encoder=0.25),
    )
    assert names(asked) == [
        "Power Lora Loader (rgthree) PowerLoraLoaderHeaderWidget",
        "Power Lora Loader (rgthree) lora_2",
    ]


@pytest.mark.parametrize(
    "change",
    [{"lora_1": {"on": True}}, {"lora_1": "ogre"}, {"lora_1": {"on": True, "lora": "ogre", "strength": "much"}}],
)
def test_a_lora_that_is_not_understood_is_an_error(change: Json) -> None:
    graph = with_nodes({"model": ["30", 0]}, n30=copy.deepcopy(POWER))
    graph["30"]["inputs"] |= change
    with pytest.raises(SpecError, match="lora_1"):
        read(graph)


def test_a_vae_file_of_efficient_nodes_is_used() -> None:
    graph = copy.deepcopy(EFFICIENT) | {"9": node("VAELoader", vae_name="kl-f8.pt")}
    graph["2"]["inputs"]["optional_vae"] = ["9", 0]
    assert read(graph).vae == "kl-f8"


def test_a_lora_on_one_side_alone_is_refused() -> None:
    graph = with_nodes(
        n30=node("LoraLoader", lora_name="ogre", strength_model=1, strength_clip=1, model=["4", 0], clip=["4", 1])
    )
    graph["6"]["inputs"]["clip"] = ["30", 1]
    with pytest.raises(SpecError, match="different LoRAs"):
        read(graph)


IMG2IMG = {
    "5": node("VAEEncode", pixels=["51", 0], vae=["4", 2]),
    "51": node("LoadImage", image="fox.png"),
}


def test_a_graph_that_begins_with_a_picture_says_so() -> None:
    asked = read(with_nodes({"denoise": 0.6}) | IMG2IMG)
    assert (asked.width, asked.height) == (None, None)
    assert names(asked) == ["VAEEncode", "KSampler denoise", "LoadImage"]


def test_a_graph_that_only_enlarges_a_picture_begins_with_it() -> None:
    inputs = {key: value for key, value in PLAIN["3"]["inputs"].items() if key != "latent_image"}
    enlarging = node("UltimateSDUpscale", **inputs | {"denoise": 0.2}, image=["51", 0], upscale_by=2.0)
    asked = read(with_nodes(n3=enlarging, n51=node("LoadImage", image="fox.png")))
    assert (asked.width, asked.height) == (None, None)
    assert {"UltimateSDUpscale image", "UltimateSDUpscale denoise", "LoadImage"} <= set(names(asked))


def test_it_has_the_size_that_its_picture_is_brought_to_or_the_size_of_the_picture_that_it_made() -> None:
    scaled = with_nodes() | IMG2IMG | {"51": node("ImageScale", image=["52", 0], width=640, height=384)}
    scaled["52"] = node("LoadImage", image="fox.png")
    assert (read(scaled).width, read(scaled).height) == (640, 384)
    made = request_from_text(json.dumps({"prompt": with_nodes() | IMG2IMG, "size": "448x576"}))
    assert (made.width, made.height) == (448, 576)


@pytest.mark.parametrize("around", ['{"input": {"workflow": %s}}', '{"workflow": %s}', '{"output": %s, "version": 1}'])
def test_a_graph_is_found_in_the_bodies_that_hosts_of_comfyui_take(around: str) -> None:
    asked = request_from_text(around % json.dumps(PLAIN))
    assert (asked.prompt, asked.clip_skip) == ("1girl, #1 fan, red dress", ClipSkip(2))


def test_what_stands_beside_a_graph_is_told_of() -> None:
    asked = request_from_text(json.dumps({"prompt": PLAIN, "client_id": "x"}))
    assert asked.unused == (("client_id", "x"),)


def test_nodes_behind_the_picture_are_named_with_what_they_say() -> None:
    graph = with_nodes(n8=node("SaveImage", images=["12", 0], filename_prefix="fox"))
    assert read(graph).unused == (("SaveImage", "images of node 12, filename_prefix fox"),)


def test_a_long_graph_is_read_at_once_and_one_beyond_all_graphs_refused() -> None:
    chain = {f"r{i}": node("Reroute", model=[f"r{i + 1}", 0]) for i in range(1900)}
    chain["r1900"] = node("Reroute", model=["4", 0])
    assert read(with_nodes({"model": ["r0", 0]}) | chain).model == "m"
    with pytest.raises(SpecError, match="nodes"):
        read(with_nodes() | {f"x{i}": node("Note") for i in range(3000)})


@pytest.mark.parametrize("wrong", [{}, [], True, "x", ["4"]])
def test_a_clip_skip_or_seed_that_is_none_is_never_a_default(wrong: object) -> None:
    for name, key in (("10", "stop_at_clip_layer"), ("3", "seed"), ("3", "steps"), ("5", "width"), ("4", "ckpt_name")):
        graph = copy.deepcopy(PLAIN)
        graph[name]["inputs"][key] = wrong
        if (key, wrong) != ("ckpt_name", "x"):
            with pytest.raises(SpecError):
                read(graph)


@pytest.mark.parametrize("wrong", [None, 5, "x", [], ["4"], ["4", "0"], [["4"], 0], {}, True, ["nowhere", 0]])
def test_a_link_or_value_of_a_wrong_type_is_an_error_of_ours(wrong: object) -> None:
    for name, one in PLAIN.items():
        for key in one["inputs"]:
            graph = copy.deepcopy(PLAIN)
            graph[name]["inputs"][key] = wrong
            try:
                read(graph)
            except SpecError as error:
                assert "\n" not in str(error)


def refined(**changes: object) -> Json:
    """Stability's example in small: 20 steps of the base, then 5 of the refiner, whose VAE decodes."""
    base = {
        "add_noise": "enable",
        "noise_seed": 7,
        "start_at_step": 0,
        "end_at_step": 20,
        "return_with_leftover_noise": "enable",
    }
    graph = with_nodes(
        base | {"steps": 25},
        n20=node("CheckpointLoaderSimple", ckpt_name="refiner.safetensors"),
        n21=node("CLIPTextEncode", text="1girl, #1 fan, red dress", clip=["20", 1]),
        n22=node("CLIPTextEncode", text="dog", clip=["20", 1]),
        n23=node(
            "KSamplerAdvanced", add_noise="disable", noise_seed=0, steps=25, cfg=7, sampler_name="euler", scheduler="normal",
            start_at_step=20, end_at_step=10000, return_with_leftover_noise="disable", model=["20", 0], positive=["21", 0],
            negative=["22", 0], latent_image=["3", 0],
        ),
        n24=node("VAEDecode", samples=["23", 0], vae=["20", 2]),
    )  # fmt: skip
    del graph["3"]["inputs"]["seed"], graph["3"]["inputs"]["denoise"]
    graph["23"]["inputs"] |= changes
    return graph


def test_the_vae_of_another_checkpoint_is_asked_for_by_its_name() -> None:
    other = node("CheckpointLoaderSimple", ckpt_name="other.ckpt")
    assert read(with_nodes(n11=other, n12=node("VAEDecode", samples=["3", 0], vae=["11", 2]))).vae == "other"


def test_sdxls_refiner_and_its_vae_are_read() -> None:
    asked = read(refined())
    assert (asked.model, asked.refiner, asked.vae, asked.unused) == ("m", "refiner", "refiner", ())
    table = stable_diffusion()
    levels = find_sampler("Euler")[0].sigmas(25, schedule="Normal")
    gone = [table.gone(level) >= asked.refiner_switch_at for level in levels[:-1]]
    assert gone.index(True) == 20, "the refiner is asked from step 20 on"


@pytest.mark.parametrize("schedule", ["normal", "sgm_uniform", "simple"])
@pytest.mark.parametrize(("steps", "end"), [(25, 20), (30, 1), (10, 9), (50, 33)])
def test_it_takes_over_at_the_step_that_the_graph_says(schedule: str, steps: int, end: int) -> None:
    graph = refined(steps=steps, scheduler=schedule, start_at_step=end)
    graph["3"]["inputs"] |= {"steps": steps, "scheduler": schedule, "end_at_step": end}
    asked, table = read(graph), stable_diffusion()
    levels = find_sampler("Euler")[0].sigmas(steps, schedule=asked.scheduler)
    assert [table.gone(level) >= asked.refiner_switch_at for level in levels[:-1]].index(True) == end


@pytest.mark.parametrize(
    "changes", [{"cfg": 5}, {"scheduler": "karras"}, {"sampler_name": "heun"}, {"positive": ["22", 0]}]
)
def test_a_refiner_that_draws_otherwise_is_an_error(changes: Json) -> None:
    with pytest.raises(SpecError, match="refiner"):
        read(refined(**changes))


def test_a_graph_without_a_clip_skip_is_the_familys_own() -> None:
    graph = with_nodes()
    for place in ("6", "7"):
        graph[place]["inputs"]["clip"] = ["4", 1]
    asked = read(graph)
    skips = [asked_skip(asked, family) for family in (Family.SD1, Family.SD2, Family.SDXL)]
    assert [one and one.skip for one in skips] == [ClipSkip(1), ClipSkip(2), ClipSkip(2)]
    graph["10"]["inputs"]["stop_at_clip_layer"] = -1
    graph["6"]["inputs"]["clip"] = graph["7"]["inputs"]["clip"] = ["10", 0]
    last = asked_skip(read(graph), Family.SDXL)
    assert last and last.skip == ClipSkip(1)


@pytest.mark.parametrize(
    ("positive", "negative", "family", "skips"),
    [
        (-3, None, Family.SD1, (3, 1)), (-3, None, Family.SDXL, (3, 2)), (-2, None, Family.SDXL, (2, 2)),
        (-1, None, Family.SDXL, (1, 2)), (None, -1, Family.SD1, (1, 1)), (None, -1, Family.SDXL, (2, 1)),
        (None, -4, Family.SD2, (2, 4)),
    ],
)  # fmt: skip
def test_a_text_without_a_clip_skip_is_the_familys_own_beside_one_that_has_it(
    positive: int | None, negative: int | None, family: Family, skips: tuple[int, int]
) -> None:
    graph = with_nodes()
    graph["10"]["inputs"]["stop_at_clip_layer"] = positive or negative
    graph["6"]["inputs"]["clip"] = ["10", 0] if positive else ["4", 1]
    graph["7"]["inputs"]["clip"] = ["10", 0] if negative else ["4", 1]
    asked = read(graph)
    above, below = asked_skip(asked, family), asked_negative_skip(asked, family)
    assert above and (above.skip, below or above.skip) == (ClipSkip(skips[0]), ClipSkip(skips[1]))


@pytest.mark.parametrize(
    ("parser", "normed", "emphasis"),
    [("A1111", True, "Original"), ("A1111", False, "No norm"), ("comfy", True, "ComfyUI")],
)
def test_smzs_parser_is_the_emphasis(parser: str, normed: bool, emphasis: str) -> None:
    graph = with_nodes()
    graph["6"]["inputs"] |= {"parser": parser, "mean_normalization": normed}
    assert read(graph).emphasis == emphasis
    graph["6"]["inputs"]["parser"] = "compel"
    with pytest.raises(SpecError, match="parser compel"):
        read(graph)


@pytest.mark.parametrize(
    ("sdxl", "texts", "prompt"), [(False, ("", ""), "a fox"), (True, ("an owl", "an owl"), "an owl")]
)
def test_smzs_encoder_has_a_text_of_its_own_or_one_for_each_encoder(
    sdxl: bool, texts: tuple[str, str], prompt: str
) -> None:
    graph = with_nodes()
    graph["6"] = node(
        "smZ CLIPTextEncode",
        text="a fox",
        parser="comfy",
        with_SDXL=sdxl,
        text_g=texts[0],
        text_l=texts[1],
        clip=["4", 1],
    )
    assert read(graph).prompt == prompt


def test_lcm_is_drawn_where_the_model_is_sampled_so() -> None:
    lcm = with_nodes(
        {"sampler_name": "lcm", "model": ["30", 0]}, n30=node("ModelSamplingDiscrete", sampling="lcm", model=["4", 0])
    )
    assert (read(lcm).sampler, read(lcm).prediction) == ("LCM", None)
    with pytest.raises(SpecError, match="not sampled so"):
        read(with_nodes({"sampler_name": "lcm"}))


@pytest.mark.parametrize(
    ("config", "skip", "prediction"),
    [
        ("v1-inference.yaml", 1, None), ("v1-inference_clip_skip_2.yaml", 2, None), ("anything_v3.yaml", 2, None),
        ("v1-inference_clip_skip_2_fp16.yaml", 2, None), ("v2-inference-v.yaml", 1, "v"),
    ],
)  # fmt: skip
def test_a_loaders_config_may_set_the_clip_skip_and_the_prediction(
    config: str, skip: int, prediction: str | None
) -> None:
    """ComfyUI comes with configs whose text encoder is read at layer -2; CLIPSetLastLayer has precedence."""
    graph = with_nodes(n4=node("CheckpointLoader", ckpt_name="m.safetensors", config_name=config))
    assert read(graph).clip_skip == ClipSkip(2)
    for place in ("6", "7"):
        graph[place]["inputs"]["clip"] = ["4", 1]
    asked = read(graph)
    assert (asked.clip_skip, asked.prediction, asked.unused[1:]) == (ClipSkip(skip), prediction, ())
    assert (asked.counted_by is None) is (skip == 2)
    with pytest.raises(SpecError, match=r"config 'mine\.yaml'"):
        read(with_nodes(n4=node("CheckpointLoader", ckpt_name="m.safetensors", config_name="mine.yaml")))


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ("3", "seed"), ("3", "steps"), ("3", "cfg"), ("3", "sampler_name"), ("3", "scheduler"), ("3", "latent_image"),
        ("5", "width"), ("5", "height"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("wrong", [None, "", "gone", ["40", 0]])
def test_what_comfyui_draws_nothing_without_is_never_a_default(place: str, key: str, wrong: object) -> None:
    """ComfyUI answers `Required input is missing` (execution.py validate_inputs). Node 40 holds nothing."""
    graph = with_nodes(n40=node("Note", value=""))
    graph[place]["inputs"][key] = wrong
    if wrong == "gone":
        del graph[place]["inputs"][key]
    with pytest.raises(SpecError) as caught:
        read(graph)
    assert caught.value.field in (key, "size", "settings")


@pytest.mark.parametrize(
    ("place", "key"),
    [("33", "noise_seed"), ("32", "steps"), ("32", "scheduler"), ("31", "sampler_name"), ("34", "cfg"), ("3", "noise")],
)
def test_a_custom_sampler_without_a_setting_is_refused(place: str, key: str) -> None:
    graph = advanced(node("CFGGuider", model=["4", 0], positive=["6", 0], negative=["7", 0], cfg=6.5))
    graph = copy.deepcopy(graph)
    del graph[place]["inputs"][key]
    with pytest.raises(SpecError, match="ComfyUI draws nothing"):
        read(graph)
    assert read(advanced(node("BasicGuider", model=["4", 0], conditioning=["6", 0]))).cfg_scale == 1.0


def test_names_of_a_custom_sampler_may_come_over_a_link() -> None:
    graph = PLAIN | PARTS | {"3": node("SamplerCustom", **CUSTOM)}
    graph |= {"31": node("KSamplerSelect", sampler_name=["41", 0]), "41": node("PrimitiveString", value="dpmpp_sde")}
    graph["32"] = node("BasicScheduler", model=["4", 0], scheduler=["42", 0], steps=25, denoise=1.0)
    asked = read(graph | {"42": node("PrimitiveString", value="exponential")})
    assert (asked.sampler, asked.scheduler) == ("DPM++ SDE", "Exponential")


@pytest.mark.parametrize("seed", [-1, ["40", 0]])
def test_a_seed_that_a_node_drew_by_chance_is_refused(seed: object) -> None:
    graph = with_nodes({"seed": seed}, n40=node("Seed (rgthree)", seed=-1))
    with pytest.raises(SpecError, match="drew one by chance"):
        read(graph)


CONTEXT = node(
    "Context (rgthree)", model=["4", 0], clip=["10", 0], vae=["4", 2], positive=["6", 0], negative=["7", 0], latent=["5", 0],
    seed=["41", 0],
)  # fmt: skip
SEED = node("Seed (rgthree)", seed=77)
EMPTY, MERGED = node("Context (rgthree)", images=["9", 0]), node("Context Merge Big (rgthree)", ctx_03=["40", 0])


def in_context(name: str, outputs: dict[str, int], **nodes: Json) -> Json:
    """The plain graph, whose sampler takes its inputs from a context."""
    return with_nodes({key: [name, output] for key, output in outputs.items()}, n40=CONTEXT, n41=SEED, **nodes)


OUT = {"model": 1, "positive": 4, "negative": 5, "latent_image": 6, "seed": 8}


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("40", {}),
        ("42", {"n42": node("Context Big (rgthree)", base_ctx=["40", 0])}),
        ("42", {"n42": node("Context Switch (rgthree)", ctx_02=["40", 0], ctx_05=["50", 0]), "n50": node("Context (rgthree)")}),
        ("42", {"n42": node("Context Merge (rgthree)", ctx_01=["40", 0], ctx_02=["50", 0]), "n50": EMPTY}),
        ("42", {"n42": node("Context (rgthree)", base_ctx=["50", 0]), "n50": MERGED}),
    ],
)  # fmt: skip
def test_rgthrees_contexts_are_read_like_the_links_that_they_hold(name: str, nodes: Json) -> None:
    asked = read(in_context(name, OUT, **nodes))
    assert (asked.seed, asked.clip_skip, asked.width, asked.height) == (77, ClipSkip(2), 512, 768)
    assert (asked.prompt, asked.negative_prompt, asked.model) == ("1girl, #1 fan, red dress", "dog", "m")
    assert asked.unused == ()


def test_a_context_on_top_of_another_counts_and_what_is_foreign_to_it_is_named() -> None:
    top = node("Context Big (rgthree)", base_ctx=["40", 0], seed=["43", 0], steps=["44", 0], note="mine")
    graph = in_context("42", OUT | {"steps": 9}, n42=top, n43=node("INTConstant", value=5), n44=node("Int", value=33))
    asked = read(graph)
    assert (asked.seed, asked.steps) == (5, 33)
    assert asked.unused == (("Seed (rgthree)", "seed 77"), ("Context Big (rgthree)", "note mine"))


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ({"n42": node("Context (rgthree)", base_ctx=["42", 0])}, "circle"),
        ({"n42": node("Context (rgthree)", base_ctx=["50", 0]), "n50": node("easy pipeIn")}, "easy pipeIn"),
        ({"n42": node("Context (rgthree)", base_ctx="40")}, "not a link"),
        ({"n42": {**CONTEXT, "mode": 4}}, "muted or bypassed"),
        ({"n42": node("Context (rgthree)", model=["4", 0])}, "ComfyUI draws nothing"),
    ],
)  # fmt: skip
def test_a_context_that_does_not_hold_what_is_drawn_with_is_refused(nodes: Json, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        read(in_context("42", OUT, **nodes))


def test_merges_of_merges_of_contexts_are_read_in_no_time() -> None:
    nodes = {"n100": node("Context (rgthree)")}
    nodes |= {
        f"n{at}": node("Context Merge (rgthree)", ctx_01=[str(at - 1), 0], ctx_02=[str(at - 1), 0])
        for at in range(101, 250)
    }
    with pytest.raises(SpecError, match="seed"):
        read(in_context("249", OUT, **nodes))


def test_a_sampler_in_a_pipe_is_refused_by_its_nodes_names() -> None:
    graph = {
        "1": node("easy fullLoader", ckpt_name="m"),
        "2": node("easy preSampling", pipe=["1", 0], sampler_name="euler"),
    }
    with pytest.raises(SpecError, match="easy preSampling"):
        read(graph)


@pytest.mark.parametrize(
    "setter",
    [
        node("MyClipThing", clip=["4", 1], clip_last_layer=-2),
        node("ClipSkipNode", clip=["4", 1], n=2),
        node("SomebodysClip", clip=["4", 1], amount=-2),
        node("SomebodysClip", clip=["4", 1], stop_at=["5", 0]),
        node("CLIPSetLastLayer", clip=["4", 1]),
        node("CLIPSetLastLayer", clip=["4", 1], stop_at_clip_layer=None),
    ],
)
def test_a_node_that_may_set_the_clip_skip_in_a_way_that_is_not_known_is_refused(setter: Json) -> None:
    graph = copy.deepcopy(PLAIN)
    graph["10"] = setter
    with pytest.raises(SpecError, match=setter["class_type"]) as caught:
        read(graph)
    assert caught.value.field == "clip_skip"


def test_an_encoder_with_a_clip_skip_of_its_own_is_refused_and_a_lora_of_weight_minus_1_is_not() -> None:
    graph = copy.deepcopy(PLAIN)
    graph["6"] = node("SomebodysEncode", text="a fox", clip=["10", 0], clip_skip=-3)
    with pytest.raises(SpecError, match="may set Clip Skip with SomebodysEncode"):
        read(graph)
    lora = node("LoraLoader", model=["4", 0], clip=["4", 1], lora_name="ogre", strength_model=-1, strength_clip=-1)
    asked = read(
        with_nodes({"model": ["30", 0]}, n30=lora, n10=node("CLIPSetLastLayer", clip=["30", 1], stop_at_clip_layer=-2))
    )
    assert (asked.clip_skip, asked.loras) == (ClipSkip(2), (LoraRef(name="ogre", text_encoder=-1, unet=-1),))


@pytest.mark.parametrize(("start", "end", "told"), [(0, 1, False), (0.0, 1.0, False), (0.0, 0.5, True), (0.2, 1, True)])
def test_a_text_for_some_of_the_steps_is_refused(start: float, end: float, told: bool) -> None:
    graph = with_nodes(
        {"positive": ["30", 0]}, n30=node("ConditioningSetTimestepRange", conditioning=["6", 0], start=start, end=end)
    )
    if told:
        with pytest.raises(SpecError, match="some of the steps"):
            read(graph)
    else:
        assert read(graph).prompt == read(PLAIN).prompt


def test_a_text_that_a_node_makes_by_chance_is_refused() -> None:
    graph = with_nodes(n30=node("DPRandomGenerator", text="a {red|blue} fox", seed=1))
    graph["6"]["inputs"]["text"] = ["30", 0]
    with pytest.raises(SpecError, match="DPRandomGenerator"):
        read(graph)


def test_a_graph_that_is_a_text_inside_of_json_is_read() -> None:
    """As a PNG's texts are when somebody saves all of them as JSON."""
    saved = {"prompt": json.dumps(PLAIN), "workflow": "{}"}
    assert request_from_text(json.dumps(saved)).seed == 7
