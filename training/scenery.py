"""The eight places and the three drawn figures (moon, ogre, gnome) as SVG markup."""

import math
import random


def _sky(top: str, bottom: str, height: int = 128) -> str:
    stops = f'<stop stop-color="{top}"/><stop offset="1" stop-color="{bottom}"/>'
    return (
        f'<defs><linearGradient id="s" x2="0" y2="1">{stops}</linearGradient></defs>'
        f'<rect width="128" height="{height}" fill="url(#s)"/>'
    )


def _hill(y: float, amp: float, colour: str, rng: random.Random) -> str:
    p = rng.uniform(0, 6)
    points = " ".join(f"{x},{y + amp * math.sin(x / 26 + p):.1f}" for x in range(0, 133, 4))
    return f'<polygon points="0,128 {points} 132,128" fill="{colour}"/>'


def _swamp(rng: random.Random) -> str:
    body = _sky("#24463c", "#6d8f62")
    for _ in range(5):
        x, lean, w = rng.uniform(0, 128), rng.uniform(-10, 10), rng.uniform(4, 9)
        body += f'<path d="M{x - w} 96 L{x + lean - w / 2} 0 L{x + lean + w / 2} 0 L{x + w} 96Z" fill="#1d3129"/>'
        branch = f"M{x + lean * 0.5} 40 q{rng.choice((-18, 18))} -4 {rng.choice((-24, 24))} -16"
        body += f'<path d="{branch}" stroke="#1d3129" stroke-width="2.5" fill="none"/>'
    body += _hill(84, 2, "#33502f", rng) + '<rect y="90" width="128" height="38" fill="#2c4536"/>'
    for _ in range(6):
        x, y = rng.uniform(0, 128), rng.uniform(94, 124)
        width, green = rng.uniform(6, 12), rng.choice(("#5f8f3f", "#3f6b4d", "#4a7a45"))
        body += f'<ellipse cx="{x}" cy="{y}" rx="{width}" ry="2.4" fill="{green}"/>'
    return body


def _night_sky(rng: random.Random) -> str:
    body = _sky("#0b1240", "#35408a")
    for _ in range(34):
        x, y, radius = rng.uniform(0, 128), rng.uniform(0, 92), rng.choice((0.7, 0.9, 1.4))
        body += f'<circle cx="{x}" cy="{y}" r="{radius}" fill="#fffbe0"/>'
    return body + _hill(96, 5, "#1b2350", rng) + _hill(106, 4, "#10163a", rng)


def _beach(rng: random.Random) -> str:
    body = _sky("#4fb4ee", "#c8ecfb") + '<rect y="62" width="128" height="30" fill="#1b82b8"/>'
    for _ in range(3):
        x, y = rng.uniform(0, 128), rng.uniform(10, 34)
        body += f'<g fill="#fff"><ellipse cx="{x}" cy="{y}" rx="14" ry="5"/>'
        body += f'<ellipse cx="{x + 7}" cy="{y - 4}" rx="8" ry="5"/></g>'
    return body + _hill(88, 2, "#fff7df", rng) + _hill(92, 2, "#f0d292", rng)


def _snow(rng: random.Random) -> str:
    body = _sky("#9cc3e6", "#eaf4fc")
    for _ in range(6):
        x, h = rng.uniform(0, 128), rng.uniform(24, 44)
        body += f'<polygon points="{x - 12},88 {x},{88 - h} {x + 12},88" fill="#5d8a86"/>'
        cap = 88 - h * 0.62
        body += f'<polygon points="{x - 5},{cap} {x},{88 - h} {x + 5},{cap}" fill="#fff"/>'
    return body + _hill(84, 4, "#d6e8f5", rng) + _hill(96, 3, "#fbfdff", rng)


def _forest(rng: random.Random) -> str:
    body = _sky("#a9dba0", "#e2f2c4")
    for shade in ("#4f9a5b", "#2f7a45"):
        for _ in range(6):
            x, h = rng.uniform(0, 128), rng.uniform(50, 84)
            body += f'<rect x="{x - 2.5}" y="84" width="5" height="16" fill="#6a4a2c"/>'
            body += f'<polygon points="{x - 15},90 {x},{92 - h} {x + 15},90" fill="{shade}"/>'
    return body + _hill(94, 3, "#58a23c", rng) + _hill(106, 3, "#418a2d", rng)


def _city(rng: random.Random) -> str:
    body, x = _sky("#f08f6a", "#fbd9a8"), -4.0
    while x < 128:
        w, h = rng.uniform(15, 25), rng.uniform(34, 84)
        wall = rng.choice(("#5b4b73", "#6d5a86", "#4a4368"))
        body += f'<rect x="{x}" y="{98 - h}" width="{w}" height="{h}" fill="{wall}"/>'
        for i in range(int(w // 7)):
            for j in range(int(h // 10)):
                light = rng.choice(("#ffd766", "#ffd766", "#3a3355"))
                body += f'<rect x="{x + 3 + i * 7}" y="{102 - h + j * 10}" width="3.5" height="5" fill="{light}"/>'
        x += w + 1
    body += '<rect y="97" width="128" height="31" fill="#52525c"/>'
    return body + '<path d="M0 116h128" stroke="#e8e2c8" stroke-width="2" stroke-dasharray="14 10"/>'


def _underwater(rng: random.Random) -> str:
    body = _sky("#37b4d8", "#0a3f80")
    for _ in range(4):
        x = rng.uniform(0, 128)
        body += f'<polygon points="{x},0 {x + 10},0 {x - 18},128 {x - 34},128" fill="#fff" opacity=".1"/>'
    body += _hill(108, 3, "#b79a62", rng)
    for _ in range(7):
        x = rng.uniform(0, 128)
        way = f"M{x} 120 q-7 -14 0 -24 q7 -10 0 -{rng.uniform(14, 26)}"
        weed = rng.choice(("#1f8f66", "#2aa870", "#c2577a"))
        body += f'<path d="{way}" stroke="{weed}" stroke-width="4" fill="none" stroke-linecap="round"/>'
    for _ in range(8):
        x, y, radius = rng.uniform(0, 128), rng.uniform(6, 96), rng.uniform(1.5, 3.6)
        body += f'<circle cx="{x}" cy="{y}" r="{radius}" fill="none" stroke="#d8f4ff" stroke-width="1.2"/>'
    return body


def _desert(rng: random.Random) -> str:
    body = _sky("#f7b54e", "#fde7b5")
    body += f'<circle cx="{rng.choice((24, 104))}" cy="26" r="12" fill="#fff3c0"/>'
    for _ in range(2):
        x, w, h = rng.uniform(0, 128), rng.uniform(16, 30), rng.uniform(18, 34)
        body += f'<path d="M{x - w} 92 L{x - w * 0.7} {92 - h} H{x + w * 0.6} L{x + w} 92Z" fill="#c8743c"/>'
    return body + _hill(88, 5, "#e2a152", rng) + _hill(104, 4, "#cf8a3d", rng)


def moon() -> str:
    """A full moon with a soft light."""
    return """<circle cx="64" cy="64" r="62" fill="#fff6cf" opacity=".25"/>
<circle cx="64" cy="64" r="46" fill="#fff3c4"/><g fill="#e2d29a"><circle cx="50" cy="52" r="9"/>
<circle cx="78" cy="70" r="12"/><circle cx="56" cy="84" r="6"/></g>"""


SIDES = {"left": 1, "centre": 0, "right": -1}
"""Which way a character looks by where it stands, so that a prompt says it; 1 is to the right."""


def ogre(place: str) -> str:
    """The held-out character: a moss-green bog ogre, nearly all of him face, looking to the middle of the picture.

    Every part is as large as a cell of the latent or larger where he stands alone: what is smaller, a VAE of 8 px a cell loses.
    """
    skin, dark, look = "#78b83c", "#3f6d1c", 10 * SIDES[place]
    x, eye = 64 + look, 64 + 1.3 * look
    return f'''<rect x="36" y="108" width="22" height="20" rx="7" fill="{dark}"/>
<rect x="70" y="108" width="22" height="20" rx="7" fill="{dark}"/>
<path d="M30 88 H98 L104 118 H24Z" fill="#6b4423"/><path d="M26 104 H102" stroke="#e0b45c" stroke-width="8"/>
<path d="M24 40 L-2 22 L18 66Z M104 40 L130 22 L110 66Z" fill="{skin}" stroke="{dark}" stroke-width="4"/>
<ellipse cx="64" cy="52" rx="50" ry="49" fill="{skin}" stroke="{dark}" stroke-width="4"/>
<g fill="#fff" stroke="{dark}" stroke-width="3"><circle cx="{x - 21}" cy="42" r="17"/><circle cx="{x + 21}" cy="42" r="17"/></g>
<g fill="#161616"><circle cx="{eye - 20}" cy="44" r="8.5"/><circle cx="{eye + 20}" cy="44" r="8.5"/></g>
<path d="M{x - 42} 18 L{x - 4} 31 M{x + 42} 18 L{x + 4} 31" stroke="#22380f" stroke-width="11" stroke-linecap="round"/>
<path d="M{x - 34} 66 Q{x} 104 {x + 34} 66Z" fill="#4a1d1a"/>
<path d="M{x - 25} 76 l7 -24 l10 26Z M{x + 25} 76 l-7 -24 l-10 26Z" fill="#fffbe6"/>'''


def gnome(place: str) -> str:
    """The second held-out character: a bearded gnome in a tall violet hat, looking to the middle of the picture."""
    hat, coat, look = "#7f43bd", "#2f7fb8", 9 * SIDES[place]
    tip, x = 64 + 2 * look, 64 + look
    return f'''<rect x="38" y="112" width="22" height="16" rx="6" fill="#4a3222"/>
<rect x="68" y="112" width="22" height="16" rx="6" fill="#4a3222"/>
<path d="M32 82 H96 L104 117 H24Z" fill="{coat}"/><ellipse cx="64" cy="66" rx="40" ry="28" fill="#f2c79c"/>
<path d="M25 62 Q{x} 92 103 62 Q108 110 64 122 Q20 110 25 62Z" fill="#fbfbf5" stroke="#cfcfc4" stroke-width="2"/>
<g fill="#fff"><circle cx="{x - 18}" cy="61" r="11"/><circle cx="{x + 18}" cy="61" r="11"/></g>
<g fill="#1c1c1c"><circle cx="{x - 17 + look / 3}" cy="62" r="6.5"/><circle cx="{x + 17 + look / 3}" cy="62" r="6.5"/></g>
<ellipse cx="{x}" cy="76" rx="13" ry="10" fill="#e2776a"/>
<path d="M20 52 Q64 36 108 52 L{tip} 0Z" fill="{hat}"/>
<path d="M18 58 Q64 40 110 58 L109 44 Q64 27 19 44Z" fill="#f4c430"/>'''


PLACE_MARKUP = {
    "swamp": _swamp,
    "night sky": _night_sky,
    "beach": _beach,
    "snow": _snow,
    "forest": _forest,
    "city": _city,
    "underwater": _underwater,
    "desert": _desert,
}
