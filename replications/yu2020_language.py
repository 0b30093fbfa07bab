"""The language half of Yu et al. 2020: a LSTM on WikiText-2, Transformers for English to German. Values only, joined by ``yu2020``."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltcore.recipe import Data, Evaluate, Model, Optimizer, Pruning, Recipe, Task, changed
from replications.schema import Arm, Band, Control, Deviation, Experiment, Scaled, Setting
from replications.yu2020_arms import DENSE, one_shot, random, unpermuted

TRIALS, ROUNDS, TRANSFORMER_ROUNDS = 3, 20, 10
EVERYTHING = dict.fromkeys(("embedding", "recurrent", "attention", "fc", "output", "bias"), 0.2)
LAYERS = dict.fromkeys(("attention", "fc", "bias"), 0.2)  # the embedding, which is the output layer too, stays dense

LSTM = Recipe(
    model=Model("lstm", "module", {"embedding": 650, "hidden": 650, "layers": 2, "dropout": 0.5}), data=Data("wikitext2", val=217_646),
    optimizer=Optimizer("adam", lr=1e-3, eps=1e-3), batch_size=30, length="10ep", evaluate=Evaluate(1392, ("end",)),
    pruning=Pruning(EVERYTHING, scope="global"), rewind="1ep", task=Task("language-model", {"bptt": 50}),
)  # fmt: skip
BASE = Recipe(
    model=Model("transformer", "module", {"size": "base"}), data=Data("wmt14", val=3000),
    optimizer=Optimizer("adam", lr=5e-4, betas=(0.9, 0.98), schedule="inverse-sqrt", warmup_it=4000),
    batch_size=28_672, length="50000it", evaluate=Evaluate(5000, ("end",)), pruning=Pruning(EVERYTHING, scope="global"), rewind="1000it",
    task=Task("translate", {"label_smoothing": 0.1, "beam": 4, "length_penalty": 0.6, "average": 5, "average_every_it": 1500}),
)  # fmt: skip

# ln 94.3 is that of 650 untied units after 40 epochs of annealed SGD, ln 142.1 of 200 units after 6.
KNOWN = Band("log_perplexity", "end", 4.5, 5.0, "pytorch/examples, word_language_model, issue 415: untied LSTMs of 650 and 200 units")

# ---- arms: what claims name first, then the whole curves --------------------------------------------------------
def _ticket(*levels: int) -> Arm:
    return Arm("ticket", levels=levels)


def _late(named: tuple[int, ...], shot: tuple[int, ...], rounds: int) -> tuple[Arm, ...]:
    """With late rewinding: levels that claims name, then all."""
    every = tuple(range(1, rounds + 1))
    first = (DENSE, _ticket(*named), random(*sorted({*named, *shot})), *((one_shot(*shot),) if shot else ()), unpermuted(*named))
    return (*first, _ticket(*every), random(*every), *((one_shot(*every),) if shot else ()), unpermuted(*every))


LSTM_NAMED, LSTM_SHOT, LSTM_ZERO = (1, 4, 7, 10, 13, 16, 20), (8, 10, 13), (2, 6, 10, 14, 20)
BASE_NAMED, BASE_SHOT = (3, 5, 8), (5, 8)
LSTM_ARMS = _late(LSTM_NAMED, LSTM_SHOT, ROUNDS)
LSTM_ZERO_ARMS = (_ticket(*LSTM_ZERO), _ticket(*range(1, ROUNDS + 1)))

# ---- smoke: text that every Python has, and number words --------------------------------------------------------
TINY_LSTM: Mapping[str, Any] = {
    "data.name": "topics", "data.options": {"vocabulary": 500, "tokens": 8000, "held_out": 2000}, "data.val": 0,
    "model.options": {"embedding": 16, "hidden": 16, "layers": 2, "dropout": 0.5}, "batch_size": 10, "task.options.bptt": 20, "length": "3ep",
    "evaluate.every_it": 1000, "optimizer.lr": 0.01,
}  # fmt: skip
TINY_TRANSFORMER: Mapping[str, Any] = {
    "data.name": "number-words", "data.options": {"train": 600, "test": 30, "vocabulary": 120}, "data.val": 30, "model.options": {"size": "tiny"},
    "batch_size": 512, "length": "40it", "rewind": "10it", "evaluate.every_it": 20, "optimizer.lr": 0.01, "optimizer.warmup_it": 10,
    "task.options": {"label_smoothing": 0.1, "beam": 2, "length_penalty": 0.6, "average": 2, "average_every_it": 5},
}  # fmt: skip
SMOKE_LSTM = Scaled(1, 2, (DENSE, _ticket(1, 2), random(2), one_shot(2), unpermuted(2)), TINY_LSTM)
SMOKE_LSTM_ZERO = Scaled(1, 2, (_ticket(2),), {**TINY_LSTM, "rewind": "0it"})
SMOKE_TRANSFORMER = Scaled(1, 1, (DENSE, _ticket(1), random(1)), TINY_TRANSFORMER)
SMOKE_LAYERS = Scaled(1, 1, (_ticket(1),), TINY_TRANSFORMER)

# ---- quick: the LSTM small enough for two cores -----------------------------------------------------------------
QUICK_LSTM: Mapping[str, Any] = {
    "data.options": {"vocabulary": 10_000, "tokens": 200_000, "held_out": 30_000}, "data.val": 0,
    "model.options": {"embedding": 128, "hidden": 128, "layers": 2, "dropout": 0.2}, "optimizer.lr": 0.03,
    "batch_size": 5, "task.options.bptt": 40, "length": "500it", "rewind": "50it", "evaluate.every_it": 1000,
}  # fmt: skip
QUICK_NOTE = "miniature: LSTM of 128 units, 10,000 words, 200,000 tokens of WikiText-2, 500 iterations of 200 tokens, rewound to 50, 30,000 tokens of the test set"
QUICK_ARMS = (DENSE, _ticket(1, 4, 7), random(1, 4, 7), one_shot(8), random(8), unpermuted(7), _ticket(*range(1, 8)))
QUICK = Scaled(TRIALS, 8, QUICK_ARMS, QUICK_LSTM, note=QUICK_NOTE)

# ---- Multi30k: the real corpus that a small machine can train on; not in the paper ------------------------------
# A smaller network than the "tiny" Transformer of Wu et al. 2021 (arXiv 2105.14462: 4 + 4 layers, 8,000 updates of 4,096 tokens), trained shorter.
SMALL = changed(BASE, {
    "model.options": {"size": "small", "layers": 3, "dropout": 0.1}, "data": Data("multi30k", val=1014, options={"vocabulary": 4000}),
    "optimizer.lr": 3e-3, "optimizer.warmup_it": 400, "batch_size": 1024, "length": "2000it", "rewind": "100it", "evaluate": Evaluate(200, ("end",)),
    "task.options": {"label_smoothing": 0.1, "beam": 4, "length_penalty": 0.6, "average": 5, "average_every_it": 100},
})  # fmt: skip
SMALL_NOTE = "miniature: Transformer of width 128, 3 + 3 layers, on Multi30k with 4,000 pieces, 2,000 iterations of 1,024 padded tokens, rewound to 100"
SMALL_ARMS = (DENSE, _ticket(3), random(3), one_shot(5, 8), _ticket(5), random(5), _ticket(8), random(8), unpermuted(3, 5, 8))

NEEDS_GPU = "needs a GPU: 50,000 updates of 28,672 tokens are 4e17 operations for base"


def _transformer(protocol: str, recipe: Recipe, shot: bool, smoke: Scaled | None = None) -> Experiment:
    arms = _late(BASE_NAMED, BASE_SHOT if shot else (), TRANSFORMER_ROUNDS)
    scaled = {("paper", "wmt14"): Scaled(TRIALS, TRANSFORMER_ROUNDS, arms), **({("smoke", "number-words"): smoke} if smoke else {})}
    return Experiment(protocol, recipe, scaled, base={"rewind": "1000it"}, why_not_quick=NEEDS_GPU)


def _from_zero(protocol: str, recipe: Recipe, scaled: Mapping[tuple[str, str], Scaled], why: str) -> Experiment:
    """Tickets without late rewinding."""
    return Experiment(protocol, changed(recipe, {"rewind": "0it"}), scaled, condition={"rewind": "0it"}, why_not_quick=why)


LAYERS_ONLY = changed(BASE, {"pruning": Pruning(LAYERS, scope="global", counts="prunable")})
EXPERIMENTS = (
    Experiment("wikitext2-lstm", LSTM, {
        ("paper", "wikitext2"): Scaled(TRIALS, ROUNDS, LSTM_ARMS), ("quick", "wikitext2"): QUICK, ("smoke", "topics"): SMOKE_LSTM,
    }, base={"rewind": "1ep"}, gate=KNOWN),
    _from_zero("wikitext2-lstm", LSTM, {
        ("paper", "wikitext2"): Scaled(TRIALS, ROUNDS, LSTM_ZERO_ARMS), ("smoke", "topics"): SMOKE_LSTM_ZERO,
    }, "three more dense nets and eighteen more tickets for one claim's parts, beyond what two cores do in minutes"),
    _transformer("wmt14-transformer-base", BASE, True, SMOKE_TRANSFORMER),
    _from_zero("wmt14-transformer-base", BASE, {("paper", "wmt14"): Scaled(TRIALS, TRANSFORMER_ROUNDS, (_ticket(5, 8), _ticket(*range(1, 11))))}, NEEDS_GPU),
    _transformer("wmt14-transformer-base-layers-only", LAYERS_ONLY, False, SMOKE_LAYERS),
    _transformer("wmt14-transformer-big", changed(BASE, {"model.options": {"size": "big"}}), False),
    Experiment("wmt14-transformer-base", SMALL, {("quick", "multi30k"): Scaled(TRIALS, 8, SMALL_ARMS, default=False, note=SMALL_NOTE)}, "multi30k",
               condition={"network": "Transformer small"}, base={"rewind": "1000it"}),
)  # fmt: skip

SETTINGS = (
    Setting("NLP: LSTM", "2 layers of 650, dropout 0.5", "none", "embedding and decoder of 650 untied, PyTorch's LSTM with two bias vectors a layer, dropout between the layers",
            "6,770,400 + 21,630,700 + 21,663,978 parameters with 33,278 words; tying is not stated"),
    Setting("NLP: LSTM's init", "not stated", "none", "embedding and decoder uniform in ±0.1, decoder's bias 0, the rest PyTorch's own", "as pytorch/examples, word_language_model"),
    Setting("NLP: WikiText-2", "Wikitext-2", "none", "word level, <eos> at every line's end: 2,088,628 / 217,646 / 245,569 tokens"),
    Setting("NLP: windows", "batch 30, 50 steps back", "none", "30 rows side by side read in windows of 50, 1,392 an epoch, state carried; state is zero at an epoch's begin; trials differ by weights and dropout, not by order"),
    Setting("NLP: LSTM's optimiser", "Adam 1e-3, betas .9 / .999, eps 1e-3", "none", "the same; constant rate, no clipping, no weight decay", "schedule, clipping and decay are not stated"),
    Setting("NLP: log perplexity", "on the test set after 10 epochs", "none", "mean nats a token over the whole part, in 10 rows with carried state"),
    Setting("NLP: dense LSTM's band", "not printed", "none", "mean log perplexity 4.5 to 5.0 (perplexity 90 to 148), else rows of tickets do not count",
            "public untied LSTMs: 94.3 (650 units, 40 annealed epochs), 142.1 (200 units, 6 epochs)"),
    Setting("NLP: LSTM's pruning", "magnitude, 20 % a round, all layers pooled with their biases, 20 rounds", "none", "the same"),
    Setting("NLP: Transformers", "fairseq's Base and Big (Ott et al. 2018)", "fairseq", "width 512 and 1,024, 6 + 6 layers, norms after sublayers, one embedding for both sides and the output, sinusoidal positions, dropout 0.1 and 0.3"),
    Setting("NLP: Transformers' training", "50,000 updates; fairseq's set-up", "Adam .9 / .98, 5e-4, 4,000 warm-up, inverse square root, label smoothing 0.1, 8 x 3,584 tokens",
            "fairseq's; a batch is 28,672 padded tokens of sentences of like length"),
    Setting("NLP: pieces", "WMT'14 En-De, preprocessed as by Vaswani et al.", "joint BPE of 32K", "joint BPE of 32,768 pieces by tokenizers, trained on the training part"),
    Setting("NLP: what is read", "BLEU on newstest2014, averaged checkpoints", "multi-bleu on tokenised text, beam 4, length penalty 0.6",
            "sacrebleu with its signature in the record, beam 4, length penalty 0.6, the mean of the last 5 checkpoints 1,500 updates apart",
            "how many checkpoints is not stated; the last iterate is read too (last-iterate)"),
    Setting("NLP: Transformers' pruning", "magnitude, 20 % a round; everything, or attention and fully connected layers only", "none", "biases with the rest, norms never; 10 rounds", "the number of rounds is not stated"),
    Setting("NLP: rewind", "1 epoch (LSTM), 1,000 updates (Transformers)", "none", "the same, with fresh optimiser state"),
    Setting("NLP: one-shot", "the dense net pruned once", "none", "to the ticket's exact count, rewound as the ticket is"),
    Setting("NLP: random tickets", "parameter-matched random initialisation", "none", "fresh weights, the ticket's mask permuted over all layers (morcos2019); beside it the mask as it is", "the text does not say whether the mask is permuted"),
    Setting("NLP: trials", "not stated", "n/a", "3"),
)  # fmt: skip

DEVIATIONS = (
    Deviation("NLP: BLEU", "case-sensitive tokenised (multi-bleu)", "sacrebleu, 13a tokenisation of plain text", "it can be repeated anywhere; the two differ by some tenths of BLEU"),
    Deviation("NLP: WMT'14", "preprocessed set of Vaswani et al., 4.5 M pairs", "4,508,785 raw pairs of the hub's wmt14, pieces of 32,768", "the preprocessed archive is no longer offered by datasets"),
    Deviation("NLP: quick LSTM", "650 units, 33,278 words, 2 M tokens, 10 epochs, Adam eps 1e-3", "128 units, 10,000 words, 200,000 tokens, 500 iterations of 5 x 40 tokens, lr 3e-2, dropout 0.2",
              "two cores; of the rates tried on the dense net 3e-2 learned most in so few iterations"),
    Deviation("NLP: Multi30k", "WMT'14", "a small Transformer on Multi30k, by name only", "WMT'14 can't be trained on a small machine; its BLEU stands for itself"),
)  # fmt: skip

# ---- negative controls: the Python documentation and number words, where the claims replicate ------------------
CONTROL_LSTM: Mapping[str, Any] = {
    **QUICK_LSTM, "data.name": "topics", "data.options": {"vocabulary": 2000, "tokens": 40_000, "held_out": 5000},
    "model.options": {"embedding": 64, "hidden": 64, "layers": 2, "dropout": 0.2}, "batch_size": 10, "task.options.bptt": 20,
    "length": "600it", "rewind": "60it",
}  # fmt: skip
CONTROL_TRANSFORMER: Mapping[str, Any] = {
    "data.name": "number-words", "data.options": {"train": 4000, "test": 50, "vocabulary": 200}, "data.val": 0,
    "model.options": {"size": "tiny", "width": 64, "inner": 128}, "batch_size": 512, "length": "300it", "rewind": "30it",
    "evaluate.every_it": 1000, "optimizer.lr": 5e-3, "optimizer.warmup_it": 50,
    "task.options": {"label_smoothing": 0.1, "beam": 2, "length_penalty": 0.6, "average": 3, "average_every_it": 20},
}  # fmt: skip
TRANSLATING: Mapping[str, Any] = {  # long enough for the dense net, which a claim about its BLEU needs
    **CONTROL_TRANSFORMER, "data.options": {"train": 4000, "test": 100, "vocabulary": 200}, "batch_size": 1024,
    "length": "600it", "rewind": "60it", "optimizer.lr": 3e-3, "optimizer.warmup_it": 100,
}  # fmt: skip


def _pair(claim: str, control: str, protocol: str, levels: tuple[int, ...], arms: tuple[Arm, ...], changes: Mapping[str, Any]) -> Control:
    """A claim's tests at these levels and on the dense net, three trials."""
    return Control((claim,), control, changes["data.name"], protocol, Scaled(TRIALS, max(levels), arms, changes), {"level": (0, *levels)})


def _both(*levels: int) -> tuple[Arm, ...]:
    return _ticket(*levels), random(*levels)


CONTROLS = (
    _pair("nlp-lstm-wt-beats-rt", "no-training", "wikitext2-lstm", LSTM_NAMED[:4], _both(*LSTM_NAMED[:4]), CONTROL_LSTM),
    _pair("nlp-lstm-90pct-free", "largest-pruned", "wikitext2-lstm", (10,), (DENSE, _ticket(10)), CONTROL_LSTM),
    _pair("nlp-transformer-wt-beats-rt", "no-training", "wmt14-transformer-base", BASE_NAMED, _both(*BASE_NAMED), CONTROL_TRANSFORMER),
    _pair("nlp-big-third", "fresh-rewind", "wmt14-transformer-big", (5,), (DENSE, _ticket(5)), TRANSLATING),
)
NOT_COVERED: Mapping[str, str] = {}
