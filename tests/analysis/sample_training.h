/*
 * What mode train adds to the runs of a sample store: curves over validations, held-out text by domain, and where
 * domains and tokens went. Everything follows from router and seed.
 */
#ifndef MOESIM_TESTS_ANALYSIS_SAMPLE_TRAINING_H
#define MOESIM_TESTS_ANALYSIS_SAMPLE_TRAINING_H

#include <moesim/outcome.h>

enum { SAMPLE_VALIDATIONS = 20, SAMPLE_EVERY = 50, SAMPLE_DOMAINS = 6, SAMPLE_TOKENS = 24, SAMPLE_LAYERS = 2 };

extern const char *const sample_domain[SAMPLE_DOMAINS];
extern const char *const sample_token[SAMPLE_TOKENS];

/* Held-out bits per byte of a router at validation `v`; domain SAMPLE_DOMAINS stands for all. */
double sample_bits(uint32_t router, uint32_t seed, uint32_t v, uint32_t domain);

/* Fills what belongs to training into an outcome whose arena is set, and appends to its summaries, for which there must
 * be room. */
void sample_train(struct moesim_outcome *outcome, uint32_t router, uint32_t seed, uint32_t n_experts,
                  bool with_cluster);

#endif
