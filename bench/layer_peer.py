"""A Mixtral-style SwiGLU layer in PyTorch, for bench-layer: one expert after the other, its tokens picked out by index.

Arguments: experts, k, d_model, d_ff, tokens, threads. Prints its name, or "none" without PyTorch; reads the choices as
uint32 [tokens][k], then a letter a run: f = forward, b = forward and backward; answers with seconds by the clock and of
all its threads on their processors.
"""
import sys
import time

try:
    import torch
except ImportError:
    print("none", flush=True)
    sys.exit(0)

experts, k, d_model, d_ff, tokens, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads)
torch.manual_seed(1)
w_in, w_gate = (torch.randn(experts, d_ff, d_model) / d_model**0.5 for _ in range(2))
w_out = torch.randn(experts, d_model, d_ff) / d_ff**0.5
hidden = torch.randn(tokens, d_model)
d_output = torch.randn(tokens, d_model)
weight = torch.full((tokens, k), 1.0 / k)
learned = [hidden, weight, *(m[e] for m in (w_in, w_gate, w_out) for e in range(experts))]


def layer(x, routing, up, gate, down):
    output = x.clone()
    for e in range(experts):
        token, choice = torch.where(chosen == e)
        if len(token) == 0:
            continue
        rows = x[token]
        inner = torch.nn.functional.silu(rows @ gate[e].T) * (rows @ up[e].T)
        output.index_add_(0, token, (inner @ down[e].T) * routing[token, choice, None])
    return output


def run(backward):
    if not backward:
        with torch.no_grad():
            layer(hidden, weight, w_in, w_gate, w_out)
        return
    x, routing, *matrices = [t.detach().requires_grad_() for t in learned]
    parts = [matrices[i * experts:(i + 1) * experts] for i in range(3)]
    layer(x, routing, *parts).backward(d_output)


print(f"PyTorch {torch.__version__}, {threads} threads", flush=True)
chosen = torch.tensor(memoryview(sys.stdin.buffer.read(4 * tokens * k)).cast("i").tolist()).view(tokens, k)
while True:
    order = sys.stdin.buffer.read(1)
    if not order:
        break
    wall, cpu = time.perf_counter(), time.process_time()
    run(order == b"b")
    print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)
