/* Changes one byte of a file through shared memory, behind the back of its times: a page that may be written already
 * takes further writes without a fault, so no filesystem hears of them.
 *
 * alter FILE OFFSET HOW      HOW: look (a read makes the page writable, as on tmpfs) | touch (a write that changes
 *                            nothing does, and is the last one to be stamped)
 * Says "ready", waits for a line, changes the byte, and ends.
 */
#include "attack.h"

int main(int argc, char **argv)
{
	int fd;
	size_t offset;
	volatile char *page;
	char line[8];

	if (argc != 4 || (fd = open(argv[1], O_RDWR | O_CLOEXEC)) < 0)
		die("open");
	offset = strtoul(argv[2], NULL, 10);
	page = mmap(NULL, offset + 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		die("mmap");
	if (*argv[3] == 't')
		page[offset] = page[offset];
	else
		(void)page[offset];
	puts("ready");
	fflush(stdout);
	if (!fgets(line, sizeof line, stdin))
		return 3;
	page[offset] ^= 1;
	return 0;
}
