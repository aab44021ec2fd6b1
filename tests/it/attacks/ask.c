/* The plain stranger: connects, asks, prints the reply. `ask SOCKET REQUEST` */
#include "attack.h"

int main(int argc, char **argv)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (argc != 3)
		return 2;
	dial_on(fd, argv[1]);
	tell(fd, argv[2]);
	hear(fd, 1);
	return 0;
}
