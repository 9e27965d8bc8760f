"""What the retailer's words mean: the reason behind a free text, the category behind a product's name."""

import re
from typing import Literal, TypeAlias

Reason: TypeAlias = Literal[
    "damaged", "shrinkage", "found", "count_correction", "channel_transfer", "reversal", "unknown"
]

# In order: "reverse damages" takes damages back, "damages/dotcom?" is damaged wherever it was sold, "Found, wrong code" is found.
# The texts are those of the retailer's whole year; what matches nothing ("?", "" and jokes) is honestly unknown.
_REASONS: tuple[tuple[Reason, re.Pattern[str]], ...] = (
    ("reversal", re.compile(r"\brevers|\bre-?adjust|\bcredit|\boops|bad debt")),
    (
        "damaged",
        re.compile(
            r"dama?g|dagam|\bthrow|\bmould|\bfault|\bbr[eo]ak|\bbroke|\bsmash|\bcrack|\bcrush|\bwet\b|\brust|\bwax"
            r"|unsal|destroy|smudg|\bwater|incorrectly made|\brott"
        ),
    ),
    ("found", re.compile(r"\bfound|put aside|\breturned")),
    ("channel_transfer", re.compile(r"amazon|dotcom|\bebay|\bfba\b|\bonline|website|\bcargo")),
    (
        "shrinkage",
        re.compile(r"\blost|\bmissing|\bmia\b|can'?t find|not rcvd|given away|sample|display|mailout|stolen"),
    ),
    (
        "count_correction",
        re.compile(
            r"count|check|adjust|wrong|mix|label|bar ?code|\bcode|\bcame|marked|sold (as|in)|incorrect|computer"
        ),
    ),
)


def reason_of(note: str) -> Reason:
    """The reason that an adjustment's free text gives."""
    text = note.lower()
    return next((reason for reason, pattern in _REASONS if pattern.search(text)), "unknown")


SERVICES = "services"
OTHER = "other"

_CATEGORIES = {
    "bags": "bag bags washbag purse purses wallet basket baskets luggage trolley",
    "candles-and-lights": "candle candles candlestick t-light t-lights holder holders lantern lanterns light lights lamp lampshade",
    "christmas": "christmas advent decoration decorations snowflake snowflakes reindeer santa bauble baubles",
    "garden": "garden gardening trowel spade watering parasol umbrella flower flowers tree bird plant picnic doormat",
    "gifts-and-paper": "card cards wrap tag tags tissue tissues sticker stickers notebook paper ribbon ribbons gift bunting garland"
    " napkins tape sketchbook letter letters pencil pencils pen doilies",
    "home": "cushion cover clock mirror frame sign hook hooks hanger drawer cabinet doorstop metal knob box boxes rack heart bottle"
    " warmer chair stool table magnet magnets",
    "jewellery": "bracelet necklace earrings ring charm brooch hairclip keyring bangle",
    "kitchen": "bowl mug cup cups plate plates tray teapot saucer tin tins jar cutlery dish pot cake cakes kitchen apron scales jug"
    " glass spoon cutter cutters cakestand egg coaster placemat placemats cases jam tea towel",
    "toys": "toy toys game games doll dolly skittles playhouse puzzle ludo marbles jigsaw children childrens girl boy kit",
}
_CATEGORY_OF_WORD = {word: category for category, words in _CATEGORIES.items() for word in words.split()}


def category_of(product_name: str) -> str:
    """The category of the last word of the name that names one: WHITE METAL LANTERN is a light, not metal."""
    words = reversed(re.findall(r"[a-z]+(?:-[a-z]+)?", product_name.lower()))
    return next((_CATEGORY_OF_WORD[word] for word in words if word in _CATEGORY_OF_WORD), OTHER)
