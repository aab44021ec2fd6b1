/* Keeps connections full of requests and reads every answer.
 *
 * flood SOCKET LINE CONNECTIONS     says "flooding" when the first answers have come
 */
#include "attack.h"

#define MOST 64

int main(int argc, char **argv)
{
	static char lines[65536], answers[1 << 20];
	struct pollfd connections[MOST];
	size_t length = 0, one;
	int count, said = 0;

	if (argc != 4 || (count = atoi(argv[3])) > MOST)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	/* whoever started it may be gone */
	alarm(60);
	one = strlen(argv[2]);
	while (length + one + 1 < sizeof lines) {
		memcpy(lines + length, argv[2], one);
		lines[length + one] = '\n';
		length += one + 1;
	}
	for (int i = 0; i < count; i++) {
		connections[i].fd = -1;
		connections[i].events = POLLIN | POLLOUT;
	}
	for (;;) {
		for (int i = 0; i < count; i++) {
			if (connections[i].fd >= 0)
				continue;
			connections[i].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
			struct sockaddr_un at = {.sun_family = AF_UNIX};
			strncpy(at.sun_path, argv[1], sizeof at.sun_path - 1);
			if (connect(connections[i].fd, (struct sockaddr *)&at, sizeof at) != 0) {
				close(connections[i].fd);
				connections[i].fd = -1;
			}
		}
		poll(connections, (nfds_t)count, 100);
		for (int i = 0; i < count; i++) {
			if (connections[i].fd < 0)
				continue;
			if (connections[i].revents & POLLOUT)
				(void)!write(connections[i].fd, lines, length);
			if (connections[i].revents & POLLIN) {
				ssize_t n = read(connections[i].fd, answers, sizeof answers);
				if (n > 0 && !said++) {
					puts("flooding");
					fflush(stdout);
				}
				if (n == 0) {
					close(connections[i].fd);
					connections[i].fd = -1;
				}
			}
			if (connections[i].revents & (POLLERR | POLLHUP) && connections[i].fd >= 0) {
				close(connections[i].fd);
				connections[i].fd = -1;
			}
		}
	}
}
