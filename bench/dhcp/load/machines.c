/* Machines that are switched on within one moment, each with its firmware's timers, until each one has its loader.
 *
 * A BIOS ROM goes to TFTP as soon as an OFFER names its file; given a menu, it asks 4011 for the first item. EDK2 collects offers for a while, does its DHCP REQUEST,
 * asks port 4011 unless the OFFER says "just boot", and waits for a second before TFTP. The address comes from a DHCP
 * server that is not there. PXE 2.1: a DISCOVER is repeated after 4, 8, 16 and 32 s. EDK2: a request on 4011 after 1, 2,
 * 3 and 4 s, TFTP after 4 s, six times. */
#include "load.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MS 1000000ll
enum { TFTP_TRIES = 6, TFTP_MS = 4000, PAUSE_MS = 1000 };
enum phase { OFF, DISCOVERING, COLLECTING, ASKING, PAUSING, LOADING, READY, FAILED };
enum { RRQ = 1, DATA = 3, TFTP_ACK = 4, TFTP_ERROR = 5, OACK = 6 };

struct machine {
    enum phase phase;
    unsigned tries, port, server_port, block, size, secs;
    uint32_t xid, tftp;
    uint64_t got;
    int64_t due, on, asked, first_data;
    int just_boot;
    enum packet question; /* on 4011 */
    char file[129];
    unsigned char last[4]; /* the ACK that is repeated */
};

static const int discover_ms[] = {4000, 8000, 16000, 32000}, ask_ms[] = {1000, 2000, 3000, 4000};
static struct machine *machines;
static unsigned busy, offers, acks;
static int64_t began, last_offer, last_ack, last_first_data, last_loader;
static uint64_t discover_retries, ask_retries, tftp_retries;
static int64_t *offer_waits, *ready_waits;
static unsigned ready;

static int is_bios(unsigned n) { return n % 2; }

static void give_up(struct machine *m) {
    m->phase = FAILED;
    busy--;
}

static void discover(unsigned n, struct machine *m, int64_t now) {
    enum packet packet = is_bios(n) ? BIOS_DISCOVER : UEFI_DISCOVER;
    m->phase = DISCOVERING;
    m->asked = now;
    m->due = now + discover_ms[m->tries] * MS;
    m->secs = (now - m->on) / (1000 * MS);
    wire_send(frame_dhcp(wire_room(), packet, n, m->xid, m->secs));
    counts.asked++;
}

static void ask(unsigned n, struct machine *m, int64_t now) {
    m->phase = ASKING;
    m->due = now + ask_ms[m->tries] * MS;
    wire_send(frame_dhcp(wire_room(), m->question, n, m->xid, m->tries << 8)); /* EDK2 does not swap its bytes */
    counts.asked++;
}

/* The machine has its address: its DHCP server is asked for it (a proxy ignores that), then port 4011. */
static void addressed(unsigned n, struct machine *m, int64_t now) {
    wire_send(frame_dhcp(wire_room(), UEFI_REQUEST, n, m->xid, m->secs));
    m->tries = 0;
    if (m->just_boot) {
        m->phase = PAUSING;
        m->due = now + PAUSE_MS * MS;
        return;
    }
    m->xid ^= 0x40000000; /* a new one for 4011 */
    ask(n, m, now);
}

static void load(unsigned n, struct machine *m, int64_t now) {
    unsigned char packet[256];
    int length;
    m->phase = LOADING;
    m->due = now + TFTP_MS * MS;
    if (m->server_port) {
        wire_send(frame_udp(wire_room(), n, m->port, m->server_port, m->last, 4));
        return;
    }
    packet[0] = 0;
    packet[1] = RRQ;
    length = 2 + sprintf((char *)packet + 2, "%s", m->file) + 1;
    memcpy(packet + length, "octet\0blksize\0" "1468", 19);
    wire_send(frame_udp(wire_room(), n, m->port, TFTP_PORT, packet, length + 19));
    counts.asked++;
}

static void take_offer(unsigned n, struct machine *m, const struct reply *reply, int64_t now) {
    offers++;
    last_offer = now;
    offer_waits[n] = now - m->on;
    m->just_boot = reply->just_boot;
    m->tries = 0;
    strcpy(m->file, reply->file);
    m->tftp = reply->siaddr;
    if (is_bios(n)) {
        if (reply->how == NAMES_FILE) {
            load(n, m, now);
            return;
        }
        m->question = IPXE_BOOT; /* the first item of the menu */
        m->xid ^= 0x40000000;
        ask(n, m, now);
        return;
    }
    m->phase = COLLECTING;
    m->due = m->asked + settings.collect_ms * MS;
}

static void take_dhcp(const struct datagram *in, int64_t now) {
    struct reply reply = {.device = frame_device(in->data, in->length)};
    uint32_t xid;
    if (reply.device >= settings.machines) {
        counts.strays++;
        return;
    }
    struct machine *m = &machines[reply.device];
    memcpy(&xid, in->data + 4, 4);
    int asking = m->phase == ASKING;
    if (ntohl(xid) != m->xid || (m->phase != DISCOVERING && !asking)) {
        counts.late++;
        return;
    }
    enum packet asked = asking ? m->question : is_bios(reply.device) ? BIOS_DISCOVER : UEFI_DISCOVER;
    const char *fault = frame_reply(in, asking ? ACK : OFFER, asked, &reply);
    if (fault) complain(fault);
    counts.all_replies++;
    counts.all_bytes += in->length;
    if (!asking) {
        take_offer(reply.device, m, &reply, now);
        return;
    }
    acks++;
    last_ack = now;
    strcpy(m->file, reply.file);
    m->tftp = reply.siaddr;
    m->tries = 0;
    m->phase = PAUSING;
    m->due = now + (is_bios(reply.device) ? 0 : PAUSE_MS * MS);
}

static int right_bytes(const unsigned char *data, unsigned length, uint64_t from) { /* see loader() in measure.py */
    for (unsigned i = 0; i < length; i++)
        if (data[i] != (from + i) % 251) return 0;
    return 1;
}

static void take_data(unsigned n, struct machine *m, const struct datagram *in, int64_t now) {
    unsigned block = in->data[2] << 8 | in->data[3], length = in->length - 4;
    if (block == ((m->block + 1) & 0xffff)) {
        if (!right_bytes(in->data + 4, length, m->got)) complain("wrong bytes in the loader");
        m->block = block;
        m->got += length;
        m->tries = 0;
        if (!m->first_data) m->first_data = last_first_data = now;
    } else {
        length = m->size; /* a repetition is not the end */
    }
    memcpy(m->last, (unsigned char[4]){0, TFTP_ACK, m->block >> 8, m->block}, 4);
    load(n, m, now);
    if (length == m->size) return;
    if (m->got != settings.size) complain("a loader of another size");
    m->phase = READY;
    busy--;
    last_loader = now;
    ready_waits[ready++] = now - m->on;
}

/* The block size of an OACK (RFC 2347, RFC 2348); 512 where it says nothing. */
static unsigned agreed(const unsigned char *at, unsigned length) {
    const unsigned char *end = at + length;
    while (at < end) {
        const char *name = (const char *)at, *value;
        size_t n = strnlen(name, end - at);
        if (at + n + 1 >= end || !memchr(at + n + 1, 0, end - (at + n + 1))) break;
        value = name + n + 1;
        if (!strcasecmp(name, "blksize")) return atoi(value);
        at = (const unsigned char *)value + strlen(value) + 1;
    }
    return 512;
}

static void take_tftp(const struct datagram *in, int64_t now) {
    unsigned n = 0;
    uint32_t row = in->to - frame_address(0) + 1; /* the inverse of frame_address() */
    n = (row >> 8) * 250 + (row & 255) - 1;
    if (in->length < 4 || n >= settings.machines || frame_address(n) != in->to) return;
    struct machine *m = &machines[n];
    if (m->phase != LOADING || in->to_port != m->port || in->from != m->tftp) return;
    if (m->server_port && in->from_port != m->server_port) return;
    m->server_port = in->from_port;
    counts.all_bytes += in->length;
    switch (in->data[1]) {
    case OACK:
        m->size = agreed(in->data + 2, in->length - 2);
        memcpy(m->last, (unsigned char[4]){0, TFTP_ACK, 0, 0}, 4);
        load(n, m, now);
        return;
    case DATA: take_data(n, m, in, now); return;
    default:
        counts.failed++;
        remember("TFTP refused");
        give_up(m);
    }
}

static void take(const struct datagram *in, int64_t now) {
    if (in->to_port == CLIENT_PORT || in->to_port == BOOT_SERVER_PORT) take_dhcp(in, now);
    else take_tftp(in, now);
}

/* A deadline has passed: of a repetition, or of a pause. */
static void tick(unsigned n, struct machine *m, int64_t now) {
    if (m->phase == READY || m->phase == FAILED || now < m->due) return;
    switch (m->phase) {
    case OFF:
        m->on = now;
        discover(n, m, now);
        return;
    case COLLECTING: addressed(n, m, now); return;
    case PAUSING: load(n, m, now); return;
    default: break;
    }
    counts.lost++;
    unsigned most = m->phase == DISCOVERING ? 4 : m->phase == ASKING ? 4 : TFTP_TRIES;
    if (++m->tries == most) {
        give_up(m);
        return;
    }
    switch (m->phase) {
    case DISCOVERING: discover_retries++, discover(n, m, now); return;
    case ASKING: ask_retries++, ask(n, m, now); return;
    default: tftp_retries++, load(n, m, now);
    }
}

void machines_run(void) {
    int64_t now = began = now_ns(), swept = 0;
    machines = calloc(settings.machines, sizeof *machines);
    offer_waits = calloc(settings.machines, sizeof *offer_waits);
    ready_waits = calloc(settings.machines, sizeof *ready_waits);
    busy = settings.machines;
    for (unsigned n = 0; n < settings.machines; n++) {
        machines[n].due = began + (int64_t)(settings.spread * 1e9 * n / settings.machines);
        machines[n].xid = 0x01000000u + n * 77777u;
        machines[n].port = 20000 + n;
        machines[n].question = UEFI_BOOT;
        machines[n].size = 512;
    }
    while (busy && now - began < (int64_t)(settings.limit * 1e9)) {
        if (now - swept >= MS) {
            swept = now;
            for (unsigned n = 0; n < settings.machines; n++) tick(n, &machines[n], now);
        }
        wire_flush();
        if (!wire_drain(take)) {
            wire_wait(1);
            wire_drain(take);
        }
        now = now_ns();
    }
    wire_flush(); /* the last ACK */
    for (unsigned n = 0; n < settings.machines; n++) counts.unfinished += machines[n].phase != READY;
}

static int by_size(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static double part_ms(int64_t *waits, unsigned n, double share) {
    if (!n) return 0;
    qsort(waits, n, sizeof *waits, by_size);
    unsigned at = share * n;
    return waits[at < n ? at : n - 1] / 1e6;
}

static double after_s(int64_t moment) { return moment ? (moment - began) / 1e9 : 0; }

void machines_print(void) {
    unsigned heard = 0;
    for (unsigned n = 0; n < settings.machines; n++)
        if (offer_waits[n]) offer_waits[heard++] = offer_waits[n];
    printf(", \"machines\": %u, \"offers\": %u, \"acks\": %u, \"ready\": %u, \"discover_retries\": %llu, "
           "\"request_retries\": %llu, \"tftp_retries\": %llu, \"last_offer_s\": %.4f, \"last_ack_s\": %.4f, "
           "\"last_first_data_s\": %.4f, \"last_loader_s\": %.4f, \"offer_p50_ms\": %.3f, \"offer_p99_ms\": %.3f, "
           "\"offer_max_ms\": %.3f, \"loader_p99_s\": %.4f",
           settings.machines, offers, acks, ready, (unsigned long long)discover_retries,
           (unsigned long long)ask_retries, (unsigned long long)tftp_retries, after_s(last_offer), after_s(last_ack),
           after_s(last_first_data), after_s(last_loader), part_ms(offer_waits, heard, 0.5),
           part_ms(offer_waits, heard, 0.99), part_ms(offer_waits, heard, 1), part_ms(ready_waits, ready, 0.99) / 1e3);
}
