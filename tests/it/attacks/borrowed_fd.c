/* Borrowed connection: another program asks on the connection of the registered tool.
 *
 * borrowed_fd FD REQUEST_FILE OUT_FILE        the descriptor was inherited
 * borrowed_fd PATH REQUEST_FILE OUT_FILE      the descriptor comes by SCM_RIGHTS to a socket at PATH
 */
#include "attack.h"

static int take(const char *path)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	char x;
	struct iovec one = {&x, 1};
	struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd, listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strncpy(at.sun_path, path, sizeof at.sun_path - 1);
	if (bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, 1) != 0)
		die("listen");
	puts("ready");
	fflush(stdout);
	if (recvmsg(accept(listener, NULL, NULL), &m, MSG_CMSG_CLOEXEC) != 1)
		die("recvmsg");
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
	return fd;
}

int main(int argc, char **argv)
{
	char request[4096];
	FILE *file;

	if (argc != 4)
		return 2;
	file = fopen(argv[2], "r");
	if (!file || !fgets(request, sizeof request, file))
		die("request");
	request[strcspn(request, "\n")] = 0;
	int fd = *argv[1] == '/' ? take(argv[1]) : atoi(argv[1]);
	int out = open(argv[3], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	tell(fd, request);
	hear(fd, out);
	return 0;
}
