/* One client's conversation: request, options, blocks, acknowledgements, timers, and the check of what came.
 *
 * Manners: an old block is acknowledged again (RFC 1350 2); with a window, every block out of turn is answered with the
 * last one in turn, as EDK2 does, or only the first, as U-Boot does (--nack once); after --retry milliseconds without
 * progress the last word is said again. */
#include "load.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static unsigned char *pattern; /* twice in a row, so that no comparison wraps */
static uint64_t period;

/* The file that is fetched is this pattern over and over. Its length is a prime number larger than any block, so that
 * no block looks like one of the 65520 after it; and a file of any size is checked from 128 KiB. */
void client_load_pattern(void) {
    FILE *file = fopen(settings.pattern_path, "rb");
    pattern = malloc(4 << 20);
    if (file) period = fread(pattern, 1, 1 << 20, file);
    if (!file || !period) {
        fprintf(stderr, "load: cannot read the pattern %s\n", settings.pattern_path);
        exit(2);
    }
    fclose(file);
    for (uint64_t filled = period; filled < period + 65536; filled++) pattern[filled] = pattern[filled - period];
}

/* xorshift64*: each client has its own luck for each direction, whatever order the others' packets come in. */
static int unlucky(uint64_t *luck) {
    if (settings.loss <= 0) return 0;
    *luck ^= *luck >> 12;
    *luck ^= *luck << 25;
    *luck ^= *luck >> 27;
    if ((*luck * 0x2545f4914f6cdd1dull >> 11) * 0x1p-53 >= settings.loss) return 0;
    counts.dropped++;
    return 1;
}

static unsigned add(char *packet, unsigned at, const char *text) {
    return at + snprintf(packet + at, 600 - at, "%s", text) + 1;
}

static void ask(struct client *c) {
    char packet[640] = {0, 1}, number[24];
    unsigned n = add(packet, add(packet, 2, settings.name), "octet");
    if (settings.block != 512) {
        snprintf(number, sizeof number, "%u", settings.block);
        n = add(packet, add(packet, n, "blksize"), number);
    }
    if (settings.window > 1) {
        snprintf(number, sizeof number, "%u", settings.window);
        n = add(packet, add(packet, n, "windowsize"), number);
    }
    wire_send(c->turn, c->local, &settings.server, packet, n);
}

/* Each file comes to another port than the one before: the server may still be dallying with that one. */
static void begin(struct client *c, int64_t now) {
    c->turn = (c->turn + 1) % SOCKETS;
    c->known = 0;
    c->active = 0;
    c->expected = 1;
    c->received = c->since_ack = c->nacked = 0;
    c->block = 512;
    c->window = 1;
    c->quiet_since = now;
    ask(c);
}

void client_init(struct client *c, unsigned number, int64_t now) {
    c->in_luck = (settings.seed * 2654435761u + number) * 0x9e3779b97f4a7c15ull | 1;
    c->out_luck = c->in_luck * 0xd1342543de82ef95ull | 1;
    c->turn = number % SOCKETS;
    begin(c, now);
}

static void acknowledge(struct client *c, uint64_t block) {
    unsigned char packet[4] = {0, 4, block >> 8 & 255, block & 255};
    c->since_ack = 0;
    if (!unlucky(&c->out_luck)) wire_send(c->turn, c->local, &c->server, packet, 4);
}

static void end(struct client *c) {
    if (c->active) counts.active--;
    c->active = 0;
    c->finished = 1;
}

static void done(struct client *c, int64_t now) {
    if (c->received != settings.size) counts.bad++;
    counts.all_files++;
    counts.files += counting;
    c->files++;
    if (c->active) counts.active--;
    c->active = 0;
    if (stopping || (settings.files && c->files >= settings.files)) end(c);
    else begin(c, now);
}

static void options(struct client *c, const char *at, const char *end) {
    while (at < end) {
        const char *value = memchr(at, 0, end - at);
        if (!value || ++value >= end) return;
        if (!strcasecmp(at, "blksize")) c->block = atoi(value);
        if (!strcasecmp(at, "windowsize")) c->window = atoi(value);
        const char *last = memchr(value, 0, end - value);
        if (!last) return;
        at = last + 1;
    }
}

static void out_of_turn(struct client *c) {
    if (c->window == 1) {
        acknowledge(c, c->expected - 1);
    } else if (!settings.nack_once || c->nacked != c->expected) {
        c->nacked = c->expected;
        acknowledge(c, c->expected - 1);
    }
}

static void block(struct client *c, unsigned char *data, unsigned length, int64_t now) {
    uint64_t payload = length - 4;
    if ((unsigned)(data[2] << 8 | data[3]) != (c->expected & 0xffff)) {
        out_of_turn(c);
        return;
    }
    c->quiet_since = now;
    if (payload > c->block || c->received + payload > settings.size ||
        memcmp(data + 4, pattern + c->received % period, payload))
        counts.bad++;
    c->received += payload;
    c->expected++;
    c->since_ack++;
    counts.all_bytes += payload;
    if (counting) {
        counts.bytes += payload;
        counts.blocks++;
    }
    if (payload < c->block) {
        counts.block = c->block;
        counts.window = c->window;
        acknowledge(c, c->expected - 1);
        done(c, now);
    } else if (c->since_ack >= c->window) {
        acknowledge(c, c->expected - 1);
    }
}

/* Another port than the one that answered first (RFC 1350 4): its sender learns that nobody wants it. */
static int stray(struct client *c, unsigned socket, const struct sockaddr_in *from) {
    static const unsigned char unknown[] = "\0\5\0\5unknown transfer ID";
    if (socket == c->turn && !c->finished) {
        if (!c->known) {
            c->known = 1;
            c->server = *from;
            counts.same_port += from->sin_port == settings.server.sin_port;
            c->active = 1;
            if (++counts.active > counts.peak_active) counts.peak_active = counts.active;
        }
        if (from->sin_port == c->server.sin_port && from->sin_addr.s_addr == c->server.sin_addr.s_addr) return 0;
    }
    counts.strays++;
    wire_send(socket, c->local, from, unknown, sizeof unknown);
    return 1;
}

void client_take(struct client *c, unsigned socket, const struct sockaddr_in *from, unsigned char *data, unsigned length,
                 int64_t now) {
    if (length < 4 || data[0]) return;
    if (data[1] != 5 && unlucky(&c->in_luck)) return;
    if (data[1] == 5 && (c->finished || socket != c->turn || (c->known && from->sin_port != c->server.sin_port))) return;
    if (stray(c, socket, from)) return;
    if (data[1] == 3) {
        block(c, data, length, now);
    } else if (data[1] == 6 && c->expected == 1) {
        options(c, (char *)data + 2, (char *)data + length);
        counts.block = c->block;
        counts.window = c->window;
        c->quiet_since = now;
        acknowledge(c, 0);
    } else if (data[1] == 5) {
        if (!counts.error[0]) snprintf(counts.error, sizeof counts.error, "%.*s", (int)length - 4, (char *)data + 4);
        counts.failed++;
        end(c);
    }
}

void client_tick(struct client *c, int64_t now) {
    if (c->finished || now - c->quiet_since < settings.retry_ns) return;
    counts.retries++;
    c->quiet_since = now;
    if (c->known) acknowledge(c, c->expected - 1);
    else ask(c);
}

/* No more files. A client that has had one and waits for an answer goes; whoever has had none stays. */
void client_stop(struct client *c) {
    if (!c->known && c->files) end(c);
}

void client_abort(struct client *c) {
    static const unsigned char stopped[] = "\0\5\0\0stopped";
    if (!c->finished && c->known) wire_send(c->turn, c->local, &c->server, stopped, sizeof stopped);
    end(c);
}
