/*
 * What a router's defaults are, said as a point on the axes that it shares with softmax-topk.
 */
#ifndef MOESIM_CLI_RECIPE_H
#define MOESIM_CLI_RECIPE_H

#include <moesim/router.h>

/* The SPEC of softmax-topk that decides as `router` does with its defaults, malloc'd. NULL where the router is no such
 * point, or is softmax-topk. */
char *recipe_of(const struct moesim_router *router);

#endif
