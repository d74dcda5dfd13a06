/* Frames in and out: one packet socket, a TPACKET_V2 ring to read from (packet(7)), sendmmsg to write. Bound to
 * ETH_P_IP and not ETH_P_ALL, it does not hear what it sends itself. */
#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum { OUT = 64, OUT_BYTES = 1536, SLOTS = 16384, BLOCK = 1 << 20, TURN = 64 };

static int fd;
static unsigned char *ring, out[OUT][OUT_BYTES];
static unsigned queued, slot;
static struct mmsghdr messages[OUT];
static struct iovec parts[OUT];

static void must(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(2);
}

void wire_open(void) {
    struct tpacket_req request = {.tp_block_size = BLOCK, .tp_frame_size = FRAME, .tp_frame_nr = SLOTS,
                                  .tp_block_nr = SLOTS / (BLOCK / FRAME)};
    struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP),
                             .sll_ifindex = if_nametoindex(settings.device)};
    int version = TPACKET_V2, on = 1;
    fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0);
    must(fd >= 0, "packet socket");
    must(!setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version), "PACKET_VERSION");
    must(!setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof request), "PACKET_RX_RING");
    setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on); /* only faster */
    ring = mmap(NULL, (size_t)SLOTS * FRAME, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    must(ring != MAP_FAILED, "the ring");
    must(at.sll_ifindex && !bind(fd, (struct sockaddr *)&at, sizeof at), settings.device);
    for (unsigned i = 0; i < OUT; i++) {
        parts[i].iov_base = out[i];
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
}

/* Where the next frame is to be written; wire_send() then says how long it is. */
unsigned char *wire_room(void) {
    if (queued == OUT) wire_flush();
    return out[queued];
}

void wire_send(unsigned length) {
    parts[queued++].iov_len = length;
}

void wire_flush(void) {
    unsigned sent = 0;
    while (sent < queued) {
        int n = sendmmsg(fd, messages + sent, queued - sent, 0);
        if (n > 0) {
            sent += n;
        } else if (errno != EINTR && errno != EAGAIN) { /* one is given up; it will count as lost */
            sent++;
            counts.unsent++;
        }
    }
    queued = 0;
}

/* At most one turn of frames, so that answers to them leave soon; how many there were. */
unsigned wire_drain(void (*take)(const struct datagram *in, int64_t now)) {
    unsigned n = 0;
    for (; n < TURN; n++) {
        struct tpacket2_hdr *header = (struct tpacket2_hdr *)(ring + (size_t)slot * FRAME);
        struct datagram in;
        if (!(__atomic_load_n(&header->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)) break;
        if (frame_read((unsigned char *)header + header->tp_mac, header->tp_snaplen, &in)) take(&in, now_ns());
        __atomic_store_n(&header->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
        slot = (slot + 1) % SLOTS;
    }
    return n;
}

void wire_wait(int milliseconds) {
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    poll(&ready, 1, milliseconds);
}

/* Frames for which the ring had no room: they were answered, and the generator was too slow. */
uint64_t wire_overrun(void) {
    struct tpacket_stats found = {0};
    socklen_t size = sizeof found;
    getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &found, &size);
    return found.tp_drops;
}
