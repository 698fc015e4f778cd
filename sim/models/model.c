/*
 * Models: the schema of a study's `model:` mapping, the sizes of published models, and what follows from sizes.
 *
 * `layers` counts the layers with experts, not the dense ones. Each size was read in the paper's table or the
 * config.json that the reference names; the weights outside experts and gates are counted from it and shared out over
 * these layers.
 */
#include "sim/models/model.h"

#include <stddef.h>
#include <string.h>

const struct moesim_param moesim_model_params[] = {
    MOESIM_PARAM(struct moesim_model, name, "", 0, 0, "preset that gives the sizes which are not given here"),
    MOESIM_PARAM(struct moesim_model, layers, "0", 0, 1024, "layers with experts; 0 = the workload's, else 1"),
    MOESIM_PARAM(struct moesim_model, experts, "0", 0, 65536, "routed experts of a layer; 0 = the workload's"),
    MOESIM_PARAM(struct moesim_model, top_k, "0", 0, 65536, "experts per token; 0 = min(2, experts)"),
    MOESIM_PARAM(struct moesim_model, d_model, "0", 0, 131072, "width of a hidden state; 0 = the workload's, else 256"),
    MOESIM_PARAM(struct moesim_model, d_ff, "0", 0, 1048576, "inner width of one expert; 0 = 4 d_model"),
    MOESIM_CHOICE(struct moesim_model, activation, "swiglu", MOESIM_ACTIVATION_CHOICES,
                  "gelu and relu experts have two matrices, swiglu three"),
    MOESIM_PARAM(struct moesim_model, shared_experts, "0", 0, 64, "experts that every token uses, of the same size"),
    MOESIM_PARAM(struct moesim_model, n_groups, "0", 0, 65536,
                 "groups of experts of its own router, for placements that keep them together; 0 = none"),
    MOESIM_PARAM(struct moesim_model, weight_bytes, "2", 0.25, 8, "bytes of one expert weight"),
    MOESIM_PARAM(struct moesim_model, dispatch_bytes, "2", 1, 8, "bytes of one activation sent to an expert"),
    MOESIM_PARAM(struct moesim_model, combine_bytes, "2", 1, 8, "bytes of one activation sent back"),
    MOESIM_PARAM(
        struct moesim_model, dense_weights, "0", 0, 1e15,
        "weights of one layer outside its experts and gate: attention, its share of embeddings and dense layers"),
    MOESIM_PARAM(struct moesim_model, dense_bytes, "2", 0.25, 8, "bytes of one weight outside the experts"),
    MOESIM_PARAM(struct moesim_model, gradient_bytes, "4", 0.25, 8, "bytes of one weight's gradient"),
    MOESIM_PARAM(struct moesim_model, optimizer_bytes, "12", 0, 64,
                 "bytes of one weight's optimizer state; 12 = Adam in float32 with its master weight"),
    MOESIM_CHOICE(struct moesim_model, optimizer, "sharded", MOESIM_OPTIMIZER_CHOICES,
                  "optimizer state split over the devices that hold a weight, or copied to each"),
    MOESIM_PARAM_END,
};

/* What is outside the experts has the dtype of dispatched activations; training keeps Adam's state (Megatron-LM). */
#define MODEL(name_, layers_, experts_, top_k_, d_model_, d_ff_, activation_, shared_, groups_, weight_bytes_,         \
              dispatch_bytes_, dense_)                                                                                 \
    {                                                                                                                  \
        .name = (name_), .layers = (layers_), .experts = (experts_), .top_k = (top_k_), .d_model = (d_model_),         \
        .d_ff = (d_ff_), .activation = (activation_), .shared_experts = (shared_), .n_groups = (groups_),              \
        .weight_bytes = (weight_bytes_), .dispatch_bytes = (dispatch_bytes_), .combine_bytes = 2,                      \
        .dense_weights = (double)(dense_) / (layers_), .dense_bytes = (dispatch_bytes_), .gradient_bytes = 4,          \
        .optimizer_bytes = 12                                                                                          \
    }

const struct moesim_model_preset moesim_model_presets[] = {
    {MODEL("switch-base-128", 12, 128, 1, 768, 3072, MOESIM_RELU_MLP, 0, 0, 2, 2, 1.66e8),
     "Switch Transformer base, 128 experts, 7B",
     "Fedus et al. 2021, arXiv:2101.03961, table 9; config.json of google/switch-base-128 (6 + 6 sparse layers)",
     "switch"},
    {MODEL("gshard-600b", 18, 2048, 2, 1024, 8192, MOESIM_RELU_MLP, 0, 0, 2, 2, 6.0e8), "GShard MoE(2048E, 36L), 600B",
     "Lepikhin et al. 2020, arXiv:2006.16668, section 4 (experts in every other of 36 layers)", "gshard"},
    {MODEL("glam-64b", 32, 64, 2, 8192, 32768, MOESIM_GELU, 0, 0, 2, 2, 6.22e10), "GLaM (64B/64E), 1.2T",
     "Du et al. 2022, arXiv:2112.06905, table 4 (experts in every other of 64 layers)", "gshard"},
    {MODEL("mixtral-8x7b", 32, 8, 2, 4096, 14336, MOESIM_SWIGLU, 0, 0, 2, 2, 1.605e9), "Mixtral 8x7B, 47B",
     "Jiang et al. 2024, arXiv:2401.04088, table 1; config.json of mistralai/Mixtral-8x7B-v0.1",
     "softmax-topk:weight=sum"},
    {MODEL("olmoe-1b-7b", 16, 64, 8, 2048, 1024, MOESIM_SWIGLU, 0, 0, 2, 2, 4.75e8), "OLMoE-1B-7B",
     "Muennighoff et al. 2024, arXiv:2409.02060; config.json of allenai/OLMoE-1B-7B-0924", "softmax-topk"},
    {MODEL("qwen1.5-moe", 24, 60, 4, 2048, 1408, MOESIM_SWIGLU, 4, 0, 2, 2, 1.025e9), "Qwen1.5-MoE-A2.7B, 14B",
     "config.json of Qwen/Qwen1.5-MoE-A2.7B (shared width 5632 = 4 experts)", "softmax-topk"},
    {MODEL("qwen3-30b-a3b", 48, 128, 8, 2048, 768, MOESIM_SWIGLU, 0, 0, 2, 2, 1.529e9), "Qwen3-30B-A3B",
     "arXiv:2505.09388; config.json of Qwen/Qwen3-30B-A3B", "softmax-topk:weight=sum"},
    {MODEL("qwen3-235b-a22b", 94, 128, 8, 4096, 1536, MOESIM_SWIGLU, 0, 0, 2, 2, 7.95e9), "Qwen3-235B-A22B",
     "arXiv:2505.09388; config.json of Qwen/Qwen3-235B-A22B", "softmax-topk:weight=sum"},
    {MODEL("deepseek-v2", 59, 160, 6, 5120, 1536, MOESIM_SWIGLU, 2, 8, 2, 2, 1.019e10), "DeepSeek-V2, 236B",
     "arXiv:2405.04434, section 3.1.2; config.json of deepseek-ai/DeepSeek-V2 (60 layers, the first dense)",
     "deepseek-v2"},
    {MODEL("deepseek-v3", 58, 256, 8, 7168, 2048, MOESIM_SWIGLU, 1, 8, 1, 1, 1.446e10),
     "DeepSeek-V3, 671B, FP8 weights and dispatch",
     "arXiv:2412.19437, section 4.2; config.json of deepseek-ai/DeepSeek-V3 (61 layers, the first three dense)",
     "deepseek-v3"},
    {MODEL("glm-5.2", 75, 256, 8, 6144, 2048, MOESIM_SWIGLU, 1, 0, 2, 2, 1.62e10), "GLM-5.2, 744B",
     "GLM-5 report, table of architectures, whose sizes GLM-5.2 keeps (78 layers, the first three dense)",
     "deepseek-v3:n_groups=1,topk_groups=1"},
    {MODEL("gpt-oss-20b", 24, 32, 4, 2880, 2880, MOESIM_SWIGLU, 0, 0, 0.53125, 2, 1.795e9),
     "gpt-oss-20b, MXFP4 weights", "arXiv:2508.10925, table 1; config.json of openai/gpt-oss-20b",
     "softmax-topk:weight=softmax"},
    {MODEL("gpt-oss-120b", 36, 128, 4, 2880, 2880, MOESIM_SWIGLU, 0, 0, 0.53125, 2, 2.114e9),
     "gpt-oss-120b, MXFP4 weights", "arXiv:2508.10925, table 1; config.json of openai/gpt-oss-120b",
     "softmax-topk:weight=softmax"},
    {.model.name = NULL},
};

const struct moesim_model_preset *moesim_model_find(const char *name)
{
    for (const struct moesim_model_preset *preset = moesim_model_presets; preset->model.name; preset++)
        if (strcmp(preset->model.name, name) == 0)
            return preset;
    return NULL;
}

double moesim_model_flop_per_pair(const struct moesim_model *model)
{
    return 2.0 * moesim_model_matrices(model) * model->d_model * model->d_ff;
}

double moesim_model_expert_weights(const struct moesim_model *model)
{
    return (double)moesim_model_matrices(model) * model->d_model * model->d_ff;
}

double moesim_model_expert_bytes(const struct moesim_model *model)
{
    return moesim_model_expert_weights(model) * model->weight_bytes;
}

double moesim_model_device_dense(const struct moesim_model *model, uint32_t gate_columns, uint32_t tp)
{
    return model->dense_weights / tp + (double)model->d_model * gate_columns +
           model->shared_experts * moesim_model_expert_weights(model);
}

double moesim_model_token_bytes(const struct moesim_model *model, uint32_t element_bytes)
{
    const uint32_t scales = element_bytes == 1 ? (model->d_model + 127) / 128 : 0;
    return (double)model->d_model * element_bytes + (double)sizeof(float) * scales;
}
