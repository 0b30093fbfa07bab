"""The protocol card of You et al. 2020: the paper's value, the official code's, ours; and where we differ.

"Code" is GATECH-EIC/Early-Bird-Tickets: ``main.py``, ``vggprune.py``, ``resprune_50.py``, ``main_c.py`` and ``models/``.
"""

from __future__ import annotations

from replications.schema import Deviation, Setting

SETTINGS = (
    Setting(
        "networks",
        "VGG16 and PreResNet101",
        "13 conv with batch norm and one linear layer; bottlenecks, 11 a stage",
        "the same",
        "14,724,042 and 1,054,106 parameters, 4,224 and 7,408 batch-norm scales on CIFAR-10",
    ),
    Setting("initial weights", "not known", "conv N(0, 2 / (kernel x outputs)), scales 0.5; VGG's linear layer N(0, 0.01^2)", "the code's"),
    Setting("optimiser", "SGD, lr 0.1", "momentum 0.9, weight decay 1e-4 on everything, batch 256 in the scripts", "the code's"),
    Setting(
        "schedule", "160 epochs, a tenth at 80 and 120", "the same", "the same; 195 batches an epoch, the remainder of an epoch is dropped"
    ),
    Setting(
        "L1 on the scales",
        "as network slimming",
        "1e-4 x sign(scale) on every batch norm, in search and retraining",
        "the code's; it is in every arm's training",
    ),
    Setting(
        "data",
        "CIFAR-10 and CIFAR-100",
        "pad 4, random crop 32, flip; test accuracy every epoch, the best is kept",
        "the same augmentation; the test set is read at the end",
    ),
    Setting(
        "which channels go",
        "lowest |scale| of the whole network",
        "all not above the value at place int(p x channels): one more than asked",
        "exactly floor(p x channels + 0.5), ties by place",
    ),
    Setting(
        "a layer that would lose all channels",
        "not stated",
        "vggprune.py: the layer vanishes; resprune_50.py: its first channel stays",
        "its best channel stays, another goes instead",
        "a network without the layer is another network",
    ),
    Setting(
        "when masks are drawn",
        "each epoch",
        "at the start of an epoch, the untrained net's among them (all zero, so it can't draw)",
        "after each epoch, from the first",
    ),
    Setting(
        "drawing rule",
        "largest of the last 5 distances of consecutive masks < 0.1",
        "newest mask against the 4 before it, each <= 0.1",
        "the paper's draws; when the code's would is measured beside it (rule: newest)",
    ),
    Setting(
        "after the draw",
        "smaller network with the trained weights goes on to the end of the schedule, lr 0.1 again",
        "main_c.py: fresh weights in spite of its name; the 8-bit script loads them",
        "the paper's; no optimiser state from the search",
    ),
    Setting(
        "EB Train re-init",
        "fresh weights, full schedule",
        "main_scratch.py",
        "fresh weights of the smaller network's own shape, full schedule",
    ),
    Setting(
        "tickets of Fig 1",
        "drawn at named epochs, retrained",
        "not stated how long",
        "trained weights kept, full schedule of 160 epochs from lr 0.1",
        "drawn at epoch 160 nothing would be left of the schedule",
    ),
    Setting(
        "pre-activation ResNets",
        "not stated",
        "channel_selection after a block's first batch norm; streams keep their width",
        "the same; selected before the batch norm, which is per channel",
    ),
    Setting(
        "ResNet-18/50 on ImageNet",
        "not stated",
        "masks of the last batch norm of a block select inputs of the next block; it and the projections are not pruned",
        "every batch norm loses its channels: those that add to a stream write theirs into zeros",
        "exact to the masked network, which the code's selection is not",
    ),
    Setting("network slimming", "Table 2", "train, prune, retrain", "drawn after the last epoch, weights kept, full schedule"),
    Setting(
        "LT one-shot, SNIP",
        "Table 2, single weights",
        "none",
        "p of all conv and linear weights together; masked, first weights, full schedule",
    ),
    Setting(
        "training FLOPs",
        "Table 2",
        "compute_flops.py",
        "2 a multiply-add of conv and linear layers, three passes, search and retraining",
        "gives the table's 30.25e15 for two dense trainings",
    ),
    Setting(
        "8-bit search",
        "SWALP: block floating point for weights, gradients, activations, errors, momentum",
        "main_lp.py: qtorch's, one exponent an index of the first dimension; outputs of convolutions and linear layers but the last",
        "block floating point, stochastic rounding of all five; outputs of batch norms and of the last layer too",
        "precision class bfp8; an earlier commit of the code rounds as WAGE does",
    ),
    Setting(
        "8-bit retraining (EB Train LL)",
        "SWALP; when it averages is not known",
        "main_c_lp.py: --swa_start 140, weights after each of the last 20 epochs count alike, at full precision; step schedule kept",
        "the code's; statistics of batch norms from one epoch of training batches, the average is read at full precision",
        "SWALP's own code starts at 200 of 300 epochs and holds the rate at 0.01 from there",
    ),
    Setting("trials", "not known; Fig 1 has error bars", "1", "3"),
)

DEVIATIONS = (
    Deviation(
        "accuracy",
        "best test accuracy over epochs (code)",
        "test accuracy at the end",
        "the best of 160 readings of the test set is selected on it; bias of a few tenths",
    ),
    Deviation("channels that go", "one more than p x channels (code)", "exactly p, rounded half up", "rule 1: exact counts"),
    Deviation(
        "a layer without channels",
        "vanishes (code, VGG)",
        "keeps its best channel",
        "the network must stay a network; happens at high p only",
    ),
    Deviation(
        "ResNet-18/50",
        "inputs selected by the mask of the batch norm before the sum (code)",
        "outputs of that batch norm removed, exactly",
        "the code's network is not the masked network",
    ),
    Deviation(
        "remainder of an epoch",
        "a short last batch (code)",
        "dropped: 195 batches of 256",
        "as everywhere in this program; 80 of 50,000 images",
    ),
    Deviation(
        "energy",
        "measured on a device, kJ",
        "not measured",
        "needs that device; wall time is in the records, `python -m bench.costs` sets it against FLOPs",
    ),
    Deviation(
        "8-bit numbers",
        "SWALP, 8-bit block floating point (text); one exponent an index of the first dimension (code)",
        "one exponent a row, filter or example, one a vector; symmetric integers",
        "an exponent for each element of a vector, which the code's rule comes to, would be 8-bit floating point",
    ),
    Deviation(
        "accuracy of 8-bit retraining",
        "not stated: the code prints the best of the rounded nets and the average's",
        "the average's at the end; that of the rounded weights it ends with is given beside it (last-iterate)",
        "the average is what SWALP trains for",
    ),
    Deviation(
        "ThiNet, SFP",
        "rows of Tables 2 and 3",
        "not run: published reference rows only",
        "other methods' codes; claims that need them have parts that are not run",
    ),
)
