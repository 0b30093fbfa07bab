"""Corpora: counts of WikiText-2, vocabulary and slices, damaged files, downloads up to the network, stand-ins, pieces of words."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from bench import data_verb
from ltcore import data
from ltcore.data import number_words, pieces, sources, text_files, words
from ltcore.data.text_files import Known, TextSet
from ltcore.data.text_sets import TEXT_SETS
from ltcore.errors import DataMissingError, UsageError, UserError

FOLDER = os.environ.get("LTCORE_DATA", "")
needs_wikitext = pytest.mark.skipif(not (Path(FOLDER) / "wikitext-2").is_dir(), reason="LTCORE_DATA holds no WikiText-2")
needs_multi30k = pytest.mark.skipif(not (Path(FOLDER) / "multi30k").is_dir(), reason="LTCORE_DATA holds no Multi30k")

LINES = {"train": [" = A = ", "", " the cat saw the dog "], "valid": ["the bird"], "test": [" the dog <unk> ", ""]}


def made(**options: int) -> data.Corpus:
    return words.corpus("made", LINES, options, source="test")


def spelt(corpus: data.Corpus, part: str) -> list[str]:
    return [corpus.words[i] for i in getattr(corpus, part).ids.tolist()]


# ---- words ---------------------------------------------------------------------------------------------------
def test_every_line_ends_with_eos_and_words_unseen_in_training_are_unk():
    corpus = made()
    assert spelt(corpus, "train") == ["=", "A", "=", "<eos>", "<eos>", "the", "cat", "saw", "the", "dog", "<eos>"]
    assert spelt(corpus, "val") == ["the", "<unk>", "<eos>"] and spelt(corpus, "test") == ["the", "dog", "<unk>", "<eos>", "<eos>"]
    assert corpus.words == ("<unk>", "<eos>", "=", "the", "A", "cat", "saw", "dog") and corpus.classes == 8
    assert len(corpus.train) == 11 and corpus.input_shape == () and not corpus.decoded


def test_a_vocabulary_keeps_the_most_frequent_words_of_the_slice_that_is_trained_on():
    assert made(vocabulary=4).words == ("<unk>", "<eos>", "=", "the")
    assert spelt(made(vocabulary=4), "train") == ["=", "<unk>", "=", "<eos>", "<eos>", "the", "<unk>", "<unk>", "the", "<unk>", "<eos>"]
    sliced = made(tokens=5, held_out=2)
    assert sliced.words == ("<unk>", "<eos>", "=", "A") and [len(p) for p in (sliced.train, sliced.val, sliced.test)] == [5, 2, 2]
    assert sliced.note == "the first 5 tokens to train on, the first 2 tokens to test on" and made().note == ""


def test_the_fingerprint_covers_tensors_and_vocabulary():
    other = words.corpus("made", {**LINES, "train": [" = B = ", *LINES["train"][1:]]}, {}, source="test")
    assert torch.equal(other.train.ids, made().train.ids) and other.fingerprint != made().fingerprint
    assert made().fingerprint == made().fingerprint != made(held_out=2).fingerprint


@pytest.mark.parametrize(
    ("options", "said"), [({"vocabulary": 1}, "from 2 up"), ({"size": 3}, "no option 'size'"), ({"tokens": "a"}, "not 'a'")]
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(UsageError, match=said):
        made(**options)


@needs_wikitext
def test_wikitext_2_has_its_counts():
    corpus = data.load("wikitext2", FOLDER)
    assert [len(p) for p in (corpus.train, corpus.val, corpus.test)] == [2_088_628, 217_646, 245_569]
    assert corpus.classes == 33_278 and len(set(corpus.words)) == 33_278 and corpus.words[:3] == ("<unk>", "<eos>", "the")
    eos = sum(int((p.ids == 1).sum()) for p in (corpus.train, corpus.val, corpus.test))
    assert eos == 36_718 + 3_760 + 4_358
    assert spelt(corpus, "train")[:6] == ["<eos>", "=", "Valkyria", "Chronicles", "III", "="]


# ---- stand-ins -----------------------------------------------------------------------------------------------
def test_topics_is_english_text_in_three_parts():
    corpus = data.load("topics", vocabulary=300, tokens=3000, held_out=500)
    assert (corpus.classes, len(corpus.train), len(corpus.val), len(corpus.test)) == (300, 3000, 500, 500)
    assert "the" in corpus.words[:6] and "pydoc_data" in corpus.source
    with pytest.raises(UsageError, match="is a corpus"):
        data.load("topics", half="a")


def test_number_words_are_pairs_that_share_pieces():
    corpus = data.load("number-words", train=300, test=20)
    assert (len(corpus.train), len(corpus.val), len(corpus.test)) == (300, 20, 20) and corpus.classes == number_words.VOCABULARY
    bpe, target, at = pieces.loaded(corpus.tokenizer), corpus.test.target, corpus.test.target_at
    assert tuple(bpe.decode(target[at[i] : at[i + 1]].tolist()) for i in range(20)) == corpus.test.texts
    assert corpus.words[:3] == pieces.SPECIAL and int(min(corpus.train.source.min(), target.min())) > pieces.SPECIAL.index("<unk>")
    assert corpus.fingerprint == data.load("number-words", train=300, test=20).fingerprint
    with pytest.raises(UsageError, match="must be at most"):
        data.load("number-words", train=100_000)


def test_first_sentences_are_those_of_the_whole():
    part = data.load("number-words", train=300, test=20).test
    few = part.first(3)
    assert len(few) == 3 and few.texts == part.texts[:3] and torch.equal(few.source, part.source[: int(part.source_at[3])])
    assert few.lengths()[1].tolist() == part.lengths()[1][:3].tolist()


def test_an_encoding_is_kept_on_disk_and_made_again_where_it_is_broken(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pairs = [("a red cat", "eine rote Katze"), ("a dog", "ein Hund")]
    first = pieces.corpus("two", [pairs, pairs[:1], pairs[1:]], 40, source="test")
    with monkeypatch.context() as m:
        m.setattr(pieces, "tokenizer", lambda *_: pytest.fail("trained again"))
        assert pieces.corpus("two", [pairs, pairs[:1], pairs[1:]], 40, source="test").fingerprint == first.fingerprint
    (kept,) = (tmp_path / "ltcore").glob("two-*")
    kept.write_bytes(b"broken")
    assert pieces.corpus("two", [pairs, pairs[:1], pairs[1:]], 40, source="test").fingerprint == first.fingerprint


def test_a_users_corpus_is_taken_under_its_name_and_checked():
    mine = data.from_user("mine", made())
    assert (mine.name, mine.classes, mine.source) == ("mine", 8, "test") and mine.fingerprint == made().fingerprint
    assert data.from_user("mine", data.load("number-words", train=30, test=5)).test.texts
    with pytest.raises(UserError, match="a part of it is empty"):
        data.from_user("mine", words.corpus("made", {**LINES, "valid": []}, {}, source="test"))
    with pytest.raises(UserError, match="has 3 words but it holds word 7"):
        data.from_user("mine", dataclasses.replace(made(), words=("a", "b", "c")))


# ---- the command line's rows -----------------------------------------------------------------------------------
def test_rows_say_what_is_there(small, tmp_path):
    def row(verb, folder):
        [found] = verb(["small"], folder)
        return found["status"], found["n_train"], found["advice"]

    def look(names, folder):
        return [r for r in data_verb.list_sets(folder) if r["name"] in names]

    assert row(look, small) == ("ok", 11, "") and row(data_verb.verify, small) == ("ok", 11, "")
    (small / "small" / "test.txt").write_text("one line\n")
    assert (
        row(look, small)[0] == "ok" and row(data_verb.verify, small)[0] == "damaged" and "it has 1 lines" in row(data_verb.verify, small)[2]
    )
    (small / "small" / "test.txt").unlink()
    assert row(look, small)[::2] == ("incomplete", "small/test.txt missing; python -m bench data fetch small")
    assert row(look, tmp_path / "nowhere")[0] == "missing"


# ---- files ---------------------------------------------------------------------------------------------------
def small_set() -> TextSet:
    """Like WikiText-2, of five lines."""
    known = {"train.txt": Known(3), "valid.txt": Known(1), "test.txt": Known(2)}
    real = TEXT_SETS["wikitext2"]
    return TextSet("Small", "small", known, ("nobody/small",), real.lines, real.read, (11, 5), fallback="topics")


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A folder with the three files, and ``small`` among the known sets."""
    import hashlib

    source = small_set()
    digest = hashlib.md5(b"= A =\n\nthe cat saw the dog").hexdigest()
    known = {**source.files, "train.txt": Known(3, digest)}
    monkeypatch.setitem(sources.DATASETS, "small", TextSet(**{**vars(source), "files": known}))
    (tmp_path / "small").mkdir()
    for part, lines in LINES.items():
        (tmp_path / "small" / f"{part}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return tmp_path


def test_files_are_read_and_white_space_is_all_the_same(small):
    corpus = data.load("small", small)
    assert corpus.source == "folder" and corpus.fingerprint != "" and spelt(corpus, "val") == ["the", "<unk>", "<eos>"]
    (small / "small" / "train.txt").write_text(" = A =\n  \nthe cat  saw the dog\n")
    assert data.load("small", small).fingerprint == corpus.fingerprint


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b" = A = \n\n", "is damaged: it has 2 lines, Small's has 3"),
        (b" = A = \n\nthe cat saw the hog\n", "is damaged: the md5 of its words is"),
        (b" = \xff = \n\nthe\n", r"is damaged: it is not UTF-8 \(invalid start byte in line 1\)"),
        (b"the cat\n" * 40_000 + b"the d\xc3\n", r"is damaged: it is not UTF-8 \(unexpected end of data in line 40,001\)"),
    ],
)
def test_a_damaged_file_is_one_clear_line(small, content, said):
    (small / "small" / "train.txt").write_bytes(content)
    with pytest.raises(UserError, match=said) as raised:
        data.load("small", small)
    assert "train.txt" in str(raised.value) and "\n" not in str(raised.value)


def test_missing_files_are_named(small):
    (small / "small" / "valid.txt").unlink()
    with pytest.raises(UserError, match=r"Small: small/valid.txt missing in .*; put the files there") as raised:
        data.load("small", small)
    assert not isinstance(raised.value, DataMissingError)
    for name in ("train", "test"):
        (small / "small" / f"{name}.txt").unlink()
    with pytest.raises(DataMissingError, match="small/train.txt and 2 more missing"):
        data.load("small", small)


def test_sides_of_another_length_are_refused(tmp_path):
    (tmp_path / "train.en").write_text("a\nb\n")
    (tmp_path / "train.de").write_text("c\n")
    read = TEXT_SETS["wmt14"].read
    with pytest.raises(UserError, match="has 2 lines and train.de 1"):
        read("wmt14", {f"train.{side}": tmp_path / f"train.{side}" for side in ("en", "de")}, {"vocabulary": 30}, "folder")


@needs_multi30k
def test_multi30k_is_whole():
    corpus = data.load("multi30k", FOLDER, vocabulary=2000)
    assert (len(corpus.train), len(corpus.val), len(corpus.test), corpus.classes) == (29_000, 1_014, 1_000, 2000)
    assert corpus.test.texts[0] == "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt."


# ---- download ------------------------------------------------------------------------------------------------
class Hub:
    """What stands in for package ``datasets`` up to the network."""

    def __init__(self, **splits: list[str]):
        self.splits, self.asked = {split: {"text": lines} for split, lines in splits.items()}, []

    def load_dataset(self, *name: str) -> dict:
        self.asked.append(name)
        return self.splits


HUB_LINES = {"train": [" = A = \n", "", " the cat saw the dog \n"], "validation": ["the bird\n"], "test": [" the dog <unk> \n", ""]}


@pytest.fixture
def hub(monkeypatch, small) -> Hub:
    found = Hub(**HUB_LINES)
    monkeypatch.setattr(text_files, "_datasets", lambda source: found)
    monkeypatch.setattr(text_files, "reachable", lambda urls: urls)
    return found


def test_a_download_writes_the_files_as_they_are_known(hub, small, tmp_path):
    text_files.download(sources.DATASETS["small"], tmp_path / "new")
    assert hub.asked == [("nobody/small",)]
    assert {f.name: f.read_bytes() for f in (tmp_path / "new" / "small").iterdir()}["train.txt"] == b" = A = \n \n the cat saw the dog \n"
    assert data.load("small", tmp_path / "new").fingerprint == data.load("small", small).fingerprint
    text_files.download(sources.DATASETS["small"], tmp_path / "new")
    assert len(hub.asked) == 1  # what is there is not fetched again


def test_fetch_mends_what_is_broken_where_it_lies(hub, small):
    (small / "small" / "train.txt").unlink()
    [row] = data_verb.fetch(["small"], small)
    assert row["status"] == "ok" and data.load("small", small).source == "folder"
    [row] = data_verb.fetch(["small"], small)
    assert row["status"] == "ok" and len(hub.asked) == 1


def test_a_download_that_is_not_the_set_leaves_nothing(hub, tmp_path):
    hub.splits["train"]["text"].pop()
    with pytest.raises(UserError, match="it has 2 lines"):
        text_files.download(sources.DATASETS["small"], tmp_path / "new")
    assert not (tmp_path / "new" / "small").exists()


def test_a_failing_download_says_why_and_auto_falls_back(hub, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "load_dataset", lambda *_: (_ for _ in ()).throw(ConnectionError("no route\nto host")))
    with pytest.raises(UserError, match="^Small cannot be downloaded: no route$"):
        text_files.download(sources.DATASETS["small"], tmp_path / "new")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LTCORE_DATA", raising=False)
    stand_in = data.load("small", "auto")
    assert stand_in.name == "topics" and stand_in.fallback_for == "small"
    assert stand_in.note == "Small not found and no download possible: using the Python documentation's topics"


def test_pairs_of_wmt14_are_taken_apart_line_by_line():
    hub = {s: [{"translation": {"de": f"{s} eins\nzwei ", "en": f"{s} one two"}}] for s in ("train", "validation", "test")}
    files = {name: list(lines) for name, lines in TEXT_SETS["wmt14"].lines(hub).items()}
    assert (
        files["train.de"] == ["train eins zwei"]
        and files["valid.en"] == ["validation one two"]
        and files.keys() == TEXT_SETS["wmt14"].files.keys()
    )
    flat = {s: {"en": [f"{s} a"], "de": [f"{s} b"]} for s in ("train", "validation", "test")}
    assert {n: list(x) for n, x in TEXT_SETS["multi30k"].lines(flat).items()}["test_2016_flickr.de"] == ["test b"]
    assert TEXT_SETS["multi30k"].lines(flat).keys() == TEXT_SETS["multi30k"].files.keys()
