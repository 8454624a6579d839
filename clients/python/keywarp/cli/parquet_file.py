"""Write results to a Parquet file, in the columns of the server's sink."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

from keywarp.cli.errors import CommandError
from keywarp.client import ProcessedFrame

ROWS: Final = 1024  # results that are written at once, as a row group

Write = Callable[[ProcessedFrame], None]


def parquet_opener() -> Callable[[Path], AbstractContextManager[Write]]:
    """Return what opens a Parquet file.

    Raises:
        CommandError: If the extra `parquet` isn't installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet

        from keywarp.protocol.columns import SCHEMA, row
    except ModuleNotFoundError as error:
        raise CommandError(f"Parquet files need {error.name}: install the extra `parquet` (README, Install)") from error

    @contextmanager
    def open_file(path: Path) -> Iterator[Write]:
        rows: list[dict[str, Any]] = []
        with parquet.ParquetWriter(path, SCHEMA, compression="zstd") as writer:

            def write(result: ProcessedFrame) -> None:
                rows.append(row(result.result.stream, result.result))
                if len(rows) == ROWS:
                    flush()

            def flush() -> None:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, SCHEMA))
                rows.clear()

            yield write
            if rows:
                flush()

    return open_file
