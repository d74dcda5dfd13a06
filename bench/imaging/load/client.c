/* One client: asks for the file again and again, on one connection or on a new one each time.
 *
 * One rule: a byte that is not what the file has makes the run worthless. With --check N every Nth read is looked at and
 * the others are thrown away in the kernel (MSG_TRUNC), or the measuring would cost more than what is measured. */
#include "load.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PERIOD = 65521, PER_ROW = 250, MOST_TIMES = 4 << 20, SKIP = 4 << 20 };

static unsigned char *pattern, *buffer;
static uint32_t *times;
static unsigned timed;

/* A period of the pattern, and as much again as the largest read may need beyond it. */
void client_load_pattern(void) {
    FILE *file = fopen(settings.pattern_path, "rb");
    pattern = malloc(PERIOD + BUFFER);
    buffer = malloc(BUFFER);
    times = malloc(MOST_TIMES * sizeof *times);
    if (!file || fread(pattern, 1, PERIOD, file) != PERIOD) {
        fprintf(stderr, "load: %s is not the pattern\n", settings.pattern_path);
        exit(2);
    }
    fclose(file);
    for (size_t at = PERIOD; at < PERIOD + BUFFER; at++) pattern[at] = pattern[at - PERIOD];
}

static void fail(struct client *c, const char *why, int64_t now);

static void note(const char *why) {
    if (!*counts.error) snprintf(counts.error, sizeof counts.error, "%.120s", why);
}

static void watch(struct client *c, uint32_t what, int how) {
    struct epoll_event event = {.events = what, .data.u64 = c - clients};
    epoll_ctl(poll_fd, how, c->fd, &event);
}

static void ask(struct client *c, int64_t now) {
    char text[1024], range[192] = "", token[256] = "";
    if (c->position)
        snprintf(range, sizeof range, "Range: bytes=%llu-\r\n%s%s%s", (unsigned long long)c->position,
                 *c->etag ? "If-Range: " : "", c->etag, *c->etag ? "\r\n" : "");
    if (settings.token) snprintf(token, sizeof token, "Authorization: Bearer %s\r\n", settings.token);
    int n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: bench\r\n%s%s%s\r\n", settings.path, token, range,
                     settings.new_connections ? "Connection: close\r\n" : "");
    c->in_body = 0;
    c->head_bytes = 0;
    if (!c->position) c->asked = now;
    if (send(c->fd, text, n, MSG_NOSIGNAL) != n) fail(c, "the request was not taken", now);
}

static void hang_up(struct client *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->connected = 0;
}

static void call(struct client *c, int64_t now) {
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = c->local};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) {
        perror("load: socket");
        exit(2);
    }
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    bind(c->fd, (struct sockaddr *)&local, sizeof local);
    counts.connections++;
    c->leave_at = settings.break_bytes ? c->position + settings.break_bytes : UINT64_MAX;
    if (!connect(c->fd, (struct sockaddr *)&settings.server, sizeof settings.server)) {
        c->connected = 1;
        watch(c, EPOLLIN, EPOLL_CTL_ADD);
        ask(c, now);
    } else if (errno == EINPROGRESS) {
        watch(c, EPOLLOUT, EPOLL_CTL_ADD);
    } else {
        fail(c, strerror(errno), now);
    }
}

/* This client has had enough: a server that refuses once would be asked for ever. */
static void fail(struct client *c, const char *why, int64_t now) {
    (void)now;
    counts.failed++;
    note(why);
    hang_up(c);
    c->finished = 1;
}

/* 127.16.0.1, .2 ... .250, 127.16.1.1 ... */
void client_init(struct client *c, unsigned number, int64_t now) {
    *c = (struct client){.fd = -1, .local = htonl(0x7f100000u + (number / PER_ROW << 8) + number % PER_ROW + 1)};
    call(c, now);
}

static void complete(struct client *c, int64_t now) {
    c->files++;
    counts.all_files++;
    if (counting) {
        counts.files++;
        if (timed < MOST_TIMES) times[timed++] = (now - c->asked) / 1000;
    }
    c->position = 0;
    if (settings.files && c->files >= settings.files) {
        hang_up(c);
        c->finished = 1;
    } else if (settings.new_connections) {
        hang_up(c);
        call(c, now);
    } else {
        ask(c, now);
    }
}

/* `n` bytes of the body came; `data` NULL: they were thrown away. */
static void body(struct client *c, const unsigned char *data, uint64_t n, int64_t now) {
    if (c->position + n > settings.size) return fail(c, "more bytes than the file has", now);
    if (data && memcmp(data, pattern + c->position % PERIOD, n)) {
        counts.bad++;
        note("a wrong byte");
    }
    c->position += n;
    c->received += n;
    counts.all_bytes += n;
    if (counting) counts.bytes += n;
    if (c->position == settings.size) {
        complete(c, now);
    } else if (c->position >= c->leave_at) {
        counts.resumed++;
        hang_up(c);
        call(c, now);
    }
}

static const char *field(const char *head, const char *name) {
    for (const char *line = strchr(head, '\n'); line && line[1]; line = strchr(line + 1, '\n'))
        if (!strncasecmp(line + 1, name, strlen(name)) && line[1 + strlen(name)] == ':')
            return line + 2 + strlen(name) + strspn(line + 2 + strlen(name), " ");
    return NULL;
}

/* False when it is not the answer to what was asked for. */
static int good_head(struct client *c) {
    const char *length = field(c->head, "content-length"), *etag = field(c->head, "etag");
    int status = c->head_bytes > 12 ? atoi(c->head + 9) : 0;
    if (status != (c->position ? 206 : 200) || !length) return 0;
    if (etag && !c->position) snprintf(c->etag, sizeof c->etag, "%.*s", (int)strcspn(etag, "\r\n"), etag);
    return strtoull(length, NULL, 10) == settings.size - c->position;
}

/* The head, and what of the body came with it. */
static void head(struct client *c, int64_t now) {
    ssize_t n = recv(c->fd, buffer, BUFFER, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return fail(c, n ? strerror(errno) : "the server hung up instead of answering", now);
    unsigned before = c->head_bytes, taken = n < HEAD - 1 - before ? n : HEAD - 1 - before;
    memcpy(c->head + before, buffer, taken);
    c->head[before + taken] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    c->head_bytes = before + taken;
    if (!end) {
        if (c->head_bytes == HEAD - 1) fail(c, "a head of more than 4 KiB", now);
        return;
    }
    end[2] = 0;
    unsigned used = end + 4 - c->head - before;
    if (!good_head(c)) {
        c->head[strcspn(c->head, "\r\n")] = 0;
        return fail(c, c->head, now);
    }
    c->in_body = 1;
    if (n > used) body(c, buffer + used, n - used, now);
}

void client_event(struct client *c, int64_t now) {
    if (c->finished) return;
    if (!c->connected) {
        int fault = 0;
        socklen_t size = sizeof fault;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &fault, &size);
        if (fault) return fail(c, strerror(fault), now);
        c->connected = 1;
        watch(c, EPOLLIN, EPOLL_CTL_MOD);
        return ask(c, now);
    }
    if (!c->in_body) return head(c, now);
    uint64_t left = settings.size - c->position;
    int look = settings.check <= 1 || c->reads++ % settings.check == 0;
    uint64_t most = look ? BUFFER : SKIP;
    ssize_t n = recv(c->fd, buffer, left < most ? left : most, look ? 0 : MSG_TRUNC);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return fail(c, n ? strerror(errno) : "the connection ended in the middle of the file", now);
    body(c, look ? buffer : NULL, n, now);
}

void client_leave(struct client *c) {
    hang_up(c);
    c->finished = 1;
}

static int smaller(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void client_print_times(void) {
    qsort(times, timed, sizeof *times, smaller);
    printf(", \"p50_ms\": %.3f, \"p99_ms\": %.3f", timed ? times[timed / 2] / 1e3 : 0,
           timed ? times[((uint64_t)timed * 99 + 99) / 100 - 1] / 1e3 : 0);
}
