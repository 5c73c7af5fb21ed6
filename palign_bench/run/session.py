"""What the jobs of one process share: the loaded model and the trackers."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palign_bench.backbone import loading
from palign_bench.backbone.base import Backbone
from palign_bench.backbone.loading.settings import model_title
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.served import serve
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.settings import Settings
from palign_bench.tracking.choose import make_tracker
from palign_bench.tracking.tracker import Tracker

# One at a time: a sweep over methods loads its model once.
_backbones: dict[str, tuple[Backbone, float]] = {}


_trackers: dict[str, Tracker] = {}


def load_backbone(model: Settings, protocol: EvaluationProtocol) -> tuple[Backbone, float]:
    """The backbone and the seconds that loading took; a model stays loaded until another is asked for."""
    key = repr(sorted(model.items(), key=str))
    if key not in _backbones:
        _backbones.clear()
        print(f"Loading {model_title(model)} …", file=sys.stderr, flush=True)
        started = time.perf_counter()
        if model["engine"] == "vllm":
            made: Backbone = serve(model, protocol)
        else:
            made = LocalBackbone(loading.load(model), protocol, engine=model["engine"])
        _backbones[key] = (made, time.perf_counter() - started)
    backbone, seconds = _backbones[key]
    backbone.protocol = protocol
    return backbone, seconds


def _tracker(settings: Mapping[str, Any], runs: Path) -> Tracker:
    key = repr(sorted(settings.items(), key=str))
    if key not in _trackers:
        _trackers[key] = make_tracker(settings, runs)
    return _trackers[key]
