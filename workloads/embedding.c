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

static enum moesim_status check_shape(const char *path, const struct npy *npy, struct moesim_error *err)
{
    const bool real = npy->type == NPY_F2 || npy->type == NPY_F4 || npy->type == NPY_F8;
    if (npy->n_dimensions != 2 || !real)
        return moesim_fail(err, MOESIM_EIO,
                           "%s: has %u dimension%s of %s; word vectors are real numbers [words, dimensions]", path,
                           npy->n_dimensions, npy->n_dimensions == 1 ? "" : "s", npy_type_name(npy->type));
    if (npy->shape[0] > MAX_VECTORS || npy->shape[1] > MAX_WIDTH)
        return moesim_fail(
            err, MOESIM_EIO, "%s: %llu vectors of %llu dimensions are too many; at most %u of %u can be used", path,
            (unsigned long long)npy->shape[0], (unsigned long long)npy->shape[1], MAX_VECTORS, MAX_WIDTH);
    return MOESIM_OK;
}

static enum moesim_status scale_vectors(const char *path, struct word_vectors *vectors, struct moesim_error *err)
{
    enum { PIECE = 1024 };
    float piece[PIECE];
    double squares = 0;
    for (uint64_t i = 0; i < vectors->npy.n; i += PIECE) {
        const uint32_t n = vectors->npy.n - i < PIECE ? (uint32_t)(vectors->npy.n - i) : PIECE;
        npy_read_float(&vectors->npy, i, n, piece);
        for (uint32_t j = 0; j < n; j++) {
            squares += (double)piece[j] * (double)piece[j];
            if (!isfinite(piece[j]))
                return moesim_fail(err, MOESIM_EIO, "%s: row %llu has a number that is not finite", path,
                                   (unsigned long long)((i + j) / vectors->npy.shape[1]));
        }
    }
    if (squares <= 0)
        return moesim_fail(err, MOESIM_EIO, "%s: all word vectors are 0", path);
    vectors->scale = (float)sqrt((double)vectors->npy.n / squares);
    return MOESIM_OK;
}

enum moesim_status word_vectors_open(const char *path, struct word_vectors *vectors, struct moesim_error *err)
{
    enum moesim_status status = npy_open(path, &vectors->npy, err);
    if (status)
        return status;
    status = check_shape(path, &vectors->npy, err);
    if (!status)
        status = scale_vectors(path, vectors, err);
    if (status)
        word_vectors_close(vectors);
    return status;
}

void word_vectors_close(struct word_vectors *vectors)
{
    npy_close(&vectors->npy);
    *vectors = (struct word_vectors){.scale = 0};
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
    const struct word_vectors *vectors = embedding->vectors;
    if (!vectors || token < embedding->first_vector || vector >= vectors->npy.shape[0]) {
        embed_grams(embedding, past, g);
        return;
    }
    npy_read_float(&vectors->npy, (uint64_t)vector * d, d, g);
    for (uint32_t j = 0; j < d; j++)
        g[j] *= vectors->scale;
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
