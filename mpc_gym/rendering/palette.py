"""The colours: Okabe & Ito (2008), told apart by every kind of colour vision."""

Colour = tuple[int, int, int]

BLUE: Colour = (0, 114, 178)
VERMILION: Colour = (213, 94, 0)
GREEN: Colour = (0, 158, 115)
PURPLE: Colour = (204, 121, 167)
ORANGE: Colour = (230, 159, 0)
SKY: Colour = (86, 180, 233)
BLACK: Colour = (0, 0, 0)

BACKGROUND: Colour = (250, 250, 248)
GUIDE: Colour = (222, 222, 218)
INK: Colour = (52, 56, 64)
BODY, PLAN, ACTION = BLUE, GREEN, VERMILION
CAPTION_OPACITY = 0.75  # of INK

LINES = tuple(
    f"#{red:02X}{green:02X}{blue:02X}"
    for red, green, blue in (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
)
"""Of the lines of a plot, the first first, as Matplotlib takes them."""


def blend(colour: Colour, strength: float) -> Colour:
    """`colour` at this opacity in [0, 1] on the background.

    Mixing beforehand keeps a shape that is drawn in several overlapping parts even.
    """
    red, green, blue = (
        round(below + strength * (above - below))
        for above, below in zip(colour, BACKGROUND, strict=True)
    )
    return red, green, blue
