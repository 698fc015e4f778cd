/*
 * moesim's own trace file, as docs/formats.md describes it: a head, blocks that stand for themselves, and a directory
 * as the last block. All numbers are little-endian.
 */
#ifndef MOESIM_WORKLOADS_TRACE_FILE_LAYOUT_H
#define MOESIM_WORKLOADS_TRACE_FILE_LAYOUT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "trace files are read and written in place: a little-endian machine is needed"
#endif

#define FILE_MAGIC "MOESIMTR"
#define FILE_END_MAGIC "MOESIMTE"
#define FILE_BLOCK_TAG "BLK\n"
#define FILE_VERSION 1u
#define FILE_NO_LAYER UINT32_MAX

/* Byte 0. */
struct file_head {
    char magic[8];
    uint32_t version;
    uint32_t kind;      /* enum trace_kind */
    uint32_t n_experts; /* as far as known when the file was begun; 0 = not */
    uint32_t zero[9];
    uint64_t hash; /* of the bytes before */
};

enum file_block_type {
    FILE_DECISIONS = 1,
    FILE_LOGITS = 2,
    FILE_LOAD = 3,
    FILE_SEQUENCE = 4, /* labels: FILE_SEQUENCE + enum trace_label */
    FILE_TOKEN_ID = 5,
    FILE_DOMAIN = 6,
    FILE_DIRECTORY = 7,
};

/* How a block's payload is laid out: sections in this order, each at a multiple of 8 bytes. */
#define FILE_COUNTS 0x1u                         /* uint32 [n_tokens] pairs of each token; else every token has `k` */
#define FILE_IDS(width) ((uint32_t)(width) << 4) /* 1, 2 or 4 bytes an id */
#define FILE_WEIGHTS(width) ((uint32_t)(width) << 8) /* 0, 2 (float16) or 4 bytes a weight or logit */
#define FILE_FATES 0x1000u                           /* uint8 a pair */
#define FILE_SLOTS(width) ((uint32_t)(width) << 16)  /* 0, 1, 2 or 4 bytes a slot; refused pairs have 0 */
#define FILE_RUNS 0x100000u /* labels: pairs of uint32 (length, value) instead of uint32 a token */
#define FILE_WIDTH(encoding, at) ((encoding) >> (at)&15u)

/* Before each payload; 64 bytes, at a multiple of 8. */
struct file_block {
    char tag[4];
    uint32_t type;     /* enum file_block_type */
    uint32_t layer;    /* the model's number of the layer; FILE_NO_LAYER for labels and directory */
    uint32_t n_tokens; /* load: experts */
    uint64_t first;    /* token; load: step */
    uint64_t n_values; /* pairs, logits, experts, runs or labels */
    uint32_t encoding, k;
    uint64_t size;      /* bytes of the payload, a multiple of 8 */
    uint64_t hash;      /* of the payload */
    uint64_t head_hash; /* of the bytes of this header before */
};

/* The directory's payload: this, uint32 layer[n_layers] to a multiple of 8, the entries, and the end. */
struct file_directory {
    uint32_t n_layers, n_experts, top_k, n_steps;
    uint64_t n_tokens, n_blocks;
    uint32_t has_weights, has_fates, has_slots, zero;
};
struct file_entry {
    uint64_t offset, first; /* of the block; its first token or step */
    uint32_t n_tokens, type, layer, zero;
};
/* The last 16 bytes of the file. */
struct file_end {
    uint64_t directory; /* offset of its block */
    char magic[8];
};

_Static_assert(sizeof(struct file_head) == 64 && sizeof(struct file_block) == 64, "the layout is the file's");
_Static_assert(sizeof(struct file_directory) == 48 && sizeof(struct file_entry) == 32 && sizeof(struct file_end) == 16,
               "the layout is the file's");

static inline uint64_t file_padded(uint64_t n)
{
    return (n + 7) & ~UINT64_C(7);
}

static inline uint64_t file_hash_word(uint64_t h, uint64_t word)
{
    h ^= word;
    return (h << 31 | h >> 33) * UINT64_C(0x9e3779b97f4a7c15);
}

/* Four interleaved lanes over 64-bit words, then the lanes and the length. A change inside one word always shows, since
 * each step is one-to-one in the word and in the lane. */
static inline uint64_t file_hash(const void *bytes, uint64_t n)
{
    const uint8_t *b = bytes;
    uint64_t lane[4] = {1, 2, 3, 4}, word[4], h = n, i = 0;
    for (; i + 32 <= n; i += 32) {
        memcpy(word, b + i, 32);
        for (int j = 0; j < 4; j++)
            lane[j] = file_hash_word(lane[j], word[j]);
    }
    for (int j = 0; i < n; i += 8, j++) {
        word[0] = 0;
        memcpy(word, b + i, n - i < 8 ? n - i : 8);
        lane[j] = file_hash_word(lane[j], word[0]);
    }
    for (int j = 0; j < 4; j++)
        h = file_hash_word(h, lane[j]);
    return h ^ h >> 32;
}

#endif
