/*
 * A model without experts: whichever router a study names beside `moe_every: 0`, none takes part, so that all of them
 * are one point, labelled as what it is.
 */
#include "sim/study/resolve.h"

#include <assert.h>

static enum moesim_status no_layer(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                   struct moesim_error *err)
{
    (void)state;
    (void)batch;
    (void)plan;
    assert(false); /* a dense model has no layer to route in */
    return moesim_fail(err, MOESIM_EINVAL, "a dense model has no layer to route in");
}

static const struct moesim_router dense = {
    MOESIM_ROUTER_HEAD,
    .name = "dense",
    .summary = "no experts: every block has one network, of as many active FLOPs",
    .reference = "moesim's own",
    .route = no_layer,
};
static const struct moesim_router_entry entry = {.spec = "dense", .router = &dense};
static const struct moesim_variant variant = {.name = "dense"};

const struct moesim_choice moesim_dense_choice = {
    .variant = &variant,
    .known = true,
    .whole = true,
    .schema = {NULL, sizeof(struct moesim_param)},
    .spec = "dense",
    .router = &entry,
};
