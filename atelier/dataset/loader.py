"""From picture files, or the shards of a prepared data set, to training batches."""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path

import numpy as np
from PIL import Image

from atelier.dataset.source import Picture, find_pictures
from atelier.images import open_picture
from atelier.progress import progress_bar
from atelier.seeds import STYLES

ROUND = 640
"""How many pictures of each style a memory gets before it gets more; the shipped one began with so many."""


def training_pictures(
    folders: Sequence[str | Path], resolution: int, cache: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """All that a training sees, from folders of picture files and from data sets that `prepare` made.

    Args:
        resolution, cache: as for `load_images` and `load_shards`.

    Returns:
        (N, resolution, resolution, 3) uint8, memory-mapped where it is one folder with a cache or all are of picture
        files, and (N,) int64 indices into `STYLES`.

    Raises:
        FileNotFoundError: no pictures to train on.
        ValueError: a file is not a readable picture.
    """
    parts = [load_shards(folder, resolution, cache=cache) for folder in folders if is_prepared(folder)]
    if loose := [folder for folder in folders if not is_prepared(folder)]:
        pictures = [picture for picture in find_pictures(*loose) if picture.split == "training" and picture.medium]
        if not pictures:
            raise FileNotFoundError(f"no pictures to train on below {', '.join(map(str, loose))}, only others")
        styles = np.array([STYLES.index(picture.medium) for picture in pictures])
        parts.append((load_images(pictures, resolution, cache), styles))
    if len(parts) == 1:
        return parts[0]
    images, styles = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(styles)


def is_prepared(folder: str | Path) -> bool:
    """Whether a folder holds shards of `python -m atelier prepare`."""
    return any(Path(folder).glob("part-*.parquet")) or any(Path(folder).glob("shards/part-*.parquet"))


def load_images(pictures: Sequence[Picture], resolution: int, cache: Path | None = None) -> np.ndarray:
    """Decode and resize all pictures, with a progress bar.

    Args:
        pictures: what to load; squashed to a square, as the Kaggle set's copies here already are.
        resolution: side of the result in pixels.
        cache: a folder that keeps the array, so that the next run with the same pictures starts at once.

    Returns:
        (N, resolution, resolution, 3) uint8, memory-mapped where a cache is given.

    Raises:
        ValueError: a file is not a readable picture; it is named.
    """
    stats = [(picture.path.resolve(), picture.path.stat()) for picture in pictures]
    names = "\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats)
    key = hashlib.sha256(f"{resolution}\n{names}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    kept = cache / f"images-{key}.npy" if cache else None
    if kept and kept.is_file():
        return np.load(kept, mmap_mode="r")
    images = np.empty((len(pictures), resolution, resolution, 3), np.uint8)
    for index, picture in enumerate(progress_bar(pictures, desc=f"pictures to {resolution} px", unit="picture")):
        image = open_picture(picture.path)
        images[index] = np.asarray(image.resize((resolution, resolution), Image.Resampling.LANCZOS))
    if kept:
        cache.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f".{os.getpid()}.{kept.name}")  # two runs may share the folder
        np.save(part, images)
        part.replace(kept)
        return np.load(kept, mmap_mode="r")
    return images


def style_weights(styles: np.ndarray) -> np.ndarray:
    """How often to draw each picture, (N,) summing to 1: a medium of n pictures gets a share of sqrt(n).

    Rare media are seen more often than they occur, though not so often that they are learned by heart.
    """
    counts = np.bincount(styles, minlength=len(STYLES))
    weights = 1.0 / np.sqrt(counts[styles])
    return weights / weights.sum()


def remembered_pictures(styles: np.ndarray, memory: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pictures a generator with a memory remembers: of each style so many, by chance, always the same.

    They are drawn in rounds of `ROUND` a style, so that a larger memory begins with the pictures of a smaller one.

    Args:
        styles: (N,) int, indices into `STYLES`.
        memory: latents of each style.

    Returns:
        (P,) places in the memory and (P,) indices of pictures. A style with fewer pictures leaves places without one.
    """
    random, drawn = np.random.default_rng(0), np.zeros(len(styles), bool)
    pictures = [np.zeros(0, np.int64) for _ in STYLES]
    for start in range(0, memory, ROUND):
        for style in range(len(STYLES)):
            own = np.flatnonzero((styles == style) & ~drawn)
            chosen = random.choice(own, min(ROUND, memory - start, len(own)), replace=False)
            pictures[style], drawn[chosen] = np.concatenate([pictures[style], chosen]), True
    places = [style * memory + np.arange(len(own)) for style, own in enumerate(pictures)]
    return np.concatenate(places), np.concatenate(pictures)


def batches(
    images: np.ndarray,
    styles: np.ndarray,
    batch_size: int,
    latent_dim: int,
    seed: int = 0,
    start: int = 0,
    pairs: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[tuple[dict[str, np.ndarray]]]:
    """Endless batches for `GAN.fit`: real pictures (half of them mirrored) with their style, and latents.

    Batch number i depends on `seed` and i alone, so a run that goes on at `start` sees what it would have seen.

    Args:
        images: (N, H, W, 3) uint8.
        styles: (N,) int, indices into `STYLES`.
        pairs: (P,) indices of pictures that are never mirrored and the first numbers of the latents that belong to
            them, (P, at most latent_dim); the others are drawn. The first three quarters of a batch are such pairs.

    Yields:
        a 1-tuple of `{"image": (B, H, W, 3) uint8, "style": (B,) int32, "latent": (B, latent_dim) float32}`, and with
        `pairs` also `"paired": (B,) float32`, 1 where the latent is the picture's own and 0 elsewhere.
    """
    weights = style_weights(styles)
    paired = 3 * batch_size // 4 if pairs else 0
    if pairs:
        pictures, theirs = pairs
        pair_weights = style_weights(styles[pictures])
    step = start
    while True:
        random = np.random.default_rng((seed, step))
        chosen = random.choice(len(images), batch_size, p=weights)
        batch = images[chosen]
        mirrored = random.random(batch_size) < 0.5
        batch[mirrored] = batch[mirrored, :, ::-1]
        latent = random.standard_normal((batch_size, latent_dim), np.float32)
        if pairs:
            some = random.choice(len(pictures), paired, p=pair_weights)
            chosen[:paired], batch[:paired] = pictures[some], images[pictures[some]]
            latent[:paired, : theirs.shape[1]] = theirs[some]
        values = {"image": batch, "style": styles[chosen].astype(np.int32), "latent": latent}
        if pairs:
            values["paired"] = (np.arange(batch_size) < paired).astype(np.float32)
        yield (values,)
        step += 1


def load_shards(
    folder: str | Path, resolution: int, split: str = "training", cache: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """All pictures of a prepared data set as arrays for `batches`, decoded once, with a progress bar.

    For sets that fit on the disk at this resolution (100,000 pictures of 64 px are 1.2 GB); `stream_shards` and
    `tf_dataset` are for all others.

    Args:
        folder: what `python -m atelier prepare` made.
        resolution: side of the result in pixels; the pictures are squashed to a square.
        split: "training" or "validation".
        cache: a folder that keeps the arrays, so that the next run with the same shards starts at once.

    Returns:
        (N, resolution, resolution, 3) uint8, memory-mapped where a cache is given, and (N,) int64 indices into
        `STYLES`; pictures with other labels are left out.

    Raises:
        FileNotFoundError: there are no shards, or no such pictures in them.
    """
    from atelier.dataset.shards import iterate_rows, shard_paths

    paths = shard_paths(folder)
    labels = [row for row in iterate_rows(paths, ["label", "split"]) if row["split"] == split]
    styles = np.array([STYLES.index(row["label"]) for row in labels if row["label"] in STYLES], np.int64)
    if not len(styles):
        raise FileNotFoundError(f"no {split} pictures of {', '.join(STYLES)} in {folder}")
    stats = [(path.resolve(), path.stat()) for path in paths]
    names = "\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats)
    key = hashlib.sha256(f"{resolution} {split}\n{names}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    kept = cache / f"shards-{key}.npy" if cache else None
    if kept and kept.is_file():
        return np.load(kept, mmap_mode="r"), styles
    shape = (len(styles), resolution, resolution, 3)
    part = None
    if kept:
        cache.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f".{os.getpid()}.{kept.name}")
        images = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
    else:
        images = np.empty(shape, np.uint8)
    rows = (row for row in iterate_rows(paths, ["image", "label", "split"]) if row["split"] == split)
    wanted = (row["image"] for row in rows if row["label"] in STYLES)
    with progress_bar(total=len(styles), desc=f"pictures to {resolution} px", unit="picture") as bar:
        for index, data in enumerate(wanted):
            images[index] = decode(data, resolution)
            bar.update()
    if kept:
        images.flush()
        part.replace(kept)
        return np.load(kept, mmap_mode="r"), styles
    return images, styles


def decode(data: bytes, resolution: int) -> np.ndarray:
    """A JPEG's bytes as (resolution, resolution, 3) uint8, squashed to a square."""
    with Image.open(io.BytesIO(data)) as image:
        # Lets the JPEG decoder itself halve a picture that is more than twice as large.
        image.draft("RGB", (2 * resolution, 2 * resolution))
        small = image.convert("RGB").resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.asarray(small)


def stream_shards(
    folder: str | Path,
    resolution: int,
    batch_size: int,
    *,
    split: str = "training",
    seed: int = 0,
    repeat: bool = True,
    buffer: int = 2048,
    threads: int = 2,
    prefetch: int = 4,
) -> Iterator[dict[str, np.ndarray]]:
    """Batches straight from the shards, for sets of any size and every backend: NumPy only.

    Each pass takes the shards in another order and mixes their pictures in a buffer of compressed ones. Threads decode
    ahead (Pillow lets go of Python's lock), so that the next batches are ready while one is trained on.

    Args:
        folder, resolution, split: as for `load_shards`.
        seed: decides the order: the same seed, the same batches.
        repeat: endless passes; otherwise one, whose last batch may be smaller.
        buffer: pictures that are mixed, compressed; 1: as they stand in the shards.
        threads: that decode.
        prefetch: batches that are made ahead.

    Yields:
        `{"image": (B, resolution, resolution, 3) uint8, "style": (B,) int32, "caption": (B,) object}`; a caption is
        "" where there is none.

    Raises:
        FileNotFoundError: there are no shards.
    """
    from atelier.dataset.shards import shard_paths

    paths = shard_paths(folder)  # now, not at the first batch

    def passes() -> Iterator[dict]:
        for number in count():
            random = np.random.default_rng((seed, number))
            some = False
            for row in _mixed(_rows(paths, split, random), buffer, random):
                some = True
                yield row
            if not some:
                raise FileNotFoundError(f"no {split} pictures of {', '.join(STYLES)} in {folder}")
            if not repeat:
                return

    def generate() -> Iterator[dict[str, np.ndarray]]:
        rows, waiting = passes(), deque()
        with ThreadPoolExecutor(threads) as pool:
            while True:
                while rows is not None and len(waiting) < prefetch:
                    chosen = list(islice(rows, batch_size))
                    if not chosen:
                        rows = None
                        break
                    waiting.append((chosen, [pool.submit(decode, row["image"], resolution) for row in chosen]))
                if not waiting:
                    return
                chosen, images = waiting.popleft()
                yield {
                    "image": np.stack([image.result() for image in images]),
                    "style": np.array([STYLES.index(row["label"]) for row in chosen], np.int32),
                    "caption": np.array([row["caption"] or "" for row in chosen], object),
                }

    return generate()


def _rows(paths: Sequence[Path], split: str, random: np.random.Generator) -> Iterator[dict]:
    """The pictures of a split, in a random order of shards, a row group in memory at a time."""
    import pyarrow.parquet as pq

    for number in random.permutation(len(paths)):
        with paths[number].open("rb") as file:
            for batch in pq.ParquetFile(file).iter_batches(256, columns=["image", "label", "split", "caption"]):
                for row in batch.to_pylist():
                    if row["split"] == split and row["label"] in STYLES:
                        yield row


def _mixed(rows: Iterator[dict], buffer: int, random: np.random.Generator) -> Iterator[dict]:
    """The same rows in another order: each is one of the `buffer` that are at hand."""
    held = []
    for row in rows:
        if len(held) < buffer:
            held.append(row)
            continue
        place = int(random.integers(buffer))
        yield held[place]
        held[place] = row
    for place in random.permutation(len(held)):
        yield held[place]


def tf_dataset(
    folder: str | Path,
    resolution: int,
    batch_size: int,
    *,
    split: str = "training",
    seed: int = 0,
    repeat: bool = True,
    buffer: int = 2048,
    cache: str | bool = False,
):
    """As `stream_shards`, as a `tf.data.Dataset`: decoded on all cores by TensorFlow, and prefetched.

    Args:
        cache: `True` keeps the decoded pictures in memory, a path keeps them in files; every pass after the first
            then decodes nothing. Pictures are shuffled after the cache, so passes differ.

    Returns:
        a dataset of `{"image": (B, resolution, resolution, 3) uint8, "style": (B,) int32, "caption": (B,) string}`.
        Its resampling is TensorFlow's area filter; `stream_shards` uses Lanczos.
    """
    import tensorflow as tf

    from atelier.dataset.shards import shard_paths

    paths = shard_paths(folder)

    def rows():
        for row in _rows(paths, split, np.random.default_rng(seed)):
            yield row["image"], STYLES.index(row["label"]), row["caption"] or ""

    def decoded(data, style, caption):
        image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_FAST")
        image = tf.image.resize(image, (resolution, resolution), method="area")
        return {"image": tf.cast(tf.round(image), tf.uint8), "style": style, "caption": caption}

    kinds = (tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int32), tf.TensorSpec((), tf.string))
    dataset = tf.data.Dataset.from_generator(rows, output_signature=kinds)
    if not cache:
        dataset = dataset.shuffle(buffer, seed=seed) if buffer > 1 else dataset
    dataset = dataset.map(decoded, num_parallel_calls=tf.data.AUTOTUNE)
    if cache:
        dataset = dataset.cache("" if cache is True else str(cache))
        dataset = dataset.shuffle(buffer, seed=seed) if buffer > 1 else dataset
    dataset = dataset.repeat() if repeat else dataset
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)
