"""One loop that trains R replicates: optimisers, back ends, batches, evaluation."""
