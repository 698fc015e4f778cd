/*
 * The keys of a training: one table each for a study's mapping, the checkpoint's header and the messages.
 */
#ifndef MOESIM_SIM_TRAIN_PARAMS_H
#define MOESIM_SIM_TRAIN_PARAMS_H

#include <moesim/param.h>

extern const struct moesim_param moesim_transformer_params[]; /* of struct moesim_transformer_config */
extern const struct moesim_param moesim_optimizer_params[];   /* of struct moesim_optimizer_config */

#endif
