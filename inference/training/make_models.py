"""Makes both image models from nothing (``make models``): first CT, then MR; each resumes after a kill.

They are written to ``artefacts/models``, beside the shipped ones and not over them: see docs/training.md.
"""

from __future__ import annotations

import time

from inference.training import make_ct, make_mr


def main() -> None:
    """Make both models and say how long each took."""
    for name, recipe in (("CT", make_ct.main), ("MR", make_mr.main)):
        start = time.monotonic()
        recipe([])
        print(f"{name} model made in {(time.monotonic() - start) / 60:.1f} min", flush=True)


if __name__ == "__main__":
    main()
