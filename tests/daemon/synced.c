/* Says "synced" on standard output after each fsync and fdatasync of this process: loaded before the C
 * library, so that a test sees in which order a program has the kernel write and says that it is written. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <unistd.h>

static int told(long number, int fd)
{
    int failed = (int)syscall(number, fd);
    return write(1, "synced\n", 7) == 7 ? failed : -1;
}

int fsync(int fd)
{
    return told(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return told(SYS_fdatasync, fd);
}
