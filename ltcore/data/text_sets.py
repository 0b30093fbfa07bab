"""The corpora of text that are known by name: WikiText-2, Multi30k and WMT'14 English-German."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ltcore.data import pieces, words
from ltcore.data.corpus import Corpus
from ltcore.data.text_files import Known, TextSet, lines
from ltcore.errors import UsageError, UserError

PARTS = ("train", "valid", "test")


def _wikitext(name: str, found: Mapping[str, Path], options: Mapping[str, Any], source: str) -> Corpus:
    return words.corpus(name, {part: lines(found[f"{part}.txt"]) for part in PARTS}, options, source=source)


def _wikitext_lines(hub: Any) -> dict[str, Iterable[str]]:
    """The hub ends every line that is not empty with a line feed; the files have a space in each empty one."""
    splits = {"train.txt": "train", "valid.txt": "validation", "test.txt": "test"}
    return {file: (text.removesuffix("\n") or " " for text in hub[split]["text"]) for file, split in splits.items()}


def _pairs(names: Mapping[str, str]) -> Any:
    """A reader of files ``<part>.en`` and ``<part>.de``."""

    def read(name: str, found: Mapping[str, Path], options: Mapping[str, Any], source: str) -> Corpus:
        unknown = sorted(set(options) - {"vocabulary"})
        if unknown:
            raise UsageError(f"data set {name} has no option {unknown[0]!r}; it takes vocabulary")
        parts = [_both(found, names[part]) for part in PARTS]
        return pieces.corpus(name, parts, options["vocabulary"], source=source)

    return read


def _both(found: Mapping[str, Path], part: str) -> list[tuple[str, str]]:
    english, german = ([line.strip() for line in lines(found[f"{part}.{side}"])] for side in ("en", "de"))
    if len(english) != len(german):
        raise UserError(f"{found[f'{part}.en']} has {len(english):,} lines and {part}.de {len(german):,}; both must have one for each pair")
    return list(zip(english, german))


def _flat_pairs(hub: Any, names: Mapping[str, str]) -> dict[str, Iterable[str]]:
    splits = {"train": "train", "valid": "validation", "test": "test"}
    return {f"{file}.{side}": hub[splits[part]][side] for part, file in names.items() for side in ("en", "de")}


def _nested_pairs(hub: Any) -> dict[str, Iterable[str]]:
    splits = {"train": "train", "valid": "validation", "test": "test"}
    return {f"{part}.{side}": _side(hub[split], side) for part, split in splits.items() for side in ("en", "de")}


def _side(rows: Iterable[Mapping[str, Any]], side: str) -> Iterable[str]:
    """Line by line: rows may hold line feeds."""
    return (" ".join(row["translation"][side].split()) for row in rows)


WMT14 = {"train": 4_508_785, "valid": 3_000, "test": 3_003}  # pairs of each part
MULTI30K = {"train": "train", "valid": "val", "test": "test_2016_flickr"}
TEXT_SETS: dict[str, TextSet] = {
    "wikitext2": TextSet(
        label="WikiText-2",
        folder="wikitext-2",
        files={  # of the files in pytorch/examples, word_language_model/data/wikitext-2
            "train.txt": Known(36_718, "4806f1e0ffc5735569a8c2fedc5492f4"),
            "valid.txt": Known(3_760, "08156ab05663aba03e5395ca581c007a"),
            "test.txt": Known(4_358, "b1c9fd80dbaeb23bb12c5a49c74e48d7"),
        },
        hub=("Salesforce/wikitext", "wikitext-2-v1"),
        lines=_wikitext_lines,
        read=_wikitext,
        sizes=(2_088_628, 245_569),
        fallback="topics",
    ),
    "multi30k": TextSet(
        label="Multi30k English-German",
        folder="multi30k",
        files={  # of the files in multi30k/dataset, data/task1/raw
            "train.en": Known(29_000, "50265b9b40305a453a24c44a9d6a2bca"), "train.de": Known(29_000, "75cdbfef1330520f77a075a667f8f06a"),
            "val.en": Known(1_014, "958d762242174779ba61c80bfdf146b0"), "val.de": Known(1_014, "265dc64e42121eb1d1ff8c6a95061783"),
            "test_2016_flickr.en": Known(1_000, "e022c91d4c42d37b5287f902505b060d"),
            "test_2016_flickr.de": Known(1_000, "26e53b0770a27f229faea823831019e0"),
        },
        hub=("bentrevett/multi30k",),
        lines=lambda hub: _flat_pairs(hub, MULTI30K),
        read=_pairs(MULTI30K),
        sizes=(29_000, 1_000),
        options={"vocabulary": 8_000},
        fallback="number-words",
    ),
    "wmt14": TextSet(
        label="WMT'14 English-German",
        folder="wmt14",
        files={f"{part}.{side}": Known(n) for part, n in WMT14.items() for side in ("en", "de")},
        hub=("wmt/wmt14", "de-en"),
        lines=_nested_pairs,
        read=_pairs({part: part for part in PARTS}),
        sizes=(4_508_785, 3_003),
        options={"vocabulary": 32_768},  # Ott et al. 2018: joint BPE of 32K
        fallback="number-words",
    ),
}  # fmt: skip
