/*
 * Checkpoints of a training: a safetensors file with the model's weights, the optimizer's moments, the routers' memory,
 * the number of steps and the config. Random numbers need no more than seed and step, so that a training that goes on
 * from a checkpoint has the bits of one that was never stopped.
 *
 * Tensors keep the model's names; moments have "optimizer.first." or "optimizer.second." before them, what routers keep
 * is "blocks.N.router.memory", what the caller keeps beside it "figures".
 */
#ifndef MOESIM_SIM_CHECKPOINT_H
#define MOESIM_SIM_CHECKPOINT_H

#include <moesim/arena.h>
#include <moesim/status.h>

#include "sim/train/training.h"

/* The caller's own state, which comes back as it was; the bits need not be those of numbers. */
struct moesim_checkpoint_figures {
    float *bits; /* [n] */
    uint64_t n;
};

/* Writes the training as it stands between two steps. `label` is the caller's own text about the run (its config as
 * JSON), which moesim_checkpoint_info gives back; `figures` NULL = none. */
MOESIM_MUST_CHECK enum moesim_status moesim_checkpoint_save(const struct moesim_training *training, const char *path,
                                                            const char *label,
                                                            const struct moesim_checkpoint_figures *figures,
                                                            struct moesim_error *err);

/* Goes on from a checkpoint of an equal config, with as many figures: EINVAL, naming what differs and how, for another
 * one, and EIO for a damaged file; the training is then as it was, except that after a failed read it must not be
 * used. `figures` NULL leaves those of the file alone. */
MOESIM_MUST_CHECK enum moesim_status moesim_checkpoint_load(struct moesim_training *training, const char *path,
                                                            const struct moesim_checkpoint_figures *figures,
                                                            struct moesim_error *err);

/* Takes only weights and router memory, into a model of the same shape that may be trained or run otherwise. */
MOESIM_MUST_CHECK enum moesim_status moesim_checkpoint_load_model(struct moesim_transformer *model, const char *path,
                                                                  struct moesim_error *err);

/* What a checkpoint says of itself; texts are copied into `arena`. */
struct moesim_checkpoint_info {
    struct moesim_transformer_config model;
    const char *router; /* SPEC */
    const char *label;
    uint64_t seed, vocabulary_hash;
    uint32_t step;
};
MOESIM_MUST_CHECK enum moesim_status moesim_checkpoint_info(const char *path, struct moesim_arena *arena,
                                                            struct moesim_checkpoint_info *info,
                                                            struct moesim_error *err);

#endif
