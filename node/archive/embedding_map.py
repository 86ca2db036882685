"""Makes the embedding map: reports of like wording lie together, so that a person can label them in groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from inference.report_labels import ReportLabeller
from node.store.database import reading
from node.store.labels_map import MapPoint, sample, write_map

MAX_POINTS = 3000
COMPONENTS = 30
MIN_POINTS = 10


def make_map(labels: Engine, folder: Path, archive: str, set_id: int, labeller: ReportLabeller) -> int:
    """Lay out at most MAX_POINTS reports of an archive and keep the map with label set ``set_id``; return how many."""
    with reading(labels) as connection:
        row_ids, report_ids, texts = sample(connection, folder, archive, MAX_POINTS)
    if len(texts) < MIN_POINTS:
        return 0
    places = lay_out(labeller.embed(texts))
    points = [
        MapPoint(row_id=row_id, report_id=report_id, x=float(x), y=float(y))
        for row_id, report_id, (x, y) in zip(row_ids, report_ids, places, strict=True)
    ]
    write_map(folder, archive, set_id, points)
    return len(points)


def lay_out(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Two coordinates, 0..1, for each vector ``[reports, dimensions]``: principal components, then t-SNE."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    dimensions = min(COMPONENTS, *vectors.shape)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    with threadpool_limits(1):  # more threads than free cores make it many times slower
        reduced = PCA(dimensions, random_state=0).fit_transform(vectors)
        places = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced).astype(np.float64)
    low, high = places.min(axis=0), places.max(axis=0)
    result: npt.NDArray[np.float64] = (places - low) / np.where(high > low, high - low, 1.0)
    return result
