"""The Parquet files of a preparation: their columns, and how they appear whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from atelier.images import write_atomically

FILES = pa.schema(
    [
        ("index", pa.int64()),
        ("place", pa.binary()),
        ("source", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("caption", pa.string()),
        ("flag", pa.string()),
    ]
)
"""What there is to prepare (`listing.Entry`); `index` is the place in a shuffled order."""

EXAMINED = pa.schema(
    [
        *FILES,
        ("reason", pa.string()),
        ("value", pa.string()),
        ("image", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),
        ("hash", pa.uint64()),
        ("contrast", pa.float32()),
        ("thumbnail", pa.binary()),
        ("features", pa.binary()),
        ("spoiled", pa.binary()),
    ]
)
"""Every file again, with the reason and measured value (JSON) of its rejection, or else the picture and its marks.
`features`, and `spoiled` for a sample (those of a copy spoiled on purpose), are float16 numbers."""

DECIDED = pa.schema(
    [
        ("index", pa.int64()),
        ("reason", pa.string()),
        ("value", pa.string()),
        ("label_doubt", pa.float32()),
        ("presentation_doubt", pa.float32()),
    ]
)
"""Every file's fate after all were compared; doubts are 0 to 1, null where they were not judged."""

PICTURES = pa.schema(
    [
        ("image", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("caption", pa.string()),
        ("caption_source", pa.string()),
        ("confidence", pa.float32()),
        ("hash", pa.string()),
        ("source", pa.string()),
        ("flag", pa.string()),
        ("label_doubt", pa.float32()),
        ("presentation_doubt", pa.float32()),
    ]
)
"""The prepared data set. `image`: a JPEG file's bytes, RGB; `caption_source`: "given" (by the source), "known" (joined
by hash), "captioner" or null, with `rewriting.SOURCE` behind it where a language model rewrote the caption;
`confidence`: the captioner's mean log-probability; `hash`: 16 hexadecimal digits."""


def shard_name(number: int) -> str:
    """`part-00007.parquet`: sorted by name is sorted by number, up to 100,000 shards."""
    return f"part-{number:05d}.parquet"


def write_rows(path: Path, rows: Sequence[dict], schema: pa.Schema) -> None:
    """Write rows as one Parquet file that appears whole or not at all."""
    write_table(path, pa.Table.from_pylist(list(rows), schema))


def write_table(path: Path, table: pa.Table) -> None:
    """As `write_rows`, for a table."""
    buffer = io.BytesIO()
    # JPEGs do not get smaller; small row groups let a reader of few columns or few rows read little.
    plain = {
        name: "none" if name in ("image", "features", "spoiled", "thumbnail") else "zstd" for name in table.column_names
    }
    pq.write_table(table, buffer, row_group_size=1024, compression=plain)
    write_atomically(path, buffer.getvalue())


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict]:
    """All rows of a file, or some columns of them."""
    return read_table(path, columns).to_pylist()


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """As `read_rows`, as a table; read through a file object, so that memory is not mapped and kept."""
    with path.open("rb") as file:
        return pq.read_table(file, columns=list(columns) if columns else None)


def shard_paths(folder: str | Path) -> list[Path]:
    """The shards of a prepared data set, in order.

    Args:
        folder: what `prepare` was given as OUT, or its `shards` folder.

    Raises:
        FileNotFoundError: there are none.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("part-*.parquet")) or sorted((folder / "shards").glob("part-*.parquet"))
    if not paths:
        raise FileNotFoundError(f"no shards (part-*.parquet) in {folder}: make them with python -m atelier prepare")
    return sorted(paths, key=lambda path: int(path.stem.removeprefix("part-")))


def iterate_rows(paths: Iterable[Path], columns: Sequence[str] | None = None) -> Iterator[dict]:
    """The rows of many files, one file in memory at a time."""
    for path in paths:
        yield from read_rows(path, columns)
