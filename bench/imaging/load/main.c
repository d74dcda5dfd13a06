/* HTTP load: N concurrent clients fetch a file again and again and look at what comes. Prints one JSON object.
 *
 * load --port P --path /PATH --size BYTES --pattern FILE [--host A] [--token T] [--clients N] [--seconds S] [--warmup S]
 *      [--limit S] [--files N] [--new] [--check N] [--break BYTES]
 *
 * Either a time box (--seconds, counted after --warmup; files that are unfinished then are left) or a fixed amount
 * (--files for each client). --new: a connection for each file. --break: after so many bytes the connection is broken
 * off, and the rest of the file asked for with Range and If-Range on another. --check: see client.c. */
#include "load.h"
#include <arpa/inet.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>

struct settings settings = {.clients = 1, .limit = 60, .check = 1};
struct counts counts;
struct client *clients;
int counting, poll_fd;

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

static int working(void) {
    for (unsigned i = 0; i < settings.clients; i++)
        if (!clients[i].finished) return 1;
    return 0;
}

static void run(void) {
    enum { EVENTS = 256 };
    struct epoll_event events[EVENTS];
    int64_t started = now_ns(), now = started, looked = started;
    int64_t warm = started + (int64_t)(settings.warmup * 1e9);
    int64_t end = settings.seconds > 0 ? warm + (int64_t)(settings.seconds * 1e9) : INT64_MAX;
    for (unsigned i = 0; i < settings.clients; i++) client_init(&clients[i], i, now);
    count(settings.warmup <= 0);
    while (now < end && now - started < (int64_t)(settings.limit * 1e9)) {
        int n = epoll_wait(poll_fd, events, EVENTS, 5);
        now = now_ns();
        if (now >= warm) count(1);
        for (int i = 0; i < n; i++) client_event(&clients[events[i].data.u64], now);
        if (now - looked < 10000000ll) continue;
        looked = now;
        if (!working()) break;
    }
    count(0);
    for (unsigned i = 0; i < settings.clients; i++) {
        struct client *c = &clients[i];
        counts.unfinished += settings.files ? !c->finished : !c->finished && !c->files && !c->received;
        client_leave(c);
    }
}

static void print(double all_seconds) {
    for (char *at = counts.error; *at; at++)
        if (*at == '"' || *at == '\\' || (unsigned char)*at < 32 || (unsigned char)*at > 126) *at = '?';
    printf("{\"seconds\": %.6f, \"bytes\": %llu, \"files\": %llu, \"all_seconds\": %.6f, \"all_bytes\": %llu, "
           "\"all_files\": %llu, \"bad\": %llu, \"failed\": %llu, \"unfinished\": %llu, \"resumed\": %llu, "
           "\"connections\": %llu, \"cpu_seconds\": %.4f, \"error\": \"%s\"",
           seconds_counted, (unsigned long long)counts.bytes, (unsigned long long)counts.files, all_seconds,
           (unsigned long long)counts.all_bytes, (unsigned long long)counts.all_files, (unsigned long long)counts.bad,
           (unsigned long long)counts.failed, (unsigned long long)counts.unfinished, (unsigned long long)counts.resumed,
           (unsigned long long)counts.connections, cpu_counted, counts.error);
    client_print_times();
    printf("}\n");
}

static const struct option known[] = {
    {"host", 1, 0, 'h'},    {"port", 1, 0, 'p'},   {"path", 1, 0, 'n'},  {"size", 1, 0, 's'},    {"pattern", 1, 0, 'P'},
    {"clients", 1, 0, 'c'}, {"token", 1, 0, 't'},  {"check", 1, 0, 'k'}, {"seconds", 1, 0, 'S'}, {"warmup", 1, 0, 'W'},
    {"limit", 1, 0, 'L'},   {"files", 1, 0, 'f'},  {"new", 0, 0, 'N'},   {"break", 1, 0, 'b'},   {0}};

static int read_option(int letter) {
    switch (letter) {
    case 'h': return inet_pton(AF_INET, optarg, &settings.server.sin_addr) == 1;
    case 'p': settings.server.sin_port = htons(atoi(optarg)); return 1;
    case 'n': settings.path = optarg; return *optarg == '/';
    case 's': settings.size = strtoull(optarg, 0, 10); return settings.size > 0;
    case 'P': settings.pattern_path = optarg; return 1;
    case 'c': settings.clients = atoi(optarg); return settings.clients && settings.clients <= MOST_CLIENTS;
    case 't': settings.token = optarg; return strlen(optarg) < 200;
    case 'k': settings.check = atoi(optarg); return settings.check > 0;
    case 'S': settings.seconds = atof(optarg); return 1;
    case 'W': settings.warmup = atof(optarg); return 1;
    case 'L': settings.limit = atof(optarg); return 1;
    case 'f': settings.files = strtoull(optarg, 0, 10); return 1;
    case 'N': settings.new_connections = 1; return 1;
    case 'b': settings.break_bytes = strtoull(optarg, 0, 10); return 1;
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
    if (!settings.server.sin_port || !settings.path || !settings.size || !settings.pattern_path) return 2;
    if (settings.seconds <= 0 && !settings.files) settings.files = 1;
    clients = calloc(settings.clients, sizeof *clients);
    poll_fd = epoll_create1(0);
    client_load_pattern();
    int64_t started = now_ns();
    run();
    print((now_ns() - started) / 1e9);
    return 0;
}
