/* A filesystem of the attacker's own (FUSE, spoken without a library) with one file, which stops answering when told to.
 *
 * silent_disk FILE FOLDER [private]     shows FILE as FOLDER/tool and says "mounted"; a line on stdin makes it silent,
 *     which it says; the end of stdin ends it. "private" mounts it in a mount namespace of this process's own. Nothing of
 *     the file's state may be remembered by the kernel, but for its content. Needs root, and leaves nothing mounted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROOT 1
#define FILE_NODE 2
#define HOUR 3600
/* "protocol not supported" is what makes the test skip */
#define SKIPPED 77

static int device;
static const char *bytes;
static size_t length;

static void answer(const struct fuse_in_header *in, int error, const void *data, size_t size)
{
	static char out[sizeof(struct fuse_out_header) + (1 << 20)];
	struct fuse_out_header head = {.len = (unsigned)(sizeof head + size), .error = -error, .unique = in->unique};

	memcpy(out, &head, sizeof head);
	if (size)
		memcpy(out + sizeof head, data, size);
	(void)!write(device, out, sizeof head + size);
}

static struct fuse_attr attributes(unsigned long node)
{
	struct fuse_attr attr = {.ino = node, .nlink = 1, .blksize = 4096};

	attr.mode = node == ROOT ? S_IFDIR | 0755 : S_IFREG | 0755;
	attr.size = node == ROOT ? 0 : length;
	attr.mtime = attr.ctime = attr.atime = 1000000000;
	return attr;
}

static void serve(const struct fuse_in_header *in, const char *body)
{
	switch (in->opcode) {
	case FUSE_INIT: {
		struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION,
					    .max_readahead = 1 << 20, .max_write = 1 << 16};

		answer(in, 0, &out, sizeof out);
		return;
	}
	case FUSE_LOOKUP: {
		struct fuse_entry_out out = {.nodeid = FILE_NODE, .entry_valid = HOUR};

		out.attr = attributes(FILE_NODE);
		if (strcmp(body, "tool") == 0)
			answer(in, 0, &out, sizeof out);
		else
			answer(in, ENOENT, NULL, 0);
		return;
	}
	case FUSE_GETATTR: {
		struct fuse_attr_out out = {.attr = attributes(in->nodeid)};

		answer(in, 0, &out, sizeof out);
		return;
	}
	case FUSE_OPEN: {
		struct fuse_open_out out = {.fh = 1, .open_flags = FOPEN_KEEP_CACHE};

		answer(in, 0, &out, sizeof out);
		return;
	}
	case FUSE_READ: {
		const struct fuse_read_in *read = (const void *)body;
		size_t from = read->offset < length ? read->offset : length;
		size_t size = read->size < length - from ? read->size : length - from;

		answer(in, 0, bytes + from, size);
		return;
	}
	case FUSE_STATFS: {
		struct fuse_statfs_out out = {.st = {.bsize = 4096, .namelen = 255}};

		answer(in, 0, &out, sizeof out);
		return;
	}
	case FUSE_RELEASE:
	case FUSE_FLUSH:
		answer(in, 0, NULL, 0);
		return;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		return;
	default:
		answer(in, ENOSYS, NULL, 0);
	}
}

int main(int argc, char **argv)
{
	static char request[1 << 20];
	char options[128], word[64];
	int file, silent = 0;
	struct stat found;

	if (argc < 3 || (file = open(argv[1], O_RDONLY)) < 0 || fstat(file, &found) != 0)
		return 2;
	length = (size_t)found.st_size;
	bytes = mmap(NULL, length, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
	if (argc > 3 && (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0))
		return 3;
	device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", device);
	if (bytes == MAP_FAILED || device < 0 || mount("own", argv[2], "fuse", MS_NODEV, options) != 0)
		return SKIPPED;
	puts("mounted");
	fflush(stdout);
	for (;;) {
		struct pollfd ready[] = {{.fd = 0, .events = POLLIN}, {.fd = silent ? -1 : device, .events = POLLIN}};

		poll(ready, 2, -1);
		if (ready[0].revents) {
			if (read(0, word, sizeof word) <= 0)
				break;
			silent = 1;
			puts("silent");
			fflush(stdout);
		}
		if (ready[1].revents) {
			ssize_t size = read(device, request, sizeof request);

			if (size < 0 && errno != EINTR && errno != ENOENT)
				break;
			if (size > 0)
				serve((void *)request, request + sizeof(struct fuse_in_header));
		}
	}
	umount2(argv[2], MNT_DETACH);
	return 0;
}
