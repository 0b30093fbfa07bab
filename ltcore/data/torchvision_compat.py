"""The one place that imports torchvision.

A torchvision built for another PyTorch (the wheel of the package index beside a CPU-only torch, say) cannot load its compiled operators, and
then `import torchvision` stops with "operator torchvision::nms does not exist", raised where `torchvision._meta_registrations` describes those
operators to the compiler. Reading data sets and building classifiers need none of them. So, only when the plain import fails that way, an empty module of that name is
put in place and the import tried once more.
"""

import importlib
import sys
import types

from ltcore.errors import UserError


def torchvision_datasets() -> types.ModuleType:
    """The module `torchvision.datasets`. Raises UserError where torchvision is missing or does not import even so."""
    try:
        return _import()
    except ImportError as error:
        raise UserError(f"torchvision does not import ({error}): pip install torchvision") from error
    except RuntimeError as error:
        raise UserError(f"torchvision does not import ({error}): install the torchvision that belongs to your torch") from error


def torchvision_models() -> types.ModuleType:
    """The module `torchvision.models`; raises as `torchvision_datasets` does."""
    torchvision_datasets()  # puts the empty module in place where that is needed
    return importlib.import_module("torchvision.models")


def torchvision_transforms() -> types.ModuleType:
    """The module `torchvision.transforms`; raises as `torchvision_datasets` does."""
    torchvision_datasets()
    return importlib.import_module("torchvision.transforms")


def shimmed() -> bool:
    """Whether torchvision was imported with the empty module in place, that is, without its compiled operators."""
    return getattr(sys.modules.get(_META), "placed_by_ltcore", False)


_META = "torchvision._meta_registrations"


def _import() -> types.ModuleType:
    try:
        return importlib.import_module("torchvision.datasets")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    empty = types.ModuleType(_META)
    empty.placed_by_ltcore = True
    sys.modules[_META] = empty
    return importlib.import_module("torchvision.datasets")
