/*
 * What the language models of a study in mode train come to, told before the first step.
 */
#ifndef CLI_MODEL_SIZES_H
#define CLI_MODEL_SIZES_H

#include <stdio.h>

#include "cli/study_source.h"

/* One line for each model that differs from the others: blocks, parameters, FLOP of a token, memory. Nothing where no
 * point trains. */
void model_sizes_print(const struct loaded_study *loaded, FILE *out);

#endif
