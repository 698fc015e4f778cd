/*
 * Names of keys in the wild: vLLM, SGLang, Megatron-LM, llama.cpp and the loggers built around them, and our own.
 */
#include "workloads/trace/keys.h"

#include <string.h>

static const char *const names[N_KEYS] = {
    [KEY_LAYER] = "layer|layer_id|layer_idx|layer_index|moe_layer",
    [KEY_TOKEN] = "token_idx|token_position|token_index|token_pos|position|token",
    [KEY_TOKEN_ID] = "token_id",
    [KEY_SEQUENCE] = "req_id|request_id|problem_id|sequence_id|seq_id|sample_id|sequence|seq",
    [KEY_PART] = "step|rank|batch_id|dataset",
    [KEY_EXPERTS] = ("experts|topk_ids|selected_experts|expert_ids|topk_experts|top_indices|topk_indices|topk_idx|"
                     "routed_experts|prompt_routed_experts"),
    [KEY_EXPERTS_BY_LAYER] = "topk_ids_of_layer",
    [KEY_WEIGHTS] = "gating_probs|topk_weights|selected_probabilities|selected_probs|weights|routing_weights",
    [KEY_EXPERT] = "expert|expert_id",
    [KEY_WEIGHT] = "weight",
    [KEY_CHOICE] = "choice",
    [KEY_KEPT] = "kept",
    [KEY_SLOT] = "slot",
    [KEY_COUNT] = "count|load|n_tokens",
    [KEY_N_EXPERTS] = "num_experts|n_experts",
    [KEY_STAGE] = "routing_stage|block",
    [KEY_STATE] = "assignment_state",
    [KEY_LOGICAL_COUNT] = "logical_count|expert_load|expert_loads|loads",
    [KEY_PHYSICAL_COUNT] = "global_physical_count|physical_count",
    [KEY_PHYSICAL_MAP] = "physical_to_logical_map|last_physical_to_logical_map",
    [KEY_ROUTER_DATA] = "router_data",
    [KEY_INSIDE] = "choices|records|routing|meta_info|requests|results|data",
};

/* Bit n is set where the key has a name of n letters: most names are told apart by that. */
static uint32_t lengths_of(const char *words)
{
    uint32_t lengths = 0;
    while (*words) {
        const size_t n = strcspn(words, "|");
        lengths |= 1u << n;
        words += n + (words[n] == '|');
    }
    return lengths;
}

void trace_keys_init(struct trace_keys *keys)
{
    for (uint32_t key = 0; key < N_KEYS; key++)
        keys->lengths[key] = lengths_of(names[key]);
}

enum trace_key trace_key_of(const struct trace_keys *keys, struct scan_text name)
{
    for (uint32_t key = 0; key < N_KEYS; key++)
        if (name.n < 32 && keys->lengths[key] >> name.n & 1 && scan_is_one_of(name, names[key]))
            return key;
    return N_KEYS;
}

const char *trace_key_names(enum trace_key key)
{
    return names[key];
}
