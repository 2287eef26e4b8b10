"""From chunks of candidates to chunks of scores: retrieve -> encode -> predict -> rank. The same on every engine."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import pyarrow as pa

from mtl_rank.data.encoder import EncodedRows
from mtl_rank.data.prepare import as_polars
from mtl_rank.predict import Predictor
from mtl_rank.scoring.ledger import Chunk, Details
from mtl_rank.scoring.measures import Doubles, Measures, count_cells, count_missing, views_of
from mtl_rank.scoring.pipeline import Clock, ahead, each
from mtl_rank.scoring.ranking import Ranking
from mtl_rank.scoring.sources import Features, Piece, Source


class Scored(NamedTuple):
    """The scores of a whole chunk, and what the ledger shall keep of it."""

    chunk: Chunk
    table: pa.Table
    details: Details


class Engine(Protocol):
    """Where chunks are scored."""

    def score(self, chunks: Sequence[Chunk], clock: Clock) -> Generator[Scored, None, None]:
        """Chunks that follow each other, in their order. clock: is told how long each stage was busy."""


@dataclass(frozen=True)
class _Encoded:
    """A piece on its way. chunk, last: of the piece. kept: its columns that go to the scores."""

    chunk: Chunk
    last: bool
    kept: pa.Table
    rows: EncodedRows
    missing: Mapping[str, int]


@dataclass(frozen=True)
class LocalEngine:
    """Scores chunks in this process. columns: those of the scores table."""

    source: Source
    features: Features
    predictor: Predictor
    columns: tuple[str, ...]
    ranking: Ranking | None

    def score(self, chunks: Sequence[Chunk], clock: Clock) -> Generator[Scored, None, None]:
        """As `Engine.score`. Each stage is a thread: while a chunk is in use the next is predicted, and so on."""
        retrieved = ahead(clock.timed("retrieve", self.source.pieces(self.features, chunks)))
        encoded = ahead(each(lambda piece: self._encode(piece, clock), retrieved))
        with closing(ahead(self._chunks(encoded, clock))) as scored:
            yield from scored

    def _encode(self, piece: Piece, clock: Clock) -> _Encoded:
        with clock("encode"):
            frame = as_polars(piece.table)
            computed = {*self.predictor.outputs, *(self.ranking.columns if self.ranking else ())}
            kept = piece.table.select([name for name in self.columns if name not in computed])
            missing = count_missing(frame, views_of(self.features.repository))
            rows = self.predictor.encoder.encode(frame, with_labels=False)
            return _Encoded(piece.chunk, piece.last, kept, rows, missing)

    def _chunks(self, pieces: Generator[_Encoded, None, None], clock: Clock) -> Generator[Scored, None, None]:
        tables: list[pa.Table] = []
        measured: list[Measures] = []
        with closing(pieces):
            for encoded in pieces:
                with clock("predict"):
                    found = self.predictor.predict_encoded(encoded.rows)
                    table = encoded.kept
                    for name, values in found.items():
                        table = table.append_column(name, pa.array(values))
                    tables.append(table)
                    measured.append(self._measures(encoded, found))
                if encoded.last:
                    with clock("rank"):
                        whole = pa.concat_tables(tables)
                        table = self.ranking.apply(whole) if self.ranking else whole
                    details = {"kept": table.num_rows, "measures": Measures.total(measured).as_dict()}
                    yield Scored(encoded.chunk, table, details)
                    tables, measured = [], []

    def _measures(self, encoded: _Encoded, found: Mapping[str, Doubles]) -> Measures:
        config = self.predictor.config
        cells = {
            name: count_cells(found[name], kind == "binary")
            for name, kind in config.outputs().items()
            if name not in config.products()
        }
        return Measures(encoded.kept.num_rows, encoded.missing, cells)
