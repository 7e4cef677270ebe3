"""The web demo and its REST API as one program: what a Hugging Face Space runs (`python app.py`).

On one's own machine `python -m atelier serve` says more and can do more.
"""

import os
import tempfile
from pathlib import Path

from atelier.service.server import serve

if __name__ == "__main__":
    # On a Space visitors are strangers to each other, the page stands in the hub's frame, and disks are forgetful.
    on_space = "SPACE_ID" in os.environ
    if on_space:
        os.environ.setdefault("ATELIER_LISTING", "no")
        os.environ.setdefault("ATELIER_FRAME_ANCESTORS", "'self' https://huggingface.co https://*.hf.space")
        os.environ.setdefault("ATELIER_DATA", str(Path(tempfile.gettempdir()) / "atelier"))
    serve(
        Path(__file__).resolve().parent / "config.yaml",
        os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0" if on_space else "127.0.0.1"),
        int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
        demo=True,
    )
