"""Clip Skip in A1111 and Forge: axes for X/Y/Z plot, and a button that asks a running `clipskip serve` which value to use.

It needs nothing but the web UI's own Python, which is older than clipskip's, and uses its public script interface alone; a
layer between two is mixed by a forward hook of PyTorch's, there while such a picture is drawn.
"""

import json
import math
import re
import urllib.error
import urllib.request

import gradio as gr
from modules import script_callbacks, scripts, shared

SERVER = "http://127.0.0.1:7861"
LABEL = "[Clip Skip] "
DEPTH = 12
HOOKS = []
TAG = re.compile(r"<lora:([^:<>]+)((?::[^:<>]*)*)>", re.IGNORECASE)
PLAIN = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def clip_skip_of(text):
    """The number, 1 to 12; ValueError for what the web UI would bend."""
    text = str(text).strip()
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", text) or not 1 <= float(text) <= DEPTH:
        raise ValueError(
            f"Clip Skip {text}: the text encoder has {DEPTH} layers, 1 (the last) to {DEPTH}; 13 would be the bare tokens here"
        )
    return float(text)


def text_encoders():
    """The loaded model's CLIP of the transformers library: A1111 keeps it in the model, Forge in its own objects."""
    model = shared.sd_model
    forge = getattr(getattr(model, "forge_objects", None), "clip", None)
    root = getattr(forge, "cond_stage_model", None) or getattr(model, "cond_stage_model", None)
    modules = root.modules() if hasattr(root, "modules") else []
    return [module for module in modules if type(module).__name__ == "CLIPTextModel"]


def between(value):
    """A forward hook that puts a layer between two in the place of the deeper one, before the final norm."""
    deeper = math.ceil(value)
    share = deeper - value

    def mix(module, given, output):
        states = list(getattr(output, "hidden_states", None) or ())
        if len(states) > deeper:
            states[-deeper] = states[-deeper] + (states[-deeper + 1] - states[-deeper]) * share
            output.hidden_states = tuple(states)
        return output

    return mix


def remove_hooks():
    """Leaves the text encoder as it was."""
    while HOOKS:
        HOOKS.pop().remove()


def lora_weight(prompt, text, *, part):
    """The prompt with that weight for a part ("te", "unet" or "both") of all its LoRAs, or of one: "ogre=0.5".

    For "te" <lora:ogre:0.8> becomes <lora:ogre:0.5:0.8>: the other part's weight stays what it was. ValueError where there is
    no LoRA.
    """
    name, found, number = str(text).strip().rpartition("=")
    if not PLAIN.fullmatch(number.strip()):
        raise ValueError(f"{text!r} is no weight; write 0.5 for all LoRAs of the prompt, or ogre=0.5 for one")
    changed = []

    def write(match):
        if found and match[1].strip() != name.strip():
            return match[0]
        changed.append(match[1])
        pieces = match[2].split(":")[1:]
        plain = [piece for piece in pieces if "=" not in piece]
        named = {piece.partition("=")[0].strip(): piece.partition("=")[2] for piece in pieces if "=" in piece}
        te = named.pop("te", plain[0] if plain else "1")
        unet = named.pop("unet", plain[1] if len(plain) > 1 else te)
        te = te if part == "unet" else number.strip()
        unet = unet if part == "te" else number.strip()
        rest = [*plain[2:], *(f"{key}={value}" for key, value in named.items())]
        return "<lora:" + ":".join([match[1], te, unet, *rest]) + ">"

    new = TAG.sub(write, prompt)
    if not changed:
        raise ValueError(f"the prompt has no tag <lora:{name.strip() or 'name'}:1>, whose weight {text} would be")
    return new


def apply_clip_skip(p, x, xs):
    """One picture at a Clip Skip; the web UI puts its own setting back afterwards.

    For a fraction the web UI reads the deeper layer, which the hook of `ClipSkipScript.process` mixes with the other. What it
    keeps of prompts that it has read knows no fractions, so such a picture keeps its own.
    """
    value = clip_skip_of(x)
    p.override_settings["CLIP_stop_at_last_layers"] = math.ceil(value)
    if value != int(value):
        p.clip_skip_fraction = value
        p.extra_generation_params = {**p.extra_generation_params, "Fractional clip skip": f"{value:g}"}
        for name in ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc"):
            if getattr(p, name, None) is not None:
                setattr(p, name, [None] * len(getattr(p, name)))


def apply_weight(part):
    """What sets one part's weight in a picture's prompt."""

    def apply(p, x, xs):
        p.prompt = lora_weight(p.prompt, x, part=part)

    return apply


def confirm_clip_skip(p, xs):
    """Refuses a plot before its first picture."""
    values = [clip_skip_of(x) for x in xs]
    if any(value != int(value) for value in values) and (
        getattr(shared.sd_model, "is_sdxl", False) or not text_encoders()
    ):
        raise ValueError(
            "fractions need the CLIP of SD 1.x, which the model that is loaded has not; give whole numbers"
        )


def confirm_weight(part):
    """The same for weights."""

    def confirm(p, xs):
        for x in xs:
            lora_weight(p.prompt, x, part=part)

    return confirm


def add_axes():
    """Puts the axes into X/Y/Z plot, once."""
    for data in scripts.scripts_data:
        grid = getattr(data, "module", None)
        if data.script_class.__module__ not in ("xyz_grid.py", "scripts.xyz_grid") or grid is None:
            continue
        if any(option.label.startswith(LABEL) for option in grid.axis_options):
            return
        grid.axis_options.append(grid.AxisOption(LABEL + "Clip Skip", str, apply_clip_skip, confirm=confirm_clip_skip))
        for part, name in (("both", "weight"), ("te", "text encoder weight"), ("unet", "UNet weight")):
            grid.axis_options.append(
                grid.AxisOption(f"{LABEL}LoRA {name}", str, apply_weight(part), confirm=confirm_weight(part))
            )


def ask(prompt, negative, server=SERVER, token=""):
    """What `clipskip serve` says of this prompt on the model that is loaded here, in words."""
    loras = []
    for name, weights in TAG.findall(prompt):
        plain = [piece for piece in weights.split(":")[1:] if PLAIN.fullmatch(piece.strip())]
        weight = float(plain[0]) if plain else 1.0
        loras.append({"name": name, "text_encoder": weight, "unet": float(plain[1]) if len(plain) > 1 else weight})
    model = shared.opts.data.get("sd_model_checkpoint", "").split(" [")[0]
    body = {
        "prompt": TAG.sub("", prompt),
        "negative_prompt": negative,
        "loras": loras,
        **({"model": model} if model else {}),
    }
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(f"{server.rstrip('/')}/v1/advise", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            verdict = json.load(answer)["verdict"]
    except urllib.error.HTTPError as error:
        try:
            return json.load(error)["detail"]
        except (ValueError, KeyError):
            return f"clipskip at {server} answered {error.code}"
    except (OSError, ValueError, KeyError) as error:
        return f"clipskip does not answer at {server} ({error}); start it with `clipskip serve`"
    return f"Clip Skip {verdict['skip']}: {verdict['text']}"


class ClipSkipScript(scripts.Script):
    """The button, under the settings of txt2img and img2img."""

    def title(self):
        return "Clip Skip"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        with gr.Accordion("Which Clip Skip?", open=False):
            prompt = gr.Textbox(label="Prompt, with its LoRA tags")
            negative = gr.Textbox(label="Negative prompt")
            server = gr.Textbox(value=SERVER, label="clipskip serve is at")
            token = gr.Textbox(label="Its token, where it has one", type="password")
            said = gr.Textbox(label="Answer", interactive=False)
            gr.Button("Which Clip Skip?").click(ask, inputs=[prompt, negative, server, token], outputs=[said])
        return []

    def process(self, p, *args):
        """Before a picture's prompts are read."""
        remove_hooks()
        value = getattr(p, "clip_skip_fraction", None)
        if value:
            HOOKS.extend(module.register_forward_hook(between(value)) for module in text_encoders())

    def postprocess(self, p, processed, *args):
        """After it was drawn."""
        remove_hooks()


script_callbacks.on_before_ui(add_axes)
