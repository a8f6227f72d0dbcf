"""What a figure holds: its artists by gid, its texts and where they stand."""

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def artists(figure, kind):
    """Return the artists of a kind (bar, label, value ...), by what stands behind it in their gid: mostly the rung."""
    found = [artist for artist in figure.findobj() if (artist.get_gid() or "").startswith(f"{kind}-")]
    return {artist.get_gid().removeprefix(f"{kind}-"): artist for artist in found}


def words(figure, kind):
    return {rung: text.get_text().replace("\N{NO-BREAK SPACE}", " ") for rung, text in artists(figure, kind).items()}


def all_text(figure):
    return " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())


def text_boxes(figure):
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts]


def assert_texts_are_apart(figure):
    boxes = text_boxes(figure)
    for text, box in boxes:
        assert min(box.x0, box.y0, figure.bbox.x1 - box.x1, figure.bbox.y1 - box.y1) >= 0, f"cut: {text}"
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert width < 1 or height < 1, f"overlap: {one} | {other}"
