/* A debugger on the registered tool: attaches to PID, says "attached", stays until stdin ends. `trace PID` */
#include "attack.h"
#include <sys/ptrace.h>

int main(int argc, char **argv)
{
	char x;

	if (argc != 2)
		return 2;
	if (ptrace(PTRACE_SEIZE, atoi(argv[1]), NULL, NULL) != 0)
		die("ptrace");
	puts("attached");
	fflush(stdout);
	(void)!read(0, &x, 1);
	return 0;
}
