/*
 * softmax-topk: every token takes its k best experts by the softmax of the gate's logits.
 *
 * The router of most Mixture-of-Experts models; weight = none gives the raw probabilities (OLMoE, Qwen2-MoE), sum and
 * softmax give weights that sum to 1 (Mixtral, Shazeer et al. 2017). Dropless unless it is given a capacity factor.
 */
#include <moesim/kernels.h>
#include <moesim/router.h>

static const struct moesim_param softmax_topk_schema[] = {
    MOESIM_TOKEN_CHOICE_PARAMS(struct moesim_choice_params, choice, "top_k", "none", "0", "megatron", "token"),
    MOESIM_ROUNDS_PARAMS(struct moesim_choice_params, choice, "0"),
    MOESIM_SECOND_PARAMS(struct moesim_choice_params, choice, "all", "0.5"),
    MOESIM_GROUPS_PARAMS(struct moesim_choice_params, choice, "1", "1", "max"),
    MOESIM_BIAS_PARAMS(struct moesim_choice_params, choice, "none", "0.001"),
    MOESIM_NOISE_PARAMS(struct moesim_choice_params, choice, "0"),
    MOESIM_AUX_PARAMS(struct moesim_choice_params, choice, "none", "0.01", "all", "before-drop"),
    MOESIM_PARAM_END,
};

const struct moesim_router moesim_router_softmax_topk = {
    MOESIM_ROUTER_HEAD,
    MOESIM_CHOICE_HOOKS,
    .name = "softmax-topk",
    .summary = "each token takes its k experts of highest softmax probability",
    .reference = "Shazeer et al., Outrageously Large Neural Networks, ICLR 2017; Muennighoff et al., OLMoE, 2024",
    .params = softmax_topk_schema,
};
