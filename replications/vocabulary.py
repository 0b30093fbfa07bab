"""Names that every paper's file may use; a file declares further ones under ``arms``, ``metrics`` and ``controls``."""

ARMS = frozenset({
    "dense", "ticket", "reinit", "random-mask", "random-prune", "one-shot", "one-shot-reinit", "continued", "snip", "grasp",
    "synflow", "magnitude-at-init", "rigl", "dpf", "random-ticket", "ett", "direct-transfer", "early-bird", "network-slimming",
    "thinet", "sfp",
})
METRICS = frozenset({
    "test_accuracy_pct", "train_accuracy_pct", "val_accuracy_pct", "test_top1_pct", "test_top5_pct", "test_loss", "early_stop_it",
    "log_perplexity", "bleu", "episode_return", "stability_l2", "stability_angle_deg", "mask_distance",
    "max_accuracy_drop_on_path_pp", "training_flops", "training_energy_kJ", "wall_time_s",
})
# A paper's word -> the metric that our networks are measured by: top-1 is plain accuracy.
SAME_METRIC = {"test_top1_pct": "test_accuracy_pct"}
CONTROLS = frozenset({
    "fresh-rewind", "largest-pruned", "shuffled-mask", "shuffled-labels", "no-training", "swapped-arms",
})
# endings of metrics that a file may use without listing them
UNITS = ("_pct", "_pp", "_it", "_ep", "_s", "_h", "_kJ", "_ratio", "_flops", "_count", "_deg", "_l2", "_millions")
PCT_COUNTS = frozenset({"prunable", "all-weights", "channels"})
# keys that conditions must not use (percent removed, other words for arm)
OLD_KEYS = ("strategy", "method", "ticket", "net", "sparsity_pct", "weights_removed_pct", "pruned_pct")
