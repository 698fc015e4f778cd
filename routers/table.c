/*
 * One line per router.
 */
#include "routers/table.h"

extern const struct moesim_router moesim_router_base;
extern const struct moesim_router moesim_router_bernoulli;
extern const struct moesim_router moesim_router_biased;
extern const struct moesim_router moesim_router_cosine;
extern const struct moesim_router moesim_router_deepseek_v2;
extern const struct moesim_router moesim_router_deepseek_v3;
extern const struct moesim_router moesim_router_dselect_k;
extern const struct moesim_router moesim_router_expert_choice;
extern const struct moesim_router moesim_router_expert_threshold;
extern const struct moesim_router moesim_router_gshard;
extern const struct moesim_router moesim_router_hash;
extern const struct moesim_router moesim_router_hierarchical;
extern const struct moesim_router moesim_router_mod;
extern const struct moesim_router moesim_router_moge;
extern const struct moesim_router moesim_router_noisy_topk;
extern const struct moesim_router moesim_router_ntlb;
extern const struct moesim_router moesim_router_null;
extern const struct moesim_router moesim_router_quantile;
extern const struct moesim_router moesim_router_random;
extern const struct moesim_router moesim_router_relu;
extern const struct moesim_router moesim_router_replay;
extern const struct moesim_router moesim_router_round_robin;
extern const struct moesim_router moesim_router_sinkhorn;
extern const struct moesim_router moesim_router_soft;
extern const struct moesim_router moesim_router_softmax_topk;
extern const struct moesim_router moesim_router_sparsemixer;
extern const struct moesim_router moesim_router_switch;
extern const struct moesim_router moesim_router_top_p;
extern const struct moesim_router moesim_router_vmoe;
extern const struct moesim_router moesim_router_zero_expert;

/* clang-format off */
const struct moesim_router *const routers_table[] = {
    &moesim_router_softmax_topk,
    &moesim_router_noisy_topk,
    &moesim_router_switch,
    &moesim_router_gshard,
    &moesim_router_vmoe,
    &moesim_router_expert_choice,
    &moesim_router_deepseek_v2,
    &moesim_router_deepseek_v3,
    &moesim_router_moge,
    &moesim_router_ntlb,
    &moesim_router_quantile,
    &moesim_router_expert_threshold,
    &moesim_router_top_p,
    &moesim_router_relu,
    &moesim_router_soft,
    &moesim_router_cosine,
    &moesim_router_zero_expert,
    &moesim_router_hierarchical,
    &moesim_router_dselect_k,
    &moesim_router_sparsemixer,
    &moesim_router_random,
    &moesim_router_base,
    &moesim_router_sinkhorn,
    &moesim_router_biased,
    &moesim_router_bernoulli,
    &moesim_router_hash,
    &moesim_router_mod,
    &moesim_router_round_robin,
    &moesim_router_replay,
    &moesim_router_null,
    NULL,
};
/* clang-format on */
