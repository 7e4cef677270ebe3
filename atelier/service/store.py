"""Artworks on disk: a PNG file each, and an index in SQLite that says what there is.

A picture is there, whole, before its row is committed, and its row before anybody is told of it. So a process that is
killed loses nothing that it promised; what it leaves are files without a row, which the next start sweeps away.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atelier.images import write_atomically
from atelier.studio import Artwork

ID_PATTERN = r"^[A-Za-z0-9_-]{22}$"
"""What an artwork's id looks like: 128 random bits in URL-safe letters."""

# Only names that this module gives away are ever swept.
_OWN_FILE = re.compile(r"\.?[A-Za-z0-9_-]{22}\.png(\..+\.part)?")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS artworks (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    created REAL NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS artworks_created ON artworks (created);
"""


class Store:
    """The artworks of one folder; any thread may use it, but only one process at a time.

    Args:
        folder: is made if it is missing.
        max_artworks: the oldest beyond so many are deleted.
        max_age: seconds after which an artwork is deleted.

    Raises:
        OSError: the folder cannot be written, or another process uses it.
    """

    def __init__(self, folder: str | Path, max_artworks: int = 10_000, max_age: float = 30 * 86_400.0):
        self.folder, self.max_artworks, self.max_age = Path(folder).resolve(), max_artworks, max_age
        self._pictures = self.folder / "pictures"
        self._pictures.mkdir(parents=True, exist_ok=True)
        self._guard = threading.RLock()
        self._lock_file = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it even after kill -9
        except OSError as error:
            self._lock_file.close()
            raise OSError(f"another service uses {self.folder}") from error
        try:
            self._index = sqlite3.connect(self.folder / "index.sqlite3", check_same_thread=False, timeout=30)
            # A write-ahead log: readers never wait, and a commit survives the end of the process.
            self._index.execute("PRAGMA journal_mode = WAL")
            self._index.execute("PRAGMA synchronous = NORMAL")
            self._index.executescript(_SCHEMA)
        except sqlite3.Error as error:
            self._lock_file.close()
            raise OSError(f"cannot use the index in {self.folder}: {error}") from error
        self.expire()
        self._sweep()

    def close(self) -> None:
        """Close the index and let another process use the folder."""
        with self._guard:
            self._index.close()
            self._lock_file.close()

    def add(self, artworks: Sequence[Artwork]) -> list[tuple[dict[str, Any], bytes]]:
        """Save artworks; when this returns they are there.

        Returns:
            for each its record (`id` and `created`, in seconds since 1970, and what `main()` says of it, less the
            path) and its PNG file.
        """
        added = []
        for artwork in artworks:
            identity, png = secrets.token_urlsafe(16), artwork.png()
            write_atomically(self._picture(identity), png)
            values = {key: value for key, value in artwork.record().values.items() if key != "output"}
            added.append(({"id": identity, "created": time.time(), **values}, png))
        # JSON in escaped characters: SQLite's text cannot hold half a surrogate pair.
        rows = [(record["id"], record["created"], json.dumps(record)) for record, _ in added]
        with self._guard, self._index:
            self._index.executemany("INSERT INTO artworks (id, created, record) VALUES (?, ?, ?)", rows)
        self.expire()
        return added

    def record(self, identity: str) -> dict[str, Any] | None:
        """An artwork's record, or `None` if there is none of this id."""
        with self._guard:
            found = self._index.execute(
                "SELECT record FROM artworks WHERE id = ? AND created >= ?", (identity, time.time() - self.max_age)
            ).fetchone()
        return json.loads(found[0]) if found else None

    def picture(self, identity: str) -> bytes | None:
        """An artwork's PNG file, or `None` if there is none of this id."""
        # The id is looked up before it becomes a part of a path, so only our own ids ever do.
        if self.record(identity) is None:
            return None
        try:
            return self._picture(identity).read_bytes()
        except FileNotFoundError:  # it expired between the two lines
            return None

    def latest(self, limit: int, before: str | None = None) -> list[dict[str, Any]] | None:
        """Records, the newest first.

        Args:
            limit: at most so many.
            before: an id; only artworks older than this one.

        Returns:
            the records; `None` if there is no artwork `before`.
        """
        with self._guard:
            top = 2**62
            if before is not None:
                found = self._index.execute("SELECT number FROM artworks WHERE id = ?", (before,)).fetchone()
                if found is None:
                    return None
                top = found[0]
            rows = self._index.execute(
                "SELECT record FROM artworks WHERE number < ? AND created >= ? ORDER BY number DESC LIMIT ?",
                (top, time.time() - self.max_age, limit),
            ).fetchall()
        return [json.loads(row) for (row,) in rows]

    def __len__(self) -> int:
        with self._guard:
            return self._index.execute("SELECT COUNT(*) FROM artworks").fetchone()[0]

    def expire(self) -> int:
        """Delete artworks that are too old or too many; returns how many."""
        with self._guard, self._index:
            gone = self._index.execute(
                "DELETE FROM artworks WHERE created < ? OR number <= "
                "(SELECT number FROM artworks ORDER BY number DESC LIMIT 1 OFFSET ?) RETURNING id",
                (time.time() - self.max_age, self.max_artworks),
            ).fetchall()
        for (identity,) in gone:  # after the rows: a file too many can be swept, a row without its file is a lie
            self._picture(identity).unlink(missing_ok=True)
        return len(gone)

    def _picture(self, identity: str) -> Path:
        return self._pictures / f"{identity}.png"

    def _sweep(self) -> None:
        """Delete the files that no row knows, and the rows whose file somebody deleted."""
        known = {identity for (identity,) in self._index.execute("SELECT id FROM artworks")}
        present = set()
        with os.scandir(self._pictures) as entries:
            for entry in entries:
                if not _OWN_FILE.fullmatch(entry.name):
                    continue
                if entry.name.removesuffix(".png") in known:
                    present.add(entry.name.removesuffix(".png"))
                else:
                    Path(entry.path).unlink(missing_ok=True)
        with self._index:
            self._index.executemany("DELETE FROM artworks WHERE id = ?", [(each,) for each in known - present])
