"""S2-Attn on a transformers model: which token hears which, while training and in evaluation.

    python examples/s2_attention.py

A randomly initialised one-layer Llama and one packed row of two documents, 12 and 4 tokens, in groups of 4 tokens.
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ray_jobs.finetune.attention import register_s2_attention

LENGTHS = (12, 4)


def main() -> None:
    torch.manual_seed(0)
    register_s2_attention()
    config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=64)  # fmt: skip
    config.s2_group_size = 4
    model = LlamaForCausalLM._from_config(config, attn_implementation="s2")
    positions = torch.cat([torch.arange(n) for n in LENGTHS])[None]  # they restart at each document
    embedded = torch.randn(1, sum(LENGTHS), config.hidden_size)

    def hidden(x: torch.Tensor) -> torch.Tensor:
        return model.model(inputs_embeds=x, position_ids=positions).last_hidden_state[0].sum(-1)

    for training, name in ((True, "training: S2-Attn"), (False, "evaluation: full attention")):
        model.train(training)
        heard = torch.autograd.functional.jacobian(hidden, embedded)[:, 0].abs().sum(-1) > 1e-7  # [T, T]
        print(f"{name}, {int(heard.sum())} of {heard.numel()} pairs")
        for row in heard.tolist():
            print("  " + " ".join("#" if pair else "." for pair in row))


if __name__ == "__main__":
    main()
