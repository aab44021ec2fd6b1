/* A process of the same user that wants what another process holds: "WAY ERRNO" for each way it tries, 0 where it got in.
 *
 *   prowler PID    tries that process
 *   prowler own    tries a child of its own that has closed nothing: every way must work
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static char here[64];

static void tell(const char *way, int failed)
{
	printf("%s %d\n", way, failed ? errno : 0);
}

static void trace(const char *way, int request, pid_t pid)
{
	int failed = ptrace(request, pid, 0, 0) != 0;

	tell(way, failed);
	if (failed)
		return;
	if (request == PTRACE_SEIZE)
		ptrace(PTRACE_INTERRUPT, pid, 0, 0);
	waitpid(pid, NULL, __WALL);
	ptrace(PTRACE_DETACH, pid, 0, 0);
}

static void copy(pid_t pid)
{
	struct iovec to = {here, sizeof here}, from = {here, sizeof here};

	/* the address need not exist there: the right to read is asked first */
	errno = 0;
	process_vm_readv(pid, &to, 1, &from, 1, 0);
	tell("process_vm_readv", errno == EPERM || errno == EACCES);
	errno = 0;
	process_vm_writev(pid, &to, 1, &from, 1, 0);
	tell("process_vm_writev", errno == EPERM || errno == EACCES);
}

static void take_descriptors(pid_t pid)
{
	int handle = (int)syscall(SYS_pidfd_open, pid, 0), failed = 1;

	for (int fd = 0; handle >= 0 && failed && fd < 32; fd++)
		failed = syscall(SYS_pidfd_getfd, handle, fd, 0) < 0;
	tell("pidfd_getfd", failed);
}

static void look(pid_t pid, const char *name, int flags)
{
	char path[64], way[32], byte;
	int fd, failed;

	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
	snprintf(way, sizeof way, "%s%s", name, flags == O_RDONLY ? "" : " to write");
	fd = open(path, flags | O_CLOEXEC);
	failed = fd < 0;
	/* some files are only refused when they are read */
	if (!failed && !strcmp(name, "maps"))
		failed = read(fd, &byte, 1) < 0;
	tell(way, failed);
}

static void list(pid_t pid, const char *name)
{
	char path[64];
	DIR *folder;

	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
	folder = opendir(path);
	tell(name, !folder);
}

static void follow(pid_t pid, const char *name)
{
	char path[64], target[256];

	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
	tell(name, readlink(path, target, sizeof target) < 0);
}

int main(int argc, char **argv)
{
	int own = argc > 1 && !strcmp(argv[1], "own");
	pid_t pid = argc > 1 && !own ? atoi(argv[1]) : 0;

	if (own) {
		pid = fork();
		while (pid == 0)
			pause();
	}
	if (pid <= 0)
		return 2;
	trace("PTRACE_ATTACH", PTRACE_ATTACH, pid);
	trace("PTRACE_SEIZE", PTRACE_SEIZE, pid);
	copy(pid);
	take_descriptors(pid);
	look(pid, "mem", O_RDONLY);
	look(pid, "mem", O_RDWR);
	look(pid, "environ", O_RDONLY);
	look(pid, "maps", O_RDONLY);
	look(pid, "smaps", O_RDONLY);
	look(pid, "pagemap", O_RDONLY);
	look(pid, "auxv", O_RDONLY);
	look(pid, "clear_refs", O_WRONLY);
	look(pid, "oom_score_adj", O_WRONLY);
	list(pid, "fd");
	list(pid, "fdinfo");
	list(pid, "map_files");
	follow(pid, "exe");
	follow(pid, "cwd");
	follow(pid, "root");
	if (own)
		kill(pid, SIGKILL);
	return 0;
}
