"""LoRAs in ComfyUI's graphs: the loaders and stacks of the packs that people use, and values that nodes make."""

import copy
import json
from typing import Any

import pytest
from spec.test_graphs import EFFICIENT, PLAIN, names, node, read, with_nodes

from clipskip.errors import SpecError
from clipskip.spec import ClipSkip, LoraRef
from clipskip.spec.settings import request_from_text

Json = dict[str, Any]
OGRE, GNOME = LoraRef(name="ogre", unet=0.8, text_encoder=0.5), LoraRef(name="gnome", unet=0.4, text_encoder=0.4)


def loaded(**nodes: Json) -> Json:
    """The plain graph with its model and text encoder from node 30."""
    graph = with_nodes({"model": ["30", 0]}, **nodes)
    graph["10"]["inputs"]["clip"] = ["30", 1]
    return graph


APPLY = node("CR Apply LoRA Stack", model=["4", 0], clip=["4", 1], lora_stack=["31", 0])
CR_STACK = node(
    "CR LoRA Stack", switch_1="On", lora_name_1="sd15\\ogre.safetensors", model_weight_1=0.8, clip_weight_1=0.5,
    switch_2="Off", lora_name_2="ink.safetensors", model_weight_2=1.0, clip_weight_2=1.0,
    switch_3="On", lora_name_3="None", model_weight_3=1.0, clip_weight_3=1.0,
)  # fmt: skip
STACKER = node(
    "LoRA Stacker", input_mode="advanced", lora_count=1, lora_name_1="ogre.safetensors", lora_wt_1=1.0, model_str_1=0.8,
    clip_str_1=0.5, lora_name_2="ink.safetensors", lora_wt_2=1.0, model_str_2=1.0, clip_str_2=1.0, lora_name_3="None",
    lora_wt_3=1.0, model_str_3=1.0, clip_str_3=1.0,
)  # fmt: skip
EASY_STACK = node(
    "easy loraStack", toggle=True, mode="advanced", num_loras=1, lora_1_name="ogre.safetensors", lora_1_strength=1.0,
    lora_1_model_strength=0.8, lora_1_clip_strength=0.5,
)  # fmt: skip
MANAGED = [
    {"name": "ogre", "strength": 0.8, "clipStrength": 0.5, "active": True},
    {"name": "ink", "strength": 1.0, "active": False},
]
GNOME_ENTRY = {"name": "gnome", "strength": 0.4, "active": True}
MANAGER = node("Lora Stacker (LoraManager)", text="<lora:ogre:0.8>", loras={"__value__": MANAGED})


@pytest.mark.parametrize(
    ("stack", "unused"),
    [
        (
            CR_STACK,
            ["switch_2", "lora_name_2", "model_weight_2", "clip_weight_2"],
        ),
        (STACKER, ["lora_wt_1", "lora_name_2", "lora_wt_2", "model_str_2", "clip_str_2"]),
        (EASY_STACK, ["lora_1_strength"]),
        (MANAGER, ["loras ink"]),
    ],
    ids=["comfyroll", "efficiency", "easy-use", "lora-manager"],
)
def test_a_stack_of_loras_is_read_and_what_is_off_is_named(stack: Json, unused: list[str]) -> None:
    asked = read(loaded(n30=APPLY, n31=stack))
    assert asked.loras == (OGRE,)
    assert names(asked) == [f"{stack['class_type']} {name}" for name in unused]


def test_weights_count_together_where_the_node_says_so() -> None:
    for stack, mode in ((STACKER, "input_mode"), (EASY_STACK, "mode")):
        simple = copy.deepcopy(stack)
        simple["inputs"][mode] = "simple"
        assert read(loaded(n30=APPLY, n31=simple)).loras == (LoraRef(name="ogre", unet=1.0, text_encoder=1.0),)


def test_stacks_on_stacks_are_read_through_what_stands_between() -> None:
    second = copy.deepcopy(EASY_STACK)
    second["inputs"] |= {
        "optional_lora_stack": ["33", 0],
        "mode": "simple",
        "lora_1_name": "gnome",
        "lora_1_strength": 0.4,
    }
    graph = loaded(n30=APPLY, n31=second, n33=node("Reroute", **{"": ["34", 0]}), n34=CR_STACK)
    assert read(graph).loras == (OGRE, GNOME)
    graph["31"]["inputs"]["toggle"] = False
    asked = read(graph)
    assert asked.loras == (OGRE,) and "easy loraStack lora_1_name" in names(asked)


def test_efficient_loader_applies_its_stack_after_its_own_lora() -> None:
    graph = copy.deepcopy(EFFICIENT) | {"9": copy.deepcopy(STACKER)}
    graph["9"]["inputs"] |= {"input_mode": "simple", "lora_name_1": "gnome.pt", "lora_wt_1": 0.4}
    graph["1"]["inputs"]["lora_stack"] = ["9", 0]
    assert read(graph).loras == (OGRE, GNOME)


def test_stacks_are_combined_in_their_order() -> None:
    both = node("Lora Stack Combiner (LoraManager)", lora_stack_a=["32", 0], lora_stack_b=["33", 0])
    gnome = node("Lora Stacker (LoraManager)", loras=[{"name": "gnome", "strength": "0.4", "active": True}])
    assert read(loaded(n30=APPLY, n31=both, n32=CR_STACK, n33=gnome)).loras == (OGRE, GNOME)


@pytest.mark.parametrize(
    "loader",
    [
        node(
            "Lora Loader Stack (rgthree)", model=["4", 0], clip=["4", 1], lora_01="sd15/gnome.safetensors", strength_01=0.4,
            lora_02="None", strength_02=1.0, lora_03="None", strength_03=1.0, lora_04="None", strength_04=1.0,
        ),
        node("Lora Loader (LoraManager)", model=["4", 0], clip=["4", 1], text="", loras=[GNOME_ENTRY]),
        node("LoraTagLoader", model=["4", 0], clip=["4", 1], text="a fox <lora:gnome:0.4>"),
        node("LoRA Text Loader (LoraManager)", model=["4", 0], clip=["4", 1], lora_syntax="<lora:gnome:0.4>"),
        node(
            "LoraLoader|pysssss", model=["4", 0], clip=["4", 1], lora_name={"content": "x/gnome.safetensors", "image": None},
            strength_model=0.4, strength_clip=0.4,
        ),
        node(
            "CR Load LoRA", model=["4", 0], clip=["4", 1], switch="On", lora_name="gnome.safetensors", strength_model=0.4,
            strength_clip=0.4,
        ),
    ],
    ids=lambda loader: loader["class_type"],
)  # fmt: skip
def test_a_loader_of_another_pack_is_read_whole(loader: Json) -> None:
    asked = read(loaded(n30=loader))
    assert (asked.loras, asked.unused) == ((GNOME,), ())


def test_a_loader_that_is_switched_off_loads_none_and_says_so() -> None:
    loader = node(
        "CR Load LoRA",
        model=["4", 0],
        clip=["4", 1],
        switch="Off",
        lora_name="gnome",
        strength_model=1,
        strength_clip=1,
    )
    asked = read(loaded(n30=loader))
    assert asked.loras == () and "CR Load LoRA lora_name" in " ".join(f"{name} {text}" for name, text in asked.unused)


POWER_PROMPT = node(
    "Power Prompt (rgthree)", prompt="a fox <lora:sd15/ogre:0.8>, <lora:gnome:0.4>in snow", insert_lora="CHOOSE",
    insert_embedding="CHOOSE", insert_saved="CHOOSE", opt_model=["4", 0], opt_clip=["10", 0],
)  # fmt: skip


def power_prompt(**changes: object) -> Json:
    graph = with_nodes({"model": ["30", 1], "positive": ["30", 0]}, n30=copy.deepcopy(POWER_PROMPT))
    graph["30"]["inputs"] |= changes
    graph["7"]["inputs"]["clip"] = ["30", 2]
    return graph


def test_rgthrees_power_prompt_is_words_and_loras() -> None:
    asked = read(power_prompt())
    assert asked.prompt == "a fox , in snow" and asked.clip_skip == ClipSkip(2)
    assert asked.loras == (LoraRef(name="ogre", unet=0.8, text_encoder=0.8), GNOME)
    assert names(asked) == ["CLIPTextEncode"], "the plain graph's own prompt is not used"


def test_its_tags_are_taken_out_or_stay_words_as_it_does_with_them() -> None:
    off = read(power_prompt(insert_lora="DISABLE LORAS"))
    assert (off.prompt, off.loras) == ("a fox , in snow", ())
    graph = power_prompt()
    del graph["30"]["inputs"]["opt_model"]
    graph["3"]["inputs"]["model"] = ["4", 0]
    kept = read(graph)
    assert (kept.prompt, kept.loras) == (POWER_PROMPT["inputs"]["prompt"], ())


@pytest.mark.parametrize("sized", [False, True])
def test_its_sdxl_form_has_a_text_for_each_encoder_or_both_in_one(sized: bool) -> None:
    graph = power_prompt(prompt_g="a fox", prompt_l="in snow")
    graph["30"] |= {"class_type": "SDXL Power Prompt - Positive (rgthree)"}
    del graph["30"]["inputs"]["prompt"]
    if sized:
        graph["30"]["inputs"] |= {"opt_clip_width": 1024, "opt_clip_height": 1024}
        with pytest.raises(SpecError, match="different texts"):
            read(graph)
        graph["30"]["inputs"]["prompt_l"] = "a fox"
    assert read(graph).prompt == ("a fox" if sized else "a fox\nin snow")


WILDCARDS = node(
    "ImpactWildcardEncode", model=["4", 0], clip=["10", 0], wildcard_text="a {fox|owl} <lora:ogre:0.8:0.5>",
    populated_text="a fox <lora:ogre:0.8:0.5>", mode="populate", seed=5,
    **{"Select to add LoRA": "Select the LoRA to add to the text", "Select to add Wildcard": "Select the Wildcard to add to the text"},
)  # fmt: skip


def wildcards(**changes: object) -> Json:
    graph = with_nodes({"model": ["30", 0], "positive": ["30", 2]}, n30=copy.deepcopy(WILDCARDS))
    graph["30"]["inputs"] |= changes
    graph["7"]["inputs"]["clip"] = ["30", 1]
    return graph


def test_impacts_wildcards_are_the_text_that_they_became() -> None:
    asked = read(wildcards())
    assert (asked.prompt.strip(), asked.loras, asked.negative_prompt) == ("a fox", (OGRE,), "dog")


@pytest.mark.parametrize(
    "text", ["a fox BREAK snow", "a {fox|owl}", "a __animal__", "a <lora:ogre:LBW=XYZ>", "<lora:ogre:1:1:1>"]
)
def test_a_text_of_its_that_becomes_another_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"Wildcard|ogre"):
        read(wildcards(populated_text=text))


@pytest.mark.parametrize(
    "stack",
    [
        node(
            "CR Random LoRA Stack", exclusive_mode="Off", stride=1, lora_name_1="ogre", switch_1="On", chance_1=0.5,
            model_weight_1=1, clip_weight_1=1,
        ),
        node("CR Random Weight LoRA", stride=1, lora_name="ogre", switch="On", weight_min=0.0, weight_max=1.0, clip_weight=1.0),
        node("Lora Randomizer (LoraManager)", pool_config=["4", 0], loras=[]),
        node("Lora Cycler (LoraManager)", cycler_config={}),
        node("SomebodysStack", lora_name_1="ogre"),
        node("SomebodysStack", lora_name_1="ogre", lora_wt_1=0.5, model_str_1=0.5, clip_str_1=0.5),
        node("LoRA Stacker", input_mode="other", lora_count=1, lora_name_1="ogre", lora_wt_1=0.5, model_str_1=0.5, clip_str_1=0.5),
        node("LoRA Stacker", input_mode="simple", lora_count=1, lora_name_1="ogre", lora_wt_1="much"),
        node("LoRA Stacker", input_mode="simple", lora_count=1, lora_name_1=["5", 0], lora_wt_1=0.5),
        node("Lora Stacker (LoraManager)", loras="ogre"),
        node("Lora Stacker (LoraManager)", loras=[{"strength": 1, "active": True}]),
        node("CR LoRA Stack", lora_stack=["31", 0]),
        node("Reroute", **{"": ["31", 0]}),
    ],
    ids=range(13),
)  # fmt: skip
def test_loras_that_are_not_told_for_sure_are_refused(stack: Json) -> None:
    with pytest.raises(SpecError) as caught:
        read(loaded(n30=APPLY, n31=stack))
    assert "\n" not in str(caught.value)


def test_a_loader_that_is_given_another_model_is_refused() -> None:
    graph = copy.deepcopy(EFFICIENT)
    graph["1"]["inputs"]["model_override"] = ["9", 0]
    graph["9"] = node("CheckpointLoaderSimple", ckpt_name="other.safetensors")
    with pytest.raises(SpecError, match="Efficient Loader a model"):
        read(graph)


def test_values_are_taken_from_nodes_that_hold_one() -> None:
    graph = with_nodes(
        {"seed": ["50", 0], "steps": ["51", 0], "sampler_name": ["52", 0], "scheduler": ["53", 0], "cfg": ["54", 0]},
        n50=node("Seed (rgthree)", seed=9), n51=node("PrimitiveInt", value=12, control_after_generate="fixed"),
        n52=node("Sampler Selector", sampler_name="heun"), n53=node("Scheduler Selector", scheduler="karras"),
        n54=node("Any Switch (rgthree)", any_01=["59", 0]), n55=node("PrimitiveFloat", value=4.5),
        n59=node("ComfySwitchNode", switch=["60", 0], on_false=7.5, on_true=["55", 0]), n60=node("PrimitiveBoolean", value=True),
        n56=node("ShowText|pysssss", text=["57", 0], text_0="of the last run"), n57=node("Text Multiline", text="a frog"),
    )  # fmt: skip
    graph["4"]["inputs"]["ckpt_name"] = ["58", 0]
    graph["58"] = node("Checkpoint Selector", ckpt_name="sd/m2.safetensors")
    graph["6"]["inputs"]["text"] = ["56", 0]
    asked = read(graph)
    assert (asked.seed, asked.steps, asked.sampler, asked.scheduler, asked.cfg_scale) == (9, 12, "Heun", "Karras", 4.5)
    assert (asked.model, asked.prompt) == ("m2", "a frog")


@pytest.mark.parametrize(
    ("holder", "outputs"),
    [
        (node("KSampler Config (rgthree)", steps_total=12, refiner_step=9, cfg=4.5, sampler_name="heun", scheduler="karras"),
         {"steps": 0, "cfg": 2, "sampler_name": 3, "scheduler": 4}),
        (node("Input Parameters (Image Saver)", seed=7, steps=12, cfg=4.5, sampler="heun", scheduler="karras", denoise=1.0),
         {"seed": 0, "steps": 1, "cfg": 2, "sampler_name": 3, "scheduler": 5}),
    ],
)  # fmt: skip
def test_values_are_taken_from_nodes_that_hold_several_settings(holder: Json, outputs: dict[str, int]) -> None:
    asked = read(with_nodes({key: ["50", output] for key, output in outputs.items()}, n50=holder))
    assert (asked.seed, asked.steps, asked.cfg_scale, asked.sampler, asked.scheduler) == (7, 12, 4.5, "Heun", "Karras")


@pytest.mark.parametrize(
    ("place", "key", "maker"),
    [
        ("3", "steps", node("MathExpression|pysssss", expression="a/2", a=["51", 0])),
        ("3", "seed", node("SomebodysMath", a=["51", 0], b=2)),
        ("3", "steps", node("SomebodysPreset", preset="fast", steps=8)),
        ("6", "text", node("Text Concatenate", delimiter=", ", text_a=["51", 0], text_b=["51", 0])),
        ("6", "text", node("StringConcatenate", string_a="a", string_b="b", delimiter="")),
        ("6", "text", node("SomebodysStyler", text=["51", 0], style="photo")),
        ("5", "width", node("CR Aspect Ratio", width=64, height=64, aspect_ratio="custom")),
        ("3", "sampler_name", node("SomebodysSampler", name="heun", other="euler")),
    ],
)
def test_values_that_a_node_makes_of_several_are_refused(place: str, key: str, maker: Json) -> None:
    graph = copy.deepcopy(PLAIN) | {"50": maker, "51": node("PrimitiveInt", value=12)}
    graph[place]["inputs"][key] = ["50", 0]
    with pytest.raises(SpecError, match=maker["class_type"].split("|")[0]):
        read(graph)


RATIO = {
    "width": 1024, "height": 1024, "aspect_ratio": "SDXL - 3:4 portrait 896x1152", "swap_dimensions": "Off", "upscale_factor": 1.0,
    "prescale_factor": 1.0, "batch_size": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("latent", "size"),
    [
        (node("CR Aspect Ratio", **RATIO), (896, 1152)),
        (node("CR Aspect Ratio", **RATIO | {"aspect_ratio": "custom"}), (1024, 1024)),
        (node("easy emptyLatent", resolution="width x height (custom)", width=640, height=960), (640, 960)),
        (node("easy emptyLatent", resolution="自定义 x 自定义", width=640, height=960), (640, 960)),
        (node("CR Aspect Ratio", **RATIO | {"swap_dimensions": "On"}), None),
        (node("CR Aspect Ratio", **RATIO | {"prescale_factor": 1.5}), None),
        (node("SDXLEmptyLatentSizePicker+", resolution="832x1216 (0.68)", width_override=0, height_override=0, batch_size=1), (832, 1216)),
        (node("SDXLEmptyLatentSizePicker+", resolution="832x1216 (0.68)", width_override=640, height_override=0, batch_size=1), None),
        (node("SDXL Empty Latent Image (rgthree)", dimensions="1216 x 832", clip_scale=2.0, batch_size=1), (1216, 832)),
        (node("EmptyLatentImagePresets", dimensions="768 x 512", invert=True, batch_size=1), None),
        (node("EmptyLatentImage", width=["52", 0], height=["52", 1], batch_size=1), None),
        (node("SomebodysLatent", width=512, height=512, aspect_ratio="2:3"), None),
        (node("SomebodysLatent", width=512, height=512, keep_proportion=True), None),
        (node("LatentUpscaleBy", samples=["51", 0], upscale_method="bilinear", scale_by=2.0), None),
        (node("LatentUpscale", samples=["51", 0], upscale_method="bilinear", width=640, height=384, crop="disabled"), (640, 384)),
    ],
)  # fmt: skip
def test_a_size_that_other_inputs_change_is_read_or_asked_for(latent: Json, size: tuple[int, int] | None) -> None:
    graph = with_nodes(n5=latent, n51=PLAIN["5"], n52=node("CR Aspect Ratio", **RATIO))
    made = request_from_text(json.dumps({"prompt": graph, "size": "448x576"}))
    assert (made.width, made.height) == (size or (448, 576))
    if size is None:
        with pytest.raises(SpecError, match=r"size|width"):
            read(graph)
    else:
        asked = read(graph)
        assert (asked.width, asked.height) == size


@pytest.mark.parametrize("kind", ["SetClipHooks", "ConditioningSetProperties", "LoraLoaderBlockWeight //Inspire"])
def test_loras_for_some_steps_texts_or_blocks_are_refused_by_name(kind: str) -> None:
    hook = node("CreateHookLora", lora_name="x.safetensors", strength_model=1, strength_clip=1)
    graph = with_nodes(n51=hook)
    if kind == "SetClipHooks":
        graph["6"]["inputs"]["clip"] = ["50", 0]
        graph["50"] = node(kind, clip=["10", 0], hooks=["51", 0], apply_to_conds=True, schedule_clip=False)
    elif kind == "ConditioningSetProperties":
        graph["3"]["inputs"]["positive"] = ["50", 0]
        graph["50"] = node(kind, cond_NEW=["6", 0], strength=1.0, hooks=["51", 0])
    else:
        graph["3"]["inputs"]["model"] = ["50", 0]
        weights = {"lora_name": "x", "strength_model": 1, "strength_clip": 1, "block_vector": "1,0,0"}
        graph["50"] = node(kind, model=["4", 0], clip=["4", 1], **weights)
    with pytest.raises(SpecError, match=kind):
        read(graph)
