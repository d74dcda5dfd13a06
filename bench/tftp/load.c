/* TFTP load: N concurrent clients fetch one file each, again and again until every one has it ROUNDS times.
 * One thread, epoll. Content is checked against a pattern that depends on the position (see fill()).
 * Usage: load HOST PORT NAME SIZE CLIENTS BLKSIZE WINDOWSIZE ROUNDS
 * Prints one JSON object. Linux only. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RETRY_NS 1000000000ll

struct client {
    int fd, rounds, connected;
    uint64_t expected, received;
    unsigned block, window, since_ack;
    int64_t heard_at;
    unsigned char last[4];
};

static struct sockaddr_in server;
static const char *name;
static uint64_t size_bytes, retries, bad, total, blocks_seen;
static unsigned want_block, want_window, got_block, got_window, rounds_wanted, finished, failed;
static int poll_fd;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static unsigned char *pattern;

static void fill(void) {
    pattern = malloc(size_bytes + 1);
    for (uint64_t i = 0; i < size_bytes; i++) pattern[i] = (unsigned char)((i * 2654435761u) >> 13);
}

static void request(struct client *c) {
    char packet[600];
    int n = 2;
    packet[0] = 0;
    packet[1] = 1;
    n += sprintf(packet + n, "%s", name) + 1;
    n += sprintf(packet + n, "octet") + 1;
    if (want_block != 512) {
        n += sprintf(packet + n, "blksize") + 1;
        n += sprintf(packet + n, "%u", want_block) + 1;
    }
    if (want_window > 1) {
        n += sprintf(packet + n, "windowsize") + 1;
        n += sprintf(packet + n, "%u", want_window) + 1;
    }
    c->heard_at = now_ns();
    sendto(c->fd, packet, n, 0, (struct sockaddr *)&server, sizeof server);
}

static void begin(struct client *c) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int room = 1 << 20;
    if (c->fd >= 0) close(c->fd);
    c->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    c->connected = 0;
    c->expected = 1;
    c->received = 0;
    c->block = 512;
    c->window = 1;
    c->since_ack = 0;
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &event);
    request(c);
}

static void ack(struct client *c, uint64_t block) {
    c->last[0] = 0;
    c->last[1] = 4;
    c->last[2] = block >> 8;
    c->last[3] = block;
    c->since_ack = 0;
    send(c->fd, c->last, 4, 0);
}

static void options(struct client *c, const char *at, const char *end) {
    while (at < end) {
        const char *value = at + strlen(at) + 1;
        if (value >= end) break;
        if (!strcasecmp(at, "blksize")) c->block = atoi(value);
        if (!strcasecmp(at, "windowsize")) c->window = atoi(value);
        at = value + strlen(value) + 1;
    }
}

static void done(struct client *c) {
    got_block = c->block;
    got_window = c->window;
    total += c->received;
    if (c->received != size_bytes) bad++;
    if (++c->rounds < (int)rounds_wanted) {
        begin(c);
    } else {
        finished++;
        close(c->fd);
        c->fd = -1;
    }
}

static void take(struct client *c, unsigned char *data, ssize_t length) {
    if (length >= 4 && data[1] == 3) {
        uint64_t payload = length - 4;
        if ((unsigned)(data[2] << 8 | data[3]) != (c->expected & 0xffff)) {
            if (c->window > 1) ack(c, c->expected - 1);
            return;
        }
        blocks_seen++;
        if (c->received + payload > size_bytes || memcmp(data + 4, pattern + c->received, payload)) bad++;
        c->received += payload;
        c->expected++;
        c->since_ack++;
        if (payload < c->block) {
            ack(c, c->expected - 1);
            done(c);
        } else if (c->since_ack >= c->window) {
            ack(c, c->expected - 1);
        }
    } else if (length >= 2 && data[1] == 6) {
        options(c, (char *)data + 2, (char *)data + length);
        ack(c, 0);
    } else if (length >= 2 && data[1] == 5) {
        failed++;
        finished++;
        close(c->fd);
        c->fd = -1;
    }
}

static void readable(struct client *c) {
    static unsigned char data[65536 + 1];
    for (int n = 0; n < 64 && c->fd >= 0; n++) {
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        ssize_t length;
        int fd = c->fd;
        if (c->connected) {
            length = recv(c->fd, data, sizeof data - 1, 0);
        } else {
            length = recvfrom(c->fd, data, sizeof data - 1, 0, (struct sockaddr *)&from, &size);
            if (length >= 0) {
                connect(c->fd, (struct sockaddr *)&from, sizeof from);
                c->connected = 1;
            }
        }
        if (length < 0) return;
        data[length] = 0;
        c->heard_at = now_ns();
        take(c, data, length);
        if (c->fd != fd) return;
    }
}

int main(int argc, char **argv) {
    if (argc != 9) return 2;
    server.sin_family = AF_INET;
    inet_pton(AF_INET, argv[1], &server.sin_addr);
    server.sin_port = htons(atoi(argv[2]));
    name = argv[3];
    size_bytes = strtoull(argv[4], 0, 10);
    unsigned clients = atoi(argv[5]);
    want_block = atoi(argv[6]);
    want_window = atoi(argv[7]);
    rounds_wanted = atoi(argv[8]);
    fill();
    poll_fd = epoll_create1(0);
    struct client *all = calloc(clients, sizeof *all);
    int64_t started = now_ns(), swept = started;
    for (unsigned i = 0; i < clients; i++) {
        all[i].fd = -1;
        begin(&all[i]);
    }
    while (finished < clients) {
        struct epoll_event events[256];
        int n = epoll_wait(poll_fd, events, 256, 100);
        for (int i = 0; i < n; i++) readable(events[i].data.ptr);
        int64_t now = now_ns();
        if (now - swept < 100000000ll) continue;
        swept = now;
        for (unsigned i = 0; i < clients; i++) {
            struct client *c = &all[i];
            if (c->fd < 0 || now - c->heard_at < RETRY_NS) continue;
            retries++;
            c->heard_at = now;
            if (c->connected) send(c->fd, c->last, 4, 0);
            else request(c);
        }
        if (now - started > 300ll * 1000000000ll) {
            failed += clients - finished;
            break;
        }
    }
    double seconds = (now_ns() - started) / 1e9;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"seconds\": %.6f, \"bytes\": %llu, \"blocks\": %llu, \"bad\": %llu, \"failed\": %u, \"retries\": %llu, "
           "\"blksize\": %u, \"windowsize\": %u, \"cpu_seconds\": %.3f}\n",
           seconds, (unsigned long long)total, (unsigned long long)blocks_seen, (unsigned long long)bad, failed,
           (unsigned long long)retries, got_block, got_window,
           used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    return 0;
}
