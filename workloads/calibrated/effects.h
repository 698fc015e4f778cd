/*
 * Where a token's logits come from: what a layer likes, what a topic, a text, a stretch of text and a word like, and
 * luck. The model of the workloads calibrated, bursty and drift.
 *
 * In every layer the logit of expert e for token t of sequence q in domain d is
 *
 *     z = b_e + D_de + S_qe + slow_te + fast_te + V_we + echo V_ue + G
 *
 * b popularity, D and S a domain's and a sequence's own liking, slow and fast AR(1) processes that start in their
 * stationary law at each sequence, V the liking of token type w, of which the next token gets an echo (u is the type of
 * the token before; nothing at a sequence's first), G standard Gumbel. All but G are normal with the deviations below;
 * b is scaled to mean 0 and exactly that deviation in each layer, and may be skew, D may have heavy tails. The k
 * largest logits are the token's experts.
 */
#ifndef MOESIM_WORKLOADS_CALIBRATED_EFFECTS_H
#define MOESIM_WORKLOADS_CALIBRATED_EFFECTS_H

#include <stddef.h>
#include <stdint.h>

#include <moesim/random.h>

/* Standard deviations in logits unless said otherwise. */
struct effects {
    double popularity, popularity_skew; /* skewness of b */
    double domain_effect, domain_tail; /* exponent p of sign(x) |x|^p, x normal: 1 is normal, above has heavier tails */
    double sequence_effect;
    double slow_effect, slow_rho; /* rho: correlation of a token with the next */
    double fast_effect, fast_rho;
    double token_effect, token_echo; /* echo: share of it that the next token gets too */
};

#define EFFECTS_MOST_SKEW 2.5

/* Streams of random numbers beyond those of all workloads. */
enum effects_stream {
    EFFECTS_POPULARITY = MOESIM_STREAM_WORKLOAD + 16,
    EFFECTS_DOMAIN,
    EFFECTS_SEQUENCE,
    EFFECTS_SLOW,
    EFFECTS_FAST,
    EFFECTS_TOKEN,
    EFFECTS_TOKEN_ID,
    EFFECTS_STATE,   /* bursts */
    EFFECTS_CHOICE,  /* drift: which domain */
    EFFECTS_PATTERN, /* adversarial: experts and devices */
    EFFECTS_PATTERN_TOKENS
};

/* b of one layer, [n]. One expert has 0. */
void effects_popularity(const struct moesim_random *random, double deviation, double skew, uint32_t n, float *b);

/* D of one domain, [n], from elements [first, first + n) of the sequence. */
void effects_domain(const struct moesim_random *random, uint64_t first, double deviation, double tail, uint32_t n,
                    float *effect);

/* Of what load is made: k / E, the number of domains in equal parts, and how likely two tokens are of one type. */
struct effects_mix {
    double share, same_type;
    uint32_t n_domains;
};

/* The factor on popularity and domain_effect that makes the loads' coefficient of variation `ratio` times what it is
 * without; at most 16. The loads are worked out for endless experts and tokens, normal effects and logistic luck. */
double effects_factor(const struct effects *effects, const struct effects_mix *mix, double ratio);

#endif
