"""Model families. ``MODELS`` is the whole registry; ``--with my.py`` adds to a copy of it."""
from ltcore.models.actor_critic import ActorCritic, ActorCriticConv
from ltcore.models.build import INITS, draw_state, layer_kinds, layer_sizes, own_state, skeleton, split_state
from ltcore.models.conv import Conv
from ltcore.models.layers import Dropout
from ltcore.models.lenet import LeNet
from ltcore.models.lstm import LanguageLSTM
from ltcore.models.preresnet import PreResNet
from ltcore.models.resnet import ResNet
from ltcore.models.torchvision_nets import torchvision_net
from ltcore.models.transformer import Transformer
from ltcore.models.vgg import VGG

MODELS = {
    "lenet": LeNet, "conv": Conv, "vgg": VGG, "resnet": ResNet, "preresnet": PreResNet, "torchvision": torchvision_net,
    "actor-critic": ActorCritic, "actor-critic-conv": ActorCriticConv, "lstm": LanguageLSTM, "transformer": Transformer,
}  # fmt: skip

__all__ = [
    "INITS", "MODELS", "VGG", "ActorCritic", "ActorCriticConv", "Conv", "Dropout", "LanguageLSTM", "LeNet", "PreResNet", "ResNet", "Transformer",
    "draw_state", "layer_kinds", "layer_sizes", "own_state", "skeleton", "split_state", "torchvision_net",
]  # fmt: skip
