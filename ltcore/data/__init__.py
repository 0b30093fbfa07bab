"""Data sets as whole tensors: `load` a named one, `from_user` a user's own, `split` validation examples off."""

from ltcore.data.corpus import Corpus
from ltcore.data.dataset import Dataset, Split, build, fingerprint, split
from ltcore.data.sources import DATASETS, is_official, load
from ltcore.data.user import from_user

__all__ = ["DATASETS", "Corpus", "Dataset", "Split", "build", "fingerprint", "from_user", "is_official", "load", "split"]
