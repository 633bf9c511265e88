/* The floor of the benchmark: what a lab's wiring costs when a C program packs the netlink messages itself.
 *
 * Reads lines on standard input, makes what they say in new network namespaces, and prints the seconds that it took:
 *
 *   n NAME                                              namespace, loopback up
 *   b NS DEVICE MAC MTU                                 bridge: no STP, no forward delay, no multicast snooping; up
 *   v NS DEVICE MAC MASTER UP NS DEVICE MAC MASTER UP MTU   veth pair; MASTER "-" for none
 *   a NS DEVICE ADDRESS LENGTH PREFIXROUTE              address
 *   r NS DESTINATION LENGTH GATEWAY DEVICE SOURCE ONLINK BLACKHOLE   route; "-" for what there is none of
 *   g NS DEVICE ADDRESS MAC                             permanent neighbour
 *   f NS DEVICE MAC                                     static forwarding entry of the bridge that the device is a port of
 *
 * NS counts the `n` lines from 0. Kinds come in this order. Everything is parsed before the clock starts. It does as netlab does: a
 * namespace stays held by a descriptor, indices of links are chosen and not asked for, everything for one namespace goes out in
 * messages of up to 32 KiB, and only the last of them asks for an answer. It checks no more than that nothing was refused.
 *
 * cc -O2 -o floor floor.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 32768, ROOM = 1024, FIRST_INDEX = 100 };

struct space { int fd, sock, next, len; unsigned sequence; char *out; };
struct line { char kind; char *word[12]; int words; };
struct device { int ns, index; const char *name; };

static struct space *spaces;
static int space_count;
static struct line *lines;
static size_t line_count;
static struct device *devices; /* open addressing */
static size_t device_slots;

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static struct device *slot(int ns, const char *name)
{
	unsigned long hash = 5381 + 1000003UL * (unsigned)ns;
	for (const char *c = name; *c; c++)
		hash = hash * 33 + (unsigned char)*c;
	size_t at = hash % device_slots;
	while (devices[at].name && (devices[at].ns != ns || strcmp(devices[at].name, name)))
		at = (at + 1) % device_slots;
	return &devices[at];
}

static int new_index(int ns, const char *name)
{
	struct device *found = slot(ns, name);
	*found = (struct device){ns, spaces[ns].next++, name};
	return found->index;
}

static int index_of(int ns, const char *name)
{
	if (!strcmp(name, "lo"))
		return 1;
	struct device *found = slot(ns, name);
	if (!found->name) {
		fprintf(stderr, "no device %s in namespace %d\n", name, ns);
		exit(1);
	}
	return found->index;
}

/* ---------------------------------------------------------------- messages */

static struct nlmsghdr *last_message(struct space *s);

static void flush(struct space *s)
{
	char answer[8192];
	if (!s->len)
		return;
	struct nlmsghdr *last = last_message(s);
	last->nlmsg_flags |= NLM_F_ACK;
	unsigned wanted = last->nlmsg_seq;
	if (send(s->sock, s->out, s->len, 0) != s->len)
		die("send");
	s->len = 0;
	for (;;) {
		int got = recv(s->sock, answer, sizeof answer, 0);
		if (got < 0)
			die("recv");
		for (struct nlmsghdr *h = (void *)answer; NLMSG_OK(h, (unsigned)got); h = NLMSG_NEXT(h, got)) {
			struct nlmsgerr *e = NLMSG_DATA(h);
			if (h->nlmsg_type != NLMSG_ERROR)
				continue;
			if (e->error) {
				errno = -e->error;
				fprintf(stderr, "message type %d in namespace %ld: ", e->msg.nlmsg_type, (long)(s - spaces));
				die("refused");
			}
			if (h->nlmsg_seq == wanted)
				return;
		}
	}
}

static int last_at; /* where the last message begins, of the space that it was put into last */

static struct nlmsghdr *last_message(struct space *s)
{
	int at = 0, next = 0;
	do {
		at = next;
		next = at + NLMSG_ALIGN(((struct nlmsghdr *)(s->out + at))->nlmsg_len);
	} while (next < s->len);
	return (struct nlmsghdr *)(s->out + at);
}

static void *begin(struct space *s, int type, int flags, size_t body)
{
	if (s->len > BUFFER - ROOM)
		flush(s);
	last_at = s->len;
	struct nlmsghdr *h = (void *)(s->out + s->len);
	memset(h, 0, NLMSG_SPACE(body));
	*h = (struct nlmsghdr){NLMSG_LENGTH(body), type, NLM_F_REQUEST | flags, ++s->sequence, 0};
	s->len += NLMSG_SPACE(body);
	return NLMSG_DATA(h);
}

static void end(struct space *s)
{
	((struct nlmsghdr *)(s->out + last_at))->nlmsg_len = s->len - last_at;
}

static void put(struct space *s, int type, const void *data, int size)
{
	struct rtattr *a = (void *)(s->out + s->len);
	a->rta_type = type;
	a->rta_len = RTA_LENGTH(size);
	memset(RTA_DATA(a), 0, RTA_ALIGN(size));
	if (size)
		memcpy(RTA_DATA(a), data, size);
	s->len += RTA_SPACE(size);
}

static void put_u32(struct space *s, int type, unsigned value) { put(s, type, &value, 4); }
static void put_text(struct space *s, int type, const char *text) { put(s, type, text, strlen(text) + 1); }

static int nest(struct space *s, int type)
{
	int at = s->len;
	put(s, type | NLA_F_NESTED, NULL, 0);
	return at;
}

static void nested(struct space *s, int at) { ((struct rtattr *)(s->out + at))->rta_len = s->len - at; }

static void put_mac(struct space *s, int type, const char *text)
{
	unsigned char mac[6];
	for (int i = 0; i < 6; i++)
		mac[i] = strtoul(text + 3 * i, NULL, 16);
	put(s, type, mac, 6);
}

static int packed(const char *text, unsigned char *into)
{
	int family = strchr(text, ':') ? AF_INET6 : AF_INET;
	if (inet_pton(family, text, into) != 1) {
		fprintf(stderr, "no address: %s\n", text);
		exit(1);
	}
	return family;
}

static int size_of(int family) { return family == AF_INET ? 4 : 16; }

/* ---------------------------------------------------------------- what is made */

static void netns(int number)
{
	struct space *s = &spaces[number];
	if (unshare(CLONE_NEWNET))
		die("unshare");
	s->fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	s->sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (s->fd < 0 || s->sock < 0)
		die("a new namespace");
	s->next = FIRST_INDEX;
}

static void set_up(int ns, int index, const char *master)
{
	struct space *s = &spaces[ns];
	struct ifinfomsg *i = begin(s, RTM_NEWLINK, 0, sizeof *i);
	i->ifi_index = index;
	i->ifi_flags = i->ifi_change = IFF_UP;
	if (master)
		put_u32(s, IFLA_MASTER, index_of(ns, master));
	end(s);
}

static void bridge(struct line *l)
{
	int ns = atoi(l->word[0]);
	struct space *s = &spaces[ns];
	struct ifinfomsg *i = begin(s, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof *i);
	i->ifi_index = new_index(ns, l->word[1]);
	i->ifi_flags = i->ifi_change = IFF_UP;
	put_text(s, IFLA_IFNAME, l->word[1]);
	put_mac(s, IFLA_ADDRESS, l->word[2]);
	put_u32(s, IFLA_MTU, atoi(l->word[3]));
	int info = nest(s, IFLA_LINKINFO);
	put(s, IFLA_INFO_KIND, "bridge", 6);
	int data = nest(s, IFLA_INFO_DATA);
	put_u32(s, IFLA_BR_FORWARD_DELAY, 0);
	put_u32(s, IFLA_BR_STP_STATE, 0);
	put(s, IFLA_BR_MCAST_SNOOPING, "", 1);
	nested(s, data);
	nested(s, info);
	end(s);
}

static void end_of_veth(struct space *s, char **word, const char *mtu)
{
	put_text(s, IFLA_IFNAME, word[1]);
	put_mac(s, IFLA_ADDRESS, word[2]);
	put_u32(s, IFLA_MTU, atoi(mtu));
	put_u32(s, IFLA_NUM_TX_QUEUES, 1);
	put_u32(s, IFLA_NUM_RX_QUEUES, 1);
}

/* The end with a master makes the pair, so that the same message can set it; the other end is brought up by `veth_peer`. */
static int near_end(struct line *l) { return strcmp(l->word[8], "-") && !strcmp(l->word[3], "-") ? 5 : 0; }

static void veth(struct line *l)
{
	int near = near_end(l), far = 5 - near, ns = atoi(l->word[near]), other = atoi(l->word[far]);
	struct space *s = &spaces[ns];
	struct ifinfomsg *i = begin(s, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof *i);
	spaces[other].next += spaces[other].next == s->next; /* equal indices: link_watch takes them for a device without a peer */
	i->ifi_index = new_index(ns, l->word[near + 1]);
	if (atoi(l->word[near + 4]))
		i->ifi_flags = i->ifi_change = IFF_UP;
	end_of_veth(s, l->word + near, l->word[10]);
	int info = nest(s, IFLA_LINKINFO);
	put(s, IFLA_INFO_KIND, "veth", 4);
	int data = nest(s, IFLA_INFO_DATA), peer = nest(s, VETH_INFO_PEER);
	struct ifinfomsg *p = (void *)(s->out + s->len);
	memset(p, 0, sizeof *p);
	p->ifi_index = new_index(other, l->word[far + 1]);
	s->len += NLMSG_ALIGN(sizeof *p);
	end_of_veth(s, l->word + far, l->word[10]);
	put_u32(s, IFLA_NET_NS_FD, spaces[other].fd);
	nested(s, peer);
	nested(s, data);
	nested(s, info);
	if (strcmp(l->word[near + 3], "-"))
		put_u32(s, IFLA_MASTER, index_of(ns, l->word[near + 3]));
	end(s);
}

static void veth_peer(struct line *l)
{
	int far = 5 - near_end(l), ns = atoi(l->word[far]);
	const char *master = strcmp(l->word[far + 3], "-") ? l->word[far + 3] : NULL;
	if (atoi(l->word[far + 4]))
		set_up(ns, index_of(ns, l->word[far + 1]), master);
}

static void address(struct line *l)
{
	unsigned char raw[16];
	int ns = atoi(l->word[0]), length = atoi(l->word[3]), family = packed(l->word[2], raw);
	struct space *s = &spaces[ns];
	struct ifaddrmsg *a = begin(s, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof *a);
	*a = (struct ifaddrmsg){family, length, 0, 0, index_of(ns, l->word[1])};
	put(s, IFA_LOCAL, raw, size_of(family));
	put(s, IFA_ADDRESS, raw, size_of(family));
	put_u32(s, IFA_FLAGS, (atoi(l->word[4]) ? 0 : IFA_F_NOPREFIXROUTE) | (family == AF_INET6 ? IFA_F_NODAD : 0));
	if (family == AF_INET && length < 31) {
		unsigned broadcast;
		memcpy(&broadcast, raw, 4);
		broadcast |= htonl(0xffffffffu >> length);
		put(s, IFA_BROADCAST, &broadcast, 4);
	}
	end(s);
}

static void route(struct line *l)
{
	unsigned char to[16], raw[16];
	int ns = atoi(l->word[0]), length = atoi(l->word[2]), family = packed(l->word[1], to);
	int gateway = strcmp(l->word[3], "-"), hole = atoi(l->word[7]);
	struct space *s = &spaces[ns];
	struct rtmsg *r = begin(s, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof *r);
	r->rtm_family = family;
	r->rtm_dst_len = length;
	r->rtm_table = RT_TABLE_MAIN;
	r->rtm_protocol = RTPROT_STATIC;
	r->rtm_scope = gateway || hole || family == AF_INET6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
	r->rtm_type = hole ? RTN_BLACKHOLE : RTN_UNICAST;
	r->rtm_flags = atoi(l->word[6]) ? RTNH_F_ONLINK : 0;
	if (length)
		put(s, RTA_DST, to, size_of(family));
	if (gateway) {
		int other = packed(l->word[3], raw);
		put(s, RTA_GATEWAY, raw, size_of(other));
	}
	if (strcmp(l->word[4], "-"))
		put_u32(s, RTA_OIF, index_of(ns, l->word[4]));
	if (strcmp(l->word[5], "-"))
		put(s, RTA_PREFSRC, raw, size_of(packed(l->word[5], raw)));
	end(s);
}

static void neighbour(struct line *l)
{
	unsigned char raw[16];
	int ns = atoi(l->word[0]), family = packed(l->word[2], raw);
	struct space *s = &spaces[ns];
	struct ndmsg *n = begin(s, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof *n);
	n->ndm_family = family;
	n->ndm_ifindex = index_of(ns, l->word[1]);
	n->ndm_state = NUD_PERMANENT;
	put(s, NDA_DST, raw, size_of(family));
	put_mac(s, NDA_LLADDR, l->word[3]);
	end(s);
}

static void station(struct line *l)
{
	int ns = atoi(l->word[0]);
	struct space *s = &spaces[ns];
	struct ndmsg *n = begin(s, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof *n);
	n->ndm_family = AF_BRIDGE;
	n->ndm_ifindex = index_of(ns, l->word[1]);
	n->ndm_state = NUD_NOARP;
	n->ndm_flags = NTF_MASTER;
	put_mac(s, NDA_LLADDR, l->word[2]);
	end(s);
}

static void flush_all(void)
{
	for (int i = 0; i < space_count; i++)
		flush(&spaces[i]);
}

static void wire(void)
{
	int number = 0;
	for (size_t i = 0; i < line_count; i++)
		if (lines[i].kind == 'n')
			netns(number++);
	for (size_t i = 0; i < line_count; i++)
		if (lines[i].kind == 'b')
			bridge(&lines[i]);
	for (size_t i = 0; i < line_count; i++)
		if (lines[i].kind == 'v')
			veth(&lines[i]);
	flush_all();
	for (int i = 0; i < space_count; i++)
		set_up(i, 1, NULL);
	for (size_t i = 0; i < line_count; i++)
		if (lines[i].kind == 'v')
			veth_peer(&lines[i]);
	for (size_t i = 0; i < line_count; i++) {
		if (lines[i].kind == 'a')
			address(&lines[i]);
		else if (lines[i].kind == 'r')
			route(&lines[i]);
		else if (lines[i].kind == 'g')
			neighbour(&lines[i]);
		else if (lines[i].kind == 'f')
			station(&lines[i]);
	}
	flush_all();
}

static void read_lines(void)
{
	char *text = NULL;
	size_t room = 0, size = 0, got;
	do {
		if (size + 65536 > room && !(text = realloc(text, room = 2 * room + 131072)))
			die("realloc");
		got = fread(text + size, 1, 65536, stdin);
		size += got;
	} while (got);
	text[size] = 0;
	size_t most = 1;
	for (char *c = text; *c; c++)
		most += *c == '\n';
	lines = calloc(most, sizeof *lines);
	for (char *rest, *row = strtok_r(text, "\n", &rest); row; row = strtok_r(NULL, "\n", &rest)) {
		struct line *l = &lines[line_count++];
		char *words, *word = strtok_r(row, " ", &words);
		l->kind = word[0];
		while ((word = strtok_r(NULL, " ", &words)) && l->words < 12)
			l->word[l->words++] = word;
		space_count += l->kind == 'n';
	}
}

int main(void)
{
	struct timespec began, ended;
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	read_lines();
	spaces = calloc(space_count, sizeof *spaces);
	device_slots = 4 * line_count + 16;
	devices = calloc(device_slots, sizeof *devices);
	for (int i = 0; i < space_count; i++)
		spaces[i].out = malloc(BUFFER + ROOM);
	clock_gettime(CLOCK_MONOTONIC, &began);
	wire();
	clock_gettime(CLOCK_MONOTONIC, &ended);
	printf("%.9f\n", (ended.tv_sec - began.tv_sec) + (ended.tv_nsec - began.tv_nsec) / 1e9);
	struct rusage used;
	getrusage(RUSAGE_SELF, &used);
	printf("%.6f\n", used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
	fflush(stdout);
	_exit(0);
}
