/*
 * What each form of dispatch runs on and how large its messages are.
 */
#include "sim/cost/dispatch.h"

enum { LOW_LATENCY_HEADER_BYTES = 16 }; /* where the token came from: one int4 (DeepEP, internode_ll) */

enum moesim_transport moesim_dispatch_transport(enum moesim_dispatch dispatch)
{
    switch (dispatch) {
    case MOESIM_DISPATCH_NORMAL:
        return MOESIM_NORMAL;
    case MOESIM_DISPATCH_LOW_LATENCY:
        return MOESIM_LOW_LATENCY;
    case MOESIM_DISPATCH_FLAT:
    case MOESIM_DISPATCH_ALL_GATHER:
    case MOESIM_DISPATCH_PADDED:
        break;
    }
    return MOESIM_COLLECTIVE;
}

double moesim_dispatch_bytes(const struct moesim_model *model, enum moesim_dispatch dispatch)
{
    const double header = dispatch == MOESIM_DISPATCH_LOW_LATENCY ? LOW_LATENCY_HEADER_BYTES : 0;
    return moesim_model_token_bytes(model, model->dispatch_bytes) + header;
}

double moesim_combine_bytes(const struct moesim_model *model)
{
    return moesim_model_token_bytes(model, model->combine_bytes);
}
