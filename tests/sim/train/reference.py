#!/usr/bin/python3
"""Trains a small language model with MoE layers a second time, in double precision with torch.

    reference.py FOLDER MODE...

FOLDER holds what tests/sim/train/curve.c wrote: header.json (sizes, router, optimizer, names and shapes of the
tensors), weights.bin (float32, the start), tokens.bin (uint32, for every micro-batch the tokens, then what they are to
predict; 2^32 - 1 = nothing) and decisions.bin (int32, for every micro-batch, MoE layer, token and choice the expert and
whether it served the token). MODE `forced` takes these decisions and works out their weights, `free` routes by itself.
Prints a line `MODE step loss aux` for every step, and of `forced` `memory layer expert bias` at the end. Ends with
status 77 where there is no torch.

Nothing here comes from the program under test: the model is written from the formulas, gradients are torch's.
"""

import json
import math
import sys

try:
    import torch
except ImportError:
    sys.exit(77)

NO_TARGET = 2**32 - 1


def read(path, dtype):
    with open(path, "rb") as file:
        return torch.frombuffer(bytearray(file.read()), dtype=dtype)


class Run:
    """The start of a training, as recorded."""

    def __init__(self, folder):
        with open(folder + "/header.json", encoding="utf-8") as file:
            header = json.load(file)
        self.model, self.router, self.optimizer = header["model"], header["router"], header["optimizer"]
        self.tensors = header["tensors"]
        self.steps, self.micro_batches = header["steps"], header["micro_batches"]
        self.start = read(folder + "/weights.bin", torch.float32).double()
        n_tokens = self.model["sequences"] * self.model["sequence"]
        words = read(folder + "/tokens.bin", torch.int32).long() & NO_TARGET
        self.words = words.view(self.steps, self.micro_batches, 2, n_tokens)
        decisions = read(folder + "/decisions.bin", torch.int32).long()
        self.decisions = decisions.view(self.steps, self.micro_batches, -1, n_tokens, self.router["k"], 2)

    def sizes(self):
        return [t["parts"] * t["rows"] * t["columns"] for t in self.tensors]

    def weights(self, flat):
        """Views of the vector of all weights, by name: matrices, or experts' matrices one after the other."""
        views = {}
        for tensor, part in zip(self.tensors, flat.split(self.sizes())):
            shape = (tensor["parts"], tensor["rows"], tensor["columns"])
            views[tensor["name"]] = part.view(shape if "experts" in tensor["name"] else shape[1:])
        return views

    def decays(self):
        """1 for every number that weight decay takes part of: matrices but for embeddings, not gains and biases."""
        spared = ("embedding", "position", "gain", "bias")
        kept = [0.0 if t["name"].endswith(spared) else 1.0 for t in self.tensors]
        return torch.cat([torch.full((n,), k, dtype=torch.float64) for n, k in zip(self.sizes(), kept)])


# ---- routing ----


def scores_of(router, logits):
    return torch.sigmoid(logits) if router["score"] == "sigmoid" else torch.softmax(logits, -1)


def best(values, k):
    """The k largest of each row, the lower index first among equals."""
    return torch.sort(values, dim=-1, descending=True, stable=True).indices[:, :k]


def choose(router, scores, bias):
    """Experts of each token: the k best by score + bias, within its best groups of experts where there are groups."""
    ranked = (scores + bias).detach()
    n_groups = router["expert_groups"]
    if n_groups > 1:
        grouped = ranked.view(len(ranked), n_groups, -1)
        of_group = torch.sort(grouped, -1, descending=True).values[:, :, :2].sum(-1)
        inside = torch.zeros_like(of_group).scatter_(1, best(of_group, router["kept_groups"]), 1)
        ranked = torch.where(inside.unsqueeze(-1) > 0, grouped, -math.inf).reshape(ranked.shape)
    return best(ranked, router["k"])


def fit(router, experts, n_experts):
    """1 where an expert still has room for the token: earlier tokens of a group come first."""
    kept = torch.ones_like(experts)
    if not router["capacity_factor"]:
        return kept
    group = len(experts) // router["token_groups"]
    capacity = max(min(group, int(group * router["capacity_factor"] / n_experts)), 4)
    taken = {}
    for token, row in enumerate(experts.tolist()):
        for rank, expert in enumerate(row):
            key = (token // group, expert)
            taken[key] = taken.get(key, 0) + 1
            kept[token, rank] = taken[key] <= capacity
    return kept


def weights_of(router, scores, experts):
    """What the outputs of the chosen experts are multiplied by, [tokens][k]."""
    chosen = scores.gather(1, experts)
    if router["weight"] == "sum":
        chosen = chosen / chosen.sum(-1, keepdim=True)
    return router["scale"] * chosen


def counts(experts, n_experts):
    return torch.bincount(experts.flatten(), minlength=n_experts).double()


def balancing_loss(router, scores, experts):
    """coef * E * sum_e f_e P_e of each group of tokens, and the mean over the groups."""
    n_experts = scores.shape[-1]
    if router["aux_by_best_scores"]:
        experts = best(scores.detach(), router["k"])
    if router["score"] == "sigmoid":
        scores = scores / scores.sum(-1, keepdim=True)
    n_groups, total = router["aux_groups"], 0
    for s, e in zip(scores.chunk(n_groups), experts.chunk(n_groups)):
        share = counts(e, n_experts) / e.numel()
        total = total + n_experts * (share * s.mean(0)).sum() / n_groups
    return router["aux_coef"] * total


# ---- the model ----


def norm(x, gain):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * gain


def activate(name, inner, gate):
    if name == "swiglu":
        return gate * torch.sigmoid(gate) * inner
    return 0.5 * inner * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))


class Model:
    def __init__(self, run):
        self.run, self.sizes, self.router = run, run.model, run.router
        n_moe = run.decisions.shape[2]
        self.bias = torch.zeros(n_moe, self.sizes["experts"], dtype=torch.float64)
        self.load = torch.zeros_like(self.bias)
        half = self.sizes["d_model"] // self.sizes["heads"] // 2
        places = torch.arange(self.sizes["sequence"], dtype=torch.float64).unsqueeze(1)
        self.angle = places * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)

    def rotate(self, x):
        """Pairs (i, i + half) of a head's numbers turned by the token's place."""
        if self.sizes["positions"] != "rotary":
            return x
        a, b = x.chunk(2, -1)
        cos, sin = self.angle.cos(), self.angle.sin()
        return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)

    def attention(self, x, qkv, out):
        s = self.sizes
        n, d_head = s["sequence"], s["d_model"] // s["heads"]
        heads = [part.view(-1, n, s["heads"], d_head).transpose(1, 2) for part in (x @ qkv).chunk(3, -1)]
        query, key, value = self.rotate(heads[0]), self.rotate(heads[1]), heads[2]
        later = torch.ones(n, n, dtype=torch.bool).triu(1)
        match = (query @ key.transpose(-1, -2) / math.sqrt(d_head)).masked_fill(later, -math.inf)
        mixed = torch.softmax(match, -1) @ value
        return mixed.transpose(1, 2).reshape(x.shape) @ out

    def ffn(self, x, w, name):
        """[tokens][d_model], or what every expert makes of every token, [experts][tokens][d_model]."""
        gate = x @ w[name + ".gate"] if name + ".gate" in w else None
        return activate(self.sizes["activation"], x @ w[name + ".in"], gate) @ w[name + ".out"]

    def moe(self, x, w, name, layer, decisions):
        """The layer's output and its auxiliary losses."""
        n_experts = self.sizes["experts"]
        logits = x @ w[name + "gate.weight"] + w.get(name + "gate.bias", 0)
        scores = scores_of(self.router, logits)
        if decisions is None:
            experts = choose(self.router, scores, self.bias[layer])
            kept = fit(self.router, experts, n_experts)
        else:
            experts, kept = decisions[layer].unbind(-1)
        self.load[layer] += counts(experts, n_experts)
        weight = weights_of(self.router, scores, experts) * kept
        of_expert = torch.zeros_like(scores).scatter(1, experts, weight)
        made = self.ffn(x, w, name + "experts")
        out = (of_expert.t().unsqueeze(-1) * made[:n_experts]).sum(0) + made[n_experts:].sum(0)
        z = torch.logsumexp(logits, -1)
        return out, balancing_loss(self.router, scores, experts) + self.router["z_coef"] * (z * z).mean()

    def losses(self, w, words, decisions):
        """Mean cross-entropy over the targets, and the auxiliary losses of all layers."""
        s, aux, layer = self.sizes, 0.0, 0
        token, target = words
        x = w["embedding"].t()[token]
        if s["positions"] == "learned":
            x = x + w["position"].repeat(s["sequences"], 1)
        for block in range(s["blocks"]):
            b = f"blocks.{block}."
            x = x + self.attention(norm(x, w[b + "norm1.gain"]), w[b + "attention.qkv"], w[b + "attention.out"])
            normed = norm(x, w[b + "norm2.gain"])
            if b + "gate.weight" in w:
                made, more = self.moe(normed, w, b, layer, decisions)
                aux, layer = aux + more, layer + 1
            else:
                made = self.ffn(normed, w, b + "ffn")
            x = x + made
        logits = norm(x, w["norm.gain"]) @ w["embedding" if s["tied_head"] else "head"]
        asked = target != NO_TARGET
        return torch.nn.functional.cross_entropy(logits[asked], target[asked]), aux

    def update_bias(self):
        """Experts with less than the mean load of the global batch get gamma more, those with more get less."""
        self.bias += self.router["gamma"] * torch.sign(self.load.mean(-1, keepdim=True) - self.load)
        self.load.zero_()


# ---- training ----


def learning_rate(o, step, steps):
    if step < o["warm_up"]:
        return o["learning_rate"] * (step + 1) / o["warm_up"]
    cosine = (1 + math.cos(math.pi * (step - o["warm_up"]) / (steps - o["warm_up"]))) / 2
    return o["min_learning_rate"] + (o["learning_rate"] - o["min_learning_rate"]) * cosine


class AdamW:
    def __init__(self, run):
        self.o, self.steps, self.decays = run.optimizer, run.steps, run.decays()
        self.first, self.second = torch.zeros_like(run.start), torch.zeros_like(run.start)

    def update(self, step, weight, gradient):
        o, rate, size = self.o, learning_rate(self.o, step, self.steps), gradient.norm().item()
        if size > o["clip"]:
            gradient = gradient * (o["clip"] / size)
        self.first = o["beta1"] * self.first + (1 - o["beta1"]) * gradient
        self.second = o["beta2"] * self.second + (1 - o["beta2"]) * gradient * gradient
        mean = self.first / (1 - o["beta1"] ** (step + 1))
        spread = (self.second / (1 - o["beta2"] ** (step + 1))).sqrt()
        weight -= rate * (mean / (spread + o["epsilon"]) + o["weight_decay"] * self.decays * weight)


def train(run, mode):
    model, adamw = Model(run), AdamW(run)
    flat = run.start.clone().requires_grad_()
    for step in range(run.steps):
        loss_sum, aux_sum = 0.0, 0.0
        flat.grad = None
        for micro in range(run.micro_batches):
            decisions = run.decisions[step, micro] if mode == "forced" else None
            loss, aux = model.losses(run.weights(flat), run.words[step, micro], decisions)
            ((loss + aux) / run.micro_batches).backward()
            loss_sum, aux_sum = loss_sum + loss.item(), aux_sum + aux.item()
        with torch.no_grad():
            adamw.update(step, flat, flat.grad)
            model.update_bias()
        print(mode, step, loss_sum / run.micro_batches, aux_sum / run.micro_batches)
    for layer, bias in enumerate(model.bias.tolist() if mode == "forced" else []):
        for expert, value in enumerate(bias):
            print("memory", layer, expert, value)


def main():
    torch.set_num_threads(1)
    run = Run(sys.argv[1])
    for mode in sys.argv[2:]:
        train(run, mode)


main()
