/* Reads the header blocks of gRPC answers (RFC 7541): all that is wanted of them is grpc-status.
 *
 * The dynamic table is kept as the standard says, but an entry remembers only its size and what it
 * would say of the status. A block that was read before, while the table did not change since, is
 * recognised by its bytes: a server's answers hardly differ.
 */
#ifndef HOMEOSTAT_HPACK_H
#define HOMEOSTAT_HPACK_H

#include <stdint.h>
#include <string.h>

enum { HPACK_TABLE_BYTES = 4096, HPACK_ENTRIES = 256, HPACK_REMEMBERED = 4, HPACK_BLOCK = 256 };

typedef struct {
    uint32_t size;
    int is_status; /* the name is grpc-status */
    int value;     /* the number after it; -1: not a number */
} hpack_entry;

typedef struct {
    int length, status;
    uint8_t bytes[HPACK_BLOCK];
} hpack_seen;

typedef struct {
    hpack_entry entries[HPACK_ENTRIES]; /* a ring; `first` is the newest */
    uint32_t first, count, bytes, limit;
    hpack_seen seen[HPACK_REMEMBERED];
    int next_seen;
} hpack;

/* Bits of each symbol's code. The code is canonical: lengths and symbols' order make the rest. */
static const uint8_t HUFFMAN_BITS[257] = {
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
};
static uint16_t huffman_symbols[257];
static uint32_t huffman_first[32], huffman_count[32], huffman_start[32];

static void huffman_prepare(void) {
    uint32_t at = 0, code = 0;
    for (uint32_t bits = 1; bits <= 30; bits++, code <<= 1) {
        huffman_first[bits] = code;
        huffman_start[bits] = at;
        for (int symbol = 0; symbol < 257; symbol++)
            if (HUFFMAN_BITS[symbol] == bits) huffman_symbols[at++] = (uint16_t)symbol;
        huffman_count[bits] = at - huffman_start[bits];
        code += huffman_count[bits];
    }
}

/* Decodes; what does not fit into `room` is counted, not kept. Returns the decoded length. */
static uint32_t huffman_decode(const uint8_t *from, uint32_t length, char *to, uint32_t room) {
    uint32_t written = 0, code = 0, bits = 0;
    for (uint32_t at = 0; at < length * 8; at++) {
        code = code << 1 | (from[at / 8] >> (7 - at % 8) & 1);
        bits++;
        if (bits > 30) break;
        if (code - huffman_first[bits] < huffman_count[bits]) {
            uint16_t symbol = huffman_symbols[huffman_start[bits] + code - huffman_first[bits]];
            if (symbol < 256 && written < room) to[written] = (char)symbol;
            written++;
            code = bits = 0;
        }
    }
    return written;
}

static void hpack_open(hpack *self) {
    memset(self, 0, sizeof *self);
    self->limit = HPACK_TABLE_BYTES;
}

static void hpack_shrink(hpack *self, uint32_t limit) {
    while (self->count > 0 && self->bytes > limit) {
        self->count--;
        self->bytes -= self->entries[(self->first + self->count) % HPACK_ENTRIES].size;
    }
}

static void hpack_insert(hpack *self, hpack_entry entry) {
    for (int each = 0; each < HPACK_REMEMBERED; each++) self->seen[each].length = 0;
    hpack_shrink(self, self->limit > entry.size ? self->limit - entry.size : 0);
    if (entry.size > self->limit || self->count == HPACK_ENTRIES) return;
    self->first = (self->first + HPACK_ENTRIES - 1) % HPACK_ENTRIES;
    self->entries[self->first] = entry;
    self->count++;
    self->bytes += entry.size;
}

/* The entry of an index of both tables; nothing in the static one is a gRPC status, and the sizes of
 * its names do not matter to more than when an old entry leaves: 13 letters stand for them. */
static hpack_entry hpack_at(const hpack *self, uint32_t index) {
    if (index >= 62 && index - 62 < self->count)
        return self->entries[(self->first + index - 62) % HPACK_ENTRIES];
    return (hpack_entry){.size = 32 + 13, .is_status = 0, .value = -1};
}

static uint32_t hpack_integer(const uint8_t **at, const uint8_t *end, int prefix) {
    uint32_t most = (1u << prefix) - 1, value = *at < end ? *(*at)++ & most : 0;
    if (value < most) return value;
    for (int shift = 0; *at < end && shift < 28; shift += 7) {
        uint8_t byte = *(*at)++;
        value += (uint32_t)(byte & 127) << shift;
        if (!(byte & 128)) break;
    }
    return value;
}

static uint32_t hpack_string(const uint8_t **at, const uint8_t *end, char *to, uint32_t room) {
    int is_huffman = *at < end && **at & 128;
    uint32_t length = hpack_integer(at, end, 7), decoded;
    if (length > (uint32_t)(end - *at)) length = (uint32_t)(end - *at);
    if (is_huffman) {
        decoded = huffman_decode(*at, length, to, room);
    } else {
        decoded = length;
        memcpy(to, *at, length < room ? length : room);
    }
    *at += length;
    return decoded;
}

static int hpack_number(const char *text, uint32_t length) {
    int value = 0;
    if (length < 1 || length > 3) return -1;
    for (uint32_t at = 0; at < length; at++) {
        if (text[at] < '0' || text[at] > '9') return -1;
        value = value * 10 + text[at] - '0';
    }
    return value;
}

static hpack_entry hpack_literal(hpack *self, const uint8_t **at, const uint8_t *end, int prefix) {
    char text[64];
    hpack_entry entry = {.value = -1};
    uint32_t index = hpack_integer(at, end, prefix), length;
    if (index > 0) {
        hpack_entry named = hpack_at(self, index);
        entry.is_status = named.is_status;
        entry.size = named.is_status ? 32 + 11 : 32 + 13;
    } else {
        length = hpack_string(at, end, text, sizeof text);
        entry.is_status = length == 11 && memcmp(text, "grpc-status", 11) == 0;
        entry.size = 32 + length;
    }
    length = hpack_string(at, end, text, sizeof text);
    entry.size += length;
    if (entry.is_status) entry.value = hpack_number(text, length);
    return entry;
}

/* The grpc-status of a block; -1: it has none. */
static int hpack_status(hpack *self, const uint8_t *block, uint32_t length) {
    for (int each = 0; each < HPACK_REMEMBERED; each++)
        if (self->seen[each].length == (int)length && length > 0 &&
            memcmp(self->seen[each].bytes, block, length) == 0)
            return self->seen[each].status;
    const uint8_t *at = block, *end = block + length;
    int status = -1, changes = 0;
    while (at < end) {
        hpack_entry entry = {.value = -1};
        if (*at & 128) {
            entry = hpack_at(self, hpack_integer(&at, end, 7));
        } else if (*at & 64) {
            entry = hpack_literal(self, &at, end, 6);
            hpack_insert(self, entry);
            changes = 1;
        } else if (*at & 32) {
            self->limit = hpack_integer(&at, end, 5);
            hpack_shrink(self, self->limit);
            changes = 1;
        } else {
            entry = hpack_literal(self, &at, end, 4);
        }
        if (entry.is_status) status = entry.value;
    }
    if (!changes && length <= HPACK_BLOCK) {
        hpack_seen *seen = &self->seen[self->next_seen++ % HPACK_REMEMBERED];
        seen->length = (int)length;
        seen->status = status;
        memcpy(seen->bytes, block, length);
    }
    return status;
}

#endif
