/* Starts a program, writes down every system call of all its processes, and lets one of them fail.
 *
 *   fault UID TRACE [FAIL ROLE CALL OBJECT NTH HOW ERRNO] -- PROGRAM ARGS
 *
 * Started by root, who alone may read what a process that has closed itself to others gives to the kernel. The program
 * becomes one of user UID, and keeps the pid of this one. Its trace has a line for each call from the moment on at which it closes
 * itself to others: "ROLE CALL OBJECT". ROLE is keeper, writer, log-sync, strangers or witness; OBJECT is what the
 * descriptor or the path means, without what differs from run to run. HOW:
 *
 *   once    the call is not made and gives ERRNO
 *   late    the call is made, and ERRNO is said of it
 *   onward  this call and all like it that follow are not made
 *   short   the call is made with half its length
 *   kill    the program is killed before it is made
 *
 * A line "FAILED" says that it came to that. A call that is not made becomes sched_yield, which both lists of system
 * calls allow: a filter looks at the number that the tracer has left.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum kind { PLAIN, FD, PATH, AT };

static const struct call {
	long number;
	const char *name;
	enum kind kind;
} calls[] = {
#define CALL(name, kind) { SYS_##name, #name, kind }
	CALL(read, FD), CALL(pread64, FD), CALL(write, FD), CALL(pwrite64, FD), CALL(writev, FD),
	CALL(close, FD), CALL(fstat, FD), CALL(fsync, FD), CALL(fdatasync, FD), CALL(ftruncate, FD),
	CALL(fcntl, FD), CALL(flock, FD), CALL(ioctl, FD), CALL(lseek, FD), CALL(getdents64, FD),
	CALL(fstatfs, FD), CALL(fchmod, FD), CALL(recvmsg, FD), CALL(sendmsg, FD), CALL(recvfrom, FD),
	CALL(sendto, FD), CALL(shutdown, FD), CALL(getsockopt, FD), CALL(setsockopt, FD), CALL(accept4, FD),
	CALL(bind, FD), CALL(listen, FD), CALL(connect, FD), CALL(getsockname, FD), CALL(getpeername, FD),
	CALL(epoll_wait, FD), CALL(epoll_ctl, PLAIN), CALL(ppoll, PLAIN), CALL(poll, PLAIN),
	CALL(open, PATH), CALL(mkdir, PATH), CALL(rename, PATH), CALL(unlink, PATH), CALL(readlink, PATH),
	CALL(access, PATH), CALL(chmod, PATH), CALL(statfs, PATH), CALL(rmdir, PATH),
	CALL(openat, AT), CALL(newfstatat, AT), CALL(statx, AT), CALL(unlinkat, AT), CALL(renameat, AT),
	CALL(renameat2, AT), CALL(readlinkat, AT), CALL(faccessat2, AT), CALL(mkdirat, AT),
	CALL(mmap, PLAIN), CALL(munmap, PLAIN), CALL(mprotect, PLAIN), CALL(madvise, PLAIN), CALL(brk, PLAIN),
	CALL(mlock, PLAIN), CALL(memfd_secret, PLAIN), CALL(socket, PLAIN), CALL(socketpair, PLAIN),
	CALL(eventfd2, PLAIN), CALL(epoll_create1, PLAIN), CALL(pipe2, PLAIN), CALL(clone, PLAIN),
	CALL(clone3, PLAIN), CALL(fork, PLAIN), CALL(setrlimit, PLAIN), CALL(getrlimit, PLAIN),
	CALL(prlimit64, PLAIN), CALL(prctl, PLAIN), CALL(capset, PLAIN), CALL(capget, PLAIN),
	CALL(setpgid, PLAIN), CALL(getppid, PLAIN), CALL(uname, PLAIN), CALL(getrandom, PLAIN),
	CALL(setpriority, PLAIN), CALL(getpriority, PLAIN), CALL(sched_setattr, PLAIN), CALL(sched_setscheduler, PLAIN),
	CALL(ioprio_set, PLAIN), CALL(landlock_create_ruleset, PLAIN), CALL(landlock_add_rule, PLAIN),
	CALL(landlock_restrict_self, PLAIN), CALL(seccomp, PLAIN), CALL(rt_sigaction, PLAIN),
	CALL(rt_sigprocmask, PLAIN), CALL(sigaltstack, PLAIN), CALL(set_robust_list, PLAIN), CALL(rseq, PLAIN),
	CALL(sched_getaffinity, PLAIN), CALL(getcwd, PLAIN), CALL(clock_nanosleep, PLAIN), CALL(futex, PLAIN),
	CALL(clock_gettime, PLAIN), CALL(set_tid_address, PLAIN), CALL(dup, FD), CALL(getuid, PLAIN),
	CALL(geteuid, PLAIN), CALL(getpid, PLAIN), CALL(gettid, PLAIN), CALL(umask, PLAIN),
	CALL(sched_yield, PLAIN), CALL(exit, PLAIN), CALL(exit_group, PLAIN), CALL(wait4, PLAIN), CALL(rt_sigreturn, PLAIN),
	CALL(restart_syscall, PLAIN), CALL(inotify_init1, PLAIN), CALL(inotify_add_watch, AT), CALL(inotify_rm_watch, FD),
	CALL(close_range, PLAIN), CALL(tgkill, PLAIN), CALL(kill, PLAIN), CALL(execve, PLAIN),
};

/* Every thread of the program. */
#define THREADS 64
static struct thread {
	pid_t tid, tgid;
	char role[16];
	/* what its present call shall seem to give, or 0 */
	long lie;
	/* an argument was changed, which the program must not see */
	int changed;
	/* that call */
	unsigned long long number, args[6];
	char object[64];
} threads[THREADS];

/* What the descriptors of keeper and witness mean. Known from the calls that gave them: nobody may look into the
 * descriptors of a process that has closed itself to others. */
#define DESCRIPTORS 1024
static char meaning[2][DESCRIPTORS][64];

static pid_t keeper;
static int trace_fd, begun, hits;
static char **plan; /* ROLE CALL OBJECT NTH HOW ERRNO, or NULL */

static void die(const char *what)
{
	fprintf(stderr, "fault: %s: %s\n", what, strerror(errno));
	_exit(99);
}

static void note(const char *line)
{
	if (write(trace_fd, line, strlen(line)) < 0)
		die("the trace");
}

static pid_t group_of(pid_t tid)
{
	char path[64], line[128];
	pid_t group = tid;

	snprintf(path, sizeof path, "/proc/%d/status", tid);
	FILE *status = fopen(path, "re");
	while (status && fgets(line, sizeof line, status))
		if (sscanf(line, "Tgid: %d", &group) == 1)
			break;
	if (status)
		fclose(status);
	return group;
}

static struct thread *find(pid_t tid)
{
	struct thread *room = NULL;

	for (struct thread *t = threads; t < threads + THREADS; t++) {
		if (t->tid == tid)
			return t;
		if (!t->tid && !room)
			room = t;
	}
	if (!room)
		die("too many threads");
	memset(room, 0, sizeof *room);
	room->tid = tid;
	room->tgid = group_of(tid);
	return room;
}

/* The name that a thread of the keeper has given itself; it gives it a moment after it began. */
static const char *role(struct thread *t)
{
	char path[64];

	if (t->tgid != keeper)
		return "witness";
	if (t->tid == keeper)
		return "keeper";
	if (!t->role[0] || !strcmp(t->role, "keychain-auth")) {
		snprintf(path, sizeof path, "/proc/%d/comm", t->tid);
		FILE *comm = fopen(path, "re");
		if (!comm || !fgets(t->role, sizeof t->role, comm))
			strcpy(t->role, "keeper");
		if (comm)
			fclose(comm);
		t->role[strcspn(t->role, "\n")] = 0;
	}
	return strcmp(t->role, "keychain-auth") ? t->role : "keeper";
}

static char *means(struct thread *t, unsigned long long fd)
{
	static char none[64];

	strcpy(none, "-");
	return fd < DESCRIPTORS ? meaning[t->tgid != keeper][fd] : none;
}

/* A path without what differs from run to run. */
static void plainly(const char *from, char *to, size_t room)
{
	const char *home = getenv("XDG_RUNTIME_DIR");
	size_t n = 0;

	/* a folder of the test: its last name; RUNTIME is one level below it */
	size_t root = home && strrchr(home, '/') ? (size_t)(strrchr(home, '/') - home) : 0;
	if (root && !strncmp(from, home, root))
		from = from[root] ? strrchr(from, '/') + 1 : "/world";
	for (; *from && n + 4 < room; from++) {
		if (*from >= '0' && *from <= '9' && (n == 0 || to[n - 1] == '/' || to[n - 1] == 'N' || to[n - 1] == ':')) {
			if (n == 0 || to[n - 1] != 'N')
				to[n++] = 'N';
		} else {
			to[n++] = *from == ' ' ? '_' : *from;
		}
	}
	to[n] = 0;
}

static void fetch(struct thread *t, unsigned long long from, void *to, size_t length)
{
	struct iovec local = { to, length };
	struct iovec remote = { (void *)from, length };

	memset(to, 0, length);
	/* a string at the end of a page is read in part */
	while (remote.iov_len && process_vm_readv(t->tid, &local, 1, &remote, 1, 0) < 0)
		remote.iov_len = local.iov_len /= 2;
}

/* What a call is about. */
static void object(struct thread *t, const struct call *call)
{
	char from[512] = "", *to = t->object;
	size_t room = sizeof t->object;

	strcpy(to, "-");
	if (call->kind == FD) {
		snprintf(to, room, "%s", means(t, t->args[0]));
	} else if (call->kind == PATH || call->kind == AT) {
		fetch(t, t->args[call->kind == AT], from, sizeof from - 1);
		if (from[0])
			plainly(from, to, room);
		else
			snprintf(to, room, "%s", means(t, t->args[0]));
	}
	/* what is asked of it */
	if (call->number == SYS_prctl)
		snprintf(to, room, "option-%llu", t->args[0]);
	else if (call->number == SYS_fcntl)
		snprintf(to + strlen(to), room - strlen(to), ":%llu", t->args[1]);
	else if (call->number == SYS_getsockopt || call->number == SYS_setsockopt)
		snprintf(to + strlen(to), room - strlen(to), ":%llu", t->args[2]);
	else if (call->number == SYS_epoll_ctl)
		snprintf(to, room, "%s", means(t, t->args[2]));
	if (!to[0])
		strcpy(to, "passed");
}

/* Takes up a descriptor that a call gave. */
static void learn(struct thread *t, long result)
{
	int pair[2];
	const char *name = NULL;

	switch (t->number) {
	case SYS_open: case SYS_openat: name = t->object; break;
	case SYS_socket: name = "socket"; break;
	case SYS_accept4: name = "client"; break;
	case SYS_inotify_init1: name = "inotify"; break;
	case SYS_eventfd2: name = "eventfd"; break;
	case SYS_epoll_create1: name = "epoll"; break;
	case SYS_memfd_secret: name = "secret-memory"; break;
	/* the question for its version gives a number */
	case SYS_landlock_create_ruleset: name = t->args[0] ? "ruleset" : NULL; break;
	case SYS_dup: name = means(t, t->args[0]); break;
	case SYS_fcntl: name = t->args[1] == F_DUPFD_CLOEXEC ? means(t, t->args[0]) : NULL; break;
	case SYS_listen: strcpy(means(t, t->args[0]), "listener"); return;
	case SYS_close: means(t, t->args[0])[0] = 0; return;
	case SYS_socketpair: case SYS_pipe2:
		fetch(t, t->args[t->number == SYS_socketpair ? 3 : 0], pair, sizeof pair);
		for (int end = 0; end < 2; end++)
			strcpy(means(t, (unsigned)pair[end]), t->number == SYS_pipe2 ? "pipe"
				: (t->args[1] & 15) == SOCK_SEQPACKET ? "channel" : "signal-pipe");
		return;
	case SYS_getsockopt:
		if (t->args[2] == 77) { /* SO_PEERPIDFD */
			fetch(t, t->args[3], pair, sizeof pair[0]);
			strcpy(means(t, (unsigned)pair[0]), "pidfd");
		}
		return;
	}
	if (name && result < DESCRIPTORS) {
		char copy[64];
		snprintf(copy, sizeof copy, "%s", name);
		snprintf(means(t, (unsigned long long)result), sizeof copy, "%s", copy);
	}
}

static void entered(struct thread *t, unsigned long long number, unsigned long long *args)
{
	static const struct call other = { -1, "other", PLAIN };
	char line[256];
	const struct call *call = NULL;

	for (size_t k = 0; k < sizeof calls / sizeof *calls && !call; k++)
		if ((unsigned long long)calls[k].number == number)
			call = &calls[k];
	t->number = number;
	memcpy(t->args, args, sizeof t->args);
	object(t, call ? call : &other);
	if (!begun && t->tgid == keeper && number == SYS_prctl && args[0] == PR_SET_DUMPABLE)
		begun = 1;
	if (!begun)
		return;
	if (call)
		snprintf(line, sizeof line, "%s %s %s\n", role(t), call->name, t->object);
	else
		snprintf(line, sizeof line, "%s %llu -\n", role(t), number);
	note(line);
	if (!plan || !call || strcmp(plan[0], role(t)) || strcmp(plan[1], call->name) || strcmp(plan[2], t->object))
		return;
	hits++;
	int nth = atoi(plan[3]), onward = !strcmp(plan[4], "onward");
	if (hits != nth && !(onward && hits > nth))
		return;
	if (!strcmp(plan[4], "kill")) {
		note("FAILED\n");
		kill(keeper, SIGKILL);
		return;
	}
	struct user_regs_struct regs;
	if (ptrace(PTRACE_GETREGS, t->tid, 0, &regs))
		return;
	if (!strcmp(plan[4], "short")) {
		regs.rdx /= 2;
		t->changed = 1;
	} else if (number == SYS_brk) {
		/* has no error: where it can't give what is asked for, it tells what there is */
		regs.rdi = 0;
		t->changed = 1;
	} else {
		t->lie = -atol(plan[5]);
		if (strcmp(plan[4], "late"))
			regs.orig_rax = SYS_sched_yield;
	}
	ptrace(PTRACE_SETREGS, t->tid, 0, &regs);
	if (hits == nth)
		note("FAILED\n");
}

static void left(struct thread *t, long result)
{
	struct user_regs_struct regs;

	/* a close that is said to have failed has closed */
	if (result >= 0 && (!t->lie || t->number == SYS_close))
		learn(t, result);
	if ((t->lie || t->changed) && !ptrace(PTRACE_GETREGS, t->tid, 0, &regs)) {
		if (t->lie)
			regs.rax = (unsigned long long)t->lie;
		regs.rdi = t->args[0];
		regs.rdx = t->args[2];
		ptrace(PTRACE_SETREGS, t->tid, 0, &regs);
	}
	t->lie = t->changed = 0;
}

static void watch(void)
{
	int status;
	pid_t tid;

	while ((tid = waitpid(-1, &status, __WALL)) > 0) {
		struct thread *t = find(tid);
		int signal = WSTOPSIG(status), event = status >> 16, give = 0, how = PTRACE_SYSCALL;

		if (!WIFSTOPPED(status)) {
			t->tid = 0;
			continue;
		}
		if (signal == (SIGTRAP | 0x80)) {
			struct __ptrace_syscall_info info;
			if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) > 0) {
				if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
					entered(t, info.entry.nr, (unsigned long long *)info.entry.args);
				else if (info.op == PTRACE_SYSCALL_INFO_EXIT)
					left(t, info.exit.rval);
			}
		} else if (event == PTRACE_EVENT_FORK) {
			/* the witness begins with the descriptors of the keeper */
			memcpy(meaning[1], meaning[0], sizeof meaning[0]);
		} else if (event == PTRACE_EVENT_STOP) {
			/* a new thread, or a stop signal that shall stop it */
			if (signal != SIGTRAP)
				how = PTRACE_LISTEN;
		} else if (!event) {
			give = signal;
		}
		ptrace(how, tid, 0, give);
	}
}

int main(int argc, char **argv)
{
	int ready[2];

	if (argc < 5)
		return 2;
	uid_t user = (uid_t)atoi(*++argv);
	trace_fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (trace_fd < 0 || pipe2(ready, O_CLOEXEC))
		die("the trace");
	char **program = argv + 2;
	if (!strcmp(argv[2], "FAIL")) {
		plan = argv + 3;
		program = argv + 9;
	}
	program++;
	keeper = getpid();
	for (int fd = 0; fd < 3; fd++)
		strcpy(meaning[0][fd], "standard-stream");
	/* a grandchild, so that the program has no child but its own */
	pid_t child = fork();
	if (child == 0) {
		if (fork())
			_exit(0);
		setsid();
		if (ptrace(PTRACE_SEIZE, keeper, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK
			| PTRACE_O_TRACEVFORK | PTRACE_O_EXITKILL))
			die("to trace");
		if (ptrace(PTRACE_INTERRUPT, keeper, 0, 0) || write(ready[1], "r", 1) != 1)
			die("to begin");
		close(ready[0]);
		close(ready[1]);
		watch();
		_exit(0);
	}
	char byte;
	waitpid(child, NULL, 0);
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		die("the tracer");
	if (setgroups(0, NULL) || setgid(user) || setuid(user))
		die("the user");
	execv(program[0], program);
	die(program[0]);
}
