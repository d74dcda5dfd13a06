/* What the parts of the TFTP load generator know of each other. Linux only.
 *
 * One rule: many clients share a few sockets. Every client has an address of its own below 127.16.0.0/16, and one
 * recvmmsg/sendmmsg pair carries what came for and goes from dozens of them. A socket for each client would cost two
 * system calls per block, as much as the server pays, and half of the measurement would be the measuring. */
#ifndef LOAD_H
#define LOAD_H

#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdint.h>

enum { SOCKETS = 4, BATCH = 64, MOST_CLIENTS = 60000 };

struct settings {
    struct sockaddr_in server;
    const char *name, *pattern_path, *probe_name;
    uint64_t size, files, seed;
    unsigned clients, block, window;
    double seconds, warmup, limit, loss;
    int64_t retry_ns;
    int abort_at_end, nack_once, gro;
};

/* Everything that is counted. `bytes`, `blocks` and `files` only between the warm-up and the end of the time box. */
struct counts {
    uint64_t bytes, blocks, files, all_bytes, all_files;
    uint64_t bad, failed, unfinished, retries, strays, dropped, unsent;
    unsigned active, peak_active, block, window, same_port;
    char error[128];
};

struct client {
    uint32_t local; /* network order */
    unsigned short turn, known; /* socket in use; the server's port is known */
    int active, finished;
    struct sockaddr_in server;
    uint64_t expected, received, files, nacked;
    unsigned block, window, since_ack;
    int64_t quiet_since;
    uint64_t in_luck, out_luck;
};

extern struct settings settings;
extern struct counts counts;
extern struct client *clients;
extern int counting, stopping, poll_fd;

int64_t now_ns(void);

/* wire.c: datagrams in and out */
void wire_open(void);
void wire_drain(unsigned socket, int64_t now);
void wire_send(unsigned socket, uint32_t local, const struct sockaddr_in *to, const void *data, unsigned length);
void wire_flush(unsigned socket);
struct client *wire_client(uint32_t local);

/* client.c: the conversation */
void client_load_pattern(void);
void client_init(struct client *c, unsigned number, int64_t now);
void client_take(struct client *c, unsigned socket, const struct sockaddr_in *from, unsigned char *data, unsigned length,
                 int64_t now);
void client_tick(struct client *c, int64_t now);
void client_stop(struct client *c);
void client_abort(struct client *c);

/* probe.c: a new client every 20 ms */
void probe_tick(int64_t now);
void probe_readable(unsigned slot);
void probe_print(void);

#endif
