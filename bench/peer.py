"""The work of moesim-bench in PyTorch and numpy, in a process that waits until it is told.

Arguments: library, task, tokens, experts, k, capacity, d_model, d_ff, threads. Prints its name, or "none" without the
library; reads its data; then obeys lines "ORDER TIMES" and answers each with seconds by the clock and of all its
threads on their processors, with those it has used since it began, and with a figure that tells equal work.
"""
import sys
import time

library, task = sys.argv[1:3]
tokens, experts, k, capacity, d_model, d_ff, threads = map(int, sys.argv[3:])
try:
    import numpy
    if library == "torch":
        import torch
except ImportError:
    print("none", flush=True)
    sys.exit(0)


def read(kind, *shape):
    count = 4
    for n in shape:
        count *= n
    return numpy.frombuffer(sys.stdin.buffer.read(count), dtype=kind).reshape(shape).copy()


def torch_routing():
    """softmax over experts, then the k largest of a token, or the tokens of an expert."""
    logits = torch.from_numpy(read(numpy.float32, tokens, experts))
    scores = torch.empty_like(logits)
    out = (torch.empty(tokens, k), torch.empty(tokens, k, dtype=torch.int64))

    def plain():
        return torch.topk(torch.softmax(logits, dim=-1), k, dim=-1)[1]

    def with_out():
        torch.softmax(logits, dim=-1, out=scores)
        return torch.topk(scores, k, dim=-1, out=out)[1]

    def expert_choice():
        return torch.topk(torch.softmax(logits, dim=-1), capacity, dim=0)[1]

    def expert_choice_turned():
        return torch.topk(torch.softmax(logits, dim=-1).t().contiguous(), capacity, dim=1)[1]

    return {"plain": plain, "out": with_out, "expert-choice": expert_choice, "turned": expert_choice_turned}


def numpy_routing():
    logits = read(numpy.float32, tokens, experts)

    def plain():
        scores = numpy.exp(logits - logits.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        chosen = numpy.argpartition(scores, experts - k, axis=1)[:, experts - k:]
        numpy.take_along_axis(scores, chosen, axis=1)
        return chosen

    return {"plain": plain}


def torch_layer():
    """A Mixtral-style SwiGLU layer: one expert after the other, its tokens picked out by index."""
    torch.manual_seed(1)
    w_in, w_gate = (torch.randn(experts, d_ff, d_model) / d_model**0.5 for _ in range(2))
    w_out = torch.randn(experts, d_model, d_ff) / d_ff**0.5
    hidden, d_output = torch.randn(tokens, d_model), torch.randn(tokens, d_model)
    weight = torch.full((tokens, k), 1.0 / k)
    chosen = torch.from_numpy(read(numpy.int32, tokens, k))
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

    def forward():
        with torch.no_grad():
            layer(hidden, weight, w_in, w_gate, w_out)
        return chosen

    def backward():
        x, routing, *matrices = [t.detach().requires_grad_() for t in learned]
        parts = [matrices[i * experts:(i + 1) * experts] for i in range(3)]
        layer(x, routing, *parts).backward(d_output)
        return chosen

    return {"forward": forward, "backward": backward}


if library == "torch":
    torch.set_num_threads(threads)
    print("PyTorch", torch.__version__.split("+")[0], flush=True)
    orders = torch_layer() if task == "layer" else torch_routing()
else:
    print("numpy", numpy.__version__, flush=True)
    orders = numpy_routing()

while True:
    words = sys.stdin.buffer.readline().split()
    if not words:
        break
    run, times = orders[words[0].decode()], int(words[1])
    if times > 1:
        run()  # wakes the threads up
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        found = run()
    wall, used = time.perf_counter() - wall, time.process_time()
    print(wall, used - cpu, used, int(found.sum()), flush=True)
