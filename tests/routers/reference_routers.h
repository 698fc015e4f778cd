/*
 * One slow reference per router, and what its memory becomes after a global batch; see expected.h.
 */
#ifndef TESTS_ROUTERS_REFERENCE_ROUTERS_H
#define TESTS_ROUTERS_REFERENCE_ROUTERS_H

#include "tests/routers/expected.h"

void reference_base(struct expected *x);
void reference_sinkhorn(struct expected *x);
void reference_dselect_k(struct expected *x);
void reference_axes(struct expected *x);
void update_axes(struct expected *x, double *memory);
/* load[e] += the chance that expert e passes the token's k-th noisy logit when its noise, `width` wide, is drawn again.
 */
void reference_add_chances(const double *clean, const double *noisy, uint32_t n, uint32_t k, double width,
                           double *load);
void reference_null(struct expected *x);
void reference_round_robin(struct expected *x);
void reference_random(struct expected *x);
void reference_replay(struct expected *x);
void reference_expert_threshold(struct expected *x);
void update_expert_threshold(struct expected *x, double *memory);
void reference_biased(struct expected *x);
void reference_hash(struct expected *x);
void reference_mod(struct expected *x);
void reference_noisy_topk(struct expected *x);
void reference_expert_choice(struct expected *x);
void reference_soft(struct expected *x);
void reference_cosine(struct expected *x);
void reference_zero_expert(struct expected *x);
void update_zero_expert(struct expected *x, double *memory);
void reference_hierarchical(struct expected *x);
void reference_relu(struct expected *x);
void update_relu(struct expected *x, double *memory);
void reference_top_p(struct expected *x);
void update_top_p(struct expected *x, double *memory);
void reference_bernoulli(struct expected *x);
void reference_sparsemixer(struct expected *x);

#endif
