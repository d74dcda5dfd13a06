/* What the parts of the HTTP load generator know of each other. Linux only.
 *
 * One rule: every client has an address of its own below 127.16.0.0/16, as every device of a room has, and asks for
 * one file at a time. */
#ifndef LOAD_H
#define LOAD_H

#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdint.h>

enum { MOST_CLIENTS = 60000, BUFFER = 256 << 10, HEAD = 4096 };

struct settings {
    struct sockaddr_in server;
    const char *path, *pattern_path, *token;
    uint64_t size, files, break_bytes;
    unsigned clients, check;
    double seconds, warmup, limit;
    int new_connections;
};

/* Everything that is counted. `bytes` and `files` only between the warm-up and the end of the time box. */
struct counts {
    uint64_t bytes, files, all_bytes, all_files;
    uint64_t bad, failed, unfinished, resumed, connections;
    char error[128];
};

struct client {
    uint32_t local; /* network order */
    int fd, connected, in_body, finished;
    uint64_t position, leave_at; /* of the file; where this connection is broken off */
    uint64_t files, received, reads;
    int64_t asked;
    unsigned head_bytes;
    char etag[96];
    char head[HEAD];
};

extern struct settings settings;
extern struct counts counts;
extern struct client *clients;
extern int counting, poll_fd;

int64_t now_ns(void);

void client_load_pattern(void);
void client_init(struct client *c, unsigned number, int64_t now);
void client_event(struct client *c, int64_t now);
void client_leave(struct client *c);
void client_print_times(void);

#endif
