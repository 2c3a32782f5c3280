"""The composers of the paper's Table 3, CLIP4Cir's and LFM-IR, on frozen token features: one file each.

`COMPOSERS[name](config)` builds one; `ComposerConfig.variant` means nothing to them.
"""

from __future__ import annotations

from collections.abc import Callable

from fashion_retrieval.config import ComposerConfig
from training.composers.base import Baseline
from training.composers.clvc_net import ClvcNet
from training.composers.combiner import Combiner
from training.composers.cosmo import Cosmo
from training.composers.crn import Crn
from training.composers.dcnet import Dcnet
from training.composers.fashionvil import Fashionvil
from training.composers.lfm_ir import LfmIr
from training.composers.sac import Sac
from training.composers.tirg import Tirg
from training.composers.val import Val

COMPOSERS: dict[str, Callable[[ComposerConfig], Baseline]] = {
    "tirg": Tirg,
    "val": Val,
    "cosmo": Cosmo,
    "dcnet": Dcnet,
    "sac": Sac,
    "fashionvil": Fashionvil,
    "clvc_net": ClvcNet,
    "crn": Crn,
    "combiner": Combiner,
    "lfm_ir": LfmIr,
}
"""In the order of the paper's table; those that it lacks last."""
