"""The colours: Okabe & Ito (2008), told apart by every kind of colour vision."""

Colour = tuple[int, int, int]

BACKGROUND: Colour = (250, 250, 248)
GUIDE: Colour = (222, 222, 218)
INK: Colour = (52, 56, 64)
BODY: Colour = (0, 114, 178)
PLAN: Colour = (0, 158, 115)
ACTION: Colour = (213, 94, 0)
CAPTION_OPACITY = 0.75  # of INK


def blend(colour: Colour, strength: float) -> Colour:
    """`colour` at this opacity in [0, 1] on the background.

    Mixing beforehand keeps a shape that is drawn in several overlapping parts even.
    """
    red, green, blue = (
        round(below + strength * (above - below))
        for above, below in zip(colour, BACKGROUND, strict=True)
    )
    return red, green, blue
