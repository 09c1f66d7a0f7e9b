"""The Clip Skip numbering of every tool: one row per tool and family.

Read in the tools' sources of 2024-2026 (A1111 1.8.0 and 1.10, Forge, Forge Neo and Classic, reForge, ComfyUI, SwarmUI,
SD.Next, Fooocus, diffusers 0.42, InvokeAI, stable-diffusion.cpp, kohya sd-scripts, compel, OneTrainer, ai-toolkit, Draw
Things); Easy Diffusion's in its documentation. SD 2.x counts on all 24 layers of OpenCLIP-H; files of the Hugging Face
layout hold 23.
"""

from dataclasses import dataclass, replace

from clipskip.spec.family import Family
from clipskip.spec.tools import Dialect

Value = int | float | str
"""A tool's value: a number, or a word where the tool has words."""
Bounds = tuple[int, int]
ANY: Bounds = (1, 32)
DEFAULT: Bounds = (2, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbering:
    """One tool's numbers on one family: value = sign * n + shift, where n counts from the end and 1 is the last."""

    sign: int = 1
    shift: int = 0
    first: int = 1
    """The smallest n that its numbers reach."""
    last: int
    """The largest n that its numbers reach."""
    l_bounds: Bounds = ANY
    """CLIP-L, or the only encoder, uses the n within these bounds that is nearest to the number's."""
    g_bounds: Bounds = ANY
    """The same for OpenCLIP-bigG."""
    whole_from: Bounds | None = None
    """The n from which CLIP-L, or the only encoder, runs all its layers, which is 1, and that of OpenCLIP-bigG; one less
    are the bare token embeddings."""
    each: bool = False
    """Whether it takes a number for each encoder, bigG's up to 32."""
    fractions: bool = False
    unset: int
    """The n of a value that is left out (None)."""
    unset_to: float | None = None
    """Values up to this one count as left out."""
    words: tuple[tuple[int, str], ...] = ()
    """Each n with its word, where the tool has words instead of numbers."""
    limits: str = ""
    """What the tool does with numbers before `first` and after `last`."""
    why: str = ""
    """Why it cannot select every layer, or selects another than its number says."""
    note: str = ""
    """What is special on this family."""

    @property
    def fixed(self) -> bool:
        """Return whether every number selects the same layer."""
        return self.l_bounds == self.g_bounds == DEFAULT

    @property
    def rule(self) -> str:
        """The value as a formula in n, or in words."""
        if self.fixed:
            return f"always {self.l_bounds[0]}"
        if self.words:
            return "a word"
        letter = "n" if self.sign == 1 else "-n"
        return f"{letter} {'+' if self.shift > 0 else '-'} {abs(self.shift)}" if self.shift else letter

    @property
    def range(self) -> str:
        """The values that have a meaning here."""
        if self.words:
            return " or ".join(word for _, word in self.words)
        if self.fixed:
            return "any number, which it ignores"
        low, high = self.spell(self.first), self.spell(self.last)
        return str(low) if low == high else f"{low} to {high}"

    def spell(self, n: float) -> Value:
        """Return the tool's value for the n-th layer from the end; the caller has checked that there is one."""
        for number, word in self.words:
            if n == number:
                return word
        value = self.sign * n + self.shift
        return int(value) if float(value).is_integer() else round(value, 12)

    def number_of(self, value: float) -> float:
        """Return the n of a number."""
        return self.sign * (value - self.shift)

    def reaches(self, n: float, *, last: int | None = None) -> bool:
        """Return whether a number's n selects layers; `last` replaces the row's own."""
        past = self.whole_from is not None and n >= self.whole_from[0] and n != self.whole_from[1] - 1
        return past or self.first <= n <= (last or self.last)

    def read(self, n: float) -> tuple[float, float]:
        """Return the n that CLIP-L and OpenCLIP-bigG use for a number's n."""
        if self.whole_from is not None and n >= self.whole_from[0]:
            return 1, 1 if n >= self.whole_from[1] else n
        return _between(n, self.l_bounds), _between(n, self.g_bounds)


def _between(n: float, bounds: Bounds) -> float:
    return min(max(n, bounds[0]), bounds[1])


COMPEL_LAST, COMPEL_NEXT = "LAST_HIDDEN_STATES_NORMALIZED", "PENULTIMATE_HIDDEN_STATES_NORMALIZED"
COMPEL_SDXL = "PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED"
ONE_LAYER_SHORT = "its encoder of 23 layers has no last one"
BARE = "13 there is the bare token embeddings, 14 fails"
BARE_L = "CLIP-L's bare token embeddings with layer 20 of OpenCLIP-bigG"
NORMED_L = "CLIP-L's last layer through the final norm"
TWO_ALONE = "it has these two alone"
IGNORED = "it ignores Clip Skip on SDXL and always draws at 2"

_WEBUI_SD1 = Numbering(last=12, unset=1, limits=f"0 and below there mean 1, {BARE}")
_COMFY_SD1 = Numbering(sign=-1, last=12, unset=1, limits="-13 to -24 silently mean the last layer there")
_KOHYA_SD1 = Numbering(last=12, unset=1, limits=BARE)
SD1: dict[Dialect, Numbering] = {
    Dialect.CLIPSKIP: Numbering(last=12, unset=1, fractions=True, limits="nothing is clamped here"),
    Dialect.A1111: _WEBUI_SD1,
    Dialect.A1111_L: _WEBUI_SD1,
    Dialect.FORGE: _WEBUI_SD1,
    Dialect.FORGE_NEO: _WEBUI_SD1,
    Dialect.FORGE_CLASSIC: _WEBUI_SD1,
    Dialect.REFORGE: _WEBUI_SD1,
    Dialect.COMFYUI: _COMFY_SD1,
    Dialect.SWARMUI: _COMFY_SD1,
    Dialect.EFFICIENCY: _COMFY_SD1,
    Dialect.EASYUSE: _COMFY_SD1,
    Dialect.SDNEXT: Numbering(
        last=12, unset=1, fractions=True, limits="0 there is the bare token embeddings, not normed; 13 fails"
    ),
    Dialect.DIFFUSERS: Numbering(
        shift=-1, last=12, unset=1, limits="12 there is the bare token embeddings, -1 as well, 13 fails"
    ),
    Dialect.INVOKEAI: Numbering(
        shift=-1, last=12, unset=1, limits="12 there is the bare token embeddings, 13 fails"
    ),
    Dialect.SDCPP: Numbering(
        last=12, unset=1, unset_to=0.0, limits="13 there is the bare token embeddings, from 14 on all layers run"
    ),
    Dialect.KOHYA: _KOHYA_SD1,
    Dialect.GEN_IMG: _KOHYA_SD1,
    Dialect.COMPEL: Numbering(
        last=2, unset=1, words=((1, COMPEL_LAST), (2, COMPEL_NEXT)), limits=TWO_ALONE
    ),
    Dialect.EASYDIFFUSION: Numbering(last=2, unset=1, words=((1, "off"), (2, "on")), limits="it is a switch"),
    Dialect.ONETRAINER: Numbering(
        shift=-1, last=12, unset=1, limits="12 there is the bare token embeddings, 13 fails"
    ),
    Dialect.DRAWTHINGS: Numbering(
        last=23, unset=1, l_bounds=(1, 12), limits="its slider ends at 23", why="it reads what is deeper than 12 as 12"
    ),
    Dialect.LORAMANAGER: Numbering(last=12, unset=1),
}  # fmt: skip

_IGNORED_SD2 = Numbering(
    last=12,
    unset=2,
    l_bounds=DEFAULT,
    g_bounds=DEFAULT,
    why="it ignores the setting on SD 2.x and always reads layer 23 of 24 (Clip Skip 2)",
)
_COMFY_SD2 = Numbering(sign=-1, last=24, unset=2, limits="beyond -24 the last layer is read there")
SD2: dict[Dialect, Numbering] = {
    Dialect.CLIPSKIP: Numbering(last=24, unset=2, fractions=True, limits="nothing is clamped here"),
    Dialect.A1111: _IGNORED_SD2,
    Dialect.A1111_L: _IGNORED_SD2,
    Dialect.FORGE: Numbering(
        shift=-1,
        first=2,
        last=13,
        unset=2,
        limits="its slider ends at 12; by its API 24 is the bare token embeddings, 25 fails",
        why=f"{ONE_LAYER_SHORT}, and its slider ends at 12",
    ),
    Dialect.FORGE_CLASSIC: _IGNORED_SD2,
    Dialect.REFORGE: Numbering(
        last=12,
        unset=1,
        l_bounds=(2, 24),
        limits="its slider ends at 12",
        why="it reads 1 as 2 on SD 2.x",
        note="Not Forge's number: it counts on 24 layers",
    ),
    Dialect.COMFYUI: _COMFY_SD2,
    Dialect.SWARMUI: _COMFY_SD2,
    Dialect.EFFICIENCY: _COMFY_SD2,
    Dialect.EASYUSE: _COMFY_SD2,
    Dialect.SDNEXT: Numbering(
        shift=-1,
        first=2,
        last=13,
        unset=2,
        fractions=True,
        limits="0 there is the bare token embeddings, not normed; its slider ends at 12",
        why=f"{ONE_LAYER_SHORT}, and its slider ends at 12",
    ),
    Dialect.DIFFUSERS: Numbering(
        shift=-2,
        first=2,
        last=24,
        unset=2,
        limits="23 there is the bare token embeddings, 24 fails",
        why=ONE_LAYER_SHORT,
    ),
    Dialect.INVOKEAI: Numbering(
        shift=-2,
        first=2,
        last=24,
        unset=2,
        limits="23 there is the bare token embeddings, 24, where its slider ends, fails",
        why=ONE_LAYER_SHORT,
    ),
    Dialect.SDCPP: Numbering(
        last=24,
        unset=2,
        unset_to=0.0,
        whole_from=(26, 26),
        limits="25 there is the bare token embeddings, 26 means 1",
        why="from 26 on it runs all layers",
    ),
    Dialect.KOHYA: Numbering(
        shift=-1,
        first=2,
        last=24,
        unset=2,
        limits="24 there is the bare token embeddings, 25 fails",
        why=ONE_LAYER_SHORT,
    ),
    Dialect.GEN_IMG: Numbering(
        shift=-1,
        first=2,
        last=24,
        unset=3,
        limits="24 there is the bare token embeddings, 25 fails",
        why=ONE_LAYER_SHORT,
        note="Left out it is 2, which is Clip Skip 3, though its manual says 1",
    ),
    Dialect.DRAWTHINGS: Numbering(
        shift=-1, first=2, last=24, unset=2, limits="its slider ends at 23", why=ONE_LAYER_SHORT
    ),
    Dialect.COMPEL: Numbering(
        first=2, last=3, unset=2, words=((2, COMPEL_LAST), (3, COMPEL_NEXT)), limits=TWO_ALONE
    ),
    Dialect.ONETRAINER: Numbering(
        shift=-2,
        first=2,
        last=24,
        unset=2,
        limits="23 there is the bare token embeddings, 24 fails",
        why=ONE_LAYER_SHORT,
    ),
}  # fmt: skip

_IGNORED_SDXL = Numbering(last=12, unset=2, l_bounds=DEFAULT, g_bounds=DEFAULT, why=IGNORED)
_FORGE_SDXL = Numbering(
    last=12,
    unset=1,
    l_bounds=(2, 12),
    g_bounds=(2, 32),
    limits=f"0 and below there mean 2, 13 is {BARE_L}, 14 fails",
    why="it silently reads 1 as 2 on SDXL",
)
_COMFY_SDXL = Numbering(
    sign=-1,
    last=12,
    unset=2,
    limits=f"-13 to -24 there are {NORMED_L} with OpenCLIP-bigG's of that number",
    why="beyond -12 its two encoders part company",
    note="The node starts at -1, the model's own is -2",
)
SDXL: dict[Dialect, Numbering] = {
    Dialect.CLIPSKIP: Numbering(
        last=12, unset=2, each=True, fractions=True, limits="CLIP-L has 12 layers; say both for more of bigG's 32: 2/20"
    ),
    Dialect.A1111: replace(
        _IGNORED_SDXL, why=f'{IGNORED}; from 1.10 its option "Clip skip SDXL" moves CLIP-L alone'
    ),
    Dialect.A1111_L: Numbering(
        last=12,
        unset=1,
        g_bounds=DEFAULT,
        limits="0 and 13 there are CLIP-L's bare token embeddings, -1 its first layer, 14 fails",
        why="the option moves CLIP-L alone and leaves OpenCLIP-bigG at 2",
    ),
    Dialect.FORGE: _FORGE_SDXL,
    Dialect.FORGE_NEO: _FORGE_SDXL,
    Dialect.FORGE_CLASSIC: _IGNORED_SDXL,
    Dialect.REFORGE: replace(_FORGE_SDXL, limits="its slider ends at 12"),
    Dialect.COMFYUI: _COMFY_SDXL,
    Dialect.SWARMUI: replace(_COMFY_SDXL, note="Its own help says that SDXL never needs it"),
    Dialect.EFFICIENCY: replace(_COMFY_SDXL, note="The loader starts at -1, which is not the model's own -2"),
    Dialect.EASYUSE: replace(_COMFY_SDXL, note=""),
    Dialect.SDNEXT: Numbering(
        shift=-1,
        last=12,
        unset=2,
        fractions=True,
        limits=f"12 there is {BARE_L}, 13 fails",
        note="Its 1 is the family's default",
    ),
    Dialect.DIFFUSERS: Numbering(
        shift=-2,
        last=12,
        unset=2,
        limits=f"11 there is {BARE_L}, 12 fails",
        note="Left out is 0, which is Clip Skip 2",
    ),
    Dialect.INVOKEAI: Numbering(
        shift=-2,
        first=2,
        last=12,
        unset=2,
        each=True,
        limits=f"11 there is {BARE_L}, 12 fails",
        why="0 there is the layer before the last",
        note="In workflows alone, a node for each encoder; it moves the pooled vector too",
    ),
    Dialect.SDCPP: Numbering(
        last=12,
        unset=2,
        unset_to=0.0,
        whole_from=(14, 34),
        limits=f"13 there is {BARE_L}, 33 is bigG's bare token embeddings; 14 means 1/14, 34 means 1",
        why="from 14 on it runs all of CLIP-L's layers, and from 34 on all of both",
    ),
    Dialect.KOHYA: replace(_IGNORED_SDXL, why="its SDXL trainers always read Clip Skip 2"),
    Dialect.GEN_IMG: Numbering(last=12, unset=2, limits=f"13 there is {BARE_L}, 14 fails"),
    Dialect.COMPEL: replace(_IGNORED_SDXL, first=2, last=2, words=((2, COMPEL_SDXL),), why="it has this one alone on SDXL"),
    Dialect.EASYDIFFUSION: replace(
        _IGNORED_SDXL,
        first=2, last=2, words=((2, "off"), (2, "on")),
        why="its switch changes nothing on SDXL, which it draws at 2",
    ),
    Dialect.ONETRAINER: Numbering(
        shift=-2,
        first=2,
        last=12,
        unset=2,
        each=True,
        limits="11 there is CLIP-L's bare token embeddings, 12 fails",
        why="0 there is the layer before the last",
        note="A number for each encoder",
    ),
    Dialect.AITOOLKIT: replace(_IGNORED_SDXL, why="it always trains SDXL at Clip Skip 2", note="It has no number"),
    Dialect.FOOOCUS: Numbering(
        last=12, unset=2, limits=f"13 there is {NORMED_L}; its slider ends at 12", note="Its default is 2"
    ),
    Dialect.DRAWTHINGS: Numbering(
        last=23,
        unset=1,
        l_bounds=(1, 12),
        g_bounds=(2, 32),
        limits="its slider ends at 23",
        why="1 and 2 there move CLIP-L alone, and CLIP-L stays at 12 beyond that",
        note="From 3 on the pooled vector moves too",
    ),
    Dialect.LORAMANAGER: Numbering(last=12, unset=2),
}  # fmt: skip

ROWS: dict[Family, dict[Dialect, Numbering]] = {Family.SD1: SD1, Family.SD2: SD2, Family.SDXL: SDXL}
