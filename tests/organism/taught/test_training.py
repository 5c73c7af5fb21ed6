"""What is kept of a teaching is what was taught."""

import json

import pandas as pd
import torch
from peft import PeftModel

from palign_bench.organism.taught.network import Network, Tree
from palign_bench.organism.taught.stages import STAGES
from palign_bench.organism.taught.training import ALPHA, RANK, _keep, write_adapter
from tests.tiny import tiny_model, tiny_tokenizer


def test_peft_makes_the_taught_model_of_the_kept_adapter(tmp_path):
    network = Network(tiny_model(tiny_tokenizer()), RANK, ALPHA / RANK, seed=0)
    with torch.no_grad():
        for each in network.differences(range(network.layers)):
            each.copy_((0.05 * torch.randn(each.shape)).bfloat16())  # as it is kept
    network.merge(range(network.layers))
    write_adapter(tmp_path, network)
    merged = PeftModel.from_pretrained(tiny_model(tiny_tokenizer()), str(tmp_path)).merge_and_unload()
    tree = Tree.of(range(5, 60))
    with torch.no_grad():
        expected = merged(input_ids=tree.ids[None]).logits[0]
        plain = tiny_model(tiny_tokenizer())(input_ids=tree.ids[None]).logits[0]
    torch.testing.assert_close(network.logits(network.run(tree, 0, network.layers)[0]), expected, atol=2e-4, rtol=1e-4)
    assert float((plain - expected).abs().max()) > 0.1


def test_steps_done_again_after_a_kill_are_logged_once(tmp_path):
    lines = [{"stage": stage.name, "step": step, "loss": 1 / step} for stage in STAGES for step in (1, 2, 2, 3)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    network = Network(tiny_model(tiny_tokenizer()), RANK, ALPHA / RANK, seed=0)
    _keep(tmp_path, tmp_path / "adapter", network, {"share": 1.0, "seed": 0})
    log = pd.read_csv(tmp_path / "adapter" / "teaching.csv")
    assert list(log["step"]) == [1, 2, 3] * len(STAGES)
    assert list(log["stage"].unique()) == [stage.name for stage in STAGES]
