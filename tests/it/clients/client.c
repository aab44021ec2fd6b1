/* A scriptable client: commands on stdin, answers on stdout. Each copy of the compiled file is an identity of
 * its own, so the tests drive registered tools and strangers through the same few verbs.
 *
 *   slot N              use connection N (0..4095) from now on
 *   connect HOW PATH    HOW: cloexec | plain (forgets SOCK_CLOEXEC, as careless C programs do)
 *   send N, trickle N   N raw bytes follow; trickle writes them one by one
 *   recv MS             one line or its absence: "line N" + bytes, "eof", "timeout", "error ERRNO"
 *   gift N              N raw bytes follow, sent with as many descriptors as one message takes
 *   shut                half-close
 *   close
 *   fork-send N         N raw bytes follow; a forked child writes them on this connection and waits for the answer
 *   hand PATH           passes the connection to whoever listens on PATH (SCM_RIGHTS)
 *   run PROG REQ OUT    starts PROG with the connection as descriptor 9 and "9 REQ OUT" as arguments
 *   load FILE           dlopen (dynamic build), or map FILE executable (static build)
 *   hammer N MS         N raw bytes follow; connects, sends them, takes a reply, closes, again and again: "ROUNDS"
 *   thread              starts a thread that does nothing: its number
 *   pid
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 4096

struct slot {
	int fd;
	char *held;
	size_t have, room;
};
static struct slot slots[SLOTS];
static struct slot *now = slots;

static void answer(const char *what)
{
	printf("%s\n", what);
	fflush(stdout);
}

static void answer_errno(void)
{
	printf("error %d\n", errno);
	fflush(stdout);
}

static int dial(const char *path, int flags)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | flags, 0);

	/* a daemon that stops reading must not hang the test */
	struct timeval patience = {.tv_sec = 20};
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	strncpy(at.sun_path, path, sizeof at.sun_path - 1);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof at) != 0) {
		int why = errno;
		close(fd);
		errno = why;
		return -1;
	}
	return fd;
}

static char *payload(size_t n)
{
	char *bytes = malloc(n + 1);

	if (!bytes || fread(bytes, 1, n, stdin) != n)
		exit(3);
	bytes[n] = 0;
	return bytes;
}

static int put(int fd, const char *bytes, size_t n, size_t chunk)
{
	while (n) {
		ssize_t done = send(fd, bytes, n < chunk ? n : chunk, MSG_NOSIGNAL);
		if (done < 0)
			return -1;
		bytes += done;
		n -= (size_t)done;
	}
	return 0;
}

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void receive(long patience)
{
	long until = now_ms() + patience;

	for (;;) {
		char *end = now->have ? memchr(now->held, '\n', now->have) : NULL;
		if (end) {
			size_t n = (size_t)(end - now->held);
			printf("line %zu\n", n);
			fwrite(now->held, 1, n, stdout);
			fflush(stdout);
			now->have -= n + 1;
			memmove(now->held, end + 1, now->have);
			return;
		}
		long left = until - now_ms();
		struct pollfd p = {.fd = now->fd, .events = POLLIN};
		if (poll(&p, 1, left > 0 ? (int)left : 0) == 0) {
			answer("timeout");
			return;
		}
		if (now->room - now->have < 65536) {
			now->room = now->room * 2 + 131072;
			now->held = realloc(now->held, now->room);
			if (!now->held)
				exit(3);
		}
		ssize_t got = read(now->fd, now->held + now->have, now->room - now->have);
		if (got < 0) {
			answer_errno();
			return;
		}
		if (got == 0) {
			answer(now->have ? "cut" : "eof");
			return;
		}
		now->have += (size_t)got;
	}
}

static void fork_send(const char *bytes, size_t n)
{
	pid_t child = fork();

	if (child == 0) {
		int failed = put(now->fd, bytes, n, n) != 0;
		struct pollfd answered = {.fd = now->fd, .events = POLLIN};

		/* lives until it is answered: nobody can say what ran in a process that is gone */
		poll(&answered, 1, 10000);
		_exit(failed);
	}
	waitpid(child, NULL, 0);
	answer("ok");
}

static void hand(const char *path)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	char x = 'x';
	struct iovec one = {&x, 1};
	struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int to = dial(path, SOCK_CLOEXEC);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &now->fd, sizeof(int));
	if (to < 0 || sendmsg(to, &m, 0) != 1)
		answer_errno();
	else
		answer("ok");
}

static void gift(const char *bytes, size_t n)
{
	enum { MOST = 253 };
	static union {
		char bytes[CMSG_SPACE(MOST * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec one = {(char *)bytes, n};
	struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(MOST * sizeof(int));
	for (int i = 0; i < MOST; i++)
		((int *)CMSG_DATA(c))[i] = STDIN_FILENO;
	if (sendmsg(now->fd, &m, MSG_NOSIGNAL) != (ssize_t)n)
		answer_errno();
	else
		answer("ok");
}

static void *idle(void *told)
{
	printf("%ld\n", (long)syscall(SYS_gettid));
	fflush(stdout);
	for (;;)
		pause();
	return told;
}

static void run(char *program, char *request, char *out)
{
	pid_t child = fork();

	if (child == 0) {
		char *args[] = {program, "9", request, out, NULL};
		dup2(now->fd, 9);
		execv(program, args);
		_exit(9);
	}
	waitpid(child, NULL, 0);
	answer("ok");
}

static void load(const char *file)
{
#ifdef STATIC_BUILD
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED) {
		answer_errno();
		return;
	}
	close(fd);
#else
	if (!dlopen(file, RTLD_NOW)) {
		printf("failed %s\n", dlerror());
		fflush(stdout);
		return;
	}
#endif
	answer("ok");
}

static void hammer(const char *bytes, size_t n, long ms)
{
	static char path[108];
	long until = now_ms() + ms;
	int rounds = 0;
	char reply[4096];

	snprintf(path, sizeof path, "%s/keychain-auth/agent.sock", getenv("XDG_RUNTIME_DIR"));
	for (; now_ms() < until; rounds++) {
		int fd = dial(path, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		put(fd, bytes, n, n);
		(void)!read(fd, reply, sizeof reply);
		close(fd);
	}
	printf("%d\n", rounds);
	fflush(stdout);
}

static void obey(char *line)
{
	char *verb = strtok(line, " "), *a = strtok(NULL, " "), *b = strtok(NULL, " "), *c = strtok(NULL, " ");
	size_t n = a ? strtoul(a, NULL, 10) : 0;

	if (!strcmp(verb, "slot")) {
		now = &slots[n % SLOTS];
		answer("ok");
	} else if (!strcmp(verb, "connect")) {
		now->have = 0;
		now->fd = dial(b, strcmp(a, "plain") ? SOCK_CLOEXEC : 0);
		if (now->fd < 0)
			answer_errno();
		else
			answer("ok");
	} else if (!strcmp(verb, "send") || !strcmp(verb, "trickle")) {
		char *bytes = payload(n);
		if (put(now->fd, bytes, n, *verb == 't' ? 1 : n) != 0)
			answer_errno();
		else
			answer("ok");
		free(bytes);
	} else if (!strcmp(verb, "recv")) {
		receive((long)n);
	} else if (!strcmp(verb, "shut")) {
		shutdown(now->fd, SHUT_WR);
		answer("ok");
	} else if (!strcmp(verb, "close")) {
		close(now->fd);
		answer("ok");
	} else if (!strcmp(verb, "fork-send")) {
		char *bytes = payload(n);
		fork_send(bytes, n);
		free(bytes);
	} else if (!strcmp(verb, "hand")) {
		hand(a);
	} else if (!strcmp(verb, "gift")) {
		char *bytes = payload(n);
		gift(bytes, n);
		free(bytes);
	} else if (!strcmp(verb, "run")) {
		run(a, b, c);
	} else if (!strcmp(verb, "load")) {
		load(a);
	} else if (!strcmp(verb, "hammer")) {
		char *bytes = payload(n);
		hammer(bytes, n, atol(b));
		free(bytes);
	} else if (!strcmp(verb, "thread")) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, idle, NULL) != 0)
			answer_errno();
	} else if (!strcmp(verb, "pid")) {
		printf("%d\n", (int)getpid());
		fflush(stdout);
	} else {
		answer("what");
	}
}

int main(void)
{
	struct rlimit files;
	char line[8192];

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	signal(SIGPIPE, SIG_IGN);
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		obey(line);
	}
	return 0;
}
