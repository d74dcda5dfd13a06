/* Ethernet, IPv4, UDP and DHCP as bytes: the recorded packets with another machine's numbers in them, and what is
 * demanded of a reply (PXE 2.1, RFC 2131, RFC 4578). UDP checksums are 0, "none" (RFC 768): a network card checks them
 * for a server, a veth pair would leave it to the server's core. */
#include "load.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { ETHERNET = 14, IP = 20, UDP = 8, HEADERS = ETHERNET + IP + UDP, FIXED = 240, PER_ROW = 250 };

struct recorded {
    const char *name;
    unsigned from_port, to_port, length;
    int to_server, has_item;
    unsigned char data[1024];
};

static struct recorded recorded[PACKETS] = {
    [BIOS_DISCOVER] = {"bios-discover", CLIENT_PORT, DHCP_PORT, 0, 0, 0, {0}},
    [UEFI_DISCOVER] = {"uefi-discover", CLIENT_PORT, DHCP_PORT, 0, 0, 0, {0}},
    [UEFI_REQUEST] = {"uefi-request", CLIENT_PORT, DHCP_PORT, 0, 0, 0, {0}},
    [UEFI_BOOT] = {"uefi-boot", BOOT_SERVER_PORT, BOOT_SERVER_PORT, 0, 1, 0, {0}},
    [IPXE_BOOT] = {"ipxe-boot", CLIENT_PORT, BOOT_SERVER_PORT, 0, 1, 0, {0}},
};
static const unsigned char cookie[4] = {99, 130, 83, 99};

static unsigned get16(const unsigned char *at) { return at[0] << 8 | at[1]; }
static uint32_t get32(const unsigned char *at) { return (uint32_t)get16(at) << 16 | get16(at + 2); }
static void put16(unsigned char *at, unsigned value) {
    at[0] = value >> 8;
    at[1] = value;
}
static void put32(unsigned char *at, uint32_t value) {
    put16(at, value >> 16);
    put16(at + 2, value & 0xffff);
}

/* The value of an option, or of a sub-option of 43 (which has no padding rules of its own); NULL: absent or cut off. */
static const unsigned char *option(const unsigned char *at, const unsigned char *end, unsigned code, unsigned *length) {
    while (at < end && *at != 255) {
        if (!*at) {
            at++;
            continue;
        }
        if (at + 2 > end || at + 2 + at[1] > end) return NULL;
        if (*at == code) {
            *length = at[1];
            return at + 2;
        }
        at += 2 + at[1];
    }
    return NULL;
}

static void identity(unsigned device, unsigned char *uuid) { /* no value that is known to be shared by many */
    memset(uuid, 0x5a, 12);
    put32(uuid + 12, device);
}

static void mac_of(unsigned device, unsigned char *mac) {
    memcpy(mac, "\x02\x69\x70\x00", 4);
    put16(mac + 4, device);
}

/* 10.96.16.1, .2 ... .250, 10.96.17.1 ...; see population() in work.py. */
uint32_t frame_address(unsigned device) {
    return 0x0a601000u + (device / PER_ROW << 8) + device % PER_ROW + 1;
}

unsigned frame_device(const unsigned char *data, unsigned length) {
    if (length < FIXED || memcmp(data + 28, "\x02\x69\x70\x00", 4)) return MOST_DEVICES;
    unsigned device = get16(data + 32);
    return device < MOST_DEVICES ? device : MOST_DEVICES;
}

void frame_open(void) {
    for (unsigned i = 0; i < PACKETS; i++) {
        char path[512];
        unsigned n = 0;
        struct recorded *r = &recorded[i];
        snprintf(path, sizeof path, "%s/%s", settings.packets, r->name);
        FILE *file = fopen(path, "rb");
        if (!file || (r->length = fread(r->data, 1, sizeof r->data, file)) < FIXED) {
            fprintf(stderr, "load: no packet in %s\n", path);
            exit(2);
        }
        fclose(file);
        const unsigned char *vendor = option(r->data + FIXED, r->data + r->length, 43, &n);
        r->has_item = vendor && option(vendor, vendor + n, 71, &n);
    }
}

static unsigned ip_checksum(const unsigned char *ip) {
    uint32_t sum = 0;
    for (unsigned i = 0; i < IP; i += 2) sum += get16(ip + i);
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

static unsigned char *headers(unsigned char *frame, unsigned device, uint32_t from, uint32_t to, unsigned from_port,
                              unsigned to_port, unsigned length) {
    unsigned char *ip = frame + ETHERNET, *udp = ip + IP;
    if (to == 0xffffffffu) memset(frame, 255, 6);
    else memcpy(frame, settings.server_mac, 6);
    mac_of(device, frame + 6);
    put16(frame + 12, 0x0800);
    memset(ip, 0, IP + UDP);
    ip[0] = 0x45;
    put16(ip + 2, IP + UDP + length);
    ip[8] = 64;
    ip[9] = 17;
    put32(ip + 12, from);
    put32(ip + 16, to);
    put16(ip + 10, ip_checksum(ip));
    put16(udp, from_port);
    put16(udp + 2, to_port);
    put16(udp + 4, UDP + length);
    return udp + UDP;
}

unsigned frame_udp(unsigned char *frame, unsigned device, unsigned from_port, unsigned to_port, const void *data,
                   unsigned length) {
    memcpy(headers(frame, device, frame_address(device), settings.server, from_port, to_port, length), data, length);
    return HEADERS + length;
}

unsigned frame_dhcp(unsigned char *frame, enum packet packet, unsigned device, uint32_t xid, unsigned secs) {
    const struct recorded *r = &recorded[packet];
    uint32_t own = frame_address(device);
    unsigned n = 0;
    unsigned char *data = headers(frame, device, r->to_server ? own : 0, r->to_server ? settings.server : 0xffffffffu,
                                  r->from_port, r->to_port, r->length);
    memcpy(data, r->data, r->length);
    put32(data + 4, xid);
    put16(data + 8, secs);
    put32(data + 12, r->to_server ? own : 0);
    mac_of(device, data + 28);
    unsigned char *end = data + r->length, *at;
    if ((at = (unsigned char *)option(data + FIXED, end, 97, &n)) && n == 17) identity(device, at + 1);
    if ((at = (unsigned char *)option(data + FIXED, end, 61, &n)) && n == 7) mac_of(device, at + 1);
    if ((at = (unsigned char *)option(data + FIXED, end, 50, &n)) && n == 4) put32(at, own);
    /* On 67 the server that is named is the DHCP server: somebody else. */
    if ((at = (unsigned char *)option(data + FIXED, end, 54, &n)) && n == 4)
        put32(at, settings.server + (r->to_server ? 0 : 1));
    return HEADERS + r->length;
}

/* False: not IPv4 and UDP, a fragment, or cut off. */
int frame_read(const unsigned char *frame, unsigned length, struct datagram *found) {
    const unsigned char *ip = frame + ETHERNET;
    if (length < HEADERS || get16(frame + 12) != 0x0800 || ip[0] >> 4 != 4 || ip[9] != 17 || get16(ip + 6) & 0x3fff)
        return 0;
    unsigned header = (ip[0] & 15) * 4u, total = get16(ip + 2);
    if (header < IP || total < header + UDP || ETHERNET + total > length) return 0;
    const unsigned char *udp = ip + header;
    unsigned size = get16(udp + 4);
    if (size < UDP || header + size > total) return 0;
    *found = (struct datagram){get32(ip + 12), get32(ip + 16), get16(udp), get16(udp + 2), size - UDP, udp + UDP};
    return 1;
}

/* The name without its directories is one of --files. */
static int known_file(const char *name) {
    const char *slash = strrchr(name, '/'), *at = settings.files;
    size_t length;
    name = slash ? slash + 1 : name;
    for (length = strlen(name); *at; at += *at == ',') {
        size_t n = strcspn(at, ",");
        if (length && n == length && !memcmp(at, name, n)) return 1;
        at += n;
    }
    return 0;
}

static const char *read_file(const unsigned char *data, const unsigned char *end, struct reply *found) {
    unsigned n = 0;
    memcpy(found->file, data + 108, 128);
    found->file[128] = 0;
    const unsigned char *name = option(data + FIXED, end, 67, &n);
    if (name && n && n < sizeof found->file) {
        memcpy(found->file, name, n);
        found->file[n] = 0;
    }
    return found->file[0] && !known_file(found->file) ? "another file" : NULL;
}

/* What the reply to `asked` must be; NULL when it is, otherwise what is wrong with it. */
const char *frame_reply(const struct datagram *in, int type, enum packet asked, struct reply *found) {
    const unsigned char *data = in->data, *end = data + in->length, *value, *options = data + FIXED;
    const struct recorded *r = &recorded[asked];
    unsigned char uuid[16];
    const char *fault;
    unsigned n = 0;
    if (in->length < FIXED || memcmp(data + 236, cookie, 4)) return "not a DHCP packet";
    if (data[0] != 2 || data[1] != 1 || data[2] != 6) return "not a reply for Ethernet";
    if (in->from != settings.server) return "from another address";
    if (in->from_port != r->to_port) return "from another port";
    if (in->to_port != r->from_port) return "to another port";
    if (in->to != (r->to_server ? frame_address(found->device) : 0xffffffffu)) return "to another address";
    /* dnsmasq gives back ciaddr when a boot item is chosen, which iPXE does not mind */
    if (get32(data + 16) && !(r->has_item && get32(data + 16) == frame_address(found->device))) return "yiaddr is not 0";
    if (in->length < 300) return "shorter than 300 bytes";
    if (!(value = option(options, end, 53, &n)) || n != 1 || value[0] != type) return "another message type";
    if (!(value = option(options, end, 54, &n)) || n != 4 || get32(value) != settings.server) return "option 54";
    if (!(value = option(options, end, 60, &n)) || n < 9 || memcmp(value, "PXEClient", 9)) return "option 60";
    identity(found->device, uuid);
    if (!(value = option(options, end, 97, &n)) || n != 17 || memcmp(value + 1, uuid, 16)) return "option 97";
    if ((fault = read_file(data, end, found))) return fault;
    found->siaddr = get32(data + 20);
    found->just_boot = 0;
    found->length = in->length;
    found->how = WITHOUT_43;
    value = option(options, end, 43, &n);
    if (value) {
        const unsigned char *stop = value + n, *control = option(value, stop, 6, &n);
        const unsigned char *menu;
        found->just_boot = control && n == 1 && control[0] & 8 && found->file[0];
        menu = found->just_boot ? NULL : option(value, stop, 9, &n);
        if (menu && n >= 3 && !get16(menu) && n == 3u + menu[2]) return "sent to its local disk";
        found->how = menu ? MENU : found->file[0] ? NAMES_FILE : WITHOUT_43;
        if (r->has_item && !option(value, stop, 71, &n)) return "the boot item is not echoed";
    } else if (r->has_item) {
        return "the boot item is not echoed";
    }
    /* An OFFER may leave the file to port 4011 or to a menu, and BIOS ROMs take it from nowhere else (reference: PXE
     * 2.1, option 43 with discovery control). An ACK is the last word. */
    if (type == ACK && !found->file[0]) return "no file";
    if (asked == BIOS_DISCOVER && found->how == WITHOUT_43 && !found->file[0]) return "nothing that a BIOS could use";
    if (found->file[0] && !found->siaddr) return "siaddr is 0";
    return NULL;
}
