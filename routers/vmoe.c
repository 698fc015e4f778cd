/*
 * vmoe: the k best experts by the softmax of logits that get normal noise of deviation noise / E in training; the
 * noisy probability, undivided, is the weight. All first choices take slots before any second one; priority = bpr is
 * the paper's Batch Prioritized Routing. Half importance loss, CV^2 of the experts' summed clean probabilities, and
 * half load loss, CV^2 of the expected number of tokens.
 *
 * Riquelme et al., "Scaling Vision with Sparse Mixture of Experts", NeurIPS 2021, sections 2 to 4 and appendix A; the
 * coefficients are those of the released configurations, 0.005 each.
 */
#include <moesim/kernels.h>
#include <moesim/router.h>

static const struct moesim_param vmoe_schema[] = {
    MOESIM_TOKEN_CHOICE_PARAMS(struct moesim_choice_params, choice, "top_k", "none", "1.05", "vmoe", "choice"),
    MOESIM_GROUPS_PARAMS(struct moesim_choice_params, choice, "1", "1", "max"),
    MOESIM_BIAS_PARAMS(struct moesim_choice_params, choice, "none", "0.001"),
    MOESIM_NOISE_PARAMS(struct moesim_choice_params, choice, "1"),
    MOESIM_AUX_PARAMS(struct moesim_choice_params, choice, "0.5*importance+0.5*load", "0.01", "all", "before-drop"),
    MOESIM_PARAM_END,
};

const struct moesim_router moesim_router_vmoe = {
    MOESIM_ROUTER_HEAD,
    MOESIM_CHOICE_HOOKS,
    .name = "vmoe",
    .summary = "k best experts by noisy softmax; capacity 1.05, importance and load losses",
    .reference = "Riquelme et al., Scaling Vision with Sparse Mixture of Experts, NeurIPS 2021",
    .params = vmoe_schema,
};
