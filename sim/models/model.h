/*
 * The model whose MoE layers are routed and priced: sizes and dtypes, from a preset or the study.
 */
#ifndef MOESIM_SIM_MODEL_H
#define MOESIM_SIM_MODEL_H

#include <stdint.h>

#include <moesim/param.h>
#include <moesim/status.h>

/* Where the optimizer's state of a weight is: split over the devices that hold a copy, or whole on each. */
enum moesim_optimizer { MOESIM_OPTIMIZER_SHARDED, MOESIM_OPTIMIZER_COPIED };
#define MOESIM_OPTIMIZER_CHOICES "sharded|copied"

enum moesim_activation { MOESIM_GELU, MOESIM_RELU_MLP, MOESIM_SWIGLU };
#define MOESIM_ACTIVATION_CHOICES "gelu|relu|swiglu"

/* Also the params struct of the study's `model:` mapping; 0 = not given (the workload or the defaults decide). */
struct moesim_model {
    const char *name; /* of the preset; "" without one */
    uint32_t layers, experts, top_k, d_model, d_ff;
    uint32_t activation; /* enum moesim_activation */
    uint32_t shared_experts;
    uint32_t n_groups;       /* of experts that its own router limits tokens to; 0 = none */
    double weight_bytes;     /* of one expert weight; 0.53125 = MXFP4 with its scales */
    uint32_t dispatch_bytes; /* of one activation on its way to the expert */
    uint32_t combine_bytes;  /* of one activation on its way back */
    double dense_weights;    /* of one layer outside its experts and gate: attention, its share of what is left */
    double dense_bytes;      /* of one such weight */
    double gradient_bytes;   /* of one weight's gradient */
    double optimizer_bytes;  /* of one weight's optimizer state */
    uint32_t optimizer;      /* enum moesim_optimizer */
};

/* The schema of `model:`; the same rows describe a preset. */
extern const struct moesim_param moesim_model_params[];

/* The presets, for `list models`; ended by a row with name NULL. `reference` says where the sizes come from. */
struct moesim_model_preset {
    struct moesim_model model;
    const char *summary, *reference;
    const char *router; /* SPEC of the model's published router; NULL = not among our routers */
};
extern const struct moesim_model_preset moesim_model_presets[];

/* The preset of that name, or NULL. */
const struct moesim_model_preset *moesim_model_find(const char *name);

/* Matrices of one expert: 3 for SwiGLU, else 2. */
static inline uint32_t moesim_model_matrices(const struct moesim_model *model)
{
    return model->activation == MOESIM_SWIGLU ? 3 : 2;
}

/* FLOP of one token through one expert, forward: 6 d_model d_ff for SwiGLU, 4 d_model d_ff for two matrices. */
double moesim_model_flop_per_pair(const struct moesim_model *model);

/* One expert's weights, 3 (SwiGLU) or 2 matrices of d_model x d_ff, and their bytes. */
double moesim_model_expert_weights(const struct moesim_model *model);
double moesim_model_expert_bytes(const struct moesim_model *model);

/* Weights that every device holds of one layer: a tp-th of the dense ones, the gate, the shared experts. */
double moesim_model_device_dense(const struct moesim_model *model, uint32_t gate_columns, uint32_t tp);

/* Bytes of one token on the wire with `element_bytes` an activation; one-byte activations carry a float32 scale per 128
 * elements (DeepEP: 7392 bytes at d_model 7168). */
double moesim_model_token_bytes(const struct moesim_model *model, uint32_t element_bytes);

#endif
