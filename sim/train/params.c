#include "sim/train/params.h"

#include "sim/models/model.h"
#include "sim/train/config.h"
#include "sim/train/optimizer.h"

#define SIZE(field, def, help) MOESIM_PARAM(struct moesim_transformer_config, field, def, 1, 1 << 24, help)
#define SIZE_OR_0(field, def, help) MOESIM_PARAM(struct moesim_transformer_config, field, def, 0, 1 << 24, help)
#define RATE(field, def, min, max, help) MOESIM_PARAM(struct moesim_optimizer_config, field, def, min, max, help)

const struct moesim_param moesim_transformer_params[] = {
    SIZE(vocabulary, "256", "words; 256 for bytes"),
    SIZE(n_blocks, "4", "blocks of attention and FFN"),
    SIZE(d_model, "128", "numbers of a token's state"),
    SIZE(n_heads, "4", "heads of attention, which share d_model"),
    SIZE(sequence, "128", "tokens of a sequence"),
    SIZE(n_sequences, "8", "sequences of a micro-batch"),
    SIZE_OR_0(moe_every, "1", "every n-th block has an MoE layer, the others a dense FFN; 0 = none"),
    SIZE(n_experts, "8", "experts of an MoE layer"),
    SIZE(top_k, "2", "experts of a token"),
    SIZE_OR_0(n_shared, "0", "experts that every token passes"),
    SIZE(d_ff, "256", "inner width of an expert"),
    SIZE_OR_0(dense_d_ff, "0", "inner width of a dense FFN; 0 = as many FLOPs as a token's experts"),
    MOESIM_CHOICE(struct moesim_transformer_config, activation, "swiglu", MOESIM_ACTIVATION_CHOICES,
                  "of experts and dense FFNs"),
    MOESIM_CHOICE(struct moesim_transformer_config, positions, "rotary", MOESIM_POSITIONS_CHOICES,
                  "how attention knows a token's place"),
    MOESIM_PARAM(struct moesim_transformer_config, tied_head, "true", 0, 0, "the head's weight is the embedding's"),
    MOESIM_PARAM(struct moesim_transformer_config, gate_bias, "false", 0, 0, "the gate adds a learned bias"),
    MOESIM_PARAM(struct moesim_transformer_config, gate_std, "0.3", 0, 100,
                 "standard deviation of the logits at the start; 0 = 0.3"),
    SIZE_OR_0(n_devices, "1", "devices that a micro-batch is spread over, for routers that group by device"),
    MOESIM_PARAM_END,
};

const struct moesim_param moesim_optimizer_params[] = {
    RATE(learning_rate, "0.003", 1e-12, 1e6, "at its highest"),
    RATE(min_learning_rate, "0.0003", 0, 1e6, "at the end of the cosine"),
    RATE(warm_up, "100", 0, UINT32_MAX, "steps until the learning rate is at its highest"),
    RATE(steps, "1000", 1, UINT32_MAX, "steps of the optimizer"),
    RATE(beta1, "0.9", 0, 0.999999, "decay of the gradient's mean"),
    RATE(beta2, "0.95", 0, 0.999999, "decay of the mean of its square"),
    RATE(epsilon, "1e-8", 1e-30, 1, "added to the root of that mean"),
    RATE(weight_decay, "0.1", 0, 1e3, "of matrices, decoupled from the gradient"),
    RATE(clip, "1", 0, 1e9, "largest norm of the gradient; 0 = no limit"),
    MOESIM_PARAM_END,
};
