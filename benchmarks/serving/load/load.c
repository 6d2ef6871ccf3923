/* A small load generator for unary gRPC over loopback: no library, one thread, little CPU.
 *
 * load PORT BODIES [options]     prints one JSON object
 *
 * BODIES holds messages, each: u32 length, i32 place of an id of 20 digits (-1: none), the bytes;
 * little endian. They are sent in turn, and each request gets an id of its own where it has one.
 * Closed loop: every connection keeps `--streams` requests in flight. Open loop (`--rate`): requests
 * fall due at random times (Poisson, seeded) whatever the server does; latency counts from then.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include <math.h>
#include <signal.h>

#include "hpack.h"

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8, HAS_PRIORITY = 32 };
enum { FRAME_BYTES = 16384, RECEIVE_WINDOW = 1 << 28, MAX_CONNECTIONS = 2048, MAX_STREAMS = 1024 };
enum { BROKEN = 17, UNSENT = 18, STATUSES = 19, ID_DIGITS = 20, MAX_SECONDS = 900 };
/* A latency's bucket keeps its six leading bits: 1.6 % of error at most. */
enum { BUCKET_BITS = 6, BUCKETS = 64 << BUCKET_BITS, SERIES = 10 * MAX_SECONDS };

typedef struct {
    uint32_t length;
    int32_t id_at;
    uint8_t *frames; /* DATA frames, complete but for the stream's number */
    uint32_t frames_length;
} body;

typedef struct {
    uint32_t stream; /* 0: free */
    uint32_t body, received, room;
    uint64_t id;
    int64_t due;
    int status;
    uint8_t *kept; /* the answer's bytes, if this one is recorded */
} slot;

typedef struct {
    int fd, is_open, is_settled, is_waiting_to_write, is_indexed, is_leaving;
    uint32_t next_stream, in_flight, may_be_open;
    int64_t send_window, received, retry_at;
    uint32_t stream_window;
    uint8_t *in, *out;
    uint32_t in_length, in_room, out_length, out_sent, out_room;
    hpack headers;
    slot *slots;
} connection;

static struct {
    int port, connections, streams, once;
    double seconds, warm_up, rate;
    int64_t deadline_ns;
    uint64_t first_id, record_every, record_limit, requests;
    const char *path, *record;
} given = {.connections = 1, .streams = 1, .seconds = 2, .warm_up = 0.5, .first_id = 1,
           .path = "/inference.GRPCInferenceService/ModelInfer"};

static body *bodies;
static uint32_t body_count, slot_count, turn;
static connection *all;
static int poller;
static FILE *record;
static uint64_t begun, recorded, answered, good, counts[STATUSES], resets, histogram[BUCKETS];
static uint64_t measured_sum, measured_most, in_time;
static uint32_t series[SERIES];
static int64_t start, measure_from, end;
static uint8_t first_block[512], next_block[64], plain_block[512];
static uint32_t first_length, next_length, plain_length;

static void die(const char *what) {
    fprintf(stderr, "load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static void *allocated(size_t size) {
    void *memory = calloc(1, size);
    if (!memory) die("no memory");
    return memory;
}

static int64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static uint32_t u32(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void put_u32(uint8_t *at, uint32_t value) {
    at[0] = value >> 24, at[1] = value >> 16, at[2] = value >> 8, at[3] = value;
}

static void frame_head(uint8_t *at, uint32_t length, int type, int flags, uint32_t stream) {
    at[0] = length >> 16, at[1] = length >> 8, at[2] = length, at[3] = type, at[4] = flags;
    put_u32(at + 5, stream);
}

/* ---- what is sent ---- */

static void read_bodies(const char *path) {
    FILE *file = fopen(path, "rb");
    uint8_t head[8];
    if (!file) die(path);
    while (fread(head, 1, 8, file) == 8) {
        bodies = realloc(bodies, (body_count + 1) * sizeof *bodies);
        if (!bodies) die("no memory");
        body *each = &bodies[body_count++];
        each->frames_length = 0;
        memcpy(&each->length, head, 4);
        memcpy(&each->id_at, head + 4, 4);
        if (each->length > 4u << 20) die("a body is longer than 4 MiB");
        uint8_t *message = allocated(each->length + 5);
        put_u32(message + 1, each->length);
        if (fread(message + 5, 1, each->length, file) != each->length) die("torn bodies");
        uint32_t whole = each->length + 5, parts = (whole + FRAME_BYTES - 1) / FRAME_BYTES;
        each->frames = allocated(whole + 9 * parts);
        if (each->id_at >= 0 && (uint32_t)each->id_at + 5 + ID_DIGITS > FRAME_BYTES)
            die("an id lies too far inside");
        for (uint32_t part = 0; part < parts; part++) {
            uint32_t at = part * FRAME_BYTES;
            uint32_t size = whole - at < FRAME_BYTES ? whole - at : FRAME_BYTES;
            uint8_t *to = each->frames + each->frames_length;
            frame_head(to, size, DATA, part == parts - 1 ? END_STREAM : 0, 0);
            memcpy(to + 9, message + at, size);
            each->frames_length += 9 + size;
        }
        free(message);
    }
    fclose(file);
    if (body_count == 0) die("no bodies");
}

static uint32_t literal(uint8_t *to, int kind, int prefix, uint32_t index, const char *name,
                        const char *value) {
    uint32_t at = 0, most = (1u << prefix) - 1;
    if (index < most) {
        to[at++] = kind | index;
    } else {
        to[at++] = kind | most;
        to[at++] = index - most;
    }
    for (int each = index ? 1 : 0; each < 2; each++) {
        const char *text = each ? value : name;
        to[at++] = strlen(text);
        memcpy(to + at, text, strlen(text));
        at += strlen(text);
    }
    return at;
}

/* The first request of a connection teaches the server the headers, later ones point at them. */
static void make_blocks(void) {
    char authority[32], timeout[16];
    snprintf(authority, sizeof authority, "127.0.0.1:%d", given.port);
    snprintf(timeout, sizeof timeout, "%lldm", (long long)(given.deadline_ns / 1000000));
    const struct { int index; const char *name, *value; } headers[] = {
        {4, "", given.path}, {1, "", authority}, {31, "", "application/grpc"},
        {0, "te", "trailers"}, {0, "grpc-timeout", timeout}};
    int count = given.deadline_ns ? 5 : 4;
    first_block[0] = next_block[0] = 0x83; /* :method POST */
    first_block[1] = next_block[1] = 0x86; /* :scheme http */
    memcpy(plain_block, "\x20\x83\x86", 3); /* the table's size is nought */
    first_length = next_length = 2, plain_length = 3;
    for (int each = 0; each < count; each++) {
        first_length += literal(first_block + first_length, 0x40, 6, headers[each].index,
                                headers[each].name, headers[each].value);
        plain_length += literal(plain_block + plain_length, 0, 4, headers[each].index,
                                headers[each].name, headers[each].value);
        next_block[next_length++] = 0x80 | (62 + count - 1 - each);
    }
}

static uint8_t *room(connection *to, uint32_t size) {
    if (to->out_sent == to->out_length) to->out_sent = to->out_length = 0;
    if (to->out_length + size > to->out_room) {
        to->out_room = (to->out_length + size) * 2;
        to->out = realloc(to->out, to->out_room);
        if (!to->out) die("no memory");
    }
    uint8_t *at = to->out + to->out_length;
    to->out_length += size;
    return at;
}

static void send_control(connection *to, int type, int flags, uint32_t stream, const void *payload,
                         uint32_t length) {
    uint8_t *at = room(to, 9 + length);
    frame_head(at, length, type, flags, stream);
    memcpy(at + 9, payload, length);
}

static void patch_id(uint8_t *message, uint64_t id) {
    for (int digit = ID_DIGITS - 1; digit >= 0; digit--, id /= 10) message[digit] = '0' + id % 10;
}

static slot *slot_of(connection *of, uint32_t stream) {
    return &of->slots[(stream >> 1) & (slot_count - 1)];
}

static int can_begin(const connection *on) {
    return on->is_open && on->is_settled && !on->is_leaving && on->in_flight < on->may_be_open &&
           on->in_flight < (uint32_t)given.streams &&
           on->send_window >= (int64_t)bodies[turn].length + 5 &&
           on->slots[(on->next_stream >> 1) & (slot_count - 1)].stream == 0;
}

static void begin(connection *on, int64_t due) {
    body *sent = &bodies[turn];
    if (sent->length + 5 > on->stream_window) die("a body is longer than the server's window");
    const uint8_t *block = next_block;
    uint32_t length = next_length;
    if (!on->is_indexed) block = plain_block, length = plain_length;
    else if (on->next_stream == 1) block = first_block, length = first_length;
    uint8_t *at = room(on, 9 + length + sent->frames_length);
    frame_head(at, length, HEADERS, END_HEADERS, on->next_stream);
    memcpy(at + 9, block, length);
    at += 9 + length;
    memcpy(at, sent->frames, sent->frames_length);
    slot *mine = slot_of(on, on->next_stream);
    uint8_t *kept = mine->kept;
    *mine = (slot){.stream = on->next_stream, .body = turn, .due = due, .status = -1,
                   .id = given.first_id + begun};
    free(kept);
    if (sent->id_at >= 0) patch_id(at + 9 + 5 + sent->id_at, mine->id);
    for (uint32_t part = 0; part < sent->frames_length; part += 9 + FRAME_BYTES)
        put_u32(at + part + 5, on->next_stream);
    if (record && begun % given.record_every == 0 && recorded < given.record_limit) {
        recorded++;
        mine->room = 4096;
        mine->kept = allocated(mine->room);
    }
    on->send_window -= sent->length + 5;
    on->next_stream += 2;
    on->in_flight++;
    begun++;
    turn = (turn + 1) % body_count;
}

/* ---- what comes back ---- */

static int bucket_of(uint64_t value) {
    if (value < 64) return (int)value;
    int shift = 63 - __builtin_clzll(value) - BUCKET_BITS;
    return (shift << BUCKET_BITS) + (int)(value >> shift);
}

static double bucket_value(int bucket) {
    int shift = (bucket >> BUCKET_BITS) - 1;
    if (shift <= 0) return bucket;
    uint64_t low = (uint64_t)(bucket - (shift << BUCKET_BITS)) << shift;
    return low + (double)(1ull << shift) / 2;
}

static void count(int status, int64_t due, int64_t now) {
    if (status < 0 || status >= STATUSES) status = BROKEN;
    answered++;
    /* In a closed loop what is answered after the warm-up counts, in an open one what fell due. */
    if ((given.rate > 0 ? due : now) < measure_from && !given.once) return;
    counts[status]++;
    if (status != 0) return;
    uint64_t taken = (uint64_t)(now - due);
    good += given.deadline_ns && taken <= (uint64_t)given.deadline_ns;
    if (now > end && !given.once) return; /* it is an answer, but not one within the time */
    int bucket = bucket_of(taken);
    histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    measured_sum += taken;
    if (taken > measured_most) measured_most = taken;
    in_time++;
    uint64_t tenth = (uint64_t)(now - measure_from) / 100000000;
    if (tenth < SERIES) series[tenth]++;
}

static void keep(const slot *from) {
    uint32_t length = from->received;
    fwrite(&from->body, 4, 1, record);
    fwrite(&from->id, 8, 1, record);
    fwrite(&length, 4, 1, record);
    fwrite(from->kept, 1, length, record);
}

static void finish(connection *on, slot *done, int status, int64_t now) {
    if (status == 0 && done->received < 5) status = BROKEN; /* OK, and no message */
    count(status, done->due, now);
    if (done->kept && status == 0) keep(done);
    free(done->kept);
    done->kept = NULL;
    done->stream = 0;
    on->in_flight--;
}

static void on_data(connection *on, uint32_t stream, const uint8_t *payload, uint32_t length) {
    slot *mine = slot_of(on, stream);
    if (mine->stream != stream) return;
    if (mine->kept) {
        while (mine->received + length > mine->room) {
            mine->room *= 2;
            mine->kept = realloc(mine->kept, mine->room);
            if (!mine->kept) die("no memory");
        }
        memcpy(mine->kept + mine->received, payload, length);
    }
    mine->received += length;
}

static void on_settings(connection *on, const uint8_t *payload, uint32_t length) {
    for (uint32_t at = 0; at + 6 <= length; at += 6) {
        uint32_t name = (uint32_t)payload[at] << 8 | payload[at + 1], value = u32(payload + at + 2);
        if (name == 1 && value < HPACK_TABLE_BYTES && !on->is_settled) on->is_indexed = 0;
        if (name == 3) on->may_be_open = value;
        if (name == 4) on->stream_window = value;
    }
    send_control(on, SETTINGS, ACK, 0, "", 0);
    on->is_settled = 1;
}

static void on_frame(connection *on, int type, int flags, uint32_t stream, const uint8_t *payload,
                     uint32_t length, int64_t now) {
    uint32_t padding = 0, whole = length;
    if ((type == DATA || type == HEADERS) && flags & PADDED) {
        padding = payload[0];
        payload++, length--;
    }
    if (type == HEADERS && flags & HAS_PRIORITY) payload += 5, length -= 5;
    if (padding > length) die("a frame's padding is longer than the frame");
    length -= padding;
    slot *mine = slot_of(on, stream);
    switch (type) {
    case DATA:
        on_data(on, stream, payload, length);
        on->received += whole;
        break;
    case HEADERS:
        if (!(flags & END_HEADERS)) die("headers in several frames are not read here");
        int status = hpack_status(&on->headers, payload, length);
        if (mine->stream == stream && status >= 0) mine->status = status;
        break;
    case RST_STREAM:
        if (mine->stream == stream) finish(on, mine, BROKEN, now);
        return;
    case SETTINGS:
        if (!(flags & ACK)) on_settings(on, payload, length);
        return;
    case PING:
        if (!(flags & ACK)) send_control(on, PING, ACK, 0, payload, 8);
        return;
    case GOAWAY:
        on->is_leaving = 1;
        return;
    case WINDOW_UPDATE:
        if (stream == 0) on->send_window += u32(payload) & 0x7fffffff;
        return;
    default:
        return;
    }
    if (flags & END_STREAM && mine->stream == stream) finish(on, mine, mine->status, now);
}

static void open_connection(connection *self) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(given.port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    self->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (self->fd < 0) die("socket");
    if (connect(self->fd, (struct sockaddr *)&to, sizeof to) < 0) {
        close(self->fd);
        self->retry_at = now_ns() + 5000000;
        return;
    }
    setsockopt(self->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(self->fd, F_SETFL, O_NONBLOCK);
    self->is_open = self->is_indexed = 1;
    self->is_settled = self->is_waiting_to_write = self->is_leaving = 0;
    self->in_length = self->out_length = self->out_sent = 0;
    self->next_stream = 1;
    self->may_be_open = 100;
    self->send_window = self->stream_window = 65535;
    self->received = 0;
    hpack_open(&self->headers);
    memcpy(room(self, 24), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    uint8_t settings[12] = {0, 2, 0, 0, 0, 0, 0, 4}, window[4];
    put_u32(settings + 8, RECEIVE_WINDOW);
    put_u32(window, RECEIVE_WINDOW);
    send_control(self, SETTINGS, 0, 0, settings, sizeof settings);
    send_control(self, WINDOW_UPDATE, 0, 0, window, sizeof window);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = self};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, self->fd, &event) < 0) die("epoll_ctl");
}

static void lose_connection(connection *self, int64_t now) {
    close(self->fd);
    self->is_open = 0;
    self->retry_at = now;
    resets++;
    for (uint32_t each = 0; each < slot_count; each++)
        if (self->slots[each].stream) finish(self, &self->slots[each], BROKEN, now);
}

static void flush_out(connection *self, int64_t now) {
    while (self->is_open && self->out_sent < self->out_length) {
        ssize_t sent = send(self->fd, self->out + self->out_sent, self->out_length - self->out_sent,
                            MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno != EAGAIN) return lose_connection(self, now);
        if (sent < 0) break;
        self->out_sent += (uint32_t)sent;
    }
    int waits = self->is_open && self->out_sent < self->out_length;
    if (self->is_open && waits != self->is_waiting_to_write) {
        struct epoll_event event = {.events = EPOLLIN | (waits ? EPOLLOUT : 0), .data.ptr = self};
        epoll_ctl(poller, EPOLL_CTL_MOD, self->fd, &event);
        self->is_waiting_to_write = waits;
    }
}

static void read_frames(connection *self, int64_t now) {
    uint32_t at = 0;
    while (self->is_open && self->in_length - at >= 9) {
        const uint8_t *head = self->in + at;
        uint32_t length = (uint32_t)head[0] << 16 | (uint32_t)head[1] << 8 | head[2];
        if (length > FRAME_BYTES) die("not HTTP/2");
        if (self->in_length - at < 9 + length) break;
        on_frame(self, head[3], head[4], u32(head + 5) & 0x7fffffff, head + 9, length, now);
        at += 9 + length;
    }
    memmove(self->in, self->in + at, self->in_length - at);
    self->in_length -= at;
    if (self->received > RECEIVE_WINDOW / 2) {
        uint8_t window[4];
        put_u32(window, (uint32_t)self->received);
        send_control(self, WINDOW_UPDATE, 0, 0, window, sizeof window);
        self->received = 0;
    }
}

static void receive(connection *self) {
    ssize_t got = recv(self->fd, self->in + self->in_length, self->in_room - self->in_length, 0);
    int64_t now = now_ns();
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return lose_connection(self, now);
    if (got < 0) return;
    self->in_length += (uint32_t)got;
    read_frames(self, now);
}

/* ---- when something is sent ---- */

static int is_over(int64_t now) {
    return now >= end || (given.requests && begun >= given.requests);
}

static void fill(connection *self, int64_t now) {
    while (!is_over(now) && can_begin(self)) begin(self, now);
}

static uint64_t random_state = 88172645463325252ull;

/* Nanoseconds until the next request falls due: exponential, so that arrivals are Poisson. */
static double gap(void) {
    random_state ^= random_state << 13, random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return -log(((random_state >> 11) + 1) * 0x1p-53) * 1e9 / given.rate;
}

static volatile sig_atomic_t is_told_to_end;

static void on_signal(int number) {
    (void)number;
    is_told_to_end = 1;
}

static double due = 0;
static int next_connection;

/* Sends what fell due; what could not be sent for a whole deadline is given up by its caller. */
static void send_due(int64_t now) {
    while (due <= now && due < end) {
        int tried = 0;
        while (tried < given.connections && !can_begin(&all[next_connection])) {
            next_connection = (next_connection + 1) % given.connections;
            tried++;
        }
        int64_t patience = given.deadline_ns ? given.deadline_ns : 1000000000;
        if (tried < given.connections) {
            begin(&all[next_connection], (int64_t)due);
            next_connection = (next_connection + 1) % given.connections;
        } else if (now - due > patience) {
            count(UNSENT, (int64_t)due, now);
        } else {
            break;
        }
        due += gap();
    }
    for (int each = 0; each < given.connections; each++)
        if (all[each].is_open && all[each].out_sent < all[each].out_length) flush_out(&all[each], now);
}

static int arm(int timer, int64_t now) {
    int64_t wait = (int64_t)due - now;
    if (wait < 50000) wait = 50000; /* requests due within 50 us go together */
    if (wait > 5000000) wait = 5000000;
    struct itimerspec spec = {.it_value = {.tv_nsec = wait}};
    return timerfd_settime(timer, 0, &spec, NULL);
}

static uint64_t in_flight(void) {
    uint64_t sum = 0;
    for (int each = 0; each < given.connections; each++) sum += all[each].in_flight;
    return sum;
}

static void revive(int64_t now) {
    for (int each = 0; each < given.connections; each++) {
        connection *self = &all[each];
        if (self->is_open && self->is_leaving && self->in_flight == 0) {
            close(self->fd);
            self->is_open = 0;
            self->retry_at = now;
        }
        if (self->is_open || now < self->retry_at) continue;
        open_connection(self);
        flush_out(self, now);
    }
}

static void drive(void) {
    struct epoll_event events[256];
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (given.rate > 0) epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
    for (;;) {
        int64_t now = now_ns();
        revive(now);
        if (is_told_to_end && end > now) end = now;
        if (is_over(now) && (in_flight() == 0 || now >= end + 2000000000ll)) break;
        if (given.rate > 0) {
            send_due(now);
            arm(timer, now);
        }
        int ready = epoll_wait(poller, events, 256, 5);
        for (int each = 0; each < ready; each++) {
            connection *on = events[each].data.ptr;
            uint64_t ticks;
            if (!on) {
                if (read(timer, &ticks, sizeof ticks) < 0) continue;
                continue;
            }
            if (events[each].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(on);
            if (!on->is_open) continue;
            if (given.rate <= 0) fill(on, now_ns());
            flush_out(on, now);
        }
    }
    for (int each = 0; each < given.connections; each++)
        for (uint32_t at = 0; at < slot_count; at++)
            if (all[each].slots[at].stream) count(BROKEN, all[each].slots[at].due, now_ns());
}

/* ---- the whole ---- */

static double quantile(double share) {
    uint64_t sum = 0, wanted = (uint64_t)ceil(share * in_time);
    for (int bucket = 0; bucket < BUCKETS; bucket++) {
        sum += histogram[bucket];
        if (sum >= wanted && sum > 0) return bucket_value(bucket) / 1000;
    }
    return 0;
}

static void print(double taken) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec +
                 (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    uint64_t failed = 0;
    for (int status = 1; status < STATUSES; status++) failed += counts[status];
    printf("{\"seconds\": %.4f, \"begun\": %llu, \"ok\": %llu, \"failed\": %llu, \"within_deadline\": %llu,"
           " \"lost_connections\": %llu, \"unsent\": %llu, \"requests_per_second\": %.1f,",
           taken, (unsigned long long)begun, (unsigned long long)counts[0], (unsigned long long)failed,
           (unsigned long long)good, (unsigned long long)resets, (unsigned long long)counts[UNSENT],
           taken > 0 ? in_time / taken : 0);
    printf(" \"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f,"
           " \"mean_us\": %.1f, \"generator_cpu_us\": %.2f, \"statuses\": {",
           quantile(.5), quantile(.9), quantile(.99), quantile(.999), measured_most / 1e3,
           in_time ? measured_sum / 1e3 / in_time : 0, answered ? cpu * 1e6 / answered : 0);
    for (int status = 0, several = 0; status < STATUSES; status++)
        if (counts[status])
            printf("%s\"%d\": %llu", several++ ? ", " : "", status, (unsigned long long)counts[status]);
    printf("}, \"per_tenth_second\": [");
    for (int tenth = 0; tenth < (int)(taken * 10) && tenth < SERIES; tenth++)
        printf("%s%u", tenth ? ", " : "", series[tenth]);
    printf("]}\n");
}

static void read_options(int count, char **values) {
    if (count < 3) die("usage: load PORT BODIES [--connections N] ...");
    given.port = atoi(values[1]);
    for (int at = 3; at < count; at += 2) {
        const char *name = values[at], *value = at + 1 < count ? values[at + 1] : "";
        if (!strcmp(name, "--connections")) given.connections = atoi(value);
        else if (!strcmp(name, "--streams")) given.streams = atoi(value);
        else if (!strcmp(name, "--seconds")) given.seconds = atof(value);
        else if (!strcmp(name, "--warm-up")) given.warm_up = atof(value);
        else if (!strcmp(name, "--requests")) given.requests = strtoull(value, NULL, 10);
        else if (!strcmp(name, "--rate")) given.rate = atof(value);
        else if (!strcmp(name, "--deadline-ms")) given.deadline_ns = atoll(value) * 1000000;
        else if (!strcmp(name, "--first-id")) given.first_id = strtoull(value, NULL, 10);
        else if (!strcmp(name, "--path")) given.path = value;
        else if (!strcmp(name, "--record")) given.record = value;
        else if (!strcmp(name, "--record-every")) given.record_every = strtoull(value, NULL, 10);
        else if (!strcmp(name, "--record-limit")) given.record_limit = strtoull(value, NULL, 10);
        else if (!strcmp(name, "--once")) given.once = atoi(value);
        else die(name);
    }
    if (given.connections < 1 || given.connections > MAX_CONNECTIONS) die("1 to 2048 connections");
    if (given.streams < 1 || given.streams > MAX_STREAMS) die("1 to 1024 streams");
    if (given.seconds <= 0 || given.seconds > MAX_SECONDS) die("at most 900 seconds");
    if (strlen(given.path) > 126) die("the path is too long");
    if (!given.record_every) given.record_every = 1;
    if (!given.record_limit) given.record_limit = ~0ull;
}

int main(int count, char **values) {
    read_options(count, values);
    huffman_prepare();
    read_bodies(values[2]);
    make_blocks();
    if (given.once) {
        given.warm_up = 0;
        if (!given.requests || given.requests > body_count) given.requests = body_count;
    }
    if (given.record && !(record = fopen(given.record, "wb"))) die(given.record);
    for (slot_count = 4; slot_count < (uint32_t)given.streams * 4; slot_count *= 2) continue;
    poller = epoll_create1(0);
    all = allocated(given.connections * sizeof *all);
    for (int each = 0; each < given.connections; each++) {
        all[each].in_room = 256 * 1024;
        all[each].in = allocated(all[each].in_room);
        all[each].slots = allocated(slot_count * sizeof(slot));
    }
    errno = 0;
    start = now_ns();
    measure_from = start + (int64_t)(given.warm_up * 1e9);
    end = measure_from + (int64_t)(given.seconds * 1e9);
    due = start + 50e6; /* connections are made first */
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    drive();
    int64_t last = now_ns();
    print((last < end || given.once ? last - measure_from : end - measure_from) / 1e9);
    if (record) fclose(record);
    return 0;
}
