/* So many questions are under way at any time, each from another device: one that is answered is replaced by the next
 * device's, one that is not answered for --patience counts as lost and is replaced. The first ones leave all at once;
 * with --bursts the next ones do so too, when nobody waits any more. */
#include "load.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { SLOWEST_US = 2000000, ENDS = MOST_DEVICES };

struct question {
    uint32_t xid; /* 0: none */
    unsigned before, after; /* those under way are a ring, oldest first; its two ends are the one at ENDS */
    int64_t sent;
    int counted; /* asked when the warm-up was over: rates and waits are of the same seconds */
};

static struct question devices[MOST_DEVICES + 1] = {[ENDS] = {0, ENDS, ENDS, 0, 0}};
static unsigned under_way, next_device, first_batch;
static uint32_t serial;
static struct waits { uint32_t of[SLOWEST_US + 1]; uint64_t count; } counted, warming;
static uint64_t answered;
static enum packet kind;
static int expected, counting, stopping;
static int64_t began, counted_from, burst_ns;
static double seconds_counted, cpu_counted;

static double cpu_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void count(int on, int64_t now) {
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

static void forget(struct question *q) {
    devices[q->before].after = q->after;
    devices[q->after].before = q->before;
    q->xid = 0;
    under_way--;
}

/* Every question has an xid of its own: the upper 20 bits count, the lower 12 say whose it is. */
static void ask(int64_t now) {
    while (devices[next_device].xid) next_device = (next_device + 1) % settings.devices;
    unsigned device = next_device;
    uint32_t xid = ++serial << 12 | device;
    if (!serial || !xid) xid = (serial = 1) << 12 | device;
    wire_send(frame_dhcp(wire_room(), kind, device, xid, 0));
    devices[device] = (struct question){xid, devices[ENDS].before, ENDS, now, counting};
    devices[devices[ENDS].before].after = device;
    devices[ENDS].before = device;
    next_device = (device + 1) % settings.devices;
    under_way++;
    counts.asked++;
}

static void take(const struct datagram *in, int64_t now) {
    struct reply reply = {.device = frame_device(in->data, in->length)};
    if (in->to_port != CLIENT_PORT && in->to_port != BOOT_SERVER_PORT) return;
    if (reply.device >= settings.devices) {
        counts.strays++;
        return;
    }
    struct question *q = &devices[reply.device];
    memcpy(&reply.xid, in->data + 4, 4);
    reply.xid = __builtin_bswap32(reply.xid);
    if (!q->xid || reply.xid != q->xid) { /* a second reply, or one after our patience */
        counts.late++;
        return;
    }
    const char *fault = frame_reply(in, expected, kind, &reply);
    if (fault) complain(fault);
    counts.all_replies++;
    counts.all_bytes += in->length;
    counts.replies += counting;
    counts.named_file += reply.how == NAMES_FILE || (reply.how == WITHOUT_43 && reply.file[0]);
    counts.without_43 += reply.how == WITHOUT_43;
    counts.menus += reply.how == MENU;
    int64_t wait = (now - q->sent) / 1000;
    struct waits *waits = q->counted ? &counted : &warming;
    waits->of[wait < SLOWEST_US ? wait : SLOWEST_US]++;
    waits->count++;
    forget(q);
    if (++answered == first_batch) burst_ns = now - began;
}

/* Whoever waits for too long is lost; only the oldest can be. */
static void expire(int64_t now) {
    while (under_way && now - devices[devices[ENDS].after].sent >= settings.patience_ns) {
        forget(&devices[devices[ENDS].after]);
        counts.lost++;
    }
}

void offers_run(enum packet packet) {
    int64_t now = began = now_ns(), warm = began + (int64_t)(settings.warmup * 1e9);
    int64_t end = settings.seconds > 0 ? warm + (int64_t)(settings.seconds * 1e9) : INT64_MAX;
    kind = packet;
    serial = began >> 20; /* another one in each run: a server may take a known xid for a repetition */
    expected = packet == BIOS_DISCOVER || packet == UEFI_DISCOVER ? OFFER : ACK;
    first_batch = settings.outstanding;
    count(settings.warmup <= 0, now);
    while (!stopping || under_way) {
        if (!stopping && now >= warm && now < end) count(1, now);
        if (!stopping && (now >= end || (settings.count && counts.all_replies >= settings.count))) {
            count(0, now);
            stopping = 1;
        }
        if (now - began > (int64_t)(settings.limit * 1e9)) break;
        if (!settings.bursts || !under_way)
            while (!stopping && under_way < settings.outstanding) ask(now);
        wire_flush();
        if (!wire_drain(take)) {
            wire_wait(2);
            wire_drain(take);
        }
        now = now_ns();
        expire(now);
    }
    count(0, now);
    counts.lost += under_way;
}

static double wait_ms(const struct waits *waits, double share) {
    uint64_t below = 0, wanted = (uint64_t)(share * waits->count);
    for (unsigned us = 0; us <= SLOWEST_US; us++)
        if ((below += waits->of[us]) > wanted || (below && below == waits->count)) return us / 1e3;
    return 0;
}

void offers_print(void) {
    printf(", \"seconds\": %.6f, \"replies\": %llu, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f, "
           "\"warming_p99_ms\": %.3f, \"burst_ms\": %.3f, \"cpu_seconds\": %.4f",
           seconds_counted, (unsigned long long)counts.replies, wait_ms(&counted, 0.5), wait_ms(&counted, 0.99), wait_ms(&counted, 1),
           wait_ms(&warming, 0.99), burst_ns / 1e6,
           cpu_counted);
}
