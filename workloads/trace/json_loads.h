/*
 * Loads in a JSON document: SGLang's expert distribution, and plain arrays.
 */
#ifndef MOESIM_WORKLOADS_TRACE_JSON_LOADS_H
#define MOESIM_WORKLOADS_TRACE_JSON_LOADS_H

#include "workloads/trace/json_record.h"

/* [experts], [layers][experts] or [steps][layers][experts] at `values`; goes past it. */
MOESIM_MUST_CHECK enum moesim_status json_loads_read(struct scan *values, struct trace_rows *rows);

/* The record's loads: KEY_LOGICAL_COUNT; or KEY_PHYSICAL_COUNT [layers][slots] summed over the slots that
 * KEY_PHYSICAL_MAP [layers][slots] gives an expert; or, of a map alone, how many slots an expert has. */
MOESIM_MUST_CHECK enum moesim_status json_loads_record(const struct json_record *record, struct trace_rows *rows);

#endif
