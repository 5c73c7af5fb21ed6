"""P², the Personality Prompt: a portrait of the person, written by a language model, is the system prompt.

Jiang et al. 2024; paper, C.2: "The Personality Prompt uses an LLM to generate a series of descriptive sentences that
embody a particular person's characteristics and serves as a system prompt". Wording, temperature and length are those
of the released code, whose writer was Llama-3-70B-Instruct in NF4.
"""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.base import Backbone
from palign_bench.backbone.loading.weights import load
from palign_bench.backbone.local import LocalBackbone
from palign_bench.costs.clock import charge, measure
from palign_bench.files import canonical, read_json, write_json
from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.protocol import EvaluationProtocol

# Raise when the wording or sampling of portraits changes, or what is kept of them; also of the cells that they are in.
PORTRAIT_VERSION = 3  # 2: charged whole, measured anew, apart by the kind of device; 3: fastest products


class PersonalityPrompt(Aligner):
    """The portrait as the whole system prompt.

    ``writer``: ``self`` (the aligned model), ``released`` (the portraits that came with PAPI), ``template`` (a fixed
    sentence per statement, for models that cannot write) or the settings of another model. ``portraits``: folder in
    which written portraits are kept, so that one writer serves many aligned models; where costs are measured, each is
    written anew and none is kept.
    """

    def __init__(
        self,
        writer: str | Mapping[str, Any] = "self",
        max_new_tokens: int = 1024,
        temperature: float = 0.6,
        portraits: str = "runs/portraits",
    ):
        self.writer = writer
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.folder = Path(portraits)
        asked = {"released": {"portrait"}, "template": set()}.get(str(writer), {"generation"})
        self.needs = frozenset({"prompt"}) | asked
        if "generation" in asked:
            self.version = PORTRAIT_VERSION

    def prepare(self, backbone: Backbone | None, protocol: EvaluationProtocol) -> None:
        super().prepare(backbone, protocol)
        if self.writer == "released" and not protocol.is_the_papers:
            warnings.warn(
                f"method.writer=released under protocol={protocol.name}: the released portraits were written from "
                "stored answers, so they describe every negatively keyed item's opposite",
                stacklevel=2,
            )
        self._writer = None if isinstance(self.writer, str) else LocalBackbone(load(self.writer), protocol)

    def align(self, case: Case) -> Alignment:
        if self.writer == "released":
            if not case.portrait:
                raise ValueError("this person has no released portrait; use method.writer=self")
            return Alignment(system_prompt=case.portrait, summary={"writer": "released"})
        if self.writer == "template":
            portrait = self.protocol.template_portrait(case.known)
            return Alignment(system_prompt=portrait, summary={"writer": "template"})
        writer = self._writer or self.backbone
        text = self._portrait(writer, self.protocol.portrait_request(case.known, case.missing), case.seed)
        return Alignment(system_prompt=text, summary={"writer": writer.identity["name"]})

    def _portrait(self, writer: Backbone, request: str, seed: int) -> str:
        """The portrait; one that was written before is charged what it cost then, but for its memory."""
        if self.measured:
            return self._written(writer, request)
        identity = {
            "version": PORTRAIT_VERSION,
            "writer": dict(writer.identity),
            "request": request,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "seed": seed,
        }
        path = self.folder / f"{hashlib.sha256(canonical(identity).encode()).hexdigest()[:24]}.json"
        if path.exists():
            kept = read_json(path)
            charge(**kept["cost"])
            return str(kept["portrait"])
        with measure() as cost:
            text = self._written(writer, request)
        charged = {"seconds": cost.seconds, "joules": cost.joules, **cost.amounts}
        write_json(path, {"writer": writer.identity["name"], "cost": charged, "portrait": text})
        return text

    def _written(self, writer: Backbone, request: str) -> str:
        system = prompts.PORTRAIT_WRITER_SYSTEM_PROMPT
        return writer.generate(Alignment(), system, request, self.max_new_tokens, self.temperature)
