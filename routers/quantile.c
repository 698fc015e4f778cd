/*
 * quantile: every token takes the k experts of highest logit plus bias; the weights are the scores of those experts and
 * know nothing of the bias. After each global batch the bias becomes the one by which that batch would have been even:
 * one step of coordinate descent on the dual of the balanced assignment, with no step size to choose. With alpha_t the
 * (k + 1)-th best of a token's logits plus bias, an expert's bias is minus the (T k / E + 1)-th largest of its logits
 * less alpha_t, less the mean over experts; T k must be a multiple of E. Micro-batches are averaged.
 *
 * Su Jianlin, quantile balancing, 2026; as in Megatron-LM, whose beta is minus this bias.
 */
#include <moesim/kernels.h>
#include <moesim/router.h>

static const struct moesim_param quantile_schema[] = {
    MOESIM_TOKEN_CHOICE_PARAMS(struct moesim_choice_params, choice, "top_k", "none", "0", "megatron", "token"),
    MOESIM_BIAS_ON_PARAMS(struct moesim_choice_params, choice, "logits", "quantile", "0.001"),
    MOESIM_NOISE_PARAMS(struct moesim_choice_params, choice, "0"),
    MOESIM_AUX_PARAMS(struct moesim_choice_params, choice, "none", "0.01", "all", "before-drop"),
    MOESIM_PARAM_END,
};

const struct moesim_router moesim_router_quantile = {
    MOESIM_ROUTER_HEAD,
    MOESIM_CHOICE_HOOKS,
    .name = "quantile",
    .summary = "k best experts by logit plus bias; the bias is set to each batch's own balancing quantiles",
    .reference = "Su Jianlin, quantile balancing (QB), 2026; Megatron-LM",
    .params = quantile_schema,
};
