/* TFTP load: N concurrent clients fetch a file again and again, and check every byte. Prints one JSON object.
 *
 * load --port P --name FILE --size BYTES --pattern FILE [--host A] [--clients N] [--block B] [--window W]
 *      [--seconds S] [--warmup S] [--limit S] [--files N] [--abort] [--loss P] [--seed N] [--retry MS] [--nack once]
 *      [--gro] [--new-client-probe NAME]
 *
 * Either a time box (--seconds, counted after --warmup; then each client finishes its file, or with --abort leaves it)
 * or a fixed amount (--files for each client). After --limit seconds whoever is not ready is counted as unfinished. */
#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>

struct settings settings = {.clients = 1, .block = 512, .window = 1, .limit = 60, .retry_ns = 1000000000ll, .seed = 1};
struct counts counts;
struct client *clients;
int counting, stopping, poll_fd;

static double seconds_counted, cpu_counted;
static int64_t counted_from;

int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static double cpu_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void count(int on) {
    int64_t now = now_ns();
    if (on == counting) return;
    counting = on;
    if (on) {
        counted_from = now;
        cpu_counted = cpu_seconds();
    } else {
        seconds_counted = (now - counted_from) / 1e9;
        cpu_counted = cpu_seconds() - cpu_counted;
    }
}

static void stop(void) {
    count(0);
    stopping = 1;
    for (unsigned i = 0; i < settings.clients; i++) {
        if (!settings.abort_at_end) {
            client_stop(&clients[i]);
            continue;
        }
        counts.unfinished += !clients[i].finished && !clients[i].files && !clients[i].received; /* never served */
        client_abort(&clients[i]);
    }
}

/* Every 10 ms: who has heard nothing for too long? True while somebody is at work. */
static int sweep(int64_t now) {
    static int64_t swept;
    int working = 1;
    if (now - swept >= 10000000ll) {
        swept = now;
        working = 0;
        for (unsigned i = 0; i < settings.clients; i++) {
            client_tick(&clients[i], now);
            working |= !clients[i].finished;
        }
    }
    for (unsigned i = 0; i < SOCKETS; i++) wire_flush(i);
    return working;
}

static void run(void) {
    int64_t started = now_ns(), now = started, end;
    int64_t warm = started + (int64_t)(settings.warmup * 1e9);
    end = settings.seconds > 0 ? warm + (int64_t)(settings.seconds * 1e9) : INT64_MAX;
    for (unsigned i = 0; i < settings.clients; i++) client_init(&clients[i], i, now);
    count(settings.warmup <= 0);
    while (sweep(now)) {
        struct epoll_event events[SOCKETS + 16];
        int n = epoll_wait(poll_fd, events, SOCKETS + 16, 5);
        now = now_ns();
        if (!stopping && now >= warm) count(1);
        if (!stopping && now >= end) stop();
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 < SOCKETS) wire_drain(events[i].data.u64, now);
            else probe_readable(events[i].data.u64 - SOCKETS);
        }
        if (settings.probe_name) probe_tick(now);
        if (now - started > (int64_t)(settings.limit * 1e9)) break;
    }
    count(0);
    for (unsigned i = 0; i < settings.clients; i++) {
        if (clients[i].finished) continue;
        counts.unfinished++;
        client_abort(&clients[i]);
    }
    sweep(0);
}

static void print(double all_seconds) {
    for (char *at = counts.error; *at; at++)
        if (*at == '"' || *at == '\\' || (unsigned char)*at < 32 || (unsigned char)*at > 126) *at = '?';
    printf("{\"seconds\": %.6f, \"bytes\": %llu, \"blocks\": %llu, \"files\": %llu, \"all_seconds\": %.6f, "
           "\"all_bytes\": %llu, \"all_files\": %llu, \"bad\": %llu, \"failed\": %llu, \"unfinished\": %llu, "
           "\"retries\": %llu, \"strays\": %llu, \"dropped\": %llu, \"unsent\": %llu, \"peak_active\": %u, "
           "\"blksize\": %u, \"windowsize\": %u, \"single_port\": %s, \"cpu_seconds\": %.4f, \"error\": \"%s\"",
           seconds_counted, (unsigned long long)counts.bytes, (unsigned long long)counts.blocks,
           (unsigned long long)counts.files, all_seconds, (unsigned long long)counts.all_bytes,
           (unsigned long long)counts.all_files, (unsigned long long)counts.bad, (unsigned long long)counts.failed,
           (unsigned long long)counts.unfinished, (unsigned long long)counts.retries, (unsigned long long)counts.strays,
           (unsigned long long)counts.dropped, (unsigned long long)counts.unsent, counts.peak_active, counts.block,
           counts.window, counts.same_port ? "true" : "false", cpu_counted, counts.error);
    if (settings.probe_name) probe_print();
    printf("}\n");
}

static const struct option known[] = {
    {"host", 1, 0, 'h'},    {"port", 1, 0, 'p'},    {"name", 1, 0, 'n'},    {"size", 1, 0, 's'},
    {"pattern", 1, 0, 'P'}, {"clients", 1, 0, 'c'}, {"block", 1, 0, 'b'},   {"window", 1, 0, 'w'},
    {"seconds", 1, 0, 'S'}, {"warmup", 1, 0, 'W'},  {"limit", 1, 0, 'L'},   {"files", 1, 0, 'f'},
    {"abort", 0, 0, 'a'},   {"loss", 1, 0, 'l'},    {"seed", 1, 0, 'e'},    {"retry", 1, 0, 'r'},
    {"nack", 1, 0, 'k'},    {"gro", 0, 0, 'g'},     {"new-client-probe", 1, 0, 'N'}, {0}};

static int read_option(int letter) {
    switch (letter) {
    case 'h': return inet_pton(AF_INET, optarg, &settings.server.sin_addr) == 1;
    case 'p': settings.server.sin_port = htons(atoi(optarg)); return 1;
    case 'n': settings.name = optarg; return 1;
    case 's': settings.size = strtoull(optarg, 0, 10); return 1;
    case 'P': settings.pattern_path = optarg; return 1;
    case 'c': settings.clients = atoi(optarg); return settings.clients && settings.clients <= MOST_CLIENTS;
    case 'b': settings.block = atoi(optarg); return settings.block >= 8 && settings.block <= 65464;
    case 'w': settings.window = atoi(optarg); return settings.window >= 1;
    case 'S': settings.seconds = atof(optarg); return 1;
    case 'W': settings.warmup = atof(optarg); return 1;
    case 'L': settings.limit = atof(optarg); return 1;
    case 'f': settings.files = strtoull(optarg, 0, 10); return 1;
    case 'a': settings.abort_at_end = 1; return 1;
    case 'l': settings.loss = atof(optarg); return 1;
    case 'e': settings.seed = strtoull(optarg, 0, 10); return 1;
    case 'r': settings.retry_ns = atoll(optarg) * 1000000ll; return 1;
    case 'k': settings.nack_once = !strcmp(optarg, "once"); return 1;
    case 'g': settings.gro = 1; return 1;
    case 'N': settings.probe_name = optarg; return 1;
    default: return 0;
    }
}

int main(int argc, char **argv) {
    settings.server.sin_family = AF_INET;
    inet_pton(AF_INET, "127.0.0.1", &settings.server.sin_addr);
    for (int letter; (letter = getopt_long(argc, argv, "", known, NULL)) != -1;)
        if (!read_option(letter)) {
            fprintf(stderr, "load: an option is unknown or its value is unusable; see the top of main.c\n");
            return 2;
        }
    if (!settings.server.sin_port || !settings.name || !settings.pattern_path) return 2;
    if (settings.seconds <= 0 && !settings.files) settings.files = 1;
    clients = calloc(settings.clients, sizeof *clients);
    poll_fd = epoll_create1(0);
    client_load_pattern();
    wire_open();
    int64_t started = now_ns();
    run();
    print((now_ns() - started) / 1e9);
    return 0;
}
