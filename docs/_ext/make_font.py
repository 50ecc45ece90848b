"""Make docs/_static/fonts/stix-two-math.woff2 anew, from npm's package @fontsource/stix-two-math:

npm pack @fontsource/stix-two-math && tar xzf fontsource-stix-two-math-*.tgz
pip install fonttools brotli
python docs/_ext/make_font.py package/files/stix-two-math-latin-400-normal.woff2
"""

from __future__ import annotations

import sys
from pathlib import Path

from fontTools.subset import Options, Subsetter, parse_unicodes
from fontTools.ttLib import TTFont
from fontTools.ttLib.tables._g_l_y_f import Glyph

FONT = Path(__file__).parents[1] / "_static" / "fonts" / "stix-two-math.woff2"
# Letters and digits, Greek, accents, arrows, operators, brackets, and the letters of mathematics.
USED = """
    20-7E, A0-B7, D7, F7, 131, 237, 300-30C, 338, 391-3F6, 2010-2022, 2026, 2032-2034, 2061-2064,
    20D7, 2102, 210D, 210E, 2113, 2115, 211D, 2124, 2190-2195, 21A6, 21D0-21D4, 2200-222B,
    2234-2265, 226A, 226B, 2282-2287, 2295-2299, 22A4, 22A5, 22C5, 22EE-22F1, 2308-230B, 23DE, 23DF,
    27E8, 27E9, 27F5-27FA, 2A7D, 2A7E, 1D400-1D467, 1D49C-1D4CF, 1D538-1D56B, 1D6A4-1D71B
"""


def make_radicals_equally_wide(font: TTFont) -> None:
    """Chromium leaves room for the widest sign behind every root: a gap behind each small one."""
    name = font.getBestCmap()[ord("√")]
    variants = font["MATH"].table.MathVariants
    signs = variants.VertGlyphConstruction[variants.VertGlyphCoverage.glyphs.index(name)]
    larger = {record.VariantGlyph for record in signs.MathGlyphVariantRecord} - {name}
    larger |= {part.glyph for part in signs.GlyphAssembly.PartRecords}
    width = font["hmtx"][name][0]
    for sign in larger:
        glyph: Glyph = font["glyf"][sign]
        factor = width / font["hmtx"][sign][0]
        glyph.coordinates.scale((factor, 1))
        glyph.coordinates.toInt()
        glyph.recalcBounds(font["glyf"])
        font["hmtx"][sign] = (width, glyph.xMin)


if __name__ == "__main__":
    font = TTFont(sys.argv[1])
    options = Options(layout_features=["ssty", "dtls", "flac", "kern", "mark", "ccmp"], hinting=False)
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=parse_unicodes(USED.replace("\n", "").replace(" ", "")))
    subsetter.subset(font)
    make_radicals_equally_wide(font)
    font.flavor = "woff2"
    font.save(FONT)
