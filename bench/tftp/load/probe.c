/* A new client every 20 ms while the load runs: how long until its first DATA?
 *
 * One rule: the kernel's stamp of the answer counts, not the moment at which this busy program reads it. The request
 * asks for no options, so the first answer is the first DATA; the file is one block. */
#include "load.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 512, MOST = 100000 };
static const int64_t EVERY_NS = 20000000ll, AGAIN_NS = 1000000000ll, PATIENCE_NS = 5000000000ll;

static struct { int open, fd; int64_t begun, asked; } slots[SLOTS];
static int64_t times[MOST], next_at;
static unsigned answered, unanswered, asked, at;

static int64_t real_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void ask(int fd) {
    char packet[600] = {0, 1};
    unsigned n = 2 + snprintf(packet + 2, 500, "%s", settings.probe_name) + 1;
    n += snprintf(packet + n, 8, "octet") + 1;
    sendto(fd, packet, n, 0, (struct sockaddr *)&settings.server, sizeof settings.server);
}

static void begin(void) {
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f200001u + at % 250)};
    unsigned slot = at++ % SLOTS;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = SOCKETS + slot};
    int on = 1, fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (slots[slot].open || fd < 0) return;
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    bind(fd, (struct sockaddr *)&local, sizeof local);
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
    slots[slot].open = 1;
    slots[slot].fd = fd;
    asked++;
    slots[slot].begun = slots[slot].asked = real_ns();
    ask(fd);
}

static void end(unsigned slot) {
    close(slots[slot].fd);
    slots[slot].open = 0;
}

void probe_readable(unsigned slot) {
    static _Alignas(struct cmsghdr) unsigned char control[128];
    unsigned char data[1500];
    struct sockaddr_in from;
    struct iovec part = {data, sizeof data};
    struct msghdr header = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &part, .msg_iovlen = 1,
                            .msg_control = control, .msg_controllen = sizeof control};
    if (!slots[slot].open || recvmsg(slots[slot].fd, &header, 0) < 4 || data[1] != 3) return;
    for (struct cmsghdr *m = CMSG_FIRSTHDR(&header); m; m = CMSG_NXTHDR(&header, m)) {
        struct timespec t;
        if (m->cmsg_level != SOL_SOCKET || m->cmsg_type != SCM_TIMESTAMPNS || answered == MOST) continue;
        memcpy(&t, CMSG_DATA(m), sizeof t);
        times[answered++] = t.tv_sec * 1000000000ll + t.tv_nsec - slots[slot].begun;
    }
    sendto(slots[slot].fd, "\0\4\0\1", 4, 0, (struct sockaddr *)&from, sizeof from);
    end(slot);
}

void probe_tick(int64_t now) {
    if (!stopping && counting && now >= next_at) {
        next_at = (next_at ? next_at : now) + EVERY_NS;
        begin();
    }
    static int64_t swept;
    if (now - swept < 100000000ll) return;
    swept = now;
    int64_t real = real_ns();
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        if (!slots[slot].open) continue;
        if (real - slots[slot].begun > PATIENCE_NS) {
            unanswered++;
            end(slot);
        } else if (real - slots[slot].asked > AGAIN_NS) {
            slots[slot].asked = real;
            ask(slots[slot].fd);
        }
    }
}

static int smaller(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Those that were never answered stand at the end, with the patience that was had for them. */
void probe_print(void) {
    for (unsigned slot = 0; slot < SLOTS; slot++) unanswered += slots[slot].open;
    for (unsigned i = 0; i < unanswered && answered + i < MOST; i++) times[answered + i] = PATIENCE_NS;
    unsigned n = answered + unanswered;
    qsort(times, n, sizeof *times, smaller);
    printf(", \"probe\": {\"asked\": %u, \"answered\": %u, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}", asked,
           answered, n ? times[n / 2] / 1e6 : 0, n ? times[(n * 99 + 99) / 100 - 1] / 1e6 : 0, n ? times[n - 1] / 1e6 : 0);
}
