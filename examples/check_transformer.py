"""A transformer block that is looped, as in looped and recurrent-depth transformers, under examination:

    settle check examples/check_transformer.py:model -o check.html

One block of Hugging Face's GPT-2, with random weights, is applied again and again to the same tokens. Soft-max
attention has no Lipschitz constant, layer normalisation hardly one, and the residual connections add 1 to whatever
there is: what can be said is said at the fixed point itself. pip install transformers
"""

import torch
from transformers import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from settlepoint.certify import Subject


class Loop(torch.nn.Module):
    """x -> share * block(x) + u, with the embedded tokens u added in every round, as recurrent-depth models do."""

    def __init__(self, width=32, heads=4, share=0.4):
        super().__init__()
        config = GPT2Config(n_embd=width, n_head=heads, n_positions=16, attn_implementation="eager")
        self.block, self.share = GPT2Block(config, layer_idx=0), share

    def forward(self, x, u):
        out = self.block(x)
        return self.share * (out[0] if isinstance(out, tuple) else out) + u


def model():
    torch.manual_seed(0)
    u = torch.randn(32, 8, 32)  # 32 sequences of 8 tokens
    return Subject(Loop().eval(), (torch.zeros_like(u), u), depth=8, name="A looped GPT-2 block")
