/*
 * Row t of a sequence is, up to its length,
 *     sqrt(1 - share) * unit(g_t) + sqrt(share) * unit(m_t),      m_t = decay * m_(t-1) + (1 - decay) * g_t,
 * where g_t embeds the token, the last two and the last three tokens, so that equal neighbourhoods look alike, and the
 * memory m_t is a decayed mean of the g before it, which letter frequencies pull into a direction of their own for each
 * kind of text. What all texts have in common (mostly blanks and e) is largely taken off g as `centre`: kept whole it
 * would send every text to the same few experts.
 *
 * An n-gram is the sum of two rows of one table, picked by two hashes (Svenstrup et al., "Hash embeddings for efficient
 * word representations", NIPS 2017): few rows tell many n-grams apart. Where there are word vectors, g_t is the
 * token's.
 */
#include "workloads/embedding.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/random.h>

#include "workloads/npy_header.h"

#define MAX_VECTORS (1u << 24)
#define MAX_WIDTH 65536u

/* of g's square: token, bigram, trigram */
static const double gram_share[EMBEDDING_GRAMS] = {0.4, 0.35, 0.25};

enum moesim_status embedding_init(struct embedding *embedding, uint64_t seed, uint32_t d_model, uint32_t vocabulary,
                                  double context, struct moesim_arena *arena, struct moesim_error *err)
{
    const size_t n = (size_t)EMBEDDING_ROWS * d_model;
    *embedding = (struct embedding){.d_model = d_model, .vocabulary = vocabulary, .decay = 1 - 1 / context};
    embedding->rows = moesim_alloc(arena, n, sizeof *embedding->rows);
    embedding->centre = moesim_alloc(arena, d_model, sizeof *embedding->centre);
    if (!embedding->rows || !embedding->centre)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for an embedding of %u dimensions", d_model);
    memset(embedding->centre, 0, d_model * sizeof *embedding->centre);
    const struct moesim_random random = {seed, MOESIM_STREAM_WORKLOAD + 1, 0, 0};
    moesim_random_normals(&random, 0, n, embedding->rows);
    return MOESIM_OK;
}

/* ---- word vectors ---- */

enum moesim_status embedding_open_vectors(const char *path, struct npy *vectors, struct moesim_error *err)
{
    const enum moesim_status status = npy_open(path, vectors, err);
    if (status)
        return status;
    const bool real = vectors->type == NPY_F2 || vectors->type == NPY_F4 || vectors->type == NPY_F8;
    if (vectors->n_dimensions != 2 || !real)
        moesim_fail(err, MOESIM_EIO, "%s: has %u dimension%s of %s; word vectors are real numbers [words, dimensions]",
                    path, vectors->n_dimensions, vectors->n_dimensions == 1 ? "" : "s", npy_type_name(vectors->type));
    else if (vectors->shape[0] > MAX_VECTORS || vectors->shape[1] > MAX_WIDTH)
        moesim_fail(err, MOESIM_EIO, "%s: %llu vectors of %llu dimensions are too many; at most %u of %u can be used",
                    path, (unsigned long long)vectors->shape[0], (unsigned long long)vectors->shape[1], MAX_VECTORS,
                    MAX_WIDTH);
    else
        return MOESIM_OK;
    npy_close(vectors);
    return MOESIM_EIO;
}

enum moesim_status embedding_use_vectors(struct embedding *embedding, const struct npy *vectors, const char *path,
                                         uint32_t first, struct moesim_error *err)
{
    const uint32_t d = embedding->d_model;
    float *row = embedding->centre; /* not in use yet */
    double squares = 0;
    embedding->vectors = *vectors;
    for (uint64_t i = 0; i < vectors->shape[0]; i++) {
        npy_read_float(vectors, i * d, d, row);
        double square = 0;
        for (uint32_t j = 0; j < d; j++)
            square += (double)row[j] * (double)row[j];
        if (!isfinite(square))
            return moesim_fail(err, MOESIM_EIO, "%s: row %llu has a number that is not finite", path,
                               (unsigned long long)i);
        squares += square;
    }
    memset(row, 0, d * sizeof *row);
    if (squares <= 0)
        return moesim_fail(err, MOESIM_EIO, "%s: all word vectors are 0", path);
    embedding->first_vector = first;
    embedding->n_vectors = (uint32_t)vectors->shape[0];
    embedding->vector_scale = (float)sqrt((double)vectors->n / squares);
    return MOESIM_OK;
}

void embedding_finish(struct embedding *embedding)
{
    npy_close(&embedding->vectors);
}

/* ---- tokens ---- */

struct embedding_past embedding_start(const struct embedding *embedding)
{
    const uint32_t none = embedding->vocabulary; /* the token before the first */
    return (struct embedding_past){{none, none, none}};
}

/* g by n-grams, newest token first. */
static void embed_grams(const struct embedding *embedding, const struct embedding_past *past, float *g)
{
    const uint32_t d = embedding->d_model;
    uint32_t gram = 0;
    memset(g, 0, d * sizeof *g);
    for (uint32_t n = 0; n < EMBEDDING_GRAMS; n++) {
        gram = gram * (embedding->vocabulary + 1) + past->last[n] + 1;
        const uint32_t one = gram * 0x9e3779b1u, other = (gram ^ gram >> 15) * 0x85ebca77u;
        const float *a = embedding->rows + (size_t)(one >> 22) * d;
        const float *b = embedding->rows + (size_t)(other >> 22) * d;
        const float weight = (float)sqrt(gram_share[n] / 2);
        for (uint32_t j = 0; j < d; j++)
            g[j] += weight * (a[j] + b[j]);
    }
}

static void embed(const struct embedding *embedding, struct embedding_past *past, uint32_t token, float *g)
{
    const uint32_t d = embedding->d_model, vector = token - embedding->first_vector;
    memmove(past->last + 1, past->last, sizeof past->last - sizeof past->last[0]);
    past->last[0] = token;
    if (token < embedding->first_vector || vector >= embedding->n_vectors) {
        embed_grams(embedding, past, g);
        return;
    }
    npy_read_float(&embedding->vectors, (uint64_t)vector * d, d, g);
    for (uint32_t j = 0; j < d; j++)
        g[j] *= embedding->vector_scale;
}

void embedding_centre(struct embedding *embedding, struct embedding_past *past, uint32_t token, double weight,
                      float *scratch)
{
    embed(embedding, past, token, scratch);
    for (uint32_t j = 0; j < embedding->d_model; j++)
        embedding->centre[j] += (float)weight * scratch[j];
}

void embedding_next(const struct embedding *embedding, struct embedding_past *past, uint32_t token, float *g,
                    const float *memory_before, float *memory)
{
    const float *centre = embedding->centre;
    const float decay = (float)embedding->decay, rest = (float)(1 - embedding->decay);
    embed(embedding, past, token, g);
    for (uint32_t j = 0; j < embedding->d_model; j++) {
        g[j] -= centre[j];
        memory[j] = decay * memory_before[j] + rest * g[j];
    }
}

/* The factor that gives a vector of d numbers the mean square `square`. */
static float length_factor(const float *x, uint32_t d, double square, float *scratch)
{
    for (uint32_t j = 0; j < d; j++)
        scratch[j] = x[j] * x[j];
    return (float)sqrt(square / ((double)moesim_sum(scratch, d) / d + 1e-30));
}

void embedding_mix(const struct embedding *embedding, const float *g, const float *memory, double share, float *scratch,
                   float *hidden)
{
    const uint32_t d = embedding->d_model;
    const float own = length_factor(g, d, 1 - share, scratch);
    const float context = length_factor(memory, d, share, scratch);
    for (uint32_t j = 0; j < d; j++)
        hidden[j] = own * g[j] + context * memory[j];
    const float unit = length_factor(hidden, d, 1, scratch);
    for (uint32_t j = 0; j < d; j++)
        hidden[j] *= unit;
}
