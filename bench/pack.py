"""Reference results as one small file: a manifest and its records, without tensors.

``python -m bench.pack pack frankle2019 --scale paper -o results/x.json.gz --store S`` writes one, ``python -m bench.pack unpack
results/x.json.gz --store S`` puts it into a store, where ``compare``, ``export`` and ``plot`` read it like any run.
"""
from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from bench import phases
from bench.measurements import find_manifest, record_of
from bench.store import Store, default_root, merge
from ltcore.errors import UserError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
StoreOpt = Annotated[Optional[Path], typer.Option("--store", metavar="DIR")]


@app.command()
def pack(paper: str, output: Annotated[Path, typer.Option("-o", "--output")], scale: Optional[str] = None, store: StoreOpt = None) -> None:
    """Write the records of the latest run of a paper and scale."""
    opened = Store(store or default_root(), create=False)
    manifest = find_manifest(opened, paper, scale)
    done = [p for p in manifest["points"] if opened.has(p["stage"])]
    records = {p["stage"]: record_of(p["stage"], opened) for p in done}  # of what measures read not all is packed
    write(output, {**manifest, "points": done, "phases": phases.noted(done, opened)}, records)
    print(f"{output}: {len(done)} of {len(manifest['points'])} points, {output.stat().st_size:,} bytes")


@app.command()
def unpack(file: Path, store: StoreOpt = None) -> None:
    """Put packed records into a store."""
    opened = Store(store or default_root())
    manifest = read_into(file, opened)
    print(f"{len(manifest['points'])} points of {manifest['paper']} ({manifest['scale']}) are in {opened.root}")


@app.command("merge")
def merge_stores(source: Path, store: StoreOpt = None) -> None:
    """Bring another store's stages and manifests in, tensors too; what differs (another device) is kept beside, never averaged."""
    counts = merge(Store(source, create=False), Store(store or default_root()))
    print(", ".join(f"{n} {what}" for what, n in counts.items()))


def write(path: Path, manifest: Mapping[str, Any], records: Mapping[str, Any]) -> None:
    """One JSON line for the manifest, one a record; the same results give the same bytes."""
    lines = [json.dumps(manifest, sort_keys=True), *(json.dumps({"stage": h, "record": records[h]}, sort_keys=True) for h in sorted(records))]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def read_into(path: Path, store: Store) -> dict[str, Any]:
    """Adds a packed file's records to a store and returns its manifest.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        head, *lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        manifest, entries = json.loads(head), [json.loads(line) for line in lines]
        name = f"{manifest['paper']}-{manifest['scale']}-{path.name.split('.')[0]}"
        records = {e["stage"]: e["record"] for e in entries}
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} can't be read: damaged, or not a packed result ({error})") from error
    for stage_hash, record in records.items():
        if not store.has(stage_hash):
            store.commit(stage_hash, record, {})
    store.write_manifest(name, manifest)
    return manifest


def main() -> None:
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
