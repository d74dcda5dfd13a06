/* What the parts of the DHCP load generator know of each other. Linux only.
 *
 * One rule: machines that boot have no address, so everything is whole Ethernet frames on one packet socket. What comes
 * is read from a ring in shared memory, what goes leaves in batches with sendmmsg: the generator must never be the limit. */
#ifndef LOAD_H
#define LOAD_H

#define _GNU_SOURCE
#include <stdint.h>

enum { MOST_DEVICES = 4096, FRAME = 2048, DHCP_PORT = 67, CLIENT_PORT = 68, TFTP_PORT = 69, BOOT_SERVER_PORT = 4011 };
enum { DISCOVER = 1, OFFER = 2, REQUEST = 3, ACK = 5 };

/* The recorded packets that are sent, one file each below --packets; the names stand in frame.c. */
enum packet { BIOS_DISCOVER, UEFI_DISCOVER, UEFI_REQUEST, UEFI_BOOT, IPXE_BOOT, PACKETS };

struct settings {
    const char *packets, *device, *kind, *files;
    unsigned char server_mac[6];
    uint32_t server; /* host order */
    unsigned devices, outstanding, machines, collect_ms;
    int bursts;
    uint64_t count, size;
    double seconds, warmup, limit, spread;
    int64_t patience_ns;
};

/* Everything that is counted. `replies` only between the warm-up and the end of the time box, the others always. */
struct counts {
    uint64_t replies, all_replies, all_bytes, asked, lost, late, strays, bad, failed, unfinished, unsent, overrun;
    uint64_t named_file, without_43, menus;
    char error[128];
};

/* How a reply tells its client to go on: the file it names, a second question on 4011, or a menu. */
enum how { NAMES_FILE, WITHOUT_43, MENU };

struct reply {
    unsigned device, length;
    uint32_t xid, siaddr; /* host order */
    int type, just_boot;
    enum how how;
    char file[129];
};

/* A UDP datagram as it came. */
struct datagram {
    uint32_t from, to; /* host order */
    unsigned from_port, to_port, length;
    const unsigned char *data;
};

extern struct settings settings;
extern struct counts counts;

int64_t now_ns(void);
void remember(const char *text);
void complain(const char *text); /* a reply is wrong */

/* frame.c: from and to bytes */
void frame_open(void);
uint32_t frame_address(unsigned device);
unsigned frame_dhcp(unsigned char *frame, enum packet packet, unsigned device, uint32_t xid, unsigned secs);
unsigned frame_udp(unsigned char *frame, unsigned device, unsigned from_port, unsigned to_port, const void *data,
                   unsigned length);
int frame_read(const unsigned char *frame, unsigned length, struct datagram *found);
unsigned frame_device(const unsigned char *data, unsigned length); /* MOST_DEVICES: none of ours */
const char *frame_reply(const struct datagram *in, int type, enum packet asked, struct reply *found);

/* wire.c: frames in and out */
void wire_open(void);
unsigned char *wire_room(void);
void wire_send(unsigned length);
void wire_flush(void);
unsigned wire_drain(void (*take)(const struct datagram *in, int64_t now));
void wire_wait(int milliseconds);
uint64_t wire_overrun(void);

/* offers.c: so many questions under way at any time. machines.c: machines that are switched on together. */
void offers_run(enum packet packet);
void offers_print(void);
void machines_run(void);
void machines_print(void);

#endif
